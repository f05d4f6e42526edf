"""Shared by the tests of TPU kernels: the compiler is allowed to run in several processes, or its tests are skipped."""

from __future__ import annotations

import importlib.util
import os

import pytest

pytest.importorskip("jax")
# libtpu refuses a second process without it, and pytest-xdist starts several.
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")


@pytest.fixture(scope="session")
def libtpu() -> None:
    """Skips the test where there is no TPU compiler."""
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed (extra tpu-aot)")
