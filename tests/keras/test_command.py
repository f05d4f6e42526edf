"""Every command of ``griffin`` works on this backend, on the engine of the process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import griffin_core_keras as backend
from griffin_core import registry
from griffin_core.api import packaged_checkpoint
from griffin_core.cli import main
from griffin_core.errors import KernelNotSupported


@pytest.fixture
def griffin(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``griffin("info", ...)`` on this backend: the JSON that it prints."""
    monkeypatch.setenv("GRIFFIN_BACKEND", "keras")

    def run(*words: object) -> Any:
        code = main([*map(str, words), "--json"])
        out = capsys.readouterr()
        assert code == 0, out.err
        return json.loads(out.out)

    return run


def test_info_names_the_engine_and_its_kernels(griffin: Callable[..., Any]) -> None:
    found = {row["name"]: row for row in griffin("info")["backends"]}
    row = found["keras"]
    assert (row["chosen"], row["engine"], row["capabilities"]["Trainer"]) == (True, backend.ENGINE, True)
    runs = {kernel["op"]: kernel["runs"] for kernel in row["kernels"]}
    owner = registry.kernels_of("keras")
    assert owner == {"jax": "jax", "torch": "torch", "tensorflow": "keras"}[backend.ENGINE]
    assert runs["gated_scan"] in {kernel.name for kernel in backend.KERNELS}
    if owner in found:
        assert row["kernels"] == found[owner]["kernels"]


def test_train_and_generate(griffin: Callable[..., Any], tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("a line of notes\n" * 200)
    out = tmp_path / "run"
    words = ("--preset", "griffin-tiny", "--text", text, "--batch", 2, "--length", 32)
    summary = griffin("train", *words, "--steps", 3, "--out", out)
    assert summary["step"] == 3
    made = griffin("generate", "--checkpoint", out / "checkpoint", "--prompt", "a ", "--max-new-tokens", 5, "--greedy")
    assert len(made["tokens"][0]) == 5


def test_convert_there_and_back(griffin: Callable[..., Any], tmp_path: Path) -> None:
    griffin("convert", packaged_checkpoint(), tmp_path / "keras", "--to", "keras")
    griffin("convert", tmp_path / "keras", tmp_path / "back", "--to", "native")
    for path in packaged_checkpoint().glob("*.safetensors"):
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()
    prompt = ("--prompt", "The for", "--max-new-tokens", 6, "--greedy")
    texts = [
        griffin("generate", "--checkpoint", path, *prompt)["texts"]
        for path in (packaged_checkpoint(), tmp_path / "keras")
    ]
    assert texts[0] == texts[1]


def test_verify_and_bench(griffin: Callable[..., Any]) -> None:
    assert griffin("verify", "--backend", "keras", "--op", "conv1d", "--profile", "quick")["passed"]
    sizes = ("--batch", 1, "--tokens", 32, "--width", 64, "--runs", 2, "--peers", "none")
    found = griffin("bench", "scan", "--backend", "keras", *sizes, "--threads", len(os.sched_getaffinity(0)))
    assert any("keras" in row["name"] for row in found["rows"])


def test_a_kernel_that_cannot_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {"jax": "pallas", "torch": "triton", "tensorflow": "triton"}[backend.ENGINE]
    monkeypatch.setenv("GRIFFIN_KERNEL", named)
    x = backend.from_numpy(np.zeros((1, 4, 8), np.float32))
    reason = "has no kernel 'triton'" if backend.ENGINE == "tensorflow" else f"kernel '{named}' cannot run"
    with pytest.raises(KernelNotSupported, match=reason):
        backend.linear_scan(x, x)
