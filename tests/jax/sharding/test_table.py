"""The table: every axis of the spec has a rule, every array is split as the design says."""

from __future__ import annotations

import math

import jax
import pytest
from jax.sharding import PartitionSpec as P

from griffin_core import presets
from griffin_core.layouts.params import param_table
from griffin_core.layouts.states import state_table
from griffin_core_jax import init_state, sharding
from griffin_core_jax.layout import SEGMENTS
from griffin_core_jax.sharding.table import RULES, layer_placements, placements


def test_every_logical_axis_has_a_rule() -> None:
    config = presets.preset("recurrentgemma-2b").config
    rows = [*param_table(config), *state_table(config, 1)]
    assert {axis for row in rows for axis in row.axes} <= set(RULES)


@pytest.mark.parametrize(
    ("name", "spec", "partial"),
    [
        ("linear_x.kernel", P(None, "fsdp", "tensor"), False),
        ("linear_y.bias", P(None, "tensor"), False),
        ("linear_out.kernel", P(None, "tensor", "fsdp"), False),
        ("linear_out.bias", P(None, None), True),
        ("q_proj.kernel", P(None, "fsdp", "tensor"), False),
        ("k_proj.kernel", P(None, "fsdp", None), True),
        ("v_proj.kernel", P(None, "fsdp", None), True),
        ("o_proj.kernel", P(None, "tensor", "fsdp"), False),
        ("gate_proj.kernel", P(None, "fsdp", "tensor"), False),
        ("down_proj.kernel", P(None, "tensor", "fsdp"), False),
        ("conv_weight", P(None, "tensor", None, None), False),
        ("recurrent_param", P(None, "tensor"), False),
        ("input_gate_weight", P(None, "tensor", "fsdp", None), False),
        ("recurrent_gate_bias", P(None, "tensor", None), False),
        ("temporal_norm", P(None, None), False),
    ],
)
def test_layers_are_split_by_columns_rows_and_gate_blocks(name: str, spec: P, partial: bool) -> None:
    found = layer_placements(presets.preset("griffin-tiny").config)[name]
    assert (found.spec, found.partial) == (spec, partial)


def test_embedding_is_split_over_vocabulary_and_width() -> None:
    found = placements(presets.preset("griffin-tiny").config)
    assert found["embedding"].spec == P("tensor", "fsdp")
    assert found["embedding"].gathered == 1
    assert found["final_norm"].spec == P(None)


def test_states_are_split_by_rows_and_recurrent_width() -> None:
    config = presets.preset("griffin-tiny").config
    specs = sharding.state_specs(config)
    assert specs[SEGMENTS][0][0] == {
        "h": P(None, ("data", "fsdp"), "tensor"),
        "conv": P(None, ("data", "fsdp"), None, "tensor"),
    }
    assert specs[SEGMENTS][0][2]["k"] == P(None, ("data", "fsdp"), None, None)
    same = jax.tree.structure(init_state(config, 1))
    assert jax.tree.structure(specs, is_leaf=lambda node: isinstance(node, P)) == same


@pytest.mark.parametrize(("name", "most"), [("griffin-14b", 1.04), ("recurrentgemma-9b", 1.05)])
def test_a_device_of_a_pod_holds_its_share_of_the_parameters(name: str, most: float) -> None:
    """fsdp 32 x tensor 8: what is not split 256 ways (norms, biases, conv, keys and values) adds at most 5 percent."""
    config = presets.preset(name).config
    sizes = {"fsdp": 32, "tensor": 8}
    held = 0.0
    for row in param_table(config):
        axes = [axis for axis in row.axes if axis != "one"]
        names = [] if axes == ["embed"] else [RULES[axis] for axis in row.axes]
        held += row.size / math.prod(sizes.get(str(axis), 1) for axis in names)
    share = sum(row.size for row in param_table(config)) / 256
    assert share <= held <= most * share
