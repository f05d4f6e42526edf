"""Shared by all tests: Hypothesis profiles, the backends under test, read-only inputs, checked shapes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

from griffin_core import env, registry

# JAX reads its flags when it starts. Eight host devices, to shard over; and programs that are compiled in half the
# time, as nearly every program of the tests runs once: `make prove` compiles as users do, or says so.
_SHARDABLE = "--xla_force_host_platform_device_count=8"
_QUICKLY_COMPILED = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false"
)
_THOROUGH = env.read("GRIFFIN_TEST_PROFILE") == "thorough"
os.environ.setdefault("XLA_FLAGS", _SHARDABLE if _THOROUGH else f"{_SHARDABLE} {_QUICKLY_COMPILED}")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # several test processes compile for TPUs at once

_REFERENCE = ("attention", "conv1d", "model", "norms", "rg_lru", "scan")
# The shapes in signatures are checked in every call that the tests make; users do not pay for it.
install_import_hook([f"griffin_core.reference.{name}" for name in _REFERENCE], "beartype.beartype")

settings.register_profile("quick", max_examples=15, derandomize=True, deadline=None, database=None)
settings.register_profile("ci", max_examples=50, derandomize=True, deadline=None, database=None)
settings.register_profile("thorough", max_examples=300, deadline=None, print_blob=True)
settings.load_profile(str(env.read("GRIFFIN_TEST_PROFILE")))


def backends_under_test() -> list[str]:
    """GRIFFIN_TEST_BACKENDS, or every backend that loads."""
    named = env.read("GRIFFIN_TEST_BACKENDS")
    if named:
        return [name.strip() for name in named.split(",")]
    return [name for name in registry.backend_names() if registry.installed(name) is None]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend_name" in metafunc.fixturenames:
        metafunc.parametrize("backend_name", backends_under_test(), scope="session")


@pytest.fixture(scope="session")
def backend(backend_name: str) -> ModuleType:
    """Each backend under test, in turn; a named one that does not load is an error."""
    return registry.load_backend(backend_name)


@pytest.fixture
def compiled_in_haste() -> Iterator[None]:
    """JAX compiles without most optimisations: for large programs that run once."""
    jax = sys.modules.get("jax")
    if jax is None:
        yield
        return
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module", autouse=True)
def few_programs() -> Iterator[None]:
    """A process that compiles for minutes has room for the programs of the next module."""
    yield
    if (programs := sys.modules.get("griffin_core_jax.programs")) is not None:
        programs.release_programs()


@pytest.fixture(scope="session")
def read_only() -> Callable[[np.ndarray], np.ndarray]:
    """A function that returns a copy which cannot be written: a test of "inputs are never written"."""

    def freeze(x: np.ndarray) -> np.ndarray:
        frozen = np.array(x)
        frozen.setflags(write=False)
        return frozen

    return freeze
