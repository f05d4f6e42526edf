"""Names and orientations of the family's official checkpoints, PyTorch and Flax, as a table with inverses.

Both have one table: the Flax tree writes a dense weight [in, out] as ``kernel`` where the PyTorch dict writes it
[out, in] as ``weight``, and joins names by "/" here, since its top-level keys hold dots ("blocks.0"). Axis letters
are those of ``griffin_core.shapes``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from griffin_core.config import SQRT_WIDTH, GriffinConfig
from griffin_core.errors import ConfigError
from griffin_core.layouts.params import LM_HEAD
from griffin_core.layouts.places import SAME, TRANSPOSE, Place, Transform

TAPS = Transform("d 1 w -> w d", "w d -> d 1 w", lambda x: x[:, 0, :].T, lambda x: x.T[:, None, :])
HALF_BIAS = Transform("f -> 1 1 f", "1 1 f -> f", lambda x: x[None, None, :], lambda x: x[0, 0, :])


@dataclass(frozen=True)
class Form:
    """One of the two official forms: how names are joined, what a dense weight is called and how it lies."""

    separator: str
    dense: str
    dense_transform: Transform

    def place_of(self, canonical: str) -> Place:
        """Where one parameter stands, by its whole canonical name.

        Raises:
            ConfigError: it is an output projection of its own, for which there is no name.
        """
        prefix, suffix = "", canonical
        if canonical.startswith(_LAYERS):
            layer, suffix = canonical.removeprefix(_LAYERS).split(".", 1)
            prefix = f"blocks.{layer}{self.separator}"
        if suffix == LM_HEAD:
            raise ConfigError(f"official checkpoints have no place for {LM_HEAD}; tie_embeddings must be true")
        row = _ROWS[suffix]
        path, transform = row.path, row.transform
        if transform is None:
            path, transform = (*path, self.dense), self.dense_transform
        return Place(canonical, prefix + self.separator.join(path), transform, row.half)

    def owns(self, stored: str) -> bool:
        """Every tensor is the model's."""
        return True


TORCH = Form(".", "weight", SAME)
FLAX = Form("/", "kernel", TRANSPOSE)

_R, _A, _M = "recurrent_block", "attention_block", "mlp_block"


class Row(NamedTuple):
    """One parameter: canonical name (below its layer), official path, transform (None: that of a dense weight), and
    the half of a stacked pair that it is."""

    canonical: str
    path: tuple[str, ...]
    transform: Transform | None = SAME
    half: int | None = None


def _dense(canonical: str, *path: str, bias: bool = True) -> tuple[Row, ...]:
    """A linear's weight, and its bias."""
    weight = Row(canonical + ".weight", path, None)
    return (weight, Row(canonical + ".bias", (*path, "bias"))) if bias else (weight,)


def _gate(canonical: str, official: str) -> tuple[Row, ...]:
    lru, path = "temporal_block.rg_lru.", (_R, "rg_lru", official)
    return Row(f"{lru}{canonical}_weight", (*path, "w")), Row(f"{lru}{canonical}_bias", (*path, "b"))


TABLE: tuple[Row, ...] = (
    Row("model.embed_tokens.weight", ("embedder", "input_embedding")),
    Row("model.final_norm.weight", ("final_norm", "scale")),
    Row("temporal_pre_norm.weight", ("temporal_pre_norm", "scale")),
    Row("channel_pre_norm.weight", ("channel_pre_norm", "scale")),
    *_dense("temporal_block.linear_x", _R, "linear_x"),
    *_dense("temporal_block.linear_y", _R, "linear_y"),
    *_dense("temporal_block.linear_out", _R, "linear_out"),
    Row("temporal_block.conv_1d.weight", (_R, "conv_1d", "w"), TAPS),
    Row("temporal_block.conv_1d.bias", (_R, "conv_1d", "b")),
    Row("temporal_block.rg_lru.recurrent_param", (_R, "rg_lru", "a_param")),
    *_gate("input_gate", "input_gate"),
    *_gate("recurrent_gate", "a_gate"),
    *_dense("temporal_block.q_proj", _A, "proj_q", bias=False),
    *_dense("temporal_block.k_proj", _A, "proj_k", bias=False),
    *_dense("temporal_block.v_proj", _A, "proj_v", bias=False),
    *_dense("temporal_block.o_proj", _A, "proj_final"),
    Row("mlp_block.gate_proj.weight", (_M, "ffw_up", "w"), TRANSPOSE, 0),
    Row("mlp_block.up_proj.weight", (_M, "ffw_up", "w"), TRANSPOSE, 1),
    Row("mlp_block.gate_proj.bias", (_M, "ffw_up", "b"), HALF_BIAS, 0),
    Row("mlp_block.up_proj.bias", (_M, "ffw_up", "b"), HALF_BIAS, 1),
    *_dense("mlp_block.down_proj", _M, "ffw_down"),
)
"""Every parameter of the family, those of the layers without their layer."""
_ROWS = {row.canonical: row for row in TABLE}
_LAYERS = "model.layers."


def unofficial(config: GriffinConfig) -> list[str]:
    """What the official code cannot compute, one phrase per field; empty when it computes the model."""
    c = config
    limits = (
        (c.gate_blocks == c.num_heads, f"gate_blocks={c.gate_blocks} (must equal num_heads={c.num_heads})"),
        (c.head_dim * c.num_heads == c.width, f"head_dim={c.head_dim} (must be width / num_heads)"),
        (c.attention_window is not None, "attention_window=null (must be a number)"),
        (c.attention_window != 1, "attention_window=1 (must be at least 2)"),
        (c.conv_width == 4, f"conv_width={c.conv_width} (must be 4)"),
        (c.tie_embeddings, "tie_embeddings=false (must be true)"),
    )
    return [phrase for fits, phrase in limits if not fits]


def official_config(config: GriffinConfig) -> dict[str, object]:
    """Arguments of the official ``GriffinConfig``, block types by name; its window counts the keys before the query."""
    return {
        "vocab_size": config.vocab_size,
        "width": config.width,
        "mlp_expanded_width": config.mlp_width,
        "num_heads": config.num_heads,
        "lru_width": config.lru_width,
        "block_types": [kind.upper() for kind in config.layer_kinds],
        "embeddings_scale_by_sqrt_dim": config.embedding_scale == SQRT_WIDTH,
        "attention_window_size": (config.attention_window or 0) - 1,
        "logits_soft_cap": config.logits_soft_cap or 0.0,
    }
