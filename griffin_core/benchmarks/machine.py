"""Where a figure was measured: processor, versions, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

_REPOSITORY = Path(__file__).resolve().parents[2]


def machine(versions: dict[str, str], threads: int) -> dict[str, Any]:
    """Facts that a figure is worthless without.

    Args:
        versions: of what computes, by name.
        threads: used by the backend.
    """
    return {
        "device": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "griffin_core": importlib.metadata.version("griffin-core"),
        "commit": commit(),
        **versions,
    }


def processor() -> str:
    """The processor's own name, as the system gives it."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """The checkout's commit, "+" when tracked files differ from it; None outside a checkout."""
    git = shutil.which("git")
    if git is None or not (_REPOSITORY / ".git").exists():
        return None
    head = _git(git, "rev-parse", "--short", "HEAD")
    changed = _git(git, "status", "--porcelain", "--untracked-files=no")
    return head if head is None or not changed else head + "+"


def _git(git: str, *arguments: str) -> str | None:
    done = subprocess.run([git, "-C", str(_REPOSITORY), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
