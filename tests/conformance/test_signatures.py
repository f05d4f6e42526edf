"""The numpy backend is the protocol: every backend's functions have its parameters."""

from __future__ import annotations

import inspect
from types import ModuleType

import pytest

from griffin_core import numpy_backend
from griffin_core.protocol import API_VERSION, CAPABILITIES, FUNCTIONS, KERNEL_OPS, Kernel, check_backend

Parameters = list[tuple[str, object, object]]
# What numpy does not have cannot be read off it.
OTHERS = {"vjp": ["f", "inputs", "cotangents"], "Trainer": ["config", "params", "options"]}


def parameters(function: object) -> Parameters:
    """Name, kind and default of each parameter, in order."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def differences(module: ModuleType) -> dict[str, tuple[Parameters, Parameters]]:
    """Functions whose parameters differ from numpy's: (theirs, numpy's)."""
    names = [*FUNCTIONS, *(n for n in CAPABILITIES if hasattr(numpy_backend, n) and hasattr(module, n))]
    pairs = {name: (parameters(getattr(module, name)), parameters(getattr(numpy_backend, name))) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def test_every_backend_has_numpys_parameters(backend_name: str, backend: ModuleType) -> None:
    check_backend(backend_name, backend)
    assert differences(backend) == {}


def test_capabilities_that_numpy_lacks(backend: ModuleType) -> None:
    for name, expected in OTHERS.items():
        if hasattr(backend, name):
            found = parameters(getattr(backend, name))
            assert [p[0] for p in found[: len(expected)]] == expected
            # A backend may add options of its own, if nobody has to give them.
            assert all(default is not inspect.Parameter.empty for _, _, default in found[len(expected) :])


def test_kernel_records(backend: ModuleType) -> None:
    assert backend.API_VERSION == API_VERSION
    assert isinstance(backend.KERNELS, tuple)
    assert all(isinstance(record, Kernel) for record in backend.KERNELS)
    assert {record.op for record in backend.KERNELS} >= {"linear_scan", "conv1d"}
    assert {record.op for record in backend.KERNELS} <= set(KERNEL_OPS)
    assert len({(record.op, record.name) for record in backend.KERNELS}) == len(backend.KERNELS)


def test_the_protocol_itself() -> None:
    scan = parameters(numpy_backend.linear_scan)
    assert [(name, default) for name, _, default in scan] == [
        ("x", inspect.Parameter.empty),
        ("log_a", inspect.Parameter.empty),
        *((name, None) for name in ("h0", "reset", "starts", "kernel")),
    ]
    hidden = "config params tokens positions state padding kernel compute_dtype capture"
    assert [p[0] for p in parameters(numpy_backend.hidden)] == hidden.split()
    assert parameters(numpy_backend.forward) == parameters(numpy_backend.hidden)
    assert not any(hasattr(numpy_backend, name) for name in OTHERS)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x, log_a, h0=None, reset=None, starts=None: 0,
        lambda x, log_a, h0=None, reset=None, kernel=None, starts=None: 0,
        lambda x, log_a, h0=0, reset=None, starts=None, kernel=None: 0,
        lambda x, a, h0=None, reset=None, starts=None, kernel=None: 0,
        lambda x, log_a, h0=None, reset=None, starts=None, *, kernel=None: 0,
    ],
)
def test_the_comparison_sees_each_kind_of_difference(wrong: object) -> None:
    module = ModuleType("griffin_core_wrong")
    for name in (*FUNCTIONS, "decode"):
        setattr(module, name, getattr(numpy_backend, name))
    assert differences(module) == {}
    module.linear_scan = wrong  # type: ignore[attr-defined]
    assert list(differences(module)) == ["linear_scan"]
