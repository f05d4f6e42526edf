"""What the pages say about extending works from outside: a backend as a folder, a kernel as a file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TITLED = re.compile(r'^```python title="griffin_core_toy/__init__.py"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
KERNEL = '''
"""One kernel of another distribution."""

from griffin_core.numpy_backend.loop import linear_scan
from griffin_core.protocol import Kernel

MINE = Kernel("linear_scan", "mine", linear_scan)
'''


@pytest.fixture(scope="module")
def third_party(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on the path as pip would leave it: the page's backend, a kernel, and their metadata."""
    site = tmp_path_factory.mktemp("site")
    (found,) = TITLED.findall((ROOT / "docs" / "add-a-backend.md").read_text(encoding="utf-8"))
    (site / "griffin_core_toy").mkdir()
    (site / "griffin_core_toy" / "__init__.py").write_text(found, encoding="utf-8")
    (site / "my_kernels.py").write_text(KERNEL, encoding="utf-8")
    info = site / "griffin_core_toy-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: griffin-core-toy\nVersion: 0.1\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(
        "[griffin_core.backends]\ntoy = griffin_core_toy\n\n[griffin_core.kernels.numpy]\nmine = my_kernels:MINE\n",
        encoding="utf-8",
    )
    return site


def griffin(site: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "griffin_core", *words]
    variables = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", **environ}
    return subprocess.run(command, env=variables, cwd=site, capture_output=True, text=True, timeout=200, check=False)


def document(run: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert run.returncode == 0, run.stderr
    found: dict[str, object] = json.loads(run.stdout)
    return found


def test_a_backend_is_a_folder_and_an_entry_point(third_party: Path) -> None:
    words = ("generate", "--prompt", "The for", "--max-new-tokens", "3", "--greedy", "--json")
    toy = document(griffin(third_party, *words, GRIFFIN_BACKEND="toy"))
    numpy = document(griffin(third_party, *words, GRIFFIN_BACKEND="numpy"))
    assert toy["backend"] == "toy"
    assert toy["tokens"] == numpy["tokens"]


def test_its_kernel_is_judged_by_name(third_party: Path) -> None:
    found = griffin(third_party, "verify", "--backend", "toy", "--kernel", "toy", "--json")
    assert document(found)["passed"] is True


def test_info_lists_both(third_party: Path) -> None:
    text = json.dumps(document(griffin(third_party, "info", "--json")))
    assert '"toy"' in text
    assert '"mine"' in text


def test_a_kernel_from_elsewhere_runs_when_named(third_party: Path) -> None:
    code = (
        "import numpy as np; from griffin_core import registry\n"
        "module = registry.load_backend('numpy')\n"
        "x = np.ones((1, 3, 2), np.float32); y, h = module.linear_scan(x, np.zeros_like(x), kernel='mine')\n"
        "print(h[0, 0], [k.name for k in registry.kernels('numpy') if k.op == 'linear_scan'])"
    )
    variables = {**os.environ, "PYTHONPATH": str(third_party)}
    run = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split(maxsplit=1) == ["3.0", "['reference', 'loop', 'mine']\n"]


def test_a_backend_that_does_not_load_says_why(third_party: Path, tmp_path: Path) -> None:
    (tmp_path / "griffin_core_broken.py").write_text("API_VERSION = 0\n", encoding="utf-8")
    info = tmp_path / "broken-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 0.1\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[griffin_core.backends]\nbroken = griffin_core_broken\n", encoding="utf-8")
    run = griffin(tmp_path, "generate", "--backend", "broken", "--prompt", "x")
    assert run.returncode == 2
    assert run.stderr == "griffin: error: backend 'broken' has API_VERSION 0; this griffin-core speaks 1\n"
