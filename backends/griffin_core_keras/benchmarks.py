"""What ``griffin bench`` needs from this backend: bare matrix products on the engine, a copy, threads, versions."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from griffin_core.config import GriffinConfig
from griffin_core.errors import InputError
from griffin_core.layouts.initialise import init_params
from griffin_core.layouts.keras import KERAS
from griffin_core.layouts.places import TRANSPOSE
from griffin_core.schedules import TrainerOptions
from griffin_core_keras.engine import NAME, engine

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
    """A call that runs the products one after the other on the engine, with the model's own weights."""
    pool = _Operands(dtype, params)
    steps = [pool.step(product) for product in listing]

    def run() -> None:
        for step in steps:
            engine.wait(step())

    return run


def copy(moved: int) -> Call:
    """A call that makes a copy in new memory and so moves ``moved`` bytes, reads and writes counted."""
    source = ops.ones((moved // 8,), "float32")
    again = engine.compiled(lambda x: x + 0.0)
    return lambda: engine.wait(again(source))


def threads(count: int) -> AbstractContextManager[None]:
    """Inside the block the engine computes on so many threads.

    Raises:
        InputError: this engine cannot be told another number.
    """
    beside = _beside()
    return _all_processors(count) if beside is None else beside.threads(count)


def matrix_units(dtype: str) -> str | None:
    """None when products of ``dtype`` run in hardware as such, else why not."""
    beside = _beside()
    if beside is not None:
        return beside.matrix_units(dtype)  # type: ignore[no-any-return]
    return None if dtype in ("float32", "float64") else f"nothing is known of {dtype} on this engine"


def versions() -> dict[str, str]:
    """Versions of Keras and of what computes."""
    beside = _beside()
    found = {} if beside is None else beside.versions()
    return {"keras": keras.__version__, "keras engine": NAME, **found}


def peers(path: str, config: GriffinConfig, batch: int, tokens: int, context: int) -> list[tuple[str, Call]]:
    """Beside a training step that of the engine's own backend; there is no other implementation for Keras."""
    if path != "train" or _beside() is None:
        return []
    trainer = importlib.import_module(f"griffin_core_{NAME}").Trainer(
        config, init_params(config, _SEED, "released"), TrainerOptions(steps=1000)
    )
    text = np.random.default_rng(_SEED).integers(3, config.vocab_size, (batch, tokens + 1)).astype(np.int32)
    positions = np.tile(np.arange(tokens, dtype=np.int32), (batch, 1))
    rows = {"tokens": text[:, :-1].copy(), "targets": text[:, 1:].copy(), "positions": positions}
    return [(f"the {NAME} backend's own trainer", lambda: trainer.step(rows))]


class _Operands:
    """Arrays of the products, made once."""

    def __init__(self, dtype: str, params: Mapping[str, Any]) -> None:
        self._dtype, self._params = dtype, params
        self._generator = np.random.default_rng(_SEED)
        self._made: dict[Any, Any] = {}

    def step(self, product: Product) -> Call:
        left, right = _SPECS[product.form]
        arrays = [self._array("left", product, left)]
        if product.form == "tn" or product.weight is None:
            owner = "right" if product.form == "tn" else ".".join(product.name.split(".")[:2])
            arrays.append(self._array(owner, product, right))
        else:
            right = right[::-1] if KERAS.place_of(product.weight).transform is TRANSPOSE else right
            arrays.append(self._params[product.weight])
        lead = "b" if product.batch > 1 else ""
        return functools.partial(_product(f"{lead}{left},{lead}{right}->{lead}mn"), *arrays)

    def _array(self, owner: str, product: Product, letters: str) -> Any:
        sizes = {"m": product.m, "k": product.k, "n": product.n}
        shape = (*((product.batch,) if product.batch > 1 else ()), *(sizes[letter] for letter in letters))
        if (owner, shape) not in self._made:
            values = self._generator.standard_normal(shape, dtype=np.float32) * shape[-1] ** -0.5
            self._made[owner, shape] = engine.from_numpy(values.astype(np.float32), self._dtype)
        return self._made[owner, shape]


@functools.lru_cache(maxsize=256)
def _product(spec: str) -> Callable[..., Any]:
    return engine.compiled(lambda left, right: ops.einsum(spec, left, right))  # type: ignore[no-any-return]


@functools.cache
def _beside() -> Any:
    """The timers of the engine's own backend; None where it has none."""
    return None if engine.KERNELS_OF == "keras" else importlib.import_module(f"griffin_core_{NAME}.benchmarks")


@contextmanager
def _all_processors(count: int) -> Iterator[None]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if count != usable:
        raise InputError(f"threads={count}, but {NAME} uses all {usable} processors here; pass --threads {usable}")
    yield
