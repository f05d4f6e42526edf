"""Whole measurements at tiny sizes: rows, ratios, refusals, JSON."""

from __future__ import annotations

import json
import os
from types import ModuleType

import numpy as np
import pytest

from griffin_core import registry
from griffin_core.benchmarks import BENCH_110M, DEFAULTS, TARGETS, Sizes, Target, measure, resolve_config
from griffin_core.benchmarks import service as service_module
from griffin_core.benchmarks.entries import BARE, COPY
from griffin_core.benchmarks.gate import timed_kernels
from griffin_core.benchmarks.pairing import Ratio
from griffin_core.benchmarks.report import Row
from griffin_core.benchmarks.work import Setup
from griffin_core.cli.console import to_json
from griffin_core.errors import BackendError, ConfigError, ConformanceError, InputError
from griffin_core.presets import preset
from griffin_core.protocol import Kernel

TINY = preset("griffin-tiny").config.replace(attention_window=8, num_layers=3)
SMALL = {
    "prefill": Sizes(batch=2, tokens=12, runs=2),
    "decode": Sizes(batch=1, tokens=3, context=10, runs=2),
    "train": Sizes(batch=2, tokens=6, runs=1),
    "scan": Sizes(batch=1, tokens=20, width=16, runs=2),
}


@pytest.fixture
def unjudged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the conformance run, which other tests make."""
    monkeypatch.setattr(service_module, "require_conformance", lambda setup, path: None)


def _threads(backend: str) -> int:
    """XLA uses every processor of the process; the others take the number that they are given."""
    return len(os.sched_getaffinity(0)) if backend == "jax" else 1


def run(path: str, backend: str, **options):
    return measure(
        path,
        config=TINY,
        label="tiny",
        backend=backend,
        sizes=SMALL[path],
        threads=_threads(backend),
        peers=False,
        **options,
    )


@pytest.mark.usefixtures("unjudged")
@pytest.mark.parametrize("path", ["scan", "prefill", "decode", "train"])
def test_every_path_gives_ratios_to_its_floor(path: str, backend: ModuleType, backend_name: str) -> None:
    if path == "train" and not hasattr(backend, "Trainer"):
        with pytest.raises(BackendError, match="has no Trainer"):
            run(path, backend_name)
        return
    report = run(path, backend_name)
    floor = COPY if path == "scan" else BARE
    by_name = {row.name: row for row in report.rows}
    assert by_name[floor].ratio is None
    assert all(row.ratio is not None for name, row in by_name.items() if BARE not in name and name != COPY)
    assert all(row.ratio.low <= row.ratio.median <= row.ratio.high for row in report.rows if row.ratio is not None)
    assert all(row.target is None for row in report.rows)  # targets are stated for one model and size
    assert report.case["tokens"] == SMALL[path].tokens
    plain = json.loads(to_json(report.to_dict()))
    assert plain["machine"]["device"]
    assert len(plain["rounds"][floor]) == SMALL[path].runs
    row = next(r for r in plain["rows"] if r["ratio"] is not None)
    times = [plain["rounds"][n] for n in (row["name"], floor if row["name"] != "all logits" else f"{BARE}, all logits")]
    top, bottom = times[::-1] if path in ("scan", "decode") else times
    assert row["ratio"]["median"] == pytest.approx(np.median([a / b for a, b in zip(top, bottom, strict=True)]))


@pytest.mark.usefixtures("unjudged")
def test_a_scan_on_another_backend_has_numpy_beside_it() -> None:
    pytest.importorskip("torch")
    names = [row.name for row in run("scan", "torch").rows]
    assert names[-1] == COPY
    assert any(name.startswith("torch ") for name in names)
    assert any(name.startswith("numpy ") for name in names)


@pytest.mark.usefixtures("unjudged")
def test_targets_are_judged_on_the_torch_backend_at_the_sizes_they_name(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from griffin_core.benchmarks import entries

    plans = []

    def planned(plan) -> list:
        plans.append(plan)
        return []

    monkeypatch.setitem(entries.ENTRIES, "prefill", planned)
    for changes in ({}, {"threads": 1}, {"dtype": "bfloat16"}, {"config": TINY}, {"sizes": SMALL["prefill"]}):
        measure("prefill", **{"backend": "torch", "config": BENCH_110M, **changes})
    measure("prefill", backend="numpy")
    assert [plan.judged for plan in plans] == [True, False, False, False, False, False]
    assert plans[0].target("prefill") == Target(limit=1.4, at_most=True)


@pytest.mark.parametrize(
    ("path", "good", "bad"), [("prefill", 1.4, 1.41), ("train", 1.6, 1.7), ("decode", 0.85, 0.84), ("scan", 0.4, 0.39)]
)
def test_targets_are_those_of_the_design(path: str, good: float, bad: float) -> None:
    assert TARGETS[path].met(good)
    assert not TARGETS[path].met(bad)
    row = Row(name="x", seconds=1.0, ratio=Ratio(bad, bad, bad), target=TARGETS[path])
    assert row.met is False
    assert Row(name="x", seconds=1.0, ratio=Ratio(bad, bad, bad)).met is None


def test_a_wrong_kernel_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = next(k for k in registry.kernels("numpy") if k.op == "linear_scan")

    def late(x, log_a, h0=None, reset=None):
        y, h = right.forward(x, log_a, h0, reset)
        y[:, 16:] *= 1.001
        return y, h

    wrong = Kernel("linear_scan", "late", late)
    monkeypatch.setitem(registry._kernels, "numpy", (wrong, *registry.kernels("numpy")))
    timed = []
    monkeypatch.setattr(service_module, "interleave", lambda *a, **k: timed.append(a))
    with pytest.raises(
        ConformanceError, match=r"kernel 'late' of linear_scan on numpy is not timed: it fails reference"
    ):
        run("scan", "numpy", kernel="late")
    with pytest.raises(ConformanceError, match="'late'"):
        run("scan", "numpy")
    assert timed == []


def test_the_gate_looks_at_the_kernels_that_run() -> None:
    setup = Setup("numpy", registry.load_backend("numpy"), TINY, DEFAULTS["prefill"], "float32")
    first: dict[str, str] = {}
    for kernel in registry.kernels("numpy"):
        first.setdefault(kernel.op, kernel.name)
    assert {k.op: k.name for k in timed_kernels(setup, "prefill")} == first
    scans = [k.name for k in registry.kernels("numpy") if k.op == "linear_scan"]
    assert [k.name for k in timed_kernels(setup, "scan")] == scans


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "prefil"}, "did you mean 'prefill'"),
        ({"dtype": "float8"}, "unknown dtype 'float8'"),
        ({"threads": 0}, "threads=0"),
        ({"sizes": Sizes(batch=0, tokens=4)}, "batch=0"),
        ({"sizes": Sizes(batch=1, tokens=4, runs=0)}, "runs=0"),
    ],
)
def test_illegal_measurements_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        measure(**{"path": "prefill", "backend": "numpy", **options})


def test_a_backend_without_timers_says_so() -> None:
    with pytest.raises(BackendError, match=r"toy backend has no griffin_core\.layouts\.benchmarks"):
        service_module.load_timers("toy", ModuleType("griffin_core.layouts"))


def test_configs_are_named_or_read(tmp_path) -> None:
    assert resolve_config(None, None) == ("110m", BENCH_110M)
    assert resolve_config("griffin-100m", None)[1] == preset("griffin-100m").config
    file = tmp_path / "mine.json"
    file.write_text(TINY.to_json())
    assert resolve_config(None, str(file)) == ("mine.json", TINY)
    with pytest.raises(InputError, match="both given"):
        resolve_config("110m", str(file))
    with pytest.raises(InputError, match="not a file"):
        resolve_config(None, str(tmp_path / "no.json"))
    with pytest.raises(ConfigError, match="did you mean 'griffin-100m'"):
        resolve_config("griffin-100", None)
