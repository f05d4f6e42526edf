"""How many sums a training step makes, counted in the compiled program: one per sub-block and direction."""

from __future__ import annotations

from collections import Counter
from typing import Any

import jax
import pytest

from griffin_core.config import GriffinConfig
from griffin_core.schedules import TrainerOptions
from griffin_core_jax import sharding
from griffin_core_jax.sharding import hlo
from griffin_core_jax.sharding.shapes import abstract_batch, abstract_params

LAYERS_OF_A_PERIOD = 2
SUB_BLOCKS = 2 * LAYERS_OF_A_PERIOD


def counted(config: GriffinConfig, options: TrainerOptions, sizes: dict[str, int], remat: str | None = None) -> Any:
    """(kind, axes, backward) of every collective inside the loop over the layers, with its count."""
    mesh = sharding.make_mesh(**sizes)
    params, batch = abstract_params(config, mesh), abstract_batch(mesh, 8, 24)
    program = jax.jit(lambda p, b: sharding.gradients(config, mesh, options, p, b, remat=remat))
    found = hlo.collectives(program.lower(params, batch).compile(), mesh)
    inside = [c for c in found if c.loops and c.loops[0][1] == config.num_layers // LAYERS_OF_A_PERIOD]
    return Counter((c.kind, c.axes, c.backward) for c in inside)


def test_tensor_axis_sums_once_per_sub_block_and_direction(config: GriffinConfig, options: TrainerOptions) -> None:
    """And nothing else travels in a layer: conv, gates and recurrence need nothing."""
    assert counted(config, options, {"data": 2, "tensor": 4}) == {
        ("all-reduce", ("tensor",), False): SUB_BLOCKS,
        ("all-reduce", ("tensor",), True): SUB_BLOCKS,
    }


@pytest.mark.prove
def test_without_keeping_what_was_summed_the_backward_pass_sums_again(
    config: GriffinConfig, options: TrainerOptions
) -> None:
    found = counted(config, options, {"data": 2, "tensor": 4}, remat="block")
    assert found[("all-reduce", ("tensor",), True)] > SUB_BLOCKS


@pytest.mark.prove
def test_data_axis_exchanges_nothing_inside_layers(config: GriffinConfig, options: TrainerOptions) -> None:
    assert counted(config, options, {"data": 8}) == {}


@pytest.mark.prove
def test_each_weight_is_gathered_twice_and_its_gradient_scattered_once(
    config: GriffinConfig, options: TrainerOptions
) -> None:
    matrices = (3 + 2 + 3) + (4 + 3)  # recurrent: linears, gates, MLP; attention: q, k, v, o, MLP
    assert counted(config, options, {"fsdp": 8}) == {
        ("all-gather", ("fsdp",), False): matrices,
        ("all-gather", ("fsdp",), True): matrices,
        ("reduce-scatter", ("fsdp",), True): matrices,
    }


TEXT = """HloModule m

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %c = f32[] add(f32[] %a, f32[] %b)
}

%part.1 (p: bf16[4,8]) -> bf16[4,8] {
  %g.1 = bf16[32,8] all-gather(%p), channel_id=7, replica_groups=[1,8]<=[8], frontend_attributes={chain_id="0"}
}

%part.2 (p: bf16[4,8]) -> bf16[4,8] {
  %g.2 = bf16[32,8] all-gather(%p), channel_id=7, replica_groups=[1,8]<=[8], frontend_attributes={chain_id="0"}
}

%inner (p: bf16[4,8]) -> bf16[4,8] {
  %s = (bf16[4,8]{1,0}, bf16[32,8]{1,0}) all-gather-start(bf16[4,8] %p), replica_groups=[1,8]<=[8], dimensions={0}
  %d = bf16[32,8]{1,0} all-gather-done(%s)
  %a.1 = bf16[4,8] fusion(%p), kind=kOutput, calls=%part.1
  %a.2 = bf16[4,8] fusion(%p), kind=kOutput, calls=%part.2
  ROOT %r = bf16[4,8] all-reduce(%p), replica_groups=[2,4]<=[4,2]T(1,0), to_apply=%add, metadata={op_name="transpose("}
}

%below (p: s32[]) -> pred[] {
  %n = s32[]{:T(128)} constant(5)
  ROOT %lt = pred[] compare(%p, %n), direction=LT
}

ENTRY %main (p: bf16[4,8]) -> bf16[4,8] {
  %f = f32[] custom-call(), custom_call_target="x"
  %q = bf16[4,8] collective-permute(%p), source_target_pairs={{0,2},{2,4},{4,6},{1,3},{3,5},{5,7}}
  %v = bf16[4,8] while(%p), condition=%cond, body=%inner, backend_config={"known_trip_count":{"n":"13"}}
  ROOT %w = bf16[4,8] while(%p), condition=%below, body=%last, metadata={op_name="transpose(jvp())/while"}
}

%last (p: bf16[4,8]) -> bf16[4,8] {
  ROOT %r = (f32[4,8], f32[2]) all-reduce(%p, %p), replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add
}
"""


def test_reads_groups_loops_and_sizes() -> None:
    mesh = sharding.make_mesh(sequence=4, tensor=2)
    inner, both = (("inner", 13),), ("sequence", "tensor")
    assert list(hlo.collectives_in(TEXT, mesh)) == [
        hlo.Collective("collective-permute", ("sequence",), 32, 64, False, ()),
        hlo.Collective("all-gather", both, 256, 512, False, inner),
        hlo.Collective("all-gather", both, 256, 512, False, inner),  # both its parts are one
        hlo.Collective("all-reduce", ("sequence",), 32, 64, True, inner),
        hlo.Collective("all-reduce", ("tensor",), 32, 136, True, (("last", 5),)),
    ]
    other = sharding.make_mesh(data=2, sequence=2, tensor=2)
    assert [c.axes for c in hlo.collectives_in(TEXT, other)][:2] == [
        ("data", "sequence"),
        ("data", "sequence", "tensor"),
    ]
