"""The GPU kernels against the reference: values and gradients, interpreted on this host."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from griffin_core.errors import ConfigError
from griffin_core.testing.cases import Case
from griffin_core.testing.operations import OPERATIONS
from griffin_core.testing.tolerance import assert_close, dtype_name
from griffin_core_jax.gpu import passes, rows
from griffin_core_jax.gpu.gated_scan import gated_scan
from griffin_core_jax.gpu.linear_scan import linear_scan
from griffin_core_jax.gpu.plan import Plan
from griffin_core_jax.tpu.interpret import interpreting

SCANS: dict[str, Callable[..., Any]] = {"linear_scan": linear_scan, "gated_scan": gated_scan}
STATIC = ("reset", "positions")
WIDTH = 4


@dataclass(frozen=True)
class Call:
    """A case of the kit in hand-made pieces: tokens of a tile and tiles of a stretch, forward and backward."""

    op: str
    case: Case
    forward: tuple[int, int]
    backward: tuple[int, int]

    @property
    def plans(self) -> tuple[Plan, Plan]:
        pieces = [(rows, tiles, -(-self.case.t // (rows * tiles))) for rows, tiles in (self.forward, self.backward)]
        first, second = (Plan(*piece, width=WIDTH) for piece in pieces)
        return first, second

    def inputs(self) -> dict[str, Any]:
        return OPERATIONS[self.op].make(self.case)

    def cotangents(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(4)
        y = rng.normal(size=(self.case.b, self.case.t, self.case.d))
        h = rng.normal(size=(self.case.b, self.case.d)).astype(np.float32)
        return {"y": np.asarray(jnp.asarray(y, self.case.dtype)), "h": h}


@functools.lru_cache
def program(op: str, plans: tuple[Plan, Plan]) -> Callable[..., Any]:
    """One compiled program: (floating inputs, marks, dy, dh) -> (outputs, gradients of the floating inputs)."""

    def both(floating: dict[str, Any], static: dict[str, Any], y: Any, h: Any) -> Any:
        def f(floating: dict[str, Any]) -> Any:
            return SCANS[op](*({**static, **floating}.get(name) for name in OPERATIONS[op].slots), plans=plans)

        outputs, pull = jax.vjp(f, floating)
        return outputs, pull((y, h))[0]

    return jax.jit(both)


def run(call: Call, inputs: dict[str, Any], cotangents: dict[str, Any]) -> dict[str, np.ndarray]:
    """y, h and the gradient of every floating input there is (as "d" and its name)."""
    names = OPERATIONS[call.op].slots
    static = {name: inputs[name] for name in names if name in STATIC}
    floating = {str(name): inputs[name] for name in names if name not in STATIC and inputs[name] is not None}
    with interpreting("plain"):
        (y, h), gradients = program(call.op, call.plans)(floating, static, cotangents["y"], cotangents["h"])
    found = {"y": y, "h": h, **{f"d{name}": value for name, value in gradients.items()}}
    return {name: np.asarray(value) for name, value in found.items()}


def check(call: Call) -> None:
    """Values and gradients are within the kit's bounds of the reference."""
    op, inputs, cotangents = OPERATIONS[call.op], call.inputs(), call.cotangents()
    got = run(call, inputs, cotangents)
    expected, bounds = op.reference(inputs), op.bounds(inputs)
    gradient, errors = op.reference_gradient(inputs, cotangents), op.gradient_bounds(inputs, cotangents)
    expected |= {f"d{name}": value for name, value in gradient.items()}
    bounds |= {f"d{name}": value for name, value in errors.items()}
    for name, value in got.items():
        like = inputs.get(name[1:]) if name.startswith("d") else None
        dtype = dtype_name(value.dtype if like is None else like.dtype)
        assert_close(value, expected[name], bounds[name], dtype=dtype, what=name, call=str(call))


