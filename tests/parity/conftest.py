"""Makes the golden tools importable: the tests read the same cases and run the same peers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--peers", default="", help="comma list of peers whose live tests must run instead of skipping")


@pytest.fixture
def need(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """A function that skips the test where a peer is not installed, and fails it if ``--peers`` names the peer."""
    import golden_peers

    named = [name for name in request.config.getoption("--peers", default="").split(",") if name]
    if unknown := sorted(set(named) - set(golden_peers.PEERS)):
        pytest.fail(f"--peers names {unknown}; known: {', '.join(golden_peers.PEERS)}")

    def check(peer: str) -> None:
        reason = golden_peers.missing(peer)
        if reason is not None and peer in named:
            pytest.fail(reason)
        elif reason is not None:
            pytest.skip(reason)

    return check
