"""The wheel holds our packages, their data and entry points, and nothing else."""

from __future__ import annotations

import configparser
import email
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("griffin_core", "backends", "tests", "docs", "examples", "pyproject.toml", "README.md", "LICENSE")
TOP_LEVEL = {"griffin_core", "griffin_core_torch", "griffin_core_jax", "griffin_core_keras"}
VERSION = "0.1.0"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the tree, so that the checkout stays clean."""
    source = tmp_path_factory.mktemp("source")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.pyc")
    for name in SHIPPED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("dist")
    _pip("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", str(out), str(source))
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh folder with the wheel's content, and nothing beside it."""
    target = tmp_path_factory.mktemp("target")
    _pip("install", "--no-deps", "--target", str(target), str(wheel))
    return target


def test_top_level_names_are_exactly_ours(wheel: Path) -> None:
    assert wheel.name == f"griffin_core-{VERSION}-py3-none-any.whl"
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == TOP_LEVEL | {f"griffin_core-{VERSION}.dist-info"}


def test_wheel_carries_every_module_and_data_file(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    modules = {path.relative_to(base).as_posix() for base in (ROOT, ROOT / "backends") for path in _modules(base)}
    data = {p.relative_to(ROOT).as_posix() for p in (ROOT / "griffin_core" / "data").rglob("*") if p.is_file()}
    wanted = modules | {name for name in data if "__pycache__" not in name} | {"griffin_core/py.typed"}
    assert wanted - held == set()
    assert f"griffin_core-{VERSION}.dist-info/licenses/LICENSE" in held


def test_metadata_names_licence_python_and_extras(wheel: Path) -> None:
    text = zipfile.ZipFile(wheel).read(f"griffin_core-{VERSION}.dist-info/METADATA").decode()
    fields = email.message_from_string(text)
    assert fields["License-Expression"] == "Apache-2.0"
    assert fields["Requires-Python"] == ">=3.11"
    assert {"torch", "text", "train", "plot", "hf", "test", "lint", "docs"} <= set(fields.get_all("Provides-Extra"))
    base = {r for r in fields.get_all("Requires-Dist") if "extra ==" not in r}
    assert {r.split(">")[0] for r in base} == {
        "numpy", "ml-dtypes", "safetensors", "jaxtyping", "cyclopts", "rich", "hypothesis",
    }  # fmt: skip


def test_entry_points(wheel: Path) -> None:
    parser = configparser.ConfigParser()
    parser.read_string(zipfile.ZipFile(wheel).read(f"griffin_core-{VERSION}.dist-info/entry_points.txt").decode())
    assert dict(parser["console_scripts"]) == {"griffin": "griffin_core.cli:main"}
    assert dict(parser["griffin_core.backends"]) == {
        "numpy": "griffin_core.numpy_backend",
        "torch": "griffin_core_torch",
        "jax": "griffin_core_jax",
        "keras": "griffin_core_keras",
    }


def test_installed_wheel_runs_from_elsewhere_and_leaks_nothing(installed: Path, tmp_path: Path) -> None:
    assert [d.metadata["Name"] for d in distributions(path=[str(installed)])] == ["griffin-core"]
    code = "import griffin_core; from griffin_core import cli; print(griffin_core.__file__); cli.main(['--version'])"
    run = _python(code, installed, tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [str(installed / "griffin_core" / "__init__.py"), VERSION]


@pytest.mark.parametrize("name", ["backends", "tests", "docs", "examples"])
def test_folders_of_the_repository_do_not_import(installed: Path, tmp_path: Path, name: str) -> None:
    run = _python(f"import {name}", installed, tmp_path)
    assert run.returncode == 1
    assert f"No module named '{name}'" in run.stderr


def _modules(base: Path) -> list[Path]:
    return [p for top in TOP_LEVEL for p in (base / top).rglob("*.py") if "__pycache__" not in p.parts]


def _pip(*words: str) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--quiet",
        words[0],
        "--no-index",
        *words[1:],
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr


def _python(code: str, target: Path, where: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(target), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environ, cwd=where, capture_output=True, text=True, timeout=60, check=False)