MIXED = Case(b=2, t=17, d=9, decay="mixed", resets="edges", carry=True, pads=3)
CUT = [Call("linear_scan", MIXED, (2, 2), (2, 3)), Call("gated_scan", MIXED, (2, 2), (1, 4))]
CALLS = [
    Call("linear_scan", replace(MIXED, t=8, d=8, dtype="bfloat16", resets="none", pads=0), (2, 4), (1, 8)),
    Call("gated_scan", replace(MIXED, d=5, dtype="bfloat16", resets="none", carry=False, pads=0), (2, 9), (2, 9)),
    Call("gated_scan", replace(MIXED, t=12, d=4, dtype="float16", decay="1e-6", resets="none", pads=0), (2, 3), (2, 2)),
]


@pytest.mark.parametrize("call", CUT, ids=lambda call: call.op)
def test_values_and_gradients(call: Call) -> None:
    """Cut in time, ragged in time and width, resets at the edges of tiles, padding, every decay."""
    check(call)


@pytest.mark.prove
@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.op} {call.case.dtype}")
def test_values_and_gradients_in_other_forms(call: Call) -> None:
    """Time whole, no state or no marks coming in, dtypes of 16 bits."""
    check(call)


@pytest.mark.parametrize("call", CUT, ids=lambda call: call.op)
def test_resets_select(call: Call) -> None:
    """NaN before a reset, in the first state, another row or channel, or at padding never passes - nor backwards."""
    inputs, time = call.inputs(), np.arange(17)
    inputs["reset"] = (time % 7 == 0)[None].repeat(2, 0)
    inputs["positions"] = np.where(time == 16, -1, time % 7)[None].repeat(2, 0).astype(np.int32)
    dirty = {name: None if value is None else np.array(value) for name, value in inputs.items()}
    dirty["h0"][:] = np.nan
    for name in ("x", "gate_x", "gate_a"):
        if name in dirty:
            dirty[name][0, 5], dirty[name][1, 3, 2] = np.nan, np.inf
            if call.op == "gated_scan":
                dirty[name][:, 16] = np.nan
    got, clean = run(call, dirty, call.cotangents()), run(call, inputs, call.cotangents())
    for name, want in clean.items():
        assert np.isfinite(want).all()
        if want.ndim == 3:
            np.testing.assert_array_equal(got[name][:, 7:], want[:, 7:])
            np.testing.assert_array_equal(got[name][1, :, 3:], want[1, :, 3:])
    assert (got["dh0"] == 0).all()
    if call.op == "gated_scan":
        assert all((got[name][:, 16] == 0).all() for name in ("y", "dx", "dgate_x", "dgate_a"))


def test_a_join_that_forgets_resets_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "_any_reset", lambda call, plan: None)
    with pytest.raises(AssertionError):
        check(Call("linear_scan", replace(MIXED, decay="1e-1"), (1, 6), (1, 6)))


@pytest.mark.prove
def test_a_tile_that_takes_the_next_tiles_rows_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = rows.load_tile
    late = lambda refs, neutral, marks, at, tile, wanted: plain(refs, neutral, marks, at, tile + 1, wanted)  # noqa: E731
    monkeypatch.setattr(rows, "load_tile", late)
    with pytest.raises(AssertionError):
        check(Call("linear_scan", MIXED, (1, 17), (1, 17)))


def test_no_time_and_plans_that_do_not_fit() -> None:
    x, h0 = jnp.zeros((2, 0, 3)), jnp.ones((2, 3))
    for y, h in (linear_scan(x, x, h0), gated_scan(x, x, x, h0[0], h0)):
        assert y.shape == (2, 0, 3)
        np.testing.assert_array_equal(h, h0)
    x = jnp.zeros((1, 6, 3))
    with pytest.raises(ConfigError, match="tiles of 2 rows forward, 4 backward"):
        linear_scan(x, x, plans=(Plan(2, 3, 1), Plan(4, 2, 1)))
