"""linear_scan's TPU kernel against the reference: values and gradients, interpreted on this host."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from griffin_core.protocol import KernelCall
from griffin_core.testing import judge
from griffin_core.testing.operations import OPERATIONS
from griffin_core.testing.properties import PACKED, PROPERTIES
from griffin_core.testing.tolerance import assert_close, dtype_name
from griffin_core_jax.tpu import chips
from griffin_core_jax.tpu.interpret import interpreting
from griffin_core_jax.tpu.linear_scan import KERNEL, linear_scan, linear_scan_vjp, supports
from griffin_core_jax.tpu.tiling import fixed

SCAN = OPERATIONS["linear_scan"]
NAMES = ("x", "log_a", "h0", "reset")


@dataclass(frozen=True)
class Call:
    """A call, in blocks so small that states pass between them."""

    shape: tuple[int, int, int]
    dtype: str = "float32"
    log_a: str = "float32"
    reset: bool = False
    carry: bool = True
    block: tuple[int, int] = (16, 128)

    def draw(self) -> dict[str, np.ndarray | None]:
        rng = np.random.default_rng(3)
        batch, time, width = self.shape
        x = np.asarray(jnp.asarray(rng.normal(size=self.shape), self.dtype))
        log_a = -np.abs(rng.normal(size=self.shape)) * 10.0 ** rng.uniform(-5, 1, size=self.shape)
        log_a[rng.random(self.shape) < 0.05] = -np.inf
        reset = rng.random((batch, time)) < 0.15
        return {
            "x": x,
            "log_a": np.asarray(jnp.asarray(log_a, self.log_a)),
            "h0": rng.normal(size=(batch, width)).astype(np.float32) if self.carry else None,
            "reset": reset if self.reset else None,
        }


CALLS = [
    Call((2, 35, 200), reset=True),
    Call((1, 48, 130), dtype="bfloat16", log_a="bfloat16", block=(32, 256)),
    Call((2, 50, 129), dtype="bfloat16", log_a="float32", reset=True),
    Call((1, 1, 1), dtype="bfloat16", log_a="bfloat16", carry=False),
    Call((1, 7, 100), reset=True, carry=False),
    Call((3, 64, 128), dtype="float32", log_a="bfloat16", block=(32, 128)),
]


def check(call: Call, mode: str) -> None:
    """Values and gradients are within the kit's bounds."""
    inputs = call.draw()
    rng = np.random.default_rng(4)
    seeds = {"y": rng.normal(size=call.shape), "h": rng.normal(size=call.shape[::2])}
    seeds = {"y": np.asarray(jnp.asarray(seeds["y"], call.dtype)), "h": seeds["h"].astype(np.float32)}
    x, log_a, h0, reset = (None if inputs[name] is None else jnp.asarray(inputs[name]) for name in NAMES)
    tiles = fixed("linear_scan", "backward", call.shape, "float32", chips.SMALLEST, *call.block)
    with interpreting(mode):
        (y, h), pull = jax.vjp(lambda *given: linear_scan(*given, reset, tiles=tiles), x, log_a, h0)
        gradients = pull((jnp.asarray(seeds["y"]), jnp.asarray(seeds["h"])))
    expected, bounds = SCAN.reference(inputs), SCAN.bounds(inputs)
    for name, got, dtype in (("y", y, call.dtype), ("h", h, "float32")):
        assert_close(np.asarray(got), expected[name], bounds[name], dtype=dtype, what=name, call=str(call))
    expected, bounds = SCAN.reference_gradient(inputs, seeds), SCAN.gradient_bounds(inputs, seeds)
    for name, got in zip(NAMES, gradients, strict=False):
        if got is not None:
            kind = dtype_name(inputs[name].dtype)
            assert_close(np.asarray(got), expected[name], bounds[name], dtype=kind, what=f"d{name}", call=str(call))


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_values_and_gradients(call: Call) -> None:
    check(call, "plain")


@pytest.mark.parametrize("call", [Call((1, 19, 130), reset=True), Call((1, 17, 64), "bfloat16", "bfloat16")], ids=str)
def test_values_and_gradients_in_the_simulator(call: Call) -> None:
    """Memory starts as NaN, blocks run in a random order where they may, and races are looked for."""
    check(call, "random")


