"""Rows of public kernels beside ours: what is compared, left out and told, on peers made up for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from griffin_core import registry  # noqa: E402
from griffin_core.benchmarks import entries, service  # noqa: E402
from griffin_core.benchmarks.cases import Sizes, Target  # noqa: E402
from griffin_core_torch import benchmark_scan_beside, benchmark_scans  # noqa: E402
from griffin_core_torch.benchmark_scan_beside import COMPARED, peer_passes  # noqa: E402
from griffin_core_torch.benchmark_scan_peers import Peer  # noqa: E402
from griffin_core_torch.scan.compose import gated_scan, linear_scan  # noqa: E402

SHAPE = (3, 8, 16)


def plain(x: Tensor, log_a: Tensor) -> Tensor:
    return linear_scan(x, log_a, kernel="eager")[0]


def turned(x: Tensor, log_a: Tensor) -> tuple[Tensor, Tensor]:
    return x.mT.contiguous(), log_a.mT.contiguous()


def back(y: Tensor) -> Tensor:
    return y.mT.contiguous()


PLAIN = Peer(name="plain", op="linear_scan", module="torch", package="torch", load=lambda: plain, differs="nothing")
TURNED = dataclasses.replace(
    PLAIN, name="turned", load=lambda: lambda x, log_a: back(plain(x.mT, log_a.mT)), enter=turned, leave=back
)
GATED = dataclasses.replace(
    PLAIN, name="gated", op="gated_scan", load=lambda: lambda *arrays: gated_scan(*arrays, kernel="eager")[0]
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_scans, "BEYOND_CACHE", 1000)
    monkeypatch.setattr(benchmark_scans, "LAUNCHES", 2)


def beside(monkeypatch: pytest.MonkeyPatch, *peers: Peer) -> None:
    monkeypatch.setattr(benchmark_scan_beside, "PEERS", peers)


def test_a_peer_with_another_layout_has_rows_with_and_without_its_making(monkeypatch: pytest.MonkeyPatch) -> None:
    beside(monkeypatch, PLAIN, TURNED)
    found, lines = peer_passes({"linear_scan"}, SHAPE, "bfloat16")
    both = ("forward", "backward")
    assert [one.name for one in found] == [
        *(f"linear_scan {direction}, plain" for direction in both),
        *(f"linear_scan {direction}, turned" for direction in both),
        *(f"linear_scan {direction}, turned, its own layout" for direction in both),
    ]
    size = 2 * 3 * 8 * 16
    assert [one.moved for one in found] == [3 * size, 5 * size] * 3
    assert lines == ["plain, beside linear_scan: nothing", "turned, beside linear_scan: nothing"]
    for one in found:
        one.call()


def test_a_layout_is_made_once_for_peers_that_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []

    def scan(x: Tensor, log_a: Tensor) -> Tensor:
        if x.shape[0] == SHAPE[0]:
            seen.append((x.data_ptr(), *x.shape))
        return back(plain(x.mT, log_a.mT))

    first, second = (dataclasses.replace(TURNED, name=name, load=lambda: scan) for name in ("first", "second"))
    beside(monkeypatch, first, second)
    found, _ = peer_passes({"linear_scan"}, SHAPE, "float32")
    seen.clear()
    for one in found:
        if "forward" in one.name and "own layout" in one.name:
            one.call()
    assert len(seen) == 4
    assert len(set(seen)) == 1
    assert seen[0][1:] == (3, 16, 8)


def test_long_sequences_are_cut_and_a_missing_backward_pass_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    beside(monkeypatch, dataclasses.replace(PLAIN, longest=5, forward_only="it has none"))
    (one,), (line,) = peer_passes({"linear_scan"}, SHAPE, "float32")
    assert one.name == "linear_scan forward, plain, 5 tokens"
    assert one.moved == 3 * 4 * 3 * 5 * 16
    assert line == "plain, beside linear_scan: nothing; forward only: it has none"


def test_errors_are_shown_and_refuse_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = dataclasses.replace(PLAIN, load=lambda: lambda x, log_a: 1.5 * plain(x, log_a))
    beside(monkeypatch, wrong)
    (forward, backward), _ = peer_passes({"linear_scan"}, SHAPE, "float32")
    assert forward.remark == "largest error 5.0e-01 of the largest value"
    assert backward.remark == "largest error 5.0e-01 of the largest gradient"


@pytest.mark.parametrize(("starts", "low", "high"), [(True, 0.0, 1e-5), (False, 0.1, 9.0)])
def test_what_token_0_is_depends_on_the_peer(
    monkeypatch: pytest.MonkeyPatch, starts: bool, low: float, high: float
) -> None:
    beside(monkeypatch, dataclasses.replace(GATED, starts=starts))
    (forward, _), _ = peer_passes({"gated_scan"}, SHAPE, "float32")
    assert low <= float(forward.remark.split()[2]) <= high


def test_absent_refusing_and_failing_peers_are_lines_and_not_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_when_large(x: Tensor, log_a: Tensor) -> Tensor:
        if x.shape != COMPARED:
            raise RuntimeError("no memory\nmore")
        return plain(x, log_a)

    def changed(**options: object) -> Peer:
        return dataclasses.replace(PLAIN, **options)

    def no_binary() -> None:
        raise OSError("no compiler")

    beside(
        monkeypatch,
        changed(module="nowhere_to_be_found", package="that"),
        changed(refuses=lambda shape, dtype: f"tokens={shape[1]} are few for {dtype}"),
        changed(load=no_binary),
        changed(load=lambda: fails_when_large),
        changed(load=lambda: lambda x, log_a: plain(x, log_a)[:, :1], forward_only="it has none"),
    )
    found, lines = peer_passes({"linear_scan"}, SHAPE, "bfloat16")
    assert found == []
    assert [line.removeprefix("plain, beside linear_scan, is left out: ") for line in lines] == [
        "that is not installed",
        "tokens=8 are few for bfloat16",
        "OSError: no compiler",
        "RuntimeError: no memory",
        "ValueError: its result is (2, 1, 64) where ours is (2, 256, 64)",
    ]
    assert peer_passes({"conv1d"}, SHAPE, "bfloat16") == ([], [])


def test_they_stand_in_the_report_beside_a_copy_and_without_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    beside(monkeypatch, GATED)
    monkeypatch.setattr(registry.load_backend("torch"), "platform", lambda: "cuda")
    monkeypatch.setattr(service, "require_conformance", lambda setup, path: None)
    monkeypatch.setattr(entries, "device_target", lambda *case: Target(limit=0.9, at_most=False))

    def measured(peers: bool) -> tuple[dict[str, service.Row], Sequence[str]]:
        sizes = Sizes(batch=3, tokens=8, width=16, runs=1)
        report = service.measure("scan", backend="torch", kernel="eager", dtype="bfloat16", sizes=sizes, peers=peers)
        return {row.name: row for row in report.rows}, report.notes

    rows, notes = measured(peers=True)
    row = rows["gated_scan backward, gated"]
    assert row.ratio is not None
    assert row.target is None
    assert rows["gated_scan backward, eager"].target is not None
    assert "largest error" in row.note
    assert notes == ("gated, beside gated_scan: nothing",)
    rows, notes = measured(peers=False)
    assert "gated_scan backward, gated" not in rows
    assert notes == ()
