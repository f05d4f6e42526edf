"""The torch backend's timers and peers."""

from __future__ import annotations

import importlib.util

import pytest

torch = pytest.importorskip("torch")

from griffin_core.benchmarks import BENCH_110M  # noqa: E402
from griffin_core.presets import preset  # noqa: E402
from griffin_core_torch import benchmark_peers, benchmarks  # noqa: E402

TINY = preset("recurrentgemma-tiny").config.replace(num_layers=3, attention_window=9)


@pytest.mark.parametrize(("tiles", "dots", "has"), [(True, False, True), (False, True, True), (False, False, False)])
def test_matrix_units_are_what_the_processor_reports(
    monkeypatch: pytest.MonkeyPatch, tiles: bool, dots: bool, has: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: dots)
    reason = benchmarks.matrix_units("bfloat16")
    assert (reason is None) is has
    assert benchmarks.matrix_units("float32") is None
    assert "float16" in benchmarks.matrix_units("float16")


def test_threads_are_set_inside_and_restored() -> None:
    before = torch.get_num_threads()
    with benchmarks.threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_without_peers_there_are_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert benchmarks.peers("prefill", BENCH_110M, 1, 8, 0) == []


def test_peers_run_only_what_they_can_express() -> None:
    assert benchmark_peers._expressible(BENCH_110M)
    assert not benchmark_peers._expressible(BENCH_110M.replace(logits_soft_cap=None))
    assert not benchmark_peers._expressible(BENCH_110M.replace(gate_blocks=12))
    assert benchmarks.peers("prefill", preset("hawk-tiny").config, 1, 8, 0) == []
    assert benchmarks.peers("scan", BENCH_110M, 1, 8, 0) == []


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", ["prefill", "decode", "train"])
def test_installed_peers_run_every_path(path: str) -> None:
    found = dict(benchmarks.peers(path, TINY, 2, 5, 12))
    installed = {"transformers": "transformers", "recurrentgemma": "official torch"}
    assert set(found) == {name for module, name in installed.items() if importlib.util.find_spec(module)}
    if not found:
        pytest.skip("no public implementation is installed")
    for call in found.values():
        first = call()
        if path == "train":
            assert call() < first  # the second step on the same batch has a lower loss
