"""The operations on a time axis in pieces: values and gradients equal those of one piece."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import griffin_core_jax as backend
from griffin_core.config import GriffinConfig
from griffin_core_jax.blocks import middle_params
from griffin_core_jax.layout import SEGMENTS
from griffin_core_jax.sharding import make_mesh, sequence

PIECES = 8
WIDE = P(None, "sequence")


@pytest.fixture(scope="module")
def mesh() -> Any:
    return make_mesh(sequence=PIECES)


def in_pieces(mesh: Any, operation: Callable[..., Any], arguments: int) -> Callable[..., Any]:
    """The operation's first output, on arguments [b t ...] in pieces."""
    return jax.jit(
        jax.shard_map(
            lambda *given: operation(*given)[0],
            mesh=mesh,
            in_specs=(WIDE,) * arguments,
            out_specs=WIDE,
            check_vma=False,
        )
    )


def compare(
    close: Any, split: Callable[..., Any], whole: Callable[..., Any], floats: list[Any], rest: list[Any]
) -> None:
    """Values, and gradients of the floating arguments against one drawn cotangent."""
    expected, pull = jax.vjp(jax.jit(lambda *given: whole(*given, *rest)[0]), *floats)
    got, pull_split = jax.vjp(lambda *given: split(*given, *rest), *floats)
    close(got, expected, "output")
    seed = jnp.asarray(np.random.default_rng(3).normal(size=expected.shape), jnp.float32)
    for index, (dgot, dexpected) in enumerate(zip(pull_split(seed), pull(seed), strict=True)):
        close(dgot, dexpected, f"gradient {index}")


def draw(rng: np.random.Generator, *shape: int) -> jax.Array:
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def test_linear_scan(mesh: Any, batch: Any, close: Any, rng: np.random.Generator) -> None:
    x = draw(rng, *batch["positions"].shape, 4)
    log_a = -0.1 * jnp.abs(draw(rng, *x.shape))
    reset = batch["positions"] == 0

    def whole(x: jax.Array, log_a: jax.Array) -> Any:
        return backend.linear_scan(x, log_a, None, reset)

    compare(close, in_pieces(mesh, sequence.linear_scan, 3), lambda x, a, _: whole(x, a), [x, log_a], [reset])


def test_a_reset_stops_even_nan(mesh: Any) -> None:
    x = jnp.ones((1, 3 * PIECES, 2)).at[0, 1].set(jnp.nan)
    reset = jnp.zeros((1, 3 * PIECES), bool).at[0, 10].set(True)
    y = in_pieces(mesh, sequence.linear_scan, 3)(x, -jnp.ones_like(x), reset)
    assert np.isnan(y[0, 1:10]).all()
    assert np.isfinite(y[0, 10:]).all()


def test_recurrent_middle(
    mesh: Any, config: GriffinConfig, params: Any, batch: Any, close: Any, rng: np.random.Generator
) -> None:
    layer = {name: value[0] for name, value in params[SEGMENTS][0][0].items()}
    weights, positions = middle_params(layer), batch["positions"]
    x = draw(rng, *positions.shape, config.lru_width)

    def split(x: jax.Array, positions: jax.Array) -> Any:
        return sequence.recurrent_middle(x, weights, None, None, positions)

    def whole(x: jax.Array, positions: jax.Array) -> Any:
        return backend.recurrent_middle(x, weights, None, None, positions)

    compare(close, in_pieces(mesh, split, 2), whole, [x], [positions])


@pytest.mark.parametrize(
    "window",
    [
        pytest.param(1, id="itself", marks=pytest.mark.prove),
        pytest.param(3, id="a piece", marks=pytest.mark.prove),
        pytest.param(11, id="several pieces"),
        pytest.param(None, id="all"),
    ],
)
def test_local_attention(mesh: Any, batch: Any, close: Any, rng: np.random.Generator, window: int | None) -> None:
    shape = batch["positions"].shape
    q, k, v = draw(rng, *shape, 2, 8), draw(rng, *shape, 8), draw(rng, *shape, 8)

    def split(*given: jax.Array) -> Any:
        return sequence.local_attention(*given, None, window)

    def whole(*given: jax.Array) -> Any:
        return backend.local_attention(*given, None, window)

    compare(close, in_pieces(mesh, split, 4), whole, [q, k, v], [batch["positions"]])


def test_one_document_without_positions(mesh: Any, close: Any, rng: np.random.Generator) -> None:
    q, k, v = draw(rng, 1, 24, 2, 8), draw(rng, 1, 24, 8), draw(rng, 1, 24, 8)
    got = in_pieces(mesh, lambda *given: sequence.local_attention(*given, window=5), 3)(q, k, v)
    close(got, backend.local_attention(q, k, v, window=5)[0], "output")
