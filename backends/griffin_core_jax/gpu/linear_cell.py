"""The plain recurrence h_t = exp(log_a_t) h_{t-1} + x_t. Inputs: x, log_a."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from griffin_core_jax.gpu.cell import Cell, Entry, Row


def _log(log_a: Row, rate: Any) -> Row:
    del rate
    return log_a.astype(jnp.float32)


def _enter(values: tuple[Row, ...], rate: Any) -> Entry:
    x = values[0].astype(jnp.float32)
    return Entry(jnp.exp(_log(values[1], rate)), x, x)


def _gradients(
    entry: Entry, values: tuple[Row, ...], g: Row, before: Row, reset: Row | None
) -> tuple[tuple[Row, ...], None]:
    """dx = g; dlog_a = g a h_{t-1}, 0 where nothing of h_{t-1} (which may be NaN) comes through."""
    del values
    a = entry.a if reset is None else jnp.where(reset, 0.0, entry.a)
    return (g, jnp.where(a == 0.0, 0.0, g * a * before)), None


CELL = Cell("linear_scan", (0.0, 0.0), 1, 1.0, False, _log, jnp.exp, _enter, _gradients)
