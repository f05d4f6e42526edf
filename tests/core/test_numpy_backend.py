"""The numpy backend: promised dtypes, kernels honoured by name, native forms, refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from griffin_core import numpy_backend as backend
from griffin_core import reference, registry
from griffin_core.errors import (
    BackendError,
    CheckpointMismatch,
    ConfigError,
    InputError,
    KernelNotSupported,
    StateMismatch,
)
from griffin_core.protocol import Kernel
from griffin_core.shapes import DTYPES, UNIT_ROUNDOFF

RNG = np.random.default_rng(4)
B, T, H, K, W = 2, 9, 2, 3, 4
D = H * K
POSITIONS = np.array([[4, 5, 6, 0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 4, 5, -1, -1, -1]], np.int32)
FreezeFixture = Callable[[np.ndarray], np.ndarray]


def params_of_middle(dtype: str = "float32") -> dict[str, np.ndarray]:
    shapes = {"input_gate_weight": (H, K, K), "input_gate_bias": (H, K), "conv_weight": (D, 1, W), "conv_bias": (D,)}
    shapes |= {"recurrent_gate_weight": (H, K, K), "recurrent_gate_bias": (H, K)}
    params = {name: RNG.standard_normal(shape).astype(DTYPES[dtype]) for name, shape in shapes.items()}
    return {**params, "recurrent_param": RNG.standard_normal(D).astype(np.float32)}


def operands(dtype: str) -> dict[str, np.ndarray]:
    draws = {name: RNG.standard_normal((B, T, D)).astype(DTYPES[dtype]) for name in ("x", "gate_x", "gate_a")}
    return {
        **draws,
        "log_a": -RNG.exponential(size=(B, T, D)).astype(np.float32).astype(DTYPES[dtype]),
        "h0": RNG.standard_normal((B, D)).astype(np.float32),
        "conv_state": RNG.standard_normal((B, W - 1, D)).astype(DTYPES[dtype]),
    }


def calls(dtype: str) -> dict[str, tuple]:
    v, params = operands(dtype), params_of_middle(dtype)
    return {
        "linear_scan": (v["x"], v["log_a"], v["h0"], POSITIONS == 0),
        "gated_scan": (v["x"], v["gate_x"], v["gate_a"], params["recurrent_param"], v["h0"], POSITIONS),
        "rg_lru": (v["x"], params, v["h0"], POSITIONS),
        "recurrent_middle": (v["x"], params, v["h0"], v["conv_state"], POSITIONS),
        "conv1d": (v["x"], params["conv_weight"], params["conv_bias"], v["conv_state"], POSITIONS),
    }


def composed(op: str, arguments: tuple) -> tuple[np.ndarray, ...]:
    """The reference, with the output of the conv in the compute dtype, as a composed middle has it."""
    if op != "recurrent_middle":
        return getattr(reference, op)(*arguments)
    x, params, h0, conv_state, positions = arguments
    z, after = backend.conv1d(x, params["conv_weight"], params["conv_bias"], conv_state, positions)
    return *reference.rg_lru(z, params, h0, positions), after


@pytest.fixture
def own_kernels() -> Iterator[None]:
    before = registry.kernels("numpy")
    yield
    registry._kernels["numpy"] = before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("op", ["linear_scan", "gated_scan", "rg_lru", "recurrent_middle", "conv1d"])
def test_operations_are_the_reference_in_the_promised_dtypes(op: str, dtype: str) -> None:
    arguments = calls(dtype)[op]
    found = getattr(backend, op)(*arguments)
    expected = getattr(reference, op)(*arguments)
    state_dtypes = {"conv1d": [dtype], "recurrent_middle": ["float32", dtype]}.get(op, ["float32"])
    assert [value.dtype.name for value in found] == [dtype, *state_dtypes]
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_array_equal(got, want.astype(got.dtype))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("op", ["linear_scan", "gated_scan", "rg_lru", "recurrent_middle"])
def test_the_loop_kernel_stands_under_every_recurrent_operation(op: str, dtype: str) -> None:
    arguments = calls(dtype)[op]
    found, expected = getattr(backend, op)(*arguments, kernel="loop"), composed(op, arguments)
    # Decays are at most 0.998 here, states below 10: a float32 loop errs by far less than 1000 roundings of 1.
    for got, want in zip(found, expected, strict=True):
        rounding = UNIT_ROUNDOFF[got.dtype.name]
        np.testing.assert_allclose(got.astype(float), want.astype(float), rtol=2 * rounding, atol=1000 * 2.0**-24)
    assert not np.array_equal(found[0], getattr(backend, op)(*arguments)[0]) or dtype == "bfloat16"


def test_the_loop_selects_at_resets_and_keeps_its_inputs(read_only: FreezeFixture) -> None:
    x, log_a, h0, reset = (read_only(value) for value in calls("float32")["linear_scan"])
    y, h = backend.linear_scan(x, log_a, h0, reset, kernel="loop")
    poisoned = x.copy()
    poisoned[0, 2] = np.nan
    again, last = backend.linear_scan(poisoned, log_a, np.full_like(h0, np.nan), reset, kernel="loop")
    np.testing.assert_array_equal(again[0, 3:], y[0, 3:])
    np.testing.assert_array_equal(last[0], h[0])
    h[:] = 0  # the state is no view of the output
    assert y[:, -1].any()


def test_the_loop_refuses_float64() -> None:
    with pytest.raises(
        KernelNotSupported, match="kernel 'loop' cannot run linear_scan on numpy: it computes in float32"
    ):
        backend.linear_scan(*calls("float64")["linear_scan"], kernel="loop")


@pytest.mark.parametrize("record", backend.KERNELS, ids=lambda record: f"{record.op}-{record.name}")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_kernel_has_the_references_gradient(record: Kernel, dtype: str) -> None:
    arguments = calls(dtype)[record.op]
    outputs = record.forward(*arguments)
    cotangents = [RNG.standard_normal(y.shape).astype(y.dtype) for y in outputs]
    assert record.vjp is not None
    found = record.vjp(*arguments, *outputs, *cotangents)
    assert len(found) == len(arguments)
    expected = getattr(reference.gradients, record.op + "_vjp")(*arguments, *cotangents)
    for argument, got, want in zip(arguments, found, [*expected, None], strict=True):
        if want is None:
            assert got is None
            continue
        pairs = (
            [(argument, got, want)] if not isinstance(want, dict) else [(argument[n], got[n], want[n]) for n in want]
        )
        for value, gradient, exact in pairs:
            assert gradient.dtype == value.dtype
            rounding = UNIT_ROUNDOFF[value.dtype.name]
            np.testing.assert_allclose(gradient.astype(float), exact, rtol=2 * rounding, atol=1000 * 2.0**-24)


def test_packed_rows_are_cut_into_sequences() -> None:
    starts = np.array([0, 4, 4, 9], np.int32)
    x, params, _, _, _ = calls("float32")["recurrent_middle"]
    h0, conv = RNG.standard_normal((3, D)).astype(np.float32), RNG.standard_normal((3, W - 1, D)).astype(np.float32)
    for kernel in ("reference", "loop"):
        y, h, after = backend.recurrent_middle(x[:1], params, h0, conv, starts=starts, kernel=kernel)
        for n in range(3):
            cut, row = slice(starts[n], starts[n + 1]), slice(n, n + 1)
            one = backend.recurrent_middle(x[:1, cut], params, h0[row], conv[row], kernel=kernel)
            for got, want in zip((y[:, cut], h[row], after[row]), one, strict=True):
                np.testing.assert_array_equal(got, want)


def test_a_kernel_that_takes_packed_rows_gets_the_row(own_kernels: None) -> None:
    seen: list[tuple] = []

    def forward(*arguments: object) -> tuple[str, str]:
        seen.append(arguments)
        return "y", "h"

    registry.register_kernel("numpy", Kernel("linear_scan", "whole", forward, supports=lambda call: None))
    x, log_a, _, _ = calls("float32")["linear_scan"]
    starts = np.array([0, 4, 9])
    assert backend.linear_scan(x[:1], log_a[:1], starts=starts, kernel="whole") == ("y", "h")
    assert seen[0][-1] is starts
    assert len(seen[0]) == 5


def test_kernels_are_chosen_by_argument_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = calls("float32")["gated_scan"]
    loop = backend.gated_scan(*arguments, kernel="loop")[0]
    monkeypatch.setenv("GRIFFIN_KERNEL", "loop")
    np.testing.assert_array_equal(backend.gated_scan(*arguments)[0], loop)
    np.testing.assert_array_equal(
        backend.gated_scan(*arguments, kernel="reference")[0], reference.gated_scan(*arguments)[0].astype(np.float32)
    )
    with pytest.raises(KernelNotSupported, match="numpy has no kernel 'loop' for conv1d"):
        backend.conv1d(*calls("float32")["conv1d"])
    with pytest.raises(KernelNotSupported, match="numpy has no kernel 'triton' for rg_lru"):
        backend.rg_lru(*calls("float32")["rg_lru"], kernel="triton")


def test_arrays_are_copied_and_cast() -> None:
    x = RNG.standard_normal(3)
    y = backend.from_numpy(x, "bfloat16")
    assert y.dtype == DTYPES["bfloat16"]
    for copy in (backend.from_numpy(x), backend.to_numpy(x)):
        copy[0] = 99
    assert x[0] != 99
    assert backend.from_numpy(np.arange(3, dtype=np.int32)).dtype == np.int32
    with pytest.raises(ConfigError, match=r"unknown dtype 'float23'; did you mean 'float32'\?"):
        backend.from_numpy(x, "float23")
    with pytest.raises(BackendError, match="the numpy backend runs on the cpu, not on 'cuda'"):
        backend.from_numpy(x, device="cuda")
    assert backend.from_numpy(x, device="cpu").dtype == np.float64


def test_norm_and_attention_keep_their_dtypes() -> None:
    x = RNG.standard_normal((1, 4, 8)).astype(DTYPES["bfloat16"])
    assert backend.rms_norm(x, np.zeros(8, np.float32)).dtype == DTYPES["bfloat16"]
    cache = {name: np.zeros((1, 5, 8), DTYPES["bfloat16"]) for name in "kv"} | {"position": np.zeros(1, np.int32)}
    y, after = backend.local_attention(x.reshape(1, 4, 2, 4).repeat(2, 3), x, x, cache=cache, window=3)
    assert y.dtype == DTYPES["bfloat16"]
    assert {name: value.dtype.name for name, value in after.items()} == {
        "k": "bfloat16",
        "v": "bfloat16",
        "position": "int32",
    }
    assert backend.local_attention(x.reshape(1, 4, 2, 4).repeat(2, 3), x, x)[1] is None


def test_refusals_of_native_forms() -> None:
    from griffin_core.presets import PRESETS

    config = PRESETS["griffin-tiny"].config
    with pytest.raises(CheckpointMismatch, match="parameters do not match the config; missing: "):
        backend.load_params(config, {})
    with pytest.raises(StateMismatch, match="state has no 'position'"):
        backend.load_state(config, {})
    with pytest.raises(BackendError, match="not on 'meta'"):
        backend.init_state(config, 1, device="meta")
    with pytest.raises(InputError, match="row 3 does not exist"):
        backend.take(backend.init_state(config, 2), [3])
