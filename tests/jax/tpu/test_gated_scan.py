"""gated_scan's TPU kernels against the reference: values and gradients, interpreted on this host."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import griffin_core_jax as backend
from griffin_core.errors import ConfigError
from griffin_core.protocol import Kernel, KernelCall
from griffin_core.testing import Case, bounds, gradient_bounds, judge
from griffin_core.testing.operations import OPERATIONS
from griffin_core.testing.properties import PACKED, PROPERTIES, gradients, values
from griffin_core.testing.subjects import Subject, from_kernel
from griffin_core.testing.tolerance import assert_close
from griffin_core.testing.trial import Trial
from griffin_core_jax.tpu import chips
from griffin_core_jax.tpu.gated_scan import GATE_ERROR, KERNELS, MULTIPLIER_ERROR, gated_scan, plan, supports
from griffin_core_jax.tpu.interpret import interpreting
from griffin_core_jax.tpu.tiling import Tiling, fixed

GATED = OPERATIONS["gated_scan"]
WIDE = (32, 128)
"""Blocks so small that states pass between them in time."""


def tiles(shape: tuple[int, ...], block: tuple[int, int] = WIDE) -> Tiling:
    return fixed("gated_scan", "backward", shape, "float32", chips.SMALLEST, *block)


@functools.cache
def subject(form: str, block: tuple[int, int] = WIDE) -> Subject:
    """The kernel as the kit judges it: one compiled program for each shape, not one for each case."""

    @jax.jit
    def run(*inputs: Any) -> tuple[jax.Array, jax.Array]:
        return gated_scan(*inputs, form=form, tiles=tiles(inputs[0].shape, block))

    @jax.jit
    def pull(*given: Any) -> tuple[Any, ...]:
        *inputs, positions, _, _, dy, dh = given
        found = jax.vjp(lambda *chosen: run(*chosen, positions), *inputs)[1]((dy, dh))
        return *found, None

    return from_kernel(Kernel("gated_scan", form, run, pull, lambda call: None), GATED, "jax", backend, "")


def check(case: Case, form: str, mode: str = "plain", block: tuple[int, int] = WIDE) -> None:
    """Values and gradients are within the kit's float32 bounds."""
    trial = Trial(subject(form, block), case)
    with interpreting(mode):
        values.reference(trial)
        gradients.gradient(trial)


@pytest.mark.parametrize("form", ["refined", pytest.param("direct", marks=pytest.mark.prove)])
@pytest.mark.parametrize("decay", ["1e-1", "1e-6", "one", "zero", "subnormal", "mixed"])
def test_documents_states_and_padding(form: str, decay: str) -> None:
    """Resets at and beside block edges, a state that comes in, padding, a ragged end, gates from -120 to 100."""
    check(Case(b=2, t=70, d=100, decay=decay, resets="edges", carry=True, pads=7), form)


@pytest.mark.prove
@pytest.mark.parametrize("decay", ["1e-3", "mixed"])
def test_sixteen_bits(decay: str) -> None:
    check(Case(b=2, t=70, d=100, decay=decay, resets="edges", carry=True, pads=7, dtype="bfloat16"), "refined")


@pytest.mark.parametrize("decay", ["1e-1", "1e-3", "1e-6"])
def test_the_approximate_kernel_keeps_its_bound(decay: str) -> None:
    """Values by its stated errors; gradients by the same, through the kit's formulas."""
    trial = Trial(subject("approx"), Case(b=2, t=70, d=100, decay=decay, resets="edges", carry=True, pads=7))
    inputs = trial.inputs()
    seeds = {"y": inputs["x"], "h": inputs["h0"]}
    with interpreting("plain"):
        got, pulled = trial.run(inputs), trial.subject.gradient(inputs, seeds)
    analysed = bounds.given_gates(inputs, GATE_ERROR, MULTIPLIER_ERROR)
    expected, limits = GATED.reference(inputs), bounds.states(analysed.scanned)
    for name in ("y", "h"):
        assert_close(got[name], expected[name], limits[name], dtype="float32", what=name, call=decay)
    slopes, errors = GATED.reference_gradient(inputs, seeds), gradient_bounds._gated(analysed, inputs, seeds)
    for name, value in slopes.items():
        limit = errors[name].error + 4 * MULTIPLIER_ERROR * np.abs(value).max()  # 1 / m and q bring theirs
        assert_close(pulled[name], value, limit, dtype="float32", what=f"d{name}", call=decay)


def test_no_marks_and_two_widths() -> None:
    """The kernel without marks; the second block of channels hangs over the end."""
    check(Case(b=1, t=64, d=130, decay="1e-2", carry=True, dtype="bfloat16"), "direct")


def test_a_fresh_start_needs_no_positions() -> None:
    check(Case(b=2, t=35, d=3, decay="1e-2", dtype="bfloat16"), "refined")


def test_in_the_simulator() -> None:
    """Memory starts as NaN, blocks run in a random order where they may, races are looked for; both paths are taken."""
    check(Case(b=1, t=33, d=3, decay="1e-2", resets="start", carry=True, pads=1), "refined", "random")


