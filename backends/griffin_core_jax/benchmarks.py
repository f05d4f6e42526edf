"""What ``griffin bench`` needs from this backend: bare matrix products, a copy, threads, versions.

Every factory allocates and returns a call that does its work once and has waited for it when it returns.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from griffin_core.config import GriffinConfig
from griffin_core.errors import InputError
from griffin_core.layouts.params import layer_prefix
from griffin_core_jax.decoding.views import cut
from griffin_core_jax.layout import SEGMENTS, TOP, find_place, row_of
from griffin_core_jax.products import einsum

Call = Callable[[], object]
_SEED = 0
_SPECS = {"nt": ("mk", "nk"), "nn": ("mk", "kn"), "tn": ("km", "kn")}


class Product(Protocol):
    """A matrix product's shape, as ``griffin_core.benchmarks.products`` lists it."""

    name: str
    m: int
    k: int
    n: int
    batch: int
    form: str
    weight: str | None


def products(listing: Sequence[Product], dtype: str, params: Mapping[str, Any]) -> Call:
    """A call that runs the products one after the other, each a program of its own, outputs allocated.

    Activations of one shape share an array; keys and values do not. Weights are the model's own arrays in their own
    orientation ([in out] for dense ones).
    """
    pool = _Operands(dtype, params)
    steps = [pool.step(product) for product in listing]

    def run() -> None:
        for step in steps:
            jax.block_until_ready(step())  # else they would run beside each other, each on one thread

    return run


def copy(moved: int) -> Call:
    """A call that makes a copy in new memory and so moves ``moved`` bytes, reads and writes counted."""
    source = jnp.ones(moved // 8, jnp.float32)
    again = jax.jit(lambda x: jnp.array(x, copy=True))
    return lambda: again(source).block_until_ready()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Nothing to set: XLA uses every processor that this process may run on.

    Raises:
        InputError: that is another number.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if jax.default_backend() == "cpu" and count != usable:
        raise InputError(
            f"threads={count}, but XLA uses all {usable} processors of this process; pass --threads {usable}, or start "
            f"with taskset -c 0-{count - 1}"
        )
    yield


def matrix_units(dtype: str) -> str | None:
    """None when products of ``dtype`` run in hardware as such, else why not."""
    if dtype in ("float32", "float64") or jax.default_backend() != "cpu":
        return None
    return f"on a processor this backend widens {dtype} to float32 for products"


def versions() -> dict[str, str]:
    """Versions of what computes, and the device."""
    return {"jax": jax.__version__, "jaxlib": jaxlib.__version__, "jax device": jax.devices()[0].device_kind}


def peers(path: str, config: GriffinConfig, batch: int, tokens: int, context: int) -> list[tuple[str, Call]]:
    """(name, call) of every installed public implementation that can run this case, float32, random weights."""
    from griffin_core_jax import benchmark_peers

    return benchmark_peers.installed(path, config, batch, tokens, context)


class _Operands:
    """Arrays of the products, made once."""

    def __init__(self, dtype: str, params: Mapping[str, Any]) -> None:
        self._dtype, self._params = jnp.dtype(dtype), params
        self._generator = np.random.default_rng(_SEED)
        self._made: dict[Any, jax.Array] = {}

    def step(self, product: Product) -> Call:
        left, right = _SPECS[product.form]
        arrays = [self._array("left", product, left)]
        if product.form == "tn" or product.weight is None:
            owner = "right" if product.form == "tn" else ".".join(product.name.split(".")[:2])
            arrays.append(self._array(owner, product, right))
        else:
            weight, transposed = self._weight(product.weight)
            right = right[::-1] if transposed else right
            arrays.append(weight)
        lead = "b" if product.batch > 1 else ""
        return functools.partial(_product(f"{lead}{left},{lead}{right}->{lead}mn"), *arrays)

    def _weight(self, name: str) -> tuple[jax.Array, bool]:
        """The model's own array of a parameter, and whether its axes are exchanged there."""
        if name in TOP:
            return self._params[TOP[name]], False
        layer = int(name.removeprefix(layer_prefix(0)[:-2]).split(".")[0])
        row = row_of(name.removeprefix(layer_prefix(layer)))
        segment, place, number = find_place(self._params[SEGMENTS], layer)
        return cut(self._params[SEGMENTS][segment][place][row.name])[number], row.transposed

    def _array(self, owner: str, product: Product, letters: str) -> jax.Array:
        sizes = {"m": product.m, "k": product.k, "n": product.n}
        shape = (*((product.batch,) if product.batch > 1 else ()), *(sizes[letter] for letter in letters))
        if (owner, shape) not in self._made:
            values = self._generator.standard_normal(shape, dtype=np.float32) * shape[-1] ** -0.5
            self._made[owner, shape] = jnp.asarray(values, self._dtype)
        return self._made[owner, shape]


@functools.lru_cache(maxsize=256)
def _product(spec: str) -> Callable[..., jax.Array]:
    return jax.jit(lambda left, right: einsum(spec, left, right).astype(left.dtype))
