"""Proofs that need a CUDA device: run by ``make gpu``, skipped elsewhere with one reason."""

from __future__ import annotations

import pytest
import torch

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
