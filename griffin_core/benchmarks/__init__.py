"""Benchmarks: every figure is a ratio, measured side by side in one run, of kernels that conform.

``measure`` times one path. The method is fixed in ``docs/benchmarks.md``.
"""

from griffin_core.benchmarks.cases import BENCH_110M, DEFAULTS, TARGETS, Sizes, Target, resolve_config
from griffin_core.benchmarks.report import Report, Row
from griffin_core.benchmarks.service import measure

__all__ = ["BENCH_110M", "DEFAULTS", "TARGETS", "Report", "Row", "Sizes", "Target", "measure", "resolve_config"]
