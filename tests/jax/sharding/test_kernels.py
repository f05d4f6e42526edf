"""Kernels under ``shard_map``: each device runs its own on its rows and gate blocks, and nothing travels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import griffin_core_jax as backend
from griffin_core import registry
from griffin_core.errors import ConfigError, InputError
from griffin_core_jax import sharding
from griffin_core_jax.devices import targeting
from griffin_core_jax.sharding import hlo
from griffin_core_jax.tpu import kernels as tpu
from griffin_core_jax.tpu.interpret import interpreting

WIDTH, BLOCKS, TAPS = 512, 4, 4
KEYS = {
    "recurrent_param": (WIDTH,),
    "input_gate_weight": (BLOCKS, WIDTH // BLOCKS, WIDTH // BLOCKS),
    "input_gate_bias": (BLOCKS, WIDTH // BLOCKS),
    "recurrent_gate_weight": (BLOCKS, WIDTH // BLOCKS, WIDTH // BLOCKS),
    "recurrent_gate_bias": (BLOCKS, WIDTH // BLOCKS),
    "conv_weight": (WIDTH, 1, TAPS),
    "conv_bias": (WIDTH,),
}


@pytest.fixture
def weights(rng: np.random.Generator) -> dict[str, jax.Array]:
    return {name: jnp.asarray(rng.normal(size=shape) * shape[-1] ** -0.5, jnp.float32) for name, shape in KEYS.items()}


@pytest.fixture
def pallas(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The Pallas kernels, chosen as on a TPU and interpreted on this host."""
    known = [k for k in registry.kernels("jax") if k.name not in {record.name for record in tpu.KERNELS}]
    monkeypatch.setitem(registry._kernels, "jax", (*tpu.KERNELS, *known))
    with targeting("tpu"), interpreting("plain"):
        yield


def compare(mesh: Any, weights: Any, positions: Any, rng: Any, close: Any, kernel: str) -> None:
    """Values and gradients of x and of every parameter against the loop in one piece."""
    x = jnp.asarray(rng.normal(size=(*positions.shape, WIDTH)), jnp.float32)
    seed = jnp.asarray(rng.normal(size=x.shape), jnp.float32)

    def split(x: Any, weights: Any) -> Any:
        return sharding.recurrent_middle(mesh, x, weights, positions=positions, kernel=kernel)[0]

    def whole(x: Any, weights: Any) -> Any:
        return backend.recurrent_middle(x, weights, positions=positions, kernel="loop")[0]

    got, pull = jax.vjp(jax.jit(split), x, weights)
    expected, pull_whole = jax.vjp(jax.jit(whole), x, weights)
    close(got, expected, "output")
    for (path, value), reference in zip(
        jax.tree_util.tree_leaves_with_path(pull(seed)), jax.tree.leaves(pull_whole(seed)), strict=True
    ):
        close(value, reference, jax.tree_util.keystr(path))


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param({"data": 2, "tensor": 4}, id="tensor"),
        pytest.param({"sequence": 4, "tensor": 2}, id="sequence", marks=pytest.mark.prove),
    ],
)
@pytest.mark.usefixtures("pallas")
def test_pallas_kernels_run_on_each_piece(
    weights: Any, batch: Any, rng: np.random.Generator, close: Any, sizes: dict[str, int]
) -> None:
    compare(sharding.make_mesh(**sizes), weights, batch["positions"][:4], rng, close, "pallas")


@pytest.mark.prove
@pytest.mark.skipif("NPROC" not in os.environ, reason="the simulator waits for ever under shard_map without NPROC=16")
@pytest.mark.usefixtures("pallas")
def test_the_simulator_agrees(weights: Any, batch: Any, rng: np.random.Generator, close: Any) -> None:
    with interpreting("random"):
        compare(sharding.make_mesh(data=2, tensor=4), weights, batch["positions"][:2, :16], rng, close, "pallas")


def test_states_go_in_and_out(weights: Any, rng: np.random.Generator, close: Any) -> None:
    mesh = sharding.make_mesh(data=2, tensor=4)
    x, h0 = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((4, 6, WIDTH), (4, WIDTH)))
    tail = jnp.asarray(rng.normal(size=(4, TAPS - 1, WIDTH)), jnp.float32)
    got = sharding.recurrent_middle(mesh, x, weights, h0, tail, kernel="loop")
    expected = backend.recurrent_middle(x, weights, h0, tail, kernel="loop")
    for name, value, reference in zip(("y", "h", "conv"), got, expected, strict=True):
        close(value, reference, name)


def test_the_last_piece_gives_the_states(weights: Any, batch: Any, rng: np.random.Generator, close: Any) -> None:
    positions = batch["positions"][[0, 1, 3, 7]]  # rows without padding at their ends
    x = jnp.asarray(rng.normal(size=(*positions.shape, WIDTH)), jnp.float32)
    got = sharding.recurrent_middle(sharding.make_mesh(sequence=4, tensor=2), x, weights, positions=positions)
    expected = backend.recurrent_middle(x, weights, positions=positions)
    for name, value, reference in zip(("y", "h", "conv"), got, expected, strict=True):
        close(value, reference, name)


def test_nothing_travels_without_a_sequence_axis(weights: Any) -> None:
    mesh = sharding.make_mesh(data=2, tensor=4)
    x = jnp.zeros((4, 6, WIDTH))
    program = jax.jit(lambda x, weights: sharding.recurrent_middle(mesh, x, weights)[0])
    placed = jax.device_put(x, jax.NamedSharding(mesh, jax.P(("data", "fsdp"), "sequence", "tensor")))
    assert hlo.collectives(program.lower(placed, weights).compile(), mesh) == ()


def test_refuses_what_cannot_be_split(weights: Any) -> None:
    x = jnp.zeros((4, 6, WIDTH))
    with pytest.raises(ConfigError, match=r"tensor=8 does not divide 4 gate blocks; legal sizes are 1, 2, 4"):
        sharding.recurrent_middle(sharding.make_mesh(tensor=8), x, weights)
    with pytest.raises(InputError, match=r"x \(4, 6, 512\) cannot be split over 8 \(rows\) x 1 \(tokens\) devices"):
        sharding.recurrent_middle(sharding.make_mesh(), x, weights)
    with pytest.raises(InputError, match=r"a state needs sequence=1, the mesh has 2"):
        sharding.recurrent_middle(sharding.make_mesh(sequence=2, tensor=4), x, weights, jnp.zeros((4, WIDTH)))
