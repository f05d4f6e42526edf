"""Proofs that need a CUDA device: run by ``make gpu``, skipped elsewhere with one reason."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from griffin_core import registry
from griffin_core_torch.triton.loading import absent


def missing() -> str | None:
    """Why these proofs cannot run here, or None."""
    if not torch.cuda.is_available():
        return "needs a CUDA device"
    return absent()


@pytest.fixture(autouse=True, scope="session")
def _card() -> None:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def on_card() -> Iterator[str]:
    """The device, on which the backend makes its arrays inside the test."""
    with registry.on_device("torch", "cuda"):
        yield "cuda"
