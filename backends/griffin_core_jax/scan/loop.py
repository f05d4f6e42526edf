"""``linear_scan`` as one loop over time that writes its rows in place, and the mirrored loop for its gradient.

On a processor this beats every parallel form: a row of [b d] passes through exp, multiply and add while it stands in
the cache, and nothing is transposed, unrolled or computed twice.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax


def linear_scan(x: Array, log_a: Array, h0: Array | None = None, reset: Array | None = None) -> tuple[Array, Array]:
    """h_t = exp(log_a_t) h_{t-1} + x_t, h_t = x_t at a reset, in float32 (float64 for float64).

    Args:
        x, log_a: [b t d].
        h0: [b d] or None.
        reset: bool [b t] or None.

    Returns:
        (y, h): [b t d] in x's dtype, and the last state [b d].
    """
    wide = wide_dtype(x)
    first = jnp.zeros((x.shape[0], x.shape[2]), wide) if h0 is None else h0.astype(wide)
    if not x.shape[1]:
        return x, first

    def step(t: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        h, y = carry
        kept = jnp.exp(row(log_a, t).astype(wide)) * h
        kept = kept if reset is None else jnp.where(row(reset, t)[:, None], 0.0, kept)
        h = kept + row(x, t).astype(wide)
        return h, put_row(y, h, t)

    h, y = lax.fori_loop(0, x.shape[1], step, (first, jnp.zeros(x.shape, x.dtype)))
    return y, h


def linear_scan_vjp(
    x: Array,
    log_a: Array,
    h0: Array | None,
    reset: Array | None,
    y: Array,
    h: Array,
    dy: Array,
    dh: Array | None,
) -> tuple[Array, Array, Array | None, None]:
    """Gradients of x, log_a and h0, in their dtypes; states that ``y`` has rounded are computed again."""
    wide = wide_dtype(x)
    states = y if y.dtype == wide else linear_scan(x.astype(wide), log_a, h0, reset)[0]
    g, dh0 = reverse_scan(log_a, reset, dy, dh, wide)
    a = jnp.exp(log_a.astype(wide))
    cut = a == 0.0 if reset is None else (a == 0.0) | reset[..., None]
    dlog_a = jnp.where(cut, 0.0, g * a * previous(states, h0))
    return g.astype(x.dtype), dlog_a.astype(log_a.dtype), None if h0 is None else dh0.astype(h0.dtype), None


def reverse_scan(
    log_a: Array, reset: Array | None, dy: Array, dh: Array | None, wide: jnp.dtype
) -> tuple[Array, Array]:
    """(g [b t d], dh0 [b d]) with g_t = dy_t + a_{t+1} g_{t+1}, nothing crossing a reset."""
    batch, time, width = dy.shape
    last = jnp.zeros((batch, width), wide) if dh is None else dh.astype(wide)
    if not time:
        return dy.astype(wide), last

    def step(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        after, g = carry
        t = time - 1 - i
        here = row(dy, t).astype(wide) + after
        before = jnp.exp(row(log_a, t).astype(wide)) * here
        before = before if reset is None else jnp.where(row(reset, t)[:, None], 0.0, before)
        return before, put_row(g, here, t)

    dh0, g = lax.fori_loop(0, time, step, (last, jnp.zeros(dy.shape, wide)))
    return g, dh0


def previous(states: Array, h0: Array | None) -> Array:
    """h_{t-1} [b t d]."""
    first = jnp.zeros_like(states[:, :1]) if h0 is None else h0[:, None][:, : states.shape[1]].astype(states.dtype)
    return jnp.concatenate([first, states[:, :-1]], axis=1)


def row(x: Array, t: Array) -> Array:
    """x[:, t]."""
    return lax.dynamic_index_in_dim(x, t, axis=1, keepdims=False)


def put_row(y: Array, value: Array, t: Array) -> Array:
    """y with y[:, t] = value."""
    return lax.dynamic_update_index_in_dim(y, value.astype(y.dtype), t, axis=1)


def wide_dtype(x: Array) -> jnp.dtype:
    """What sums and recurrences run in: float32, or float64 for float64 inputs."""
    return jnp.dtype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)
