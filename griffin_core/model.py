"""A model ready to use: config, weights on a backend, tokenizer. Arrays in and out are NumPy's."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from griffin_core import memory, registry
from griffin_core.checks import check_positions, check_tokens
from griffin_core.config import GriffinConfig
from griffin_core.errors import ConfigError, InputError, RandomWeightsWarning, nearest
from griffin_core.layouts.states import POSITION, state_bytes
from griffin_core.sampling import Sampling
from griffin_core.shapes import DTYPES, Array
from griffin_core.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from griffin_core.generation.engine import Engine
    from griffin_core.generation.service import Prompt, Prompts
    from griffin_core.training.evaluate import Evaluation


@dataclass(eq=False, kw_only=True)
class Model:
    """A model on a backend; made by ``griffin_core.load`` or ``griffin_core.init``.

    Attributes:
        config: the architecture.
        params: the backend's native parameters.
        backend: the backend's name.
        dtype: compute dtype by name.
        tokenizer: None when there is none; then prompts are token ids.
        kernel: kernel asked for; None follows GRIFFIN_KERNEL.
        device: None is the backend's default.
        source: the checkpoint directory, or None for random weights.
        trained: whether the weights come from a checkpoint; generating from others warns once.
        weights_digest: the checkpoint's digest; read ``digest``.
    """

    config: GriffinConfig
    params: Any
    backend: str
    dtype: str
    tokenizer: Tokenizer | None = None
    kernel: str | None = None
    device: str | None = None
    source: Path | None = None
    trained: bool = True
    weights_digest: str | None = None
    _warned: bool = field(default=False, init=False)

    def __repr__(self) -> str:
        where = self.source or "random weights"
        return f"Model({where}, layers={self.config.num_layers}, width={self.config.width}, backend={self.backend!r})"

    @property
    def module(self) -> ModuleType:
        """The backend's module."""
        return registry.load_backend(self.backend)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the weights: the checkpoint's, or computed when they come from none."""
        from griffin_core.checkpoints.manifest import digest_params

        return self.weights_digest or digest_params(self.dump_params())

    def forward(self, tokens: Any, positions: Any = None, state: Any = None) -> tuple[Array, Any]:
        """Logits of every token, and the state after them if one was given.

        Args:
            tokens: ids [b t] as lists or integers array; a flat list is one row.
            positions: [b t], 0 starts a document, -1 is padding; None continues the state, or starts at 0.
            state: native state of ``init_state``; None keeps none.

        Returns:
            float32 logits [b t v], the new state or None.

        Raises:
            InputError: ids or positions that are not legal; the first is named.
            NotEnoughMemory: the logits do not fit.
        """
        rows = self._rows(tokens, "tokens")
        where = None if positions is None else self._rows(positions, "positions")
        if where is not None:
            check_positions(where, rows.shape, None if state is None else self._positions(state))
        check_tokens(self.config, rows, where)
        memory.require(2 * 4 * rows.size * self.config.vocab_size, f"the logits of {rows.size} tokens")
        module = self.module
        native = None if where is None else module.from_numpy(where, device=self.device)
        given = module.from_numpy(rows, device=self.device)
        logits, state = module.forward(
            self.config, self.params, given, positions=native, state=state, kernel=self.kernel
        )
        return module.to_numpy(logits), state

    def init_state(self, batch: int = 1, capacity: int | None = None) -> Any:
        """A fresh native state of ``batch`` rows; global layers need a capacity in tokens.

        Raises:
            ConfigError: an illegal batch or capacity.
            NotEnoughMemory: the state does not fit.
        """
        size = state_bytes(self.config, batch, capacity, DTYPES[self.dtype].itemsize)
        memory.require(size, f"a state of {batch} rows")
        return self.module.init_state(self.config, batch, capacity=capacity, dtype=self.dtype, device=self.device)

    def dump_state(self, state: Any) -> dict[str, Array]:
        """A native state in canonical form: NumPy arrays by the names of the state table."""
        return dict(self.module.dump_state(self.config, state))

    def load_state(self, canonical: Mapping[str, Array]) -> Any:
        """The native state of a canonical one, of this backend or another.

        Raises:
            StateMismatch: it belongs to another config.
        """
        return self.module.load_state(self.config, canonical, dtype=self.dtype, device=self.device)

    def dump_params(self) -> dict[str, Array]:
        """The weights in canonical form: NumPy arrays by the names of the parameter table."""
        return dict(self.module.dump_params(self.config, self.params))

    def engine(self) -> Engine:
        """The model as generation drives it."""
        from griffin_core.generation.engine import Engine

        return Engine(self.config, self.params, self.backend, self.dtype, self.device, self.kernel)

    def generate(
        self,
        prompt: Prompts,
        max_new_tokens: int | None = None,
        stop: str | Sequence[str] = (),
        **settings: Any,
    ) -> str | list[str]:
        """Continue a prompt, or each of a list of prompts (then a list of texts comes back).

        Args:
            prompt: text, token ids, or a list of either.
            max_new_tokens: new tokens of each row at most; None is the service's default.
            stop: strings that end a row; not part of its text.
            settings: fields of ``griffin_core.Sampling``: temperature, top_k, top_p, min_p, seed, ...

        Raises:
            InputError: an empty prompt, ids outside the vocabulary, no tokenizer to make text.
            ConfigError: an unknown or illegal setting.
        """
        from griffin_core.generation import service

        records = service.generate(self, prompt, **self._options(max_new_tokens, stop, settings))
        texts = [record.text for record in records]
        return texts[0] if _is_one(prompt) else texts

    def stream(
        self, prompt: Prompt, max_new_tokens: int | None = None, stop: str | Sequence[str] = (), **settings: Any
    ) -> Iterator[str]:
        """Continue one prompt piece by piece; a piece never ends inside a character. As ``generate`` otherwise."""
        from griffin_core.generation import service

        return service.stream(self, prompt, **self._options(max_new_tokens, stop, settings))

    def score(self, text: str) -> Evaluation:
        """How well the model predicts a text, as one document: bits per byte, perplexity, loss by position.

        Raises:
            InputError: the text is empty, or there is no tokenizer.
        """
        from griffin_core.text.files import Document
        from griffin_core.training.evaluate import evaluate

        if not text:
            raise InputError("text is empty; give at least one character to score")
        return evaluate(self, [Document("text", text)])

    def save(self, directory: str | Path, overwrite: bool = False, max_shard_size: int | str | None = None) -> None:
        """Write a native checkpoint, whole or not at all.

        Raises:
            CheckpointError: something is in the way, a weight is not finite, or the disk refuses.
        """
        from griffin_core.checkpoints import native

        files = {} if self.tokenizer is None else self.tokenizer.files()
        options: dict[str, Any] = {"overwrite": overwrite, "max_shard_size": max_shard_size}
        native.save(directory, self.config, self.dump_params(), files, **options)

    def _options(self, count: int | None, stop: str | Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
        if self.tokenizer is None:
            raise InputError("this model has no tokenizer to make text with; griffin_core.generation.service gives ids")
        if not (self.trained or self._warned):
            self._warned = True
            message = "these weights are random (griffin_core.init), so the text means nothing; load a checkpoint"
            warnings.warn(message, RandomWeightsWarning, stacklevel=3)
        known = [setting.name for setting in fields(Sampling)]
        for name in settings:
            if name not in known:
                raise ConfigError(f"unknown generation setting {name!r}; {nearest(name, known)}")
        options = {"sampling": Sampling(**settings), "stop": stop, "keep_state": False}
        return options if count is None else {**options, "max_new_tokens": count}

    def _positions(self, state: Any) -> Array:
        """int32 [b]: tokens of its document that each row of a native state has seen."""
        if isinstance(state, Mapping) and POSITION in state:
            return np.asarray(self.module.to_numpy(state[POSITION]))
        return self.dump_state(state)[POSITION]

    def _rows(self, values: Any, what: str) -> Array:
        """int32 [b t] of lists or an array; a flat one is one row."""
        try:
            rows = np.asarray(values)
        except ValueError as error:
            raise InputError(f"{what} have rows of unequal length; pad them and give positions -1 there") from error
        rows = rows[None] if rows.ndim == 1 else rows
        if rows.ndim != 2 or rows.dtype.kind not in "iu" or rows.size == 0:
            raise InputError(
                f"{what} are {rows.dtype} of shape {rows.shape}; expected integers [batch, time], not empty"
            )
        if rows.min() < -(2**31) or rows.max() >= 2**31:
            raise InputError(f"{what} hold {rows.max()}; expected 32-bit integers")
        return rows.astype(np.int32)


def _is_one(prompt: Any) -> bool:
    return isinstance(prompt, str) or (len(prompt) > 0 and isinstance(prompt[0], int | np.integer))
