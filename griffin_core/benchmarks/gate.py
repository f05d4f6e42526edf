"""No figure for a wrong kernel: what is to be timed passes a quick conformance run first."""

from __future__ import annotations

from griffin_core.benchmarks.work import Setup


def require_conformance(setup: Setup, path: str) -> None:
    """To be done."""
