"""The functions are pure and traceable: jit, grad, vmap and remat see plain arrays in and out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import griffin_core_jax as backend
from griffin_core.arguments import standard_length
from griffin_core.errors import InputError

TOKENS = np.random.default_rng(3).integers(0, 50, (2, 11)).astype(np.int32)
UNIT = 2.0**-24


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (1, 1),
        (2, 2),
        (3, 4),
        (9, 16),
        (17, 24),
        (25, 32),
        (33, 48),
        (1000, 1024),
        (1024, 1024),
        (1025, 2048),
        (5000, 5120),
    ],
)
def test_standard_lengths(time: int, expected: int) -> None:
    assert standard_length(time) == expected


def test_lengths_share_programs(config, params) -> None:
    """Eleven, thirteen and sixteen tokens run one program, and padding is not seen."""
    from griffin_core_jax import model

    state = backend.init_state(config, 2)
    whole, after = backend.forward(config, params, TOKENS, None, state)
    assert whole.shape == (2, 11, 50)
    compiled = model._hidden._cache_size()
    longer = np.pad(TOKENS, ((0, 0), (0, 2)))
    again, later = backend.forward(config, params, longer, None, state)
    assert model._hidden._cache_size() == compiled
    assert np.abs(np.asarray(again)[:, :11] - np.asarray(whole)).max() <= 64 * UNIT * np.abs(whole).max()
    assert after["position"].tolist() == [11, 11]
    assert later["position"].tolist() == [13, 13]


def test_traced_calls_equal_plain_ones(config, params) -> None:
    plain, _ = backend.forward(config, params, TOKENS)
    call = jax.jit(lambda params, tokens: backend.forward(config, params, tokens)[0])
    assert np.abs(np.asarray(call(params, TOKENS) - plain)).max() <= 64 * UNIT * np.abs(plain).max()
    each = jax.vmap(lambda row: backend.forward(config, params, row[None])[0][0])(jnp.asarray(TOKENS))
    assert np.abs(np.asarray(each - plain)).max() <= 64 * UNIT * np.abs(plain).max()


def test_gradients_with_and_without_remat(config, params) -> None:
    def loss(params, wrap):
        from griffin_core_jax.model import run_hidden

        positions = jnp.broadcast_to(jnp.arange(11), (2, 11))
        return run_hidden(config, params, TOKENS, positions, dtype=jnp.float32, wrap=wrap)[0].sum()

    kept = jax.jit(jax.grad(lambda p: loss(p, None)))(params)
    again = jax.jit(jax.grad(lambda p: loss(p, lambda f: jax.checkpoint(f, static_argnums=()))))(params)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(kept))
    assert largest > 0.1
    apart = max(jax.tree.leaves(jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), kept, again)))
    assert apart <= 256 * UNIT * largest


def test_nothing_of_the_callers_is_given_away(config, params) -> None:
    state = backend.init_state(config, 2)
    backend.forward(config, params, TOKENS, None, state)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((params, state)))


def test_blocks_stand_alone(config, rng) -> None:
    """A recurrent block with weights of its own: whole equals in two pieces, under jit and vmap."""
    weights, x = backend.init_layer(config, 0), jnp.asarray(rng.normal(size=(2, 9, config.width)), jnp.float32)
    at = jnp.broadcast_to(jnp.arange(9, dtype=jnp.int32), (2, 9))
    whole, _, _ = jax.jit(lambda x: backend.recurrent_block(weights, x, backend.block_call(config, at)))(x)
    state = backend.init_layer_state(config, 2, 0)
    first, state, _ = backend.recurrent_block(weights, x[:, :4], backend.block_call(config, at[:, :4]), state)
    rest, state, _ = backend.recurrent_block(weights, x[:, 4:], backend.block_call(config, at[:, 4:]), state)
    assert sorted(state) == ["conv", "h"]
    assert np.abs(np.concatenate([first, rest], 1) - whole).max() <= 64 * UNIT * np.abs(whole).max()
    one = jax.vmap(lambda x: backend.recurrent_block(weights, x[None], backend.block_call(config, at[:1]))[0][0])(x)
    assert np.abs(np.asarray(one - whole)).max() <= 64 * UNIT * np.abs(whole).max()


def test_activations_are_captured_under_canonical_names(config, params) -> None:
    seen: dict[str, jax.Array] = {}
    backend.forward(config, params, TOKENS, capture=seen)
    recurrent = {"conv", "gate_x", "gate_a", "input_gate", "recurrent_gate", "log_a", "h"}
    assert {name.split(".", 2)[2] for name in seen if name.startswith("layers.4.")} == recurrent
    assert seen["layers.2.attention"].shape == (2, 11, config.num_heads * config.head_dim)
    assert (np.asarray(seen["layers.1.log_a"]) <= 0).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_stay_finite_where_nothing_decays(dtype: str) -> None:
    """The multiplier's own derivative is infinite at a = 1; ours is not, composed or not."""
    x = jnp.ones((1, 4, 8), dtype)
    gate = jnp.full((1, 4, 8), -100.0, dtype)
    for kernel in ("auto", "loop"):
        grads = jax.grad(
            lambda x, gate: (
                backend.gated_scan(x, x, gate, jnp.zeros(8), jnp.ones((1, 8)), kernel=kernel)[0]  # noqa: B023
                .astype(jnp.float32)
                .sum()
            ),
            argnums=(0, 1),
        )(x, gate)
        assert all(bool(jnp.isfinite(g).all()) for g in grads)


def test_refusals(config, params) -> None:
    with pytest.raises(InputError, match="padding='left'"):
        backend.forward(config, params, TOKENS, padding="left")
    with pytest.raises(InputError, match="token id 60"):
        backend.forward(config, params, np.full((2, 11), 60, np.int32))
    with pytest.raises(InputError, match="starts is traced"):
        jax.jit(lambda s: backend.linear_scan(jnp.ones((1, 4, 2)), jnp.zeros((1, 4, 2)), starts=s))(jnp.array([0, 4]))
    with pytest.raises(InputError, match=r"log_a has shape \(1, 4, 3\)"):
        backend.linear_scan(jnp.ones((1, 4, 2)), jnp.zeros((1, 4, 3)))
