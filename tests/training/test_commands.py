"""``griffin train`` and ``griffin eval`` as a user types them."""

import json
import os
import signal

import pytest

from griffin_core.cli import main
from griffin_core.training import plots
from griffin_core.training import run as runs
from griffin_core.training.rundir import RunDirectory

pytest.importorskip("griffin_core_torch.trainer")

_BITS: dict[str, float] = {}
"""The first backend's figure, for the others to meet."""


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch):
    monkeypatch.setattr(plots, "available", lambda: False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, text_file):
    out = tmp_path_factory.mktemp("command") / "run"
    assert main(command(text_file, out, "--steps", "3")) == 0
    return out


def command(text_file, out, *more):
    sizes = [("--batch", "1"), ("--length", "16"), ("--threads", "1")]
    given = [word for size in sizes if size[0] not in more for word in size]
    return ["train", "--text", str(text_file), "--out", str(out), *given, *more]


def test_train_prints_figures_and_where_the_checkpoint_is(trained, capsys):
    assert main(["train", "--resume", str(trained)]) == 0
    shown = capsys.readouterr().out
    for word in ("held-out text", "this model", "xz -9", "gzip -9", str(trained / "checkpoint"), "griffin generate"):
        assert word in shown


def test_train_json_is_one_document(text_file, tmp_path, capsys):
    assert main(command(text_file, tmp_path / "run", "--steps", "2", "--json")) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["finished"] is True
    assert found["step"] == found["steps"] == 2
    assert found["heldout_bits_per_byte"] == found["heldout"]["bits_per_byte"]
    assert found["parameters"] == 1_384_576
    assert "step 2/2" in captured.err


def test_eval_gives_the_same_figures_on_every_backend(trained, text_file, backend_name, tmp_path, capsys):
    few = tmp_path / "few.jsonl"
    few.write_text("".join(line + "\n" for line in text_file.read_text().splitlines()[:3]))
    asked = ["eval", "--checkpoint", str(trained / "checkpoint"), "--text", str(few)]
    assert main([*asked, "--backend", backend_name, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["backend"] == backend_name
    assert found["documents"] == 3
    assert found["bytes"] == sum(len(json.loads(line)["text"]) for line in few.read_text().splitlines())
    assert found["bits_per_byte"] == pytest.approx(_BITS.setdefault("first", found["bits_per_byte"]), rel=1e-5)
    assert main([*asked, "--backend", backend_name]) == 0
    shown = capsys.readouterr().out
    assert "perplexity" in shown
    assert "position in the document" in shown
    assert "0 to 15" in shown


def test_an_interrupt_exits_with_130_and_says_how_to_go_on(text_file, tmp_path, capsys, monkeypatch):
    original = runs._one_step

    def interrupted(*arguments):
        original(*arguments)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(runs, "_one_step", interrupted)
    assert main(command(text_file, tmp_path / "run", "--steps", "50")) == 130
    assert f"griffin train --resume {tmp_path / 'run'}" in capsys.readouterr().out
    assert RunDirectory(tmp_path / "run").steps() == [1]


def test_jax_trains_is_interrupted_and_resumed(jax_whole, text_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GRIFFIN_BACKEND", "jax")
    out, base = tmp_path / "run", str(jax_whole / "checkpoint")
    sizes = ("--steps", "4", "--batch", "2", "--length", "16", "--checkpoint-every", "1")
    asked = ["train", "--text", str(text_file), "--out", str(out), "--init", base, *sizes]
    original = runs._one_step

    def interrupted(*arguments):
        original(*arguments)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(runs, "_one_step", interrupted)
    assert main(asked) == 130
    monkeypatch.setattr(runs, "_one_step", original)
    assert (RunDirectory(out).state(1) / "trainer" / "arrays" / "1" / "state").is_dir()
    capsys.readouterr()
    assert main(["train", "--resume", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["finished"], found["step"], found["name"]) == (True, 4, "checkpoint")
    assert [record["step"] for record in RunDirectory(out).metrics()] == [1, 2, 3, 4]
    assert found["heldout_bits_per_byte"] < 8.0
    assert main([*asked[:4], str(tmp_path / "other"), *asked[5:], "--threads", "9999"]) == 2
    assert "threads=9999" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--backend", "numpy"], "the numpy backend has no Trainer"),
        (["--backend", "nump"], "did you mean 'numpy'"),
        (["--kernel", "magic"], "no kernel 'magic'"),
        (["--preset", "griffin-100m"], "give --tokenizer DIR"),
        (["--preset", "grifin-tiny"], "did you mean 'griffin-tiny'"),
        (["--steps", "0"], "steps=0"),
        (["--batch", "-1"], "batch=-1"),
        (["--lr", "-1"], "learning_rate=-1"),
        (["--lr", "nan"], "learning_rate=nan"),
        (["--backend", "torch", "--optimizer", "schedule-free"], "torch backend has no optimizer 'schedule-free'"),
        (["--optimizer", "adamv"], "did you mean 'adamw'"),
        (["--dtype", "float16"], "compute_dtype='float16'"),
        (["--threads", "0"], "threads=0"),
        (["--seed", "-5"], "seed=-5"),
        (["--init", "nowhere"], "nowhere"),
        (["--init", "nowhere", "--preset", "griffin-tiny"], "--init brings its own shape"),
        (["--tokenizer", "."], "holds no tokenizer.json"),
        (["--resume", "elsewhere"], "give no other settings"),
    ],
)
def test_wrong_use_is_one_line_and_writes_nothing(text_file, tmp_path, capsys, monkeypatch, more, message):
    monkeypatch.chdir(tmp_path)
    code = main(command(text_file, tmp_path / "run", *more))
    captured = capsys.readouterr()
    assert code in (1, 2)
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("asked", [["train", "--resume", "."], ["eval", "--checkpoint", "."], ["eval", "--text", "no"]])
def test_directories_that_are_none_are_refused(asked, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(asked) in (1, 2)
    assert capsys.readouterr().err.startswith("griffin: error: ")
    assert list(tmp_path.iterdir()) == []
