"""The engine is chosen once, and everything that goes wrong about it says so."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import griffin_core_keras as backend
from griffin_core import env
from griffin_core.errors import BackendError

REPORT = "import griffin_core_keras as k; print('engine', k.ENGINE)"
HIDE = (
    "import importlib.util, sys\n"
    "real = importlib.util.find_spec\n"
    "importlib.util.find_spec = lambda name, *a: None if name in {hidden!r} else real(name, *a)\n"
)


def run(code: str, engine: str | None, home: Path) -> tuple[int, str]:
    extra = {"KERAS_HOME": str(home), "KERAS_BACKEND": engine or ""}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env.child_environment(extra), capture_output=True, text=True, timeout=300
    )
    return done.returncode, done.stdout + done.stderr


def test_the_variable_decides(tmp_path: Path) -> None:
    code, said = run(REPORT, backend.ENGINE, tmp_path)
    assert code == 0, said
    assert f"engine {backend.ENGINE}" in said


@pytest.mark.parametrize(
    ("named", "expected"), [("torch", "torch"), ("jax", "jax"), ("tensorflow", "jax"), (None, "jax")]
)
def test_without_it_keras_json_and_then_what_is_installed(named: str | None, expected: str, tmp_path: Path) -> None:
    if not all(map(importlib.util.find_spec, ("jax", "torch"))):
        pytest.skip("it chooses between jax and torch")
    if named is not None:
        (tmp_path / "keras.json").write_text(f'{{"backend": "{named}"}}')
    hidden = HIDE.format(hidden=["tensorflow"])
    source = Path(backend.__file__).with_name("engine.py")
    code = f"{hidden}\nsource = open({str(source)!r}).read().split('NAME = choose()')[0]\n"
    code += "exec(source)\nprint('engine', choose(), env.read('KERAS_BACKEND'))"
    status, said = run(code, None, tmp_path)
    assert status == 0, said
    assert f"engine {expected} {expected}" in said


def test_an_engine_that_is_not_installed(tmp_path: Path) -> None:
    code, said = run(HIDE.format(hidden=["tensorflow"]) + REPORT, "tensorflow", tmp_path)
    assert code != 0
    assert "BackendError: KERAS_BACKEND=tensorflow, but tensorflow is not installed; pip install tensorflow" in said


def test_an_engine_that_does_not_exist(tmp_path: Path) -> None:
    code, said = run(REPORT, "jaxx", tmp_path)
    assert code != 0
    assert "KERAS_BACKEND='jaxx' is not understood; did you mean 'jax'" in said


def test_a_wrong_variable_is_a_reason_and_stops_no_other_backend(tmp_path: Path) -> None:
    code = "from griffin_core import registry; print(registry.installed('keras')); print(registry.installed('numpy'))"
    status, said = run(code, "jaxx", tmp_path)
    assert status == 0, said
    assert said.startswith("KERAS_BACKEND='jaxx' is not understood")
    assert said.endswith("None\n")


def test_the_variable_set_after_the_import(monkeypatch: pytest.MonkeyPatch, config: object) -> None:
    other = "torch" if backend.ENGINE != "torch" else "jax"
    monkeypatch.setenv("KERAS_BACKEND", other)
    with pytest.raises(BackendError, match=f"KERAS_BACKEND={other} was set after Keras had been imported"):
        backend.GriffinCausalLM(config)
    with pytest.raises(BackendError, match="in a new process"):
        backend.load_params(config, {})


def test_a_distribution_needs_jax(config: object) -> None:
    if backend.ENGINE == "jax":
        return
    with pytest.raises(BackendError, match=f"needs the jax engine, and Keras runs on {backend.ENGINE}"):
        backend.model_parallel(config)
