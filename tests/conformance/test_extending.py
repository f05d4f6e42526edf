"""A backend is added by a folder, a kernel by a record: the kit and the command judge both, from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from griffin_core.cli import main

BACKEND = '''
"""The numpy backend with a scan of its own."""

from griffin_core.numpy_backend import *
from griffin_core.numpy_backend import API_VERSION, ops
from griffin_core.protocol import Kernel, KernelCall
from griffin_core.reference.packing import by_sequence
from griffin_core.registry import select_kernel
from griffin_core_mine.scan import my_scan

KERNELS = (Kernel("linear_scan", "mine", my_scan),)


def linear_scan(x, log_a, h0=None, reset=None, starts=None, kernel=None):
    record = select_kernel("mine", "linear_scan", KernelCall({"x": x.shape}, {"x": x.dtype.name}), kernel)
    if starts is None:
        return record.forward(x, log_a, h0, reset)
    return by_sequence(lambda x, a, r, h: record.forward(x, a, h, r), starts, (x, log_a, reset), (h0,))
'''
SCAN = '''
"""One kernel."""

import numpy as np


def my_scan(x, log_a, h0, reset):
    h = np.zeros((x.shape[0], x.shape[2]), np.float32) if h0 is None else h0.copy()
    y = np.empty_like(x)
    for t in range(x.shape[1]):
        old = h if reset is None else np.where(reset[:, t, None], np.float32(0), h)
        h = np.exp(log_a[:, t].astype(np.float32)) * old + x[:, t].astype(np.float32)
        y[:, t] = h.astype(x.dtype)
    return y, h


def wrong_scan(x, log_a, h0, reset):
    y, h = my_scan(x, log_a, None, reset)
    return y, h


def broken_scan(x, log_a, h0, reset):
    raise ValueError("not written yet")
'''
ENTRY_POINTS = """
[griffin_core.backends]
mine = griffin_core_mine

[griffin_core.kernels.numpy]
visiting = visiting_kernel:VISITING
"""
KERNEL = '''
"""A kernel of another distribution."""

from griffin_core.protocol import Kernel
from griffin_core_mine.scan import my_scan


def supports(call):
    return "it runs one sequence per row" if call.packed else None


VISITING = Kernel("linear_scan", "visiting", my_scan, supports=supports)
'''


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pip would leave: a package, a module, and their metadata with entry points."""
    root = tmp_path_factory.mktemp("site")
    package, info = root / "griffin_core_mine", root / "griffin_core_mine-0.1.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").write_text(BACKEND, encoding="utf-8")
    (package / "scan.py").write_text(SCAN, encoding="utf-8")
    (root / "visiting_kernel.py").write_text(KERNEL, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: griffin-core-mine\nVersion: 0.1\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")
    return root


def environment(site: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}


def verify(site: Path, *words: str) -> tuple[int, str]:
    """In a process of its own: entry points are read once per process."""
    command = [sys.executable, "-m", "griffin_core", "verify", *words]
    run = subprocess.run(command, env=environment(site), cwd=site, capture_output=True, text=True, check=False)
    return run.returncode, run.stdout


def test_a_backend_in_a_folder_is_judged_like_ours(site: Path) -> None:
    code = (
        "import json; from griffin_core.testing import judge\n"
        "names = ['reference', 'packed', 'model.reference', 'model.cut']\n"
        "print(json.dumps(judge(None, backend='mine', properties=names).to_dict()))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment(site), capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert report["passed"] is True
    subjects = [record["subject"] for record in report["records"]]
    assert "linear_scan [mine]" in subjects
    assert subjects.count("model") == 2
    assert {"gated_scan", "rg_lru", "recurrent_middle", "conv1d", "local_attention"} <= set(subjects)


def test_its_kernel_is_judged_by_name(site: Path) -> None:
    code, out = verify(site, "--backend", "mine", "--kernel", "mine", "--json")
    assert code == 0
    verdicts = {record["property"]: record["status"] for record in json.loads(out)["records"]}
    assert verdicts["packed"] == verdicts["documents"] == "passed"
    assert verdicts["gradient"] == "skipped"


def test_a_kernel_of_another_distribution_is_judged_by_name(site: Path) -> None:
    code, out = verify(site, "--backend", "numpy", "--kernel", "visiting", "--json")
    assert code == 0
    assert {record["subject"] for record in json.loads(out)["records"]} == {"linear_scan [visiting]"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with nothing but somebody's functions (no entry points), as the current one."""
    (tmp_path / "somebodys.py").write_text(SCAN, encoding="utf-8")
    monkeypatch.delitem(sys.modules, "somebodys", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("here")
def test_a_function_in_the_current_folder_is_judged(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--backend", "numpy", "--kernel", "somebodys:my_scan"]) == 0
    assert "all holds" in capsys.readouterr().out


def test_a_wrong_one_exits_with_1_and_code_that_shows_why(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--backend", "numpy", "--kernel", "somebodys:wrong_scan"]) == 1
    out = capsys.readouterr().out
    assert "it does not hold" in out
    snippet = out.split("to see it again:")[1].split("fails")[0]
    lines = [line[4:] for line in snippet.splitlines() if line.startswith("    ")]
    again = [sys.executable, "-c", "\n".join(lines)]
    run = subprocess.run(again, env=environment(here), cwd=here, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "times the bound" in run.stderr


@pytest.mark.usefixtures("here")
def test_one_that_raises_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--backend", "numpy", "--kernel", "somebodys:broken_scan", "--json"]) == 1
    records = json.loads(capsys.readouterr().out)["records"]
    reasons = {record["reason"] for record in records if record["status"] == "failed"}
    assert reasons == {"it raised ValueError: not written yet"}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--kernel", "nosuch"), "numpy has no kernel 'nosuch'; known: loop, reference, or module:attribute"),
        (("--kernel", "nosuch:scan"), "cannot import 'nosuch' for 'nosuch:scan'"),
        (("--op", "linear_scn"), "unknown operation 'linear_scn'; did you mean 'linear_scan'?"),
        (("--profile", "fast"), "unknown profile 'fast'; known: ci, quick, thorough"),
    ],
)
def test_wrong_use_exits_with_2_on_one_line(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert main(["verify", "--backend", "numpy", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("griffin: error: ")
    assert message in err
    assert err.count("\n") == 1
