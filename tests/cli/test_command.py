"""The command itself: help, errors, exit codes, verbosity. What the verbs compute is tested beside them."""

from __future__ import annotations

import inspect
import json
import os
import resource
import subprocess
import sys
import types
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from griffin_core import cli, errors
from griffin_core.cli import console

FRAMEWORKS = ("torch", "jax", "keras", "tensorflow", "triton", "grain", "tokenizers", "transformers", "matplotlib")
HELP_SECONDS = 0.5


def griffin(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    command = [sys.executable, "-m", "griffin_core", *words]
    return subprocess.run(
        command, env={**os.environ, **environ}, capture_output=True, text=True, timeout=120, check=False
    )


def use_verb(monkeypatch: pytest.MonkeyPatch, verb: object) -> None:
    """Put ``verb`` in the place of ``griffin info``."""
    module = types.ModuleType("griffin_core.cli.info")
    module.info = verb  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "griffin_core.cli.info", module)


def function_of(verb: str) -> types.FunctionType:
    module, _, name = cli.VERBS[verb][0].partition(":")
    return getattr(import_module(f"griffin_core.cli.{module}"), name)


def test_help_lists_every_verb_and_the_exit_codes() -> None:
    run = griffin("--help")
    assert run.returncode == 0
    assert run.stderr == ""
    for verb in ("info", "demo", "train", "generate", "eval", "convert", "verify", "bench"):
        assert f" {verb} " in run.stdout
    assert "1 a check failed, 2 wrong use" in " ".join(run.stdout.split())


def test_help_of_every_verb_loads_no_framework() -> None:
    code = (
        "import sys\n"
        "from griffin_core import cli\n"
        "assert cli.main(['--help']) == 0\n"
        "assert [cli.main([verb, '--help']) for verb in cli.VERBS] == [0] * len(cli.VERBS)\n"
        f"print(sorted(set({FRAMEWORKS!r}) & set(sys.modules)), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stderr.strip() == "[]"
    assert run.stdout.count("Usage: griffin ") == 1 + len(cli.VERBS)


def test_help_is_quick() -> None:
    """Under half a second of processor time, or four times ``import numpy`` on a slow machine."""
    numpy_alone = min(_cpu_seconds("-c", "import numpy") for _ in range(3))
    shown = min(_cpu_seconds("-m", "griffin_core", "--help") for _ in range(3))
    assert shown < max(HELP_SECONDS, 4 * numpy_alone)


def _cpu_seconds(*words: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], capture_output=True, timeout=60, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_is_documented_and_speaks_json(verb: str) -> None:
    parameters = inspect.signature(function_of(verb)).parameters
    assert parameters["json"].default is False
    always_on = [name for name, p in parameters.items() if p.default is True]
    assert always_on == [], "a flag that is on unless given cannot be turned off; there is no --no-flag"
    arguments = cli.build_app(verb)[verb].assemble_argument_collection(parse_docstring=True)
    assert [a.name for a in arguments if not (a.parameter.help or "").strip()] == []
    assert {a.name for a in arguments} >= {"--json"}


def test_version_is_the_distribution_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == "0.1.0"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tran"], "unknown verb 'tran'; did you mean 'train'?"),
        (["--colour"], "unknown option '--colour'; known: "),
        (["info", "--jsn"], "see griffin info --help"),
        (["train", "--preset"], "--preset"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("griffin: error: ")
    assert shown.err.count("\n") == 1
    assert said in shown.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("width=0;\nexpected more"), 2),
        (errors.InputError("x"), 2),
        (errors.BackendError("x"), 2),
        (errors.KernelNotSupported("x"), 2),
        (errors.CheckpointMismatch("x"), 1),
        (errors.StateMismatch("x"), 1),
        (errors.ConformanceError("x"), 1),
    ],
)
def test_errors_on_purpose_become_one_line(
    error: errors.GriffinError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def info() -> int:
        raise error

    use_verb(monkeypatch, info)
    assert cli.main(["info"]) == code
    assert capsys.readouterr().err == f"griffin: error: {' '.join(str(error).split())}\n"


def test_other_exceptions_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def info() -> int:
        raise ZeroDivisionError("a bug of ours")

    use_verb(monkeypatch, info)
    with pytest.raises(ZeroDivisionError):
        cli.main(["info"])


@pytest.mark.parametrize(("returned", "code"), [(0, 0), (1, 1), (None, 0)])
def test_exit_code_is_the_verb_s(returned: int | None, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    use_verb(monkeypatch, lambda: returned)
    assert cli.main(["info"]) == code


def test_interrupt_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def info() -> int:
        raise KeyboardInterrupt

    use_verb(monkeypatch, info)
    assert cli.main(["info"]) == 130
    assert capsys.readouterr().err == "griffin: error: interrupted\n"


def test_a_reader_that_leaves_is_not_a_crash() -> None:
    code = "import sys; from griffin_core import cli; from griffin_core.cli.console import Output\n"
    code += "out = Output(); cli._run = lambda words: [out.say('x' * 1000) for _ in range(1000)] and 0\n"
    code += "sys.exit(cli.main([]))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == cli.BROKEN_PIPE


def test_verbose_shows_info_lines_and_leaves_no_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import logging

    log = logging.getLogger("griffin_core")
    use_verb(monkeypatch, lambda: log.info("torch: linear_scan runs on kernel eager"))
    before = (log.level, list(log.handlers))
    assert cli.main(["info"]) == 0
    assert capsys.readouterr().err == ""
    for words in (["-v", "info"], ["info", "--verbose"]):
        assert cli.main(words) == 0
        assert capsys.readouterr().err == "griffin: torch: linear_scan runs on kernel eager\n"
    assert (log.level, list(log.handlers)) == before


def test_words_after_two_dashes_are_left_alone() -> None:
    assert cli._take_verbose(["generate", "-v", "--", "-v"]) == (["generate", "--", "-v"], True)
    assert cli._take_verbose(["generate", "--", "-v"]) == (["generate", "--", "-v"], False)


def test_a_mistyped_variable_warns_in_one_line() -> None:
    run = griffin("--version", GRIFFIN_BACKND="numpy")
    assert run.returncode == 0
    assert run.stderr.count("\n") == 1
    assert run.stderr.startswith("griffin: warning: GRIFFIN_BACKND is set but not read")
    assert "did you mean 'GRIFFIN_BACKEND'?" in run.stderr


def test_json_is_strict_and_alone_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    out = console.Output(json=True)
    out.say("for people")
    out.table(["name", "value"], [["a [b]", 1.25]])
    out.result({"loss": np.float32(0.5), "path": Path("a/b"), "worst": float("inf"), "ids": np.arange(3), "none": None})
    shown = capsys.readouterr()
    wanted = {"loss": 0.5, "path": "a/b", "worst": None, "ids": [0, 1, 2], "none": None}
    assert json.loads(shown.out) == wanted
    assert shown.err.startswith("for people\n")
    assert "a [b]" in shown.err


def test_without_json_nothing_machine_readable_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    out = console.Output()
    out.result({"loss": 1.0})
    out.say("piece", end="")
    out.table(["kernel", "GB/s"], [["eager", 1234.5678], ["[odd]", 2]], title="Scans")
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.startswith("piece")
    assert "1235" in shown.out
    assert "[odd]" in shown.out


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (True, "yes"), (2.19049, "2.19"), (1234567, "1,234,567"), ("x", "x"), (1e-9, "1e-09")],
)
def test_cells(value: object, text: str) -> None:
    assert console.cell_text(value) == text
