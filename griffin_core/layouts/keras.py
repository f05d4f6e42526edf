"""Names and orientations of the Keras checkpoint as a table with inverses.

Keras stores a variable by the attributes that lead to its layer and by the layer's own key for it: ``vars/0`` and
``vars/1`` are the kernel [in, out] and the bias of a Dense layer. The variable's path is what the model calls it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from griffin_core.config import GriffinConfig
from griffin_core.errors import ConfigError
from griffin_core.layouts.params import EMBEDDING, FINAL_NORM, LM_HEAD, param_table
from griffin_core.layouts.places import SAME, TRANSPOSE, Place, Transform

_LAYERS = "model.layers."
_T, _M = "temporal_block", "mlp_block"


class Row(NamedTuple):
    """One parameter: canonical name (below its layer), the layer of Keras, key and name of its variable, transform."""

    canonical: str
    owner: str
    key: str
    variable: str
    transform: Transform = SAME


@dataclass(frozen=True)
class KerasPlace(Place):
    """Where one canonical parameter stands in a Keras checkpoint and model.

    Attributes:
        variable: path of the variable in the model, such as "layer_0/temporal_block/linear_x/kernel".
    """

    variable: str = ""

    @property
    def dataset(self) -> str:
        """Path of its dataset in the HDF5 file."""
        return self.stored


def _dense(block: str, name: str, bias: bool = True) -> tuple[Row, ...]:
    """A linear's weight, and its bias."""
    owner = f"{block}/{name}"
    weight = Row(f"{block}.{name}.weight", owner, "0", "kernel", TRANSPOSE)
    return (weight, Row(f"{block}.{name}.bias", owner, "1", "bias")) if bias else (weight,)


def _own(block: str, name: str, *keys: str) -> tuple[Row, ...]:
    """Variables that a layer of ours keeps under their canonical names."""
    return tuple(Row(f"{block}.{name}.{key}", f"{block}/{name}", key, key) for key in keys)


TABLE: tuple[Row, ...] = (
    Row(EMBEDDING, "embedding", "0", "embeddings"),
    Row(FINAL_NORM, "final_norm", "scale", "scale"),
    Row(LM_HEAD, "head", "weight", "weight"),
    Row("temporal_pre_norm.weight", "temporal_pre_norm", "scale", "scale"),
    Row("channel_pre_norm.weight", "channel_pre_norm", "scale", "scale"),
    *_dense(_T, "linear_x"),
    *_dense(_T, "linear_y"),
    *_dense(_T, "linear_out"),
    *_own(_T, "conv_1d", "weight", "bias"),
    *_own(_T, "rg_lru", "recurrent_param"),
    *_own(_T, "rg_lru", "input_gate_weight", "input_gate_bias"),
    *_own(_T, "rg_lru", "recurrent_gate_weight", "recurrent_gate_bias"),
    *_dense(_T, "q_proj", bias=False),
    *_dense(_T, "k_proj", bias=False),
    *_dense(_T, "v_proj", bias=False),
    *_dense(_T, "o_proj"),
    *_dense(_M, "gate_proj"),
    *_dense(_M, "up_proj"),
    *_dense(_M, "down_proj"),
)
"""Every parameter of the family, those of the layers without their layer."""
_ROWS = {row.canonical: row for row in TABLE}
_OWNERS = re.compile(r"(embedding|final_norm|head|layer_\d+)/")


@dataclass(frozen=True)
class KerasLayout:
    """The one layout of Keras checkpoints; it has a place for every parameter."""

    def place_of(self, canonical: str) -> KerasPlace:
        """Where one parameter stands, by its whole canonical name.

        Raises:
            ConfigError: the family has no such parameter.
        """
        prefix, suffix = "", canonical
        if canonical.startswith(_LAYERS):
            layer, _, suffix = canonical.removeprefix(_LAYERS).partition(".")
            prefix = f"layer_{layer}/"
        if suffix not in _ROWS:
            raise ConfigError(f"Keras checkpoints have no place for {canonical}; the family has no such parameter")
        row = _ROWS[suffix]
        owner = prefix + row.owner
        return KerasPlace(canonical, f"{owner}/vars/{row.key}", row.transform, variable=f"{owner}/{row.variable}")

    def owns(self, stored: str) -> bool:
        """Whether a dataset stands below a layer of the model; a file may hold an optimiser and metrics beside it."""
        return _OWNERS.match(stored) is not None


KERAS = KerasLayout()


def keras_places(config: GriffinConfig) -> tuple[KerasPlace, ...]:
    """The place of every parameter, in canonical order."""
    return tuple(KERAS.place_of(row.name) for row in param_table(config))
