"""The family's language models as a Keras model: fit, save, adapt, quantise, distribute, generate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from griffin_core.config import GriffinConfig, from_dict
from griffin_core.errors import ConfigError, InputError
from griffin_core.layouts.initialise import INITS, init_param
from griffin_core.layouts.params import param_table
from griffin_core.layouts.states import POSITION, state_table
from griffin_core_keras import variables
from griffin_core_keras.dtypes import as_dtype
from griffin_core_keras.engine import require_unchanged
from griffin_core_keras.generating import Generating
from griffin_core_keras.layers.base import register
from griffin_core_keras.layers.embedding import Embedding, Projection
from griffin_core_keras.layers.residual import ResidualBlock
from griffin_core_keras.layers.rms_norm import RMSNorm
from griffin_core_keras.layers.temporal import time_positions
from griffin_core_keras.model import cap_logits, run_hidden
from griffin_core_keras.scoring import Scoring
from griffin_core_keras.source import LayerSource, recomputed


@register
class GriffinCausalLM(Generating, Scoring, keras.Model):
    """Hawk, Griffin, RecurrentGemma or the MQA Transformer, by config.

    Args:
        config: the architecture, as a config or its dict.
        seed: of the initial weights.
        init: rule of the initial weights, "paper" or "released"; None leaves zeros, to be loaded over.
        kernel: kernel of the recurrent operations; None follows GRIFFIN_KERNEL.
        remat: recompute each residual block in the backward pass.
        padding: "any", or "right" to promise that padding stands at the ends of rows only, which saves its moving.
        decay_dtype: in which the decay parameters are written to checkpoints where that loses nothing: the one that
            they were read in.
        quantized: mode of ``quantize``, for kernels that are loaded as such; None is not at all.
        dtype: a Keras policy, such as "mixed_bfloat16"; the decay parameters are float32 always.

    Call arguments:
        inputs: integers [b t], or {"tokens": [b t], "positions": int32 [b t]}: 0 starts a document, -1 is padding.
        state: of ``init_state`` or an earlier call. With it the call returns (logits, state).
        mask: bool [b t], False at padding, which may stand anywhere.

    Returns of a call: float32 logits [b t v], 0 at padding.

    Raises:
        ConfigError: an illegal config, or an unknown ``init``.
        BackendError: ``KERAS_BACKEND`` was changed after Keras had been imported.
    """

    def __init__(
        self,
        config: GriffinConfig | Mapping[str, Any],
        seed: int = 0,
        init: str | None = "paper",
        kernel: str | None = None,
        remat: bool = False,
        padding: str = "any",
        decay_dtype: str = "float32",
        quantized: str | None = None,
        name: str = "griffin",
        **kwargs: Any,
    ) -> None:
        require_unchanged()
        if init is not None and init not in INITS:
            raise ConfigError(f"init={init!r}; expected one of {', '.join(INITS)}, or None for zeros")
        if padding not in ("any", "right"):
            raise ConfigError(f"padding={padding!r}; expected 'any', or 'right' to promise right-padded rows")
        super().__init__(name=name, **kwargs)
        self.config = config if isinstance(config, GriffinConfig) else from_dict(config)
        self.seed, self.init, self.kernel, self.remat, self.padding = seed, init, kernel, remat, padding
        self.decay_dtype = as_dtype(decay_dtype, "float32")
        self.supports_masking = True
        self._make_layers()
        if init is not None:
            rows = param_table(self.config)
            variables.assign(self, ((row.name, init_param(row, seed, init)) for row in rows))
        self.quantized: str | None = None
        if quantized is not None:
            self.quantize(quantized)

    def quantize(self, mode: Any = None, config: Any = None, **options: Any) -> None:
        """Replace the dense kernels by quantised ones, as ``keras.Model.quantize``; files remember the mode."""
        super().quantize(mode, config=config, **options)
        self.quantized = mode if config is None else config.mode

    def _make_layers(self) -> None:
        """Layers under the names that files know; every variable exists from the beginning."""
        c, policy = self.config, self.dtype_policy
        how: dict[str, Any] = {"seed": None, "kernel": self.kernel, "dtype": policy}
        stream = (None, None, c.width)
        self.embedding = Embedding(c.vocab_size, c.width, "zeros", name="embedding", dtype=policy)
        self.embedding.build((None, None))
        for index, kind in enumerate(c.layer_kinds):
            block = ResidualBlock(c, kind, **how, name=f"layer_{index}")
            block.build(stream)
            setattr(self, f"layer_{index}", block)
        self.final_norm = RMSNorm(name="final_norm", dtype=policy)
        self.final_norm.build(stream)
        if not c.tie_embeddings:
            self.head = Projection(c.vocab_size, "zeros", name="head", dtype=policy)
            self.head.build(stream)
        self.built = True

    def call(
        self,
        inputs: Any,
        state: Mapping[str, Any] | None = None,
        mask: Any | None = None,
        training: bool | None = None,
    ) -> Any:
        """Logits, or (logits, state) where a state is given."""
        tokens, positions = _parts(inputs, mask, state)
        x, new = self.hidden(tokens, positions, state, training)
        y = x if self.scores else self.logits(x)
        return y if state is None else (y, new)

    def hidden(
        self,
        tokens: Any,
        positions: Any | None = None,
        state: Mapping[str, Any] | None = None,
        training: bool | None = None,
    ) -> tuple[Any, dict[str, Any] | None]:
        """The final norm's output [b t m] in the compute dtype, and the state after the last token or None.

        Inside a call only: variables have the policy's dtypes there.
        """
        wrap = recomputed if self.remat and training else None
        source = LayerSource(self)
        return run_hidden(self.config, source, tokens, positions, state, self.padding, self.kernel, None, wrap)

    def logits(self, x: Any) -> Any:
        """Float32 logits [b t v] of hidden states [b t m]."""
        project = (lambda x: self.embedding(x, reverse=True)) if self.config.tie_embeddings else self.head
        return cap_logits(self.config, ops.cast(project(x), "float32"))

    def init_state(self, batch: int = 1, capacity: int | None = None) -> dict[str, Any]:
        """The state before any token; models with global attention need a capacity in tokens."""
        rows = state_table(self.config, batch, capacity)
        return {row.name: ops.zeros(row.shape, row.dtype or self.compute_dtype) for row in rows}

    def compute_output_spec(self, inputs: Any, state: Any = None, mask: Any = None, training: Any = None) -> Any:
        """Float32 [b t v], and the state's form."""
        tokens = inputs["tokens"] if isinstance(inputs, Mapping) else inputs
        y = keras.KerasTensor((*tokens.shape, self.config.vocab_size), dtype="float32")
        return (
            y if state is None else (y, {name: keras.KerasTensor(x.shape, dtype=x.dtype) for name, x in state.items()})
        )

    def build(self, input_shape: Any = None) -> None:
        """Nothing: the config says every shape."""

    def get_config(self) -> dict[str, Any]:
        """Every argument."""
        fields = {
            name: getattr(self, name)
            for name in ("seed", "init", "kernel", "remat", "padding", "decay_dtype", "quantized")
        }
        return {**super().get_config(), "config": self.config.to_dict(), **fields}


def _parts(inputs: Any, mask: Any, state: Any) -> tuple[Any, Any | None]:
    """(tokens, positions) of a call's first argument and mask."""
    tokens, positions = inputs, None
    if isinstance(inputs, Mapping):
        if "tokens" not in inputs or set(inputs) - {"tokens", "positions"}:
            raise InputError(f"inputs have the keys {sorted(inputs)}; expected 'tokens', and 'positions' where needed")
        tokens, positions = inputs["tokens"], inputs.get("positions")
    mask = None if isinstance(mask, Mapping) else mask  # Keras gives a mask of no array for each of several inputs
    return tokens, time_positions(positions, mask, None if state is None else state[POSITION])
