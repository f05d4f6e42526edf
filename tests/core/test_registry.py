"""Choosing backends and kernels: explicit is strict, automatic takes the first that can."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import logging
import sys
import types
from collections.abc import Callable, Iterator

import pytest

from griffin_core import numpy_backend, registry
from griffin_core.errors import BackendError, KernelNotSupported
from griffin_core.protocol import FUNCTIONS, Kernel, KernelCall, capability, check_backend
from griffin_core.testing import conformance

CALL = KernelCall(shapes={"x": (1, 2, 3)}, dtypes={"x": "float32"})
AddEntries = Callable[..., None]


@pytest.fixture
def kernels_of_numpy() -> Iterator[None]:
    """Kernels registered by a test are gone after it."""
    before = registry.kernels("numpy")
    yield
    registry._kernels["numpy"] = before


@pytest.fixture
def add_entries(monkeypatch: pytest.MonkeyPatch) -> AddEntries:
    """Pretend that other distributions registered entry points."""
    real = importlib.metadata.entry_points
    added: list[importlib.metadata.EntryPoint] = []

    def entry_points(group: str) -> list[importlib.metadata.EntryPoint]:
        return [*real(group=group), *(entry for entry in added if entry.group == group)]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    monkeypatch.setattr(registry, "_loaded", {})
    monkeypatch.setattr(registry, "_kernels", {})

    def add(name: str, value: str, group: str = registry.BACKEND_GROUP) -> None:
        added.append(importlib.metadata.EntryPoint(name, value, group))

    return add


def _module(monkeypatch: pytest.MonkeyPatch, name: str, **content: object) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    for key, value in content.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def _toy(monkeypatch: pytest.MonkeyPatch, **changes: object) -> types.ModuleType:
    content = {f: getattr(numpy_backend, f) for f in (*FUNCTIONS, "KERNELS", "API_VERSION")}
    return _module(monkeypatch, "griffin_core_toy", **{**content, **changes})


def test_numpy_is_always_there_and_last() -> None:
    assert registry.backend_names()[-1] == "numpy"
    assert registry.load_backend("numpy") is numpy_backend
    assert registry.installed("numpy") is None


def test_unknown_backends_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match=r"unknown backend 'nunpy'; did you mean 'numpy'\?"):
        registry.choose_backend("nunpy")
    monkeypatch.setenv("GRIFFIN_BACKEND", "nunpy")
    with pytest.raises(BackendError, match="unknown backend 'nunpy'"):
        registry.load_backend()
    assert "unknown backend" in str(registry.installed("zzz"))


def test_argument_beats_with_block_beats_environment(monkeypatch: pytest.MonkeyPatch, add_entries: AddEntries) -> None:
    _toy(monkeypatch)
    add_entries("toy", "griffin_core_toy")
    monkeypatch.setenv("GRIFFIN_BACKEND", "numpy")
    assert registry.choose_backend() == "numpy"
    with registry.use_backend("toy") as module:
        assert module.__name__ == "griffin_core_toy"
        assert registry.choose_backend() == "toy"
        assert registry.choose_backend("numpy") == "numpy"
    assert registry.choose_backend() == "numpy"


def test_unset_takes_the_first_that_is_installed_and_says_so(
    monkeypatch: pytest.MonkeyPatch, add_entries: AddEntries, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("GRIFFIN_BACKEND", raising=False)
    monkeypatch.setattr(registry, "PREFERENCE", ("absent", "toy"))
    _toy(monkeypatch)
    add_entries("absent", "griffin_core_absent")
    add_entries("toy", "griffin_core_toy")
    with caplog.at_level(logging.INFO, "griffin_core"):
        assert registry.choose_backend() == "toy"
    assert "backend toy (first installed of absent, toy, " in caplog.text


def test_a_named_backend_that_cannot_be_imported_is_an_error(add_entries: AddEntries) -> None:
    add_entries("absent", "griffin_core_absent")
    with pytest.raises(
        BackendError, match=r"'absent' cannot be imported \(No module named .*pip install 'griffin-core\["
    ):
        registry.load_backend("absent")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"API_VERSION": 2}, "API_VERSION 2; this griffin-core speaks 1"),
        ({"API_VERSION": None}, "API_VERSION None"),
    ],
)
def test_backends_of_another_api_are_refused(
    monkeypatch: pytest.MonkeyPatch, add_entries: AddEntries, changes: dict, message: str
) -> None:
    _toy(monkeypatch, **changes)
    add_entries("toy", "griffin_core_toy")
    with pytest.raises(BackendError, match=message):
        registry.load_backend("toy")


def test_missing_functions_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = _toy(monkeypatch)
    del module.forward, module.KERNELS
    with pytest.raises(BackendError, match=r"backend 'toy' lacks forward, KERNELS; see docs/add-a-backend\.md"):
        check_backend("toy", module)


def test_two_backends_of_one_name_are_refused(add_entries: AddEntries) -> None:
    add_entries("numpy", "somewhere_else")
    with pytest.raises(BackendError, match=r"'numpy' is registered twice, by .*; remove one"):
        registry.backend_names()


def test_capabilities_are_refused_by_name() -> None:
    assert capability("numpy", numpy_backend, "decode") is numpy_backend.decode
    for missing in ("Trainer", "vjp"):
        with pytest.raises(BackendError, match=f"the numpy backend has no {missing}; choose another"):
            capability("numpy", numpy_backend, missing)


def test_auto_takes_the_first_that_supports_the_call(kernels_of_numpy: None) -> None:
    chosen = registry.select_kernel("numpy", "linear_scan", CALL)
    assert chosen is not None
    assert chosen.name == "reference"
    assert registry.requested_kernel("loop") == "loop"


def test_an_approximate_kernel_runs_by_name_only(monkeypatch: pytest.MonkeyPatch) -> None:
    rough = Kernel("linear_scan", "rough", lambda *inputs: inputs, supports=lambda call: None, approximate=True)
    records = (rough, *registry.kernels("numpy"))
    monkeypatch.setattr(registry, "kernels", lambda backend: records)
    chosen = registry.select_kernel("numpy", "linear_scan", CALL)
    assert chosen is not None
    assert chosen.name == "reference"
    assert registry.select_kernel("numpy", "linear_scan", CALL, "rough") is rough
    assert registry.packed_kernel("numpy", "linear_scan", CALL) is not rough
    assert registry.packed_kernel("numpy", "linear_scan", CALL, "rough") is rough
    subjects = conformance.subjects_of(None, "numpy", numpy_backend, "linear_scan")
    assert all("rough" not in subject.label for subject in subjects)
    assert len(list(conformance.subjects_of("rough", "numpy", numpy_backend, None))) == 1


def test_named_kernels_run_or_raise(kernels_of_numpy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = KernelCall(shapes={"x": (1, 2, 3)}, dtypes={"x": "float64"})
    chosen = registry.select_kernel("numpy", "linear_scan", CALL, "loop")
    assert chosen is not None
    assert chosen.name == "loop"
    with pytest.raises(
        KernelNotSupported, match="kernel 'loop' cannot run linear_scan on numpy: it computes in float32"
    ):
        registry.select_kernel("numpy", "linear_scan", wide, "loop")
    with pytest.raises(KernelNotSupported, match=r"numpy has no kernel 'lop' for linear_scan; did you mean 'loop'\?"):
        registry.select_kernel("numpy", "linear_scan", CALL, "lop")
    monkeypatch.setenv("GRIFFIN_KERNEL", "lop")
    with pytest.raises(KernelNotSupported, match="numpy has no kernel 'lop'"):
        registry.select_kernel("numpy", "gated_scan", CALL)


def test_a_name_is_honoured_by_the_inner_operation(kernels_of_numpy: None) -> None:
    assert registry.select_kernel("numpy", "recurrent_middle", CALL, "loop") is None
    assert registry.part_kernel("numpy", "conv1d", "loop") == "auto"
    assert registry.part_kernel("numpy", "conv1d", "reference") == "reference"


def test_no_kernel_at_all_says_why(monkeypatch: pytest.MonkeyPatch, add_entries: AddEntries) -> None:
    never = Kernel("linear_scan", "never", len, supports=lambda call: "it is Tuesday")
    _toy(monkeypatch, KERNELS=(never,))
    add_entries("toy", "griffin_core_toy")
    with pytest.raises(KernelNotSupported, match="no toy kernel can run linear_scan: never: it is Tuesday"):
        registry.select_kernel("toy", "linear_scan", CALL)
    with pytest.raises(KernelNotSupported, match="no toy kernel can run conv1d: none is registered"):
        registry.select_kernel("toy", "conv1d", CALL)
    assert registry.select_kernel("toy", "gated_scan", CALL) is None


def test_kernels_of_other_distributions(monkeypatch: pytest.MonkeyPatch, add_entries: AddEntries) -> None:
    record = Kernel("linear_scan", "theirs", len)
    _module(monkeypatch, "their_kernels", record=record, wrong="not a kernel")
    add_entries("theirs", "their_kernels:record", registry.KERNEL_GROUP + "numpy")
    assert registry.kernels("numpy")[-1] is record
    registry._kernels.clear()
    add_entries("wrong", "their_kernels:wrong", registry.KERNEL_GROUP + "numpy")
    with pytest.raises(BackendError, match=r"entry point 'wrong' \(their_kernels:wrong\) is a str, not a Kernel"):
        registry.kernels("numpy")


def test_a_backend_may_run_the_kernels_of_another(monkeypatch: pytest.MonkeyPatch, add_entries: AddEntries) -> None:
    content = {name: getattr(numpy_backend, name) for name in (*FUNCTIONS, "API_VERSION", "KERNELS")}
    _module(monkeypatch, "griffin_core_lent", **content, KERNELS_OF="numpy")
    add_entries("lent", "griffin_core_lent")
    assert (registry.kernels_of("lent"), registry.kernels_of("numpy")) == ("numpy", "numpy")
    assert registry.kernels("lent") is registry.kernels("numpy")
    extra = Kernel(op="linear_scan", name="extra", forward=numpy_backend.linear_scan)
    registry.register_kernel("lent", extra)
    assert extra in registry.kernels("numpy")


def test_doubles_and_bad_records_are_refused(kernels_of_numpy: None) -> None:
    registry.register_kernel("numpy", Kernel("linear_scan", "mine", len))
    with pytest.raises(BackendError, match="two numpy kernels of linear_scan are named 'mine'; rename one"):
        registry.register_kernel("numpy", Kernel("linear_scan", "mine", len))
    with pytest.raises(BackendError, match="names the operation 'scan'; known: linear_scan"):
        Kernel("scan", "mine", len)
    for name in ("", "auto"):
        with pytest.raises(BackendError, match="choose a name other than 'auto'"):
            Kernel("linear_scan", name, len)
