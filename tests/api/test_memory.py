"""Estimates are the tables' own sums, and what does not fit is refused with both figures before it is made."""

from __future__ import annotations

from pathlib import Path

import pytest

import griffin_core as griffin
from griffin_core import memory
from griffin_core.layouts.initialise import init_params
from griffin_core.presets import PRESETS

TINY = PRESETS["griffin-tiny"].config


def test_weights_are_counted_exactly() -> None:
    params = init_params(TINY, 0)
    assert memory.weight_bytes(TINY) == sum(value.nbytes for value in params.values())
    kept = sum(value.nbytes for name, value in params.items() if name.endswith("recurrent_param"))
    assert memory.weight_bytes(TINY, "bfloat16") == (memory.weight_bytes(TINY) - kept) // 2 + kept
    assert memory.weight_bytes(TINY, "float64") == 2 * memory.weight_bytes(TINY)
    assert memory.weight_bytes(PRESETS["recurrentgemma-2b"].config) == 4 * 2_682_862_080


def test_the_state_of_a_running_model_is_the_estimate() -> None:
    model = griffin.init("griffin-tiny", backend="numpy")
    state = model.dump_state(model.init_state(3))
    assert memory.inference(TINY, batch=3).state == sum(value.nbytes for value in state.values())
    assert memory.inference(PRESETS["mqa-tiny"].config, capacity=100).state == 4 + 6 * 2 * 100 * 32 * 4


def test_training_counts_moments_and_saves_by_recomputing() -> None:
    plain = memory.training(TINY, batch=2, length=64)
    full = memory.weight_bytes(TINY)
    assert (plain.weights, plain.gradients, plain.moments) == (full, full, 2 * full)
    assert plain.total == 4 * full + plain.activations
    assert memory.training(TINY, 4, 64).activations == 2 * plain.activations
    assert memory.training(TINY, 2, 64, checkpoint_activations=True).activations < plain.activations / 2
    narrow = memory.training(TINY, 2, 64, "bfloat16")
    assert narrow.weights == full + memory.weight_bytes(TINY, "bfloat16")
    assert narrow.activations == plain.activations // 2


def test_refusals_give_both_figures() -> None:
    memory.require(100, "this", room=100)
    with pytest.raises(griffin.NotEnoughMemory, match=r"this needs 2\.5 GB, but 1\.25 MB are free"):
        memory.require(2_500_000_000, "this", room=1_250_000)


def test_nothing_large_is_made_when_it_does_not_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = griffin.init("griffin-tiny", backend="numpy")
    model.save(tmp_path / "m")
    monkeypatch.setattr(memory, "available", lambda: 1_000_000)
    monkeypatch.setattr("griffin_core.api.init_params", None)
    with pytest.raises(griffin.NotEnoughMemory, match=r"drawing the weights needs 55\.7 GB, but 1 MB are free"):
        griffin.init("griffin-14b", backend="numpy")
    with pytest.raises(griffin.NotEnoughMemory, match=r"loading the weights needs 5\.\d+ MB"):
        griffin.load(tmp_path / "m", backend="numpy")
    with pytest.raises(griffin.NotEnoughMemory, match="a state of 1000 rows needs"):
        model.init_state(1000)
    with pytest.raises(griffin.NotEnoughMemory, match="the logits of 1000 tokens needs"):
        model.forward([1] * 1000)


def test_available_reads_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable: 4000 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", meminfo)
    monkeypatch.setattr(memory, "_CGROUP", tmp_path / "none")
    assert memory.available() == 4_096_000
    group = tmp_path / "group"
    group.mkdir()
    monkeypatch.setattr(memory, "_CGROUP", group)
    for limit, expected in (("max", 4_096_000), ("3000000", 2_500_000), ("1000000", 500_000)):
        for name, text in (("max", limit), ("current", "900000"), ("stat", "anon 1\ninactive_file 400000")):
            (group / f"memory.{name}").write_text(text + "\n")
        assert memory.available() == expected
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "none")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path / "none")
    assert memory.available() is None
    memory.require(10**18, "anything")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (999_600, "1 MB"),
        (1_240_000_000, "1.24 GB"),
        (10**15, "1e+03 TB"),
    ],
)
def test_sizes_read_well(size: int, text: str) -> None:
    assert memory.human(size) == text
