"""What ``griffin bench`` needs from this backend: bare matrix products, a copy, threads, versions.

Every factory allocates and returns a call that does its work once and is done when it returns.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch.nn import functional

from griffin_core.config import GriffinConfig
from griffin_core_torch.benchmark_scans import LAUNCHES, Pass, copies, passes
from griffin_core_torch.devices import made_on, platform, synchronise

__all__ = [
    "LAUNCHES",
    "copies",
    "copy",
    "matrix_units",
    "passes",
    "peer_passes",
    "peers",
    "products",
    "threads",
    "versions",
]

Call = Callable[[], object]
_SEED = 0


class Product(Protocol):
    """A matrix product's shape, as ``griffin_core.benchmarks.products`` lists it."""

    name: str
    m: int
    k: int
    n: int
    batch: int
    form: str
    weight: str | None


def products(listing: Sequence[Product], dtype: str, params: Mapping[str, torch.Tensor]) -> Call:
    """A call that runs the products one after the other, outputs allocated, inputs and weights not.

    Activations of one shape share a tensor; keys and values do not. The weights are the model's own tensors: a copy
    of them lies in other pages of memory, and reading it was up to a fifth faster or slower.
    """
    pool = _Operands(getattr(torch, dtype), params)
    steps = [pool.step(product) for product in listing]

    @torch.no_grad()
    def run() -> None:
        for step in steps:
            step()
        synchronise()

    return run


def copy(moved: int) -> Call:
    """A call that makes a copy in new memory and so moves ``moved`` bytes, reads and writes counted."""
    source = torch.ones(moved // 8, dtype=torch.float32, device=made_on(None))

    def run() -> torch.Tensor:
        made = source.clone()
        synchronise()
        return made

    return run


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run operators on ``count`` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def matrix_units(dtype: str) -> str | None:
    """None when this processor or GPU multiplies matrices of ``dtype`` in hardware, else why not."""
    if dtype in ("float32", "float64") or platform() == "cuda":
        return None
    capability = torch.backends.cpu.get_cpu_capability()
    tiles, dots = torch.cpu._is_amx_tile_supported(), torch.cpu._is_avx512_bf16_supported()
    if dtype == "bfloat16" and (tiles or dots):
        return None
    return f"this processor has no {dtype} matrix units (capability {capability}, no AMX tiles, no AVX-512 BF16)"


def versions() -> dict[str, str]:
    """Versions, and the instruction set that the operators were chosen for, or the GPU."""
    if platform() == "cuda":
        name = torch.cuda.get_device_name(made_on(None))
        return {"torch": torch.__version__, "triton": importlib.metadata.version("triton"), "gpu": name}
    return {"torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()}


def peers(path: str, config: GriffinConfig, batch: int, tokens: int, context: int) -> list[tuple[str, Call]]:
    """(name, call) of every installed public implementation that can run this case, float32, random weights."""
    from griffin_core_torch import benchmark_peers

    return benchmark_peers.installed(path, config, batch, tokens, context)


def peer_passes(ops: Collection[str], shape: tuple[int, int, int], dtype: str) -> tuple[Sequence[Pass], list[str]]:
    """Passes of the installed public kernels that compute ``ops`` on arrays [b t d], and a line on each of them."""
    from griffin_core_torch import benchmark_scan_beside

    return benchmark_scan_beside.peer_passes(ops, shape, dtype)


class _Operands:
    """Tensors of the products, made once."""

    def __init__(self, dtype: torch.dtype, params: Mapping[str, torch.Tensor]) -> None:
        self._dtype, self._params = dtype, params
        self._generator = torch.Generator().manual_seed(_SEED)
        self._made: dict[Any, torch.Tensor] = {}

    def step(self, product: Product) -> Call:
        m, k, n = product.m, product.k, product.n
        if product.form == "tn":
            left, right = self._tensor("left", product.batch, k, m), self._tensor("right", product.batch, k, n)
            return functools.partial(torch.matmul, left.mT, right)
        left = self._tensor("left", product.batch, m, k)
        rows, columns = (n, k) if product.form == "nt" else (k, n)
        if product.weight is None:  # keys or values: each layer has its own
            right = self._tensor(".".join(product.name.split(".")[:2]), product.batch, rows, columns)
        else:
            right = self._params[product.weight]
        if product.form == "nt" and product.batch == 1:
            return functools.partial(functional.linear, left, right)
        return functools.partial(torch.matmul, left, right.mT if product.form == "nt" else right)

    def _tensor(self, owner: str, batch: int, rows: int, columns: int) -> torch.Tensor:
        key = (owner, batch, rows, columns)
        if key not in self._made:
            shape = (rows, columns) if batch == 1 else (batch, rows, columns)
            drawn = torch.randn(shape, generator=self._generator).mul_(columns**-0.5)
            self._made[key] = drawn.to(made_on(None), self._dtype)
        return self._made[key]
