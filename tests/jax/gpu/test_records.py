"""The records of the GPU kernels: what they take, what they are compiled from, who chooses them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import griffin_core_jax as backend
from griffin_core import registry
from griffin_core.config import GriffinConfig
from griffin_core.protocol import KernelCall
from griffin_core.testing import judge
from griffin_core_jax.gpu.gated_scan import gated_scan
from griffin_core_jax.gpu.kernels import KERNELS
from griffin_core_jax.gpu.linear_scan import linear_scan
from griffin_core_jax.tpu.interpret import interpreting

NUMBERS = ("reference", "gradient")
"""Properties that a kernel's own arithmetic can break; interpreted, each case of one takes seconds."""
FLOATS = ("x", "log_a", "gate_x", "gate_a")
CALL = KernelCall({"x": (1, 4, 8)}, dict.fromkeys(FLOATS, "bfloat16"), device="cuda")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"device": "rocm"}, None),
        ({"device": "cpu"}, "it needs a GPU, and the arrays are on cpu"),
        ({"device": "tpu"}, "it needs a GPU, and the arrays are on tpu"),
        ({"packed": True}, "it runs one sequence per row"),
        ({"dtypes": dict.fromkeys(FLOATS, "float64")}, "x is float64; it takes float32, bfloat16, float16"),
    ],
)
def test_supports(change: dict, reason: str | None) -> None:
    for record in KERNELS:
        assert record.supports(KernelCall(**{**vars(CALL), **change})) == reason


def test_supports_while_interpreted() -> None:
    with interpreting("plain"):
        assert [record.supports(replace(CALL, device="cpu")) for record in KERNELS] == [None, None]
        assert KERNELS[0].supports(replace(CALL, device="tpu")) == "it needs a GPU, and the arrays are on tpu"
    with interpreting("random"):
        assert KERNELS[1].supports(CALL) == "it is not run by the TPU simulator"


def kernels_in(f: Callable[..., Any], *arguments: Any, platform: str = "cuda") -> list[str]:
    """The names of the Triton kernels that a program is lowered to, in order."""
    text = jax.jit(f).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
    calls = [line for line in text.splitlines() if "__gpu$xla.gpu.triton" in line]
    return [re.search(r'name = "(\w+)"', line)[1] for line in calls]


def both_passes(scan: Callable[..., Any], *inputs: Any) -> Any:
    """Values and gradients of a scan whose last input is its marks."""
    outputs, pull = jax.vjp(lambda *given: scan(*given, inputs[-1]), *inputs[:-1])
    return outputs, pull(outputs)


def array(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


JOINED = ["linear_scan_forward"]
"""It joins stretches of time, and sums the gradient of recurrent_param."""
WHOLE, CUT = ((8, 8192, 2560), jnp.bfloat16), ((1, 131071, 2504), jnp.float32)


@pytest.mark.parametrize(
    ("op", "kind"),
    [
        ("linear_scan", WHOLE),
        pytest.param("linear_scan", CUT, marks=pytest.mark.prove),
        pytest.param("gated_scan", WHOLE, marks=pytest.mark.prove),
        ("gated_scan", CUT),
    ],
)
def test_real_shapes_are_lowered(op: str, kind: tuple[tuple[int, int, int], Any]) -> None:
    """Forward and backward become Triton kernels: one launch each, or three where time is cut."""
    shape, dtype = kind
    x, h0, width = array(*shape, dtype=dtype), array(shape[0], shape[2]), array(shape[2])
    if op == "linear_scan":
        inputs, scan, sums = (x, x, h0, array(*shape[:2], dtype=jnp.bool)), linear_scan, []
    else:
        inputs, scan, sums = (x, x, x, width, h0, array(*shape[:2], dtype=jnp.int32)), gated_scan, JOINED
    before, between = ([f"{op}_states", *JOINED], [f"{op}_cotangents", *JOINED]) if kind is CUT else ([], [])
    found = kernels_in(lambda *v: both_passes(scan, *v), *inputs)
    assert found == [*before, f"{op}_forward", *between, f"{op}_backward", *sums]


def test_both_makers_are_lowered_for() -> None:
    x = array(2, 100, 70, dtype=jnp.float16)
    assert kernels_in(linear_scan, x, x, platform="rocm") == ["linear_scan_forward"]


def test_a_model_on_a_gpu_chooses_them(
    config: GriffinConfig, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward and loss of a whole model that is compiled for a GPU, here without one."""
    monkeypatch.setattr(registry, "kernels", lambda name: (*KERNELS, *backend.KERNELS))
    tokens = np.arange(24, dtype=np.int32).reshape(2, 12) % config.vocab_size

    def loss(params: dict[str, Any]) -> jax.Array:
        scores = jax.nn.log_softmax(backend.forward(config, params, tokens)[0])
        return -jnp.mean(scores[..., 0])

    with backend.targeting("cuda"):
        forward = kernels_in(lambda params: backend.forward(config, params, tokens)[0], params)
        training = kernels_in(jax.grad(loss), params)
    assert set(forward) == {"gated_scan_forward"}
    assert set(training) == {"gated_scan_forward", "gated_scan_backward", "linear_scan_forward"}


@pytest.mark.prove
@pytest.mark.usefixtures("compiled_in_haste")
@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("record", KERNELS, ids=lambda record: record.op)
def test_the_kit_judges_the_record(record: object, name: str) -> None:
    with interpreting("plain"):
        report = judge(record, backend="jax", profile="quick", properties=(name,), large=False)
    assert report.passed, str(report)
    assert [record.property for record in report.records] == [name]
