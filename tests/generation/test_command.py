"""``griffin generate`` as a user types it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from griffin_core.checkpoints import native
from griffin_core.cli import main


@pytest.fixture(scope="module")
def checkpoint(tiny, tmp_path_factory):
    """A native checkpoint of the tiny model."""
    model = tiny()
    directory = tmp_path_factory.mktemp("model") / "tiny"
    native.save(directory, model.config, model.canonical, model.tokenizer.files())
    return directory


@pytest.fixture
def griffin(checkpoint, capsys):
    """``griffin("--prompt", ...)``: exit code, stdout and stderr of ``griffin generate`` on the tiny model."""

    def run(*words):
        for name, value in (("--checkpoint", checkpoint), ("--backend", "numpy")):
            words = words if name in words else (name, value, *words)
        code = main(["generate", *map(str, words)])
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


def test_a_prompt_is_streamed_as_the_same_text(griffin):
    words = ("--prompt", "- a dash", "--max-new-tokens", 12, "--seed", 3)
    code, streamed, err = griffin(*words)
    assert (code, err) == (0, "")
    code, out, _ = griffin(*words, "--json")
    report = json.loads(out)
    assert code == 0
    assert streamed == report["texts"][0] + "\n"
    assert (len(report["tokens"][0]), report["new_tokens"], report["finish_reasons"]) == (12, 12, ["length"])
    assert report["tokens_per_second"] > 0
    assert len(report["logprobs"][0]) == 12


def test_a_batch_is_printed_in_order(griffin, tmp_path):
    (tmp_path / "p.txt").write_text("from a\nfile")
    words = (
        "--prompt",
        "one",
        "--prompt",
        "two",
        "--prompt-file",
        tmp_path / "p.txt",
        "--max-new-tokens",
        4,
        "--greedy",
    )
    code, out, _ = griffin(*words)
    texts = json.loads(griffin(*words, "--json")[1])["texts"]
    titles = ("=== 1 of 3: one", "=== 2 of 3: two", "=== 3 of 3: from a file")
    assert code == 0
    assert out == "".join(f"{title}\n{text}\n" for title, text in zip(titles, texts, strict=True))


def test_a_prompt_may_come_from_standard_input(griffin, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("piped é\n".encode())))
    words = ("--max-new-tokens", 4, "--json")
    piped = json.loads(griffin("--prompt-file", "-", *words)[1])
    assert piped["tokens"] == json.loads(griffin("--prompt", "piped é\n", *words)[1])["tokens"]


def test_a_saved_state_continues_with_its_own_settings(griffin, tmp_path):
    words = ("--prompt", "saved", "--temperature", 0.8, "--seed", 5, "--stop-id", 0, "--json")
    whole = json.loads(griffin(*words, "--max-new-tokens", 14)[1])
    file = tmp_path / "a.state"
    first = json.loads(griffin(*words, "--max-new-tokens", 6, "--save-state", file)[1])
    assert (first["state_file"], first["state_bytes"]) == (str(file), file.stat().st_size)
    rest = json.loads(griffin("--load-state", file, "--max-new-tokens", 8, "--stop-id", 0, "--json")[1])
    assert first["tokens"][0] + rest["tokens"][0] == whole["tokens"][0]
    assert first["texts"][0] + rest["texts"][0] == whole["texts"][0]
    other = json.loads(griffin("--load-state", file, "--max-new-tokens", 8, "--seed", 6, "--json")[1])
    assert other["tokens"] != rest["tokens"]
    more = json.loads(griffin("--load-state", file, "--prompt", "read first", "--max-new-tokens", 2, "--json")[1])
    assert len(more["tokens"][0]) == 2


def test_stop_strings_end_the_text_and_the_saved_state(griffin, tmp_path):
    words = ("--prompt", "stop", "--max-new-tokens", 30, "--greedy", "--stop-id", 0)
    whole = json.loads(griffin(*words, "--json")[1])["texts"][0]
    stop = whole[4:6]
    kept = whole[: whole.index(stop)]
    code, out, _ = griffin(*words, "--stop", stop, "--save-state", tmp_path / "s")
    assert (code, out) == (0, kept + "\n")
    rest = json.loads(griffin("--load-state", tmp_path / "s", "--max-new-tokens", 30, "--stop-id", 0, "--json")[1])
    assert (kept + rest["texts"][0]).startswith(whole[:20])


@pytest.mark.parametrize(
    ("words", "exit_code", "message"),
    [
        ((), 2, "there is no prompt"),
        (("--prompt", ""), 2, "zero tokens"),
        (("--prompt", "a", "--max-new-tokens", "-1"), 2, "max_new_tokens=-1"),
        (("--prompt", "a", "--max-new-tokens", "many"), 2, "many"),
        (("--prompt", "a", "--temperature", "-0.5"), 2, "temperature=-0.5"),
        (("--prompt", "a", "--temperature", "nan"), 2, "temperature=nan"),
        (("--prompt", "a", "--greedy", "--temperature", "1"), 2, "contradict"),
        (("--prompt", "a", "--top-p", "0"), 2, "top_p=0.0"),
        (("--prompt", "a", "--seed", "-1"), 2, "seed=-1"),
        (("--prompt", "a", "--stop", ""), 2, "stop string"),
        (("--prompt", "a", "--stop-id", "264"), 2, "stop id 264"),
        (("--prompt", "a", "--temprature", "1"), 2, "temprature"),
        (("--prompt", "a", "--kernel", "magic"), 2, "magic"),
        (("--prompt", "a", "--dtype", "float31"), 2, "float31"),
        (("--prompt", "a", "--backend", "nump"), 2, "nump"),
        (("--prompt", "a", "--checkpoint", "/nowhere"), 1, "/nowhere"),
        (("--prompt-file", "/nowhere"), 2, "/nowhere"),
        (("--prompt", "a", "--load-state", "/nowhere"), 1, "/nowhere"),
        (("--prompt", "a", "--save-state", "/nowhere/x"), 1, "/nowhere"),
        (("--prompt", "a\ud800"), 2, "surrogate"),
    ],
)
def test_wrong_use_is_one_line_and_leaves_nothing(griffin, tmp_path, monkeypatch, words, exit_code, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = griffin(*words, "--save-state", "out.state") if "--save-state" not in words else griffin(*words)
    assert (code, out) == (exit_code, "")
    assert err.startswith("griffin: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_a_state_of_another_model_is_refused(griffin, tiny, tmp_path):
    other = tiny(seed=1)
    native.save(tmp_path / "other", other.config, other.canonical, other.tokenizer.files())
    assert griffin("--prompt", "a", "--max-new-tokens", 1, "--save-state", tmp_path / "s")[0] == 0
    code, out, err = griffin("--checkpoint", tmp_path / "other", "--load-state", tmp_path / "s")
    assert (code, out) == (1, "")
    assert "other weights" in err


def test_it_runs_as_a_process_without_any_framework(checkpoint):
    code = (
        "import sys\n"
        "for name in ('torch', 'jax', 'tensorflow', 'tokenizers', 'grain'): sys.modules[name] = None\n"
        "from griffin_core.cli import main\n"
        f"sys.exit(main(['generate', '--checkpoint', {str(checkpoint)!r}, '--prompt', 'é', '--max-new-tokens', '5']))"
    )
    environ = {**os.environ, "GRIFFIN_BACKEND": "numpy"}
    run = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, timeout=120, check=False)
    assert (run.returncode, run.stderr) == (0, b"")
    assert run.stdout.decode("utf-8").endswith("\n")
