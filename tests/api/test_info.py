"""``griffin info`` and ``griffin convert`` as a user calls them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import griffin_core as griffin
from griffin_core import cli, env, facts, registry
from griffin_core.checkpoints import native
from griffin_core.layouts.params import parameter_count
from griffin_core.presets import PRESETS
from griffin_core.protocol import KERNEL_OPS, Kernel

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: object) -> tuple[int, str, str]:
        code = cli.main([str(word) for word in words])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    griffin.init("griffin-tiny", seed=1, backend="numpy").save(tmp_path / "model", max_shard_size="2MB")
    return tmp_path / "model"


def test_every_preset_is_counted_without_its_weights(run: Run) -> None:
    code, out, _ = run("info", "--preset", "recurrentgemma-2b", "--json")
    found = json.loads(out)
    assert (code, found["parameters"]) == (0, 2_682_862_080)
    assert found["config"] == PRESETS["recurrentgemma-2b"].config.to_dict()
    assert found["inference_bytes"]["bfloat16"]["weights"] == 2 * 2_682_862_080 + 2 * 18 * 2560
    assert found["training_bytes"]["float32"]["moments"] == 8 * 2_682_862_080
    for name in PRESETS:
        facts_of = facts.preset_facts(name)
        assert facts_of["parameters"] == parameter_count(PRESETS[name].config)


def test_a_preset_in_words(run: Run) -> None:
    code, out, err = run("info", "--preset", "mqa-1b")
    assert (code, err) == (0, "")
    for words in (
        "1,185,908,736 parameters",
        "Global layers hold 2048 tokens",
        "train in bfloat16, recomputing",
        "25.2 MB",
    ):
        assert words in " ".join(out.split())


def test_help_and_presets_load_no_framework() -> None:
    heavy = ("torch", "jax", "keras", "tokenizers", "transformers", "matplotlib", "griffin_core.reference")
    code = (
        "import sys; from griffin_core import cli\n"
        "assert cli.main(['info', '--preset', 'griffin-14b', '--json']) == cli.main(['info', '--help']) == 0\n"
        f"print([m for m in {heavy} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_the_installation_in_json(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIFFIN_BACKEND", "numpy")
    code, out, _ = run("info", "--json")
    found = json.loads(out)
    assert code == 0
    assert [b["name"] for b in found["backends"]] == list(registry.backend_names())
    numpy = next(b for b in found["backends"] if b["name"] == "numpy")
    assert (numpy["chosen"], numpy["problem"], numpy["devices"]) == (True, None, ["cpu"])
    assert numpy["version"] == __import__("numpy").__version__
    assert numpy["capabilities"] == {"vjp": False, "decode": True, "Trainer": False}
    assert [k["op"] for k in numpy["kernels"]] == list(KERNEL_OPS)
    assert {k["runs"] for k in numpy["kernels"]} == {"reference"}
    values = {v["name"]: v["value"] for v in found["environment"]}
    assert set(values) == {v.name for v in env.VARIABLES}
    assert (values["GRIFFIN_BACKEND"], values["GRIFFIN_KERNEL"]) == ("numpy", "auto")
    assert set(found["presets"]) == set(PRESETS)
    assert found["machine"]["griffin_core"] == griffin.__version__


def test_why_a_kernel_does_not_run_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def needs_width(call: Any) -> str:
        return f"d={call.shapes['x'][-1]} is not a multiple of 1000"

    records = (Kernel("linear_scan", "wide", print, supports=needs_width), *registry.kernels("numpy"))
    monkeypatch.setattr(registry, "_kernels", {"numpy": records})
    monkeypatch.setenv("GRIFFIN_BACKEND", "numpy")
    _, out, _ = run("info", "--json")
    numpy = next(b for b in json.loads(out)["backends"] if b["name"] == "numpy")
    scan = numpy["kernels"][0]
    assert (scan["runs"], scan["kernels"]["wide"]) == ("reference", "d=1024 is not a multiple of 1000")
    monkeypatch.setenv("GRIFFIN_KERNEL", "wide")
    _, out, _ = run("info", "--json")
    scan = next(b for b in json.loads(out)["backends"] if b["name"] == "numpy")["kernels"][0]
    assert scan["problem"] == "kernel 'wide' cannot run linear_scan on numpy: d=1024 is not a multiple of 1000"


def test_a_backend_that_does_not_load_is_listed_with_its_reason(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = registry._entries

    def with_broken(group: str) -> dict[str, Any]:
        broken = {"quantum": SimpleNamespace(value="griffin_core_quantum")} if group == registry.BACKEND_GROUP else {}
        return {**entries(group), **broken}

    monkeypatch.setattr(registry, "_entries", with_broken)
    monkeypatch.setenv("GRIFFIN_BACKEND", "numpy")
    code, out, _ = run("info")
    text = " ".join(out.split())
    assert code == 0
    assert "quantum" in text
    assert "No module named 'griffin_core_quantum'" in text


def test_a_checkpoint_in_json(run: Run, saved: Path) -> None:
    code, out, _ = run("info", saved, "--json")
    found = json.loads(out)
    read = native.read(saved)
    assert code == 0
    assert (found["format"], found["preset"], found["parameters"]) == ("native", "griffin-tiny", 1_384_576)
    assert found["dtypes"] == {"float32": 1_384_576}
    assert [shard["file"] for shard in found["shards"]] == list(read.layout)
    assert sum(shard["tensors"] for shard in found["shards"]) == len(read.params)
    assert found["bytes"] == sum(record.size for record in read.manifest.files.values())
    assert (found["verified"], found["weights_sha256"]) == (True, read.digest)
    assert found["tokenizer"]["kind"] == "ByteTokenizer"
    assert "lru_width=192" in found["formats"]["huggingface"][0]
    assert (found["formats"]["native"], found["programs"]) == ([], [])


def test_a_checkpoint_in_words(run: Run, saved: Path) -> None:
    code, out, err = run("info", saved)
    assert (code, err) == (0, "")
    for words in (
        "the preset griffin-tiny",
        "every file matches its SHA-256",
        "ByteTokenizer, 264 ids",
        "model-00001-of",
    ):
        assert words in " ".join(out.split())
    code, out, _ = run("info", saved, "--no-verify")
    assert "nothing was hashed" in " ".join(out.split())


def test_damage_is_found_only_with_hashing(run: Run, saved: Path) -> None:
    file = saved / "model-00001-of-00003.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    code, out, err = run("info", saved)
    assert (code, out) == (1, "")
    assert "model-00001-of-00003.safetensors does not match its SHA-256" in err
    assert run("info", saved, "--no-verify")[0] == 0


def test_convert_plans_and_then_writes(run: Run, saved: Path, tmp_path: Path) -> None:
    words = ("convert", saved, tmp_path / "new", "--dtype", "bfloat16", "--max-shard-size", "1MB")
    code, planned, _ = run(*words, "--dry-run", "--json")
    assert code == 0
    assert not (tmp_path / "new").exists()
    code, done, _ = run(*words, "--json")
    assert code == 0
    plan, result = json.loads(planned), json.loads(done)
    assert (plan.pop("written"), result.pop("written")) == (False, True)
    assert plan == result
    read = native.read(tmp_path / "new")
    assert list(read.layout) == plan["files"]
    assert {row["target"]: row["dtype"] for row in plan["tensors"]} == {n: v.dtype.name for n, v in read.params.items()}
    assert plan["bytes"] == sum(value.nbytes for value in read.params.values())


def test_convert_in_words(run: Run, saved: Path, tmp_path: Path) -> None:
    code, out, _ = run("convert", saved, tmp_path / "new", "--dtype", "float16", "--dry-run")
    text = " ".join(out.split())
    assert code == 0
    assert "model.embed_tokens.weight cast float32 -> float16 264 x 128 67,584 1 of 1" in text
    assert "112 tensors, 2.77 MB in model.safetensors" in text
    assert "nothing was written" in text
    code, out, _ = run("convert", saved, tmp_path / "new")
    assert code == 0
    assert "native -> native: 112 tensors, 5.54 MB in model.safetensors" in out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["info", "MODEL", "--preset", "griffin-tiny"], 2, "two questions"),
        (["info", "--preset", "griffin-tyni"], 2, "unknown preset 'griffin-tyni'; did you mean 'griffin-tiny'"),
        (["info", "NEW"], 1, "no such file or directory"),
        (["info", "EMPTY"], 1, "is no checkpoint; expected a directory with config.json"),
        (["convert", "MODEL"], 2, "DST"),
        (["convert", "MODEL", "NEW", "--to", "hugingface"], 2, "did you mean 'huggingface'"),
        (["convert", "MODEL", "NEW", "--to", "huggingface"], 2, "huggingface cannot express lru_width=192"),
        (["convert", "MODEL", "NEW", "--dtype", "int8"], 2, "unknown checkpoint dtype 'int8'"),
        (["convert", "MODEL", "NEW", "--max-shard-size", "-1"], 2, "shard size '-1'"),
        (["convert", "EMPTY", "NEW"], 1, "empty is no checkpoint"),
        (["convert", "MODEL", "MODEL"], 1, "already holds a checkpoint"),
        (["convert", "EMPTY", "MODEL", "--overwrite"], 1, "empty is no checkpoint"),
    ],
)
def test_wrong_use_is_one_line(run: Run, saved: Path, tmp_path: Path, words: list[str], code: int, said: str) -> None:
    (tmp_path / "empty").mkdir()
    digest = native.read(saved).digest
    places = {"MODEL": saved, "NEW": tmp_path / "new", "EMPTY": tmp_path / "empty"}
    got, out, err = run(*(places.get(word, word) for word in words))
    assert (got, out) == (code, "")
    assert err.startswith("griffin: error: ")
    assert err.count("\n") == 1
    assert said in err
    assert {path.name for path in tmp_path.iterdir()} == {"model", "empty"}
    assert native.read(saved).digest == digest


def test_an_unknown_backend_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIFFIN_BACKEND", "nunpy")
    code, out, err = run("info")
    assert (code, out) == (2, "")
    assert "unknown backend 'nunpy'; did you mean 'numpy'?" in err
