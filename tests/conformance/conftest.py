"""Long proofs compile thousands of programs; what one of them compiled is dropped before the next."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _programs_of_long_proofs_are_dropped(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if request.node.get_closest_marker("prove") and "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