def test_resets_select() -> None:
    """NaN before a reset, in the first state or in another row or channel, never passes it - nor does its gradient."""
    rng = np.random.default_rng(5)
    shape = (2, 40, 130)
    x, log_a = rng.normal(size=shape).astype(np.float32), -np.abs(rng.normal(size=shape)).astype(np.float32)
    h0, reset = np.zeros((2, 130), np.float32), np.zeros((2, 40), bool)
    reset[:, 0] = reset[:, 17] = True
    clean = [np.array(v) for v in (x, log_a, h0)]
    h0[:] = np.nan
    x[0, 5], x[1, 3, 7] = np.nan, np.inf
    tiles = fixed("linear_scan", "backward", shape, "float32", chips.SMALLEST, 16, 128)

    def run(x: np.ndarray, log_a: np.ndarray, h0: np.ndarray) -> list[np.ndarray]:
        given = tuple(map(jnp.asarray, (x, log_a, h0)))
        with interpreting("plain"):
            outputs, pull = jax.vjp(lambda *v: linear_scan(*v, jnp.asarray(reset), tiles=tiles), *given)
            return [np.asarray(v) for v in (*outputs, *pull(jax.tree.map(jnp.ones_like, outputs)))]

    y, h, dx, dlog_a, dh0 = run(x, log_a, h0)
    for got, want in zip((y, h, dx, dlog_a, dh0), run(*clean), strict=True):
        assert np.isfinite(want).all()
        if got.ndim == 3:
            np.testing.assert_array_equal(got[:, 17:], want[:, 17:])
            np.testing.assert_array_equal(got[1, :, 8:], want[1, :, 8:])
    np.testing.assert_array_equal(h, y[:, -1])
    assert (dh0 == 0).all()
    assert (dlog_a[:, [0, 17]] == 0).all()


def test_the_protocols_gradient_is_the_same() -> None:
    inputs = Call((2, 21, 70), "bfloat16", "bfloat16", reset=True).draw()
    x, log_a, h0, reset = (jnp.asarray(inputs[name]) for name in NAMES)
    with interpreting("plain"):
        (y, h), pull = jax.vjp(lambda *given: linear_scan(*given, reset), x, log_a, h0)
        theirs = pull((y, h))
        ours = jax.jit(linear_scan_vjp)(x, log_a, h0, reset, y, h, y, h)
        alone = jax.eval_shape(linear_scan_vjp, x, log_a, None, reset, y, h, y, None)
    for a, b in zip(ours[:3], theirs, strict=True):
        np.testing.assert_array_equal(np.asarray(a, np.float32), np.asarray(b, np.float32))
    assert ours[3] is None
    assert alone[2] is None


def test_no_time_and_no_channels() -> None:
    x, h0 = jnp.zeros((2, 0, 3)), jnp.ones((2, 3))
    y, h = linear_scan(x, x, h0)
    assert y.shape == (2, 0, 3)
    np.testing.assert_array_equal(h, h0)


CALL = KernelCall({"x": (1, 4, 8)}, {"x": "float32", "log_a": "float32"}, device="tpu")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"device": "cpu"}, "it needs a TPU, and the arrays are on cpu"),
        ({"packed": True}, "it runs one sequence per row"),
        ({"dtypes": {"x": "float16", "log_a": "float32"}}, "x is float16; it takes float32 and bfloat16"),
    ],
)
def test_supports(change: dict, reason: str | None) -> None:
    call = KernelCall(**{**vars(CALL), **change})
    assert supports(call) == reason


def test_supports_while_interpreted_and_on_unknown_chips(monkeypatch: pytest.MonkeyPatch) -> None:
    with interpreting("plain"):
        assert supports(KernelCall(CALL.shapes, CALL.dtypes, device="cpu")) is None
    monkeypatch.setattr(chips, "device_kind", lambda: "TPU v2")
    assert supports(CALL) == "it is compiled for v4, v5e, v5p, v6e, tpu7x, not for TPU v2"


@pytest.mark.prove
@pytest.mark.usefixtures("compiled_in_haste")
@pytest.mark.parametrize("name", [p.name for p in PROPERTIES if p.applies(SCAN) and p.needs != PACKED])
def test_the_kit_judges_the_record(name: str) -> None:
    with interpreting("plain"):
        report = judge(KERNEL, backend="jax", profile="quick", properties=(name,), large=False)
    assert report.passed, str(report)
    assert [record.property for record in report.records] == [name]
    refused = {reason for record in report.records for reason in record.refused}
    assert refused <= {"x is float16; it takes float32 and bfloat16"}