@pytest.mark.prove
@pytest.mark.parametrize("form", ["refined", "direct", "approx"])
def test_longer_in_the_simulator(form: str) -> None:
    case = Case(b=2, t=90, d=140, decay="1e-2", resets="edges", carry=True, pads=11)
    check(case.replace(dtype="bfloat16") if form == "approx" else case, form, "random")


@pytest.mark.prove
@pytest.mark.parametrize("block", [(96, 128), (64, 256), (32, 384)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_other_blocks(block: tuple[int, int], dtype: str) -> None:
    case = Case(b=2, t=150, d=300, decay="mixed", resets="edges", carry=True, pads=7, dtype=dtype)
    check(case, "refined", "plain", block)


def gradients_of(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs and gradients for cotangents of 1."""
    with interpreting("plain"):
        judged = subject("refined")
        got = judged.run(inputs)
        seeds = {name: np.ones_like(value) for name, value in got.items()}
        return {**got, **{f"d{name}": value for name, value in judged.gradient(inputs, seeds).items()}}


def test_nothing_passes_a_reset_or_comes_from_padding() -> None:
    """NaN in the first state, in another document, row or channel, or at padding changes nothing elsewhere."""
    trial = Trial(subject("refined"), Case(b=2, t=70, d=100, decay="1e-2", resets="edges", carry=True, pads=7))
    clean = trial.inputs()
    positions = clean["positions"].copy()
    positions[:, 0], positions[:, 33] = 0, 0
    clean = {**clean, "positions": positions}
    dirty = {name: value.copy() for name, value in clean.items()}
    dirty["h0"][:] = np.nan
    for name, bad in (("x", np.nan), ("gate_x", np.inf), ("gate_a", np.nan)):
        dirty[name][0, 63:] = bad  # padding
        dirty[name][1, 7] = bad  # the document before token 33
        dirty[name][1, 40, 5] = bad  # channel 5
    want, got = gradients_of(clean), gradients_of(dirty)
    for name, value in want.items():
        assert np.isfinite(value).all(), name
        if value.ndim == 3:
            np.testing.assert_array_equal(got[name][0], value[0], err_msg=name)
            np.testing.assert_array_equal(got[name][1, 33:, 6:], value[1, 33:, 6:], err_msg=name)
            assert (got[name][0, 63:] == 0).all(), name
    np.testing.assert_array_equal(got["h"][:, 6:], want["h"][:, 6:])
    assert (got["dh0"] == 0).all()
    assert (want["dgate_a"][:, [0, 33]] == 0).all()


def test_no_time_and_unknown_forms() -> None:
    x, h0 = jnp.zeros((2, 0, 3)), jnp.ones((2, 3))
    y, h = gated_scan(x, x, x, jnp.zeros(3), h0)
    assert y.shape == (2, 0, 3)
    np.testing.assert_array_equal(h, h0)
    with pytest.raises(ConfigError, match="unknown form of the gates 'exact'"):
        gated_scan(x, x, x, jnp.zeros(3), h0, form="exact")


def test_blocks_hold_pairs_of_groups() -> None:
    for time in (1, 16, 17, 48, 100, 8192):
        both = plan(*[jax.ShapeDtypeStruct((1, time, 256), jnp.bfloat16)] * 3)
        assert all(chosen.groups % 2 == 0 for chosen in both)


def test_the_approximate_kernel_is_chosen_by_name_only() -> None:
    """Whatever it supports the one before it supports: auto never comes to it."""
    assert [(kernel.op, kernel.name) for kernel in KERNELS] == [
        ("gated_scan", "pallas"),
        ("gated_scan", "pallas-approx"),
    ]
    assert KERNELS[0].supports is KERNELS[1].supports


CALL = KernelCall({"x": (1, 4, 8)}, {"x": "bfloat16", "gate_x": "float32", "gate_a": "bfloat16"}, device="tpu")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"device": "cuda"}, "it needs a TPU, and the arrays are on cuda"),
        ({"packed": True}, "it runs one sequence per row"),
        ({"dtypes": {"x": "float16"}}, "x is float16; it takes float32 and bfloat16"),
        ({"dtypes": {"x": "float32", "gate_a": "float64"}}, "gate_a is float64; it takes float32 and bfloat16"),
    ],
)
def test_supports(change: dict, reason: str | None) -> None:
    assert supports(KernelCall(**{**vars(CALL), **change})) == reason


WHOLE_KIT = [("v4", p.name) for p in PROPERTIES if p.applies(GATED) and p.needs != PACKED]
PART = [("v6e", name) for name in ("reference", "gradient", "documents", "cut")]


@pytest.mark.prove
@pytest.mark.usefixtures("compiled_in_haste")
@pytest.mark.parametrize(("chip", "name"), [*WHOLE_KIT, *PART])
def test_the_kit_judges_the_record(chip: str, name: str) -> None:
    """Both forms of the gates: all properties for one, for the other those that its numbers can break."""
    with interpreting("plain"), chips.targeting(chips.CHIPS[chip]):
        report = judge(KERNELS[0], backend="jax", profile="quick", properties=(name,), large=False)
    assert report.passed, str(report)
    assert [record.property for record in report.records] == [name]
    refused = {reason for record in report.records for reason in record.refused}
    assert refused <= {"x is float16; it takes float32 and bfloat16"}
