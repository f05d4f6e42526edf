"""Shared by the PyTorch tests: one thread, models with every parameter drawn, the largest tensor of a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import griffin_core_torch as backend  # noqa: E402
from griffin_core.config import GriffinConfig  # noqa: E402
from griffin_core.layouts.params import param_table  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def draw() -> Callable[..., Any]:
    """A function that draws every parameter of a config (biases and norms too), as native tensors."""

    def make(config: GriffinConfig, seed: int = 0, dtype: str | None = None) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng(seed)
        arrays = {
            row.name: (row.shape[-1] ** -0.5 * rng.normal(size=row.shape)).astype(np.float32)
            for row in param_table(config)
        }
        return backend.load_params(config, arrays, dtype)

    return make


class _Largest(TorchDispatchMode):
    """Records the element count of the largest tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return out


@pytest.fixture
def largest() -> type[_Largest]:
    """A context manager: ``with largest() as seen: ...; seen.elements``."""
    return _Largest
