"""Sharded equals unsharded: logits, loss, gradients, one step of the optimiser, one step of decoding."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import griffin_core_jax as backend
from griffin_core.config import GriffinConfig
from griffin_core.schedules import TrainerOptions
from griffin_core_jax import sharding, step

MIXED = {"fsdp": 2, "tensor": 2, "sequence": 2}
MESHES = [
    {"data": 8},
    {"fsdp": 8},
    {"data": 2, "tensor": 4},
    {"sequence": 8},
    MIXED,
    {"data": 2, "fsdp": 2, "tensor": 2},
    {"data": 2, "sequence": 4},
]


def named(sizes: dict[str, int]) -> str:
    return "-".join(f"{name}{size}" for name, size in sizes.items())


def chosen(*quick: dict[str, int]) -> list[Any]:
    """All meshes, of which ``make test`` runs some."""
    return [pytest.param(sizes, id=named(sizes), marks=() if sizes in quick else pytest.mark.prove) for sizes in MESHES]


@pytest.mark.parametrize("sizes", chosen(MIXED, {"sequence": 8}, {"data": 2, "tensor": 4}))
def test_logits(
    config: GriffinConfig, params: Any, batch: Any, logits: np.ndarray, close: Any, sizes: dict[str, int]
) -> None:
    mesh = sharding.make_mesh(**sizes)
    placed = sharding.shard_params(config, mesh, params)
    got, state = sharding.forward(config, mesh, placed, batch["tokens"], batch["positions"])
    assert state is None
    pieces = (sizes.get("data", 1) * sizes.get("fsdp", 1), sizes.get("sequence", 1), sizes.get("tensor", 1))
    held = tuple(size // count for size, count in zip(logits.shape, pieces, strict=True))
    assert {shard.data.shape for shard in got.addressable_shards} == {held}
    close(got, logits, "logits")


@pytest.mark.parametrize("sizes", chosen(MIXED))
def test_one_training_step(
    config: GriffinConfig,
    params: Any,
    batch: Any,
    options: TrainerOptions,
    stepped: Any,
    close: Any,
    sizes: dict[str, int],
) -> None:
    mesh = sharding.make_mesh(**sizes)
    placed = sharding.shard_params(config, mesh, params)
    state = sharding.init_optimizer(config, mesh, options, placed)
    take = sharding.make_train_step(config, mesh, options, params)
    after, moments, figures = take(placed, state, sharding.shard_batch(config, mesh, batch), jnp.float32(1e-3))
    close(figures["loss"], stepped[2]["loss"], "loss")
    close(figures["grad_norm"], stepped[2]["grad_norm"], "grad_norm")
    assert bool(figures["finite"])
    # Without clipping the first moments are (1 - beta1) times the gradient, the second its square: each is compared.
    paths, _ = jax.tree_util.tree_flatten_with_path(stepped[1])
    for (path, expected), got in zip(paths, jax.tree.leaves(moments), strict=True):
        close(got, expected, jax.tree_util.keystr(path))
    # A first step of Adam moves every weight by the rate times the sign of its gradient, and rounding decides about
    # the sign of a gradient that is zero but for rounding: a weight's change is compared where the gradient is not.
    seen = [x for x in jax.tree.leaves(placed) if not x.is_deleted()]
    assert len(seen) == len(jax.tree.leaves(params)), "nothing is donated unless asked for"
    gradient = jax.tree.leaves(stepped[1], is_leaf=lambda node: hasattr(node, "mu"))
    moment = next(jax.tree.leaves(node.mu) for node in gradient if hasattr(node, "mu"))
    pairs = zip(jax.tree.leaves(after), jax.tree.leaves(stepped[0]), moment, strict=True)
    for got, expected, mu in pairs:
        clear = np.abs(np.asarray(mu)) > 1e-3 * np.abs(np.asarray(mu)).max()
        close(np.where(clear, got, 0), np.where(clear, expected, 0), "parameters")


@pytest.mark.prove
def test_loss_of_an_evaluation(config: GriffinConfig, params: Any, batch: Any, close: Any) -> None:
    mesh = sharding.make_mesh(**MIXED)
    got, count = jax.jit(lambda p, b: sharding.loss(config, mesh, p, b))(
        sharding.shard_params(config, mesh, params), sharding.shard_batch(config, mesh, batch)
    )
    expected, targets = jax.jit(lambda p, b: step.loss_fn(config, p, b, dtype="float32"))(params, batch)
    close(got, expected, "loss")
    assert int(count) == int(targets) == int((batch["targets"] >= 0).sum())


@pytest.mark.parametrize("sizes", [{"data": 2, "fsdp": 2, "tensor": 2}], ids=named)
def test_prefill_and_a_step_of_decoding(
    config: GriffinConfig, params: Any, batch: Any, close: Any, sizes: dict[str, int]
) -> None:
    mesh = sharding.make_mesh(**sizes)
    placed = sharding.shard_params(config, mesh, params)
    live = np.delete(np.arange(8), 5)  # a row of padding alone has no next token to compare
    expected, before = backend.forward(
        config, params, batch["tokens"], batch["positions"], backend.init_state(config, 8)
    )
    state = sharding.shard_state(config, mesh, backend.init_state(config, 8))
    got, state = sharding.forward(config, mesh, placed, batch["tokens"], batch["positions"], state)
    close(got, expected, "logits of the prompt")
    token = np.arange(8, dtype=np.int32)[:, None]
    expected, before = backend.forward(config, params, token, None, before)
    got, state = sharding.forward(config, mesh, placed, token, None, state)
    close(np.asarray(got)[live], np.asarray(expected)[live], "logits of the next token")
    pairs = (backend.dump_state(config, jax.device_get(s)) for s in (state, before))
    got_state, expected_state = pairs
    for name, value in expected_state.items():
        close(got_state[name], value, name)


@pytest.mark.prove
def test_donates_only_when_asked(config: GriffinConfig, params: Any, options: TrainerOptions, batch: Any) -> None:
    mesh = sharding.make_mesh()
    kept = sharding.make_train_step(config, mesh, options, params)
    used = sharding.make_train_step(config, mesh, options, params, donate=True)
    placed = sharding.shard_params(config, mesh, params)
    state = sharding.init_optimizer(config, mesh, options, placed)
    arguments = (placed, state, sharding.shard_batch(config, mesh, batch), jnp.float32(0.0))
    assert not any(info.donated for info in jax.tree.leaves(kept.lower(*arguments).args_info))
    donated = jax.tree.map(lambda info: info.donated, used.lower(*arguments).args_info[0])
    assert all(jax.tree.leaves(donated[:2]))
    assert not any(jax.tree.leaves(donated[2:]))
