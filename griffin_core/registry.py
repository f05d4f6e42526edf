"""Find, load and choose backends and kernels. Entry points are metadata: nothing is imported until chosen."""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import importlib.util
import logging
from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from griffin_core import env
from griffin_core.errors import BackendError, ConfigError, KernelNotSupported, nearest
from griffin_core.protocol import KERNEL_OPS, Kernel, KernelCall, capability, check_backend

log = logging.getLogger("griffin_core")

BACKEND_GROUP = "griffin_core.backends"
KERNEL_GROUP = "griffin_core.kernels."
PREFERENCE = ("torch", "jax", "keras", "numpy")
AUTO = "auto"

_forced: contextvars.ContextVar[str | None] = contextvars.ContextVar("griffin_backend", default=None)
_loaded: dict[str, ModuleType] = {}
_kernels: dict[str, tuple[Kernel, ...]] = {}
_announced: set[tuple[str, str, str]] = set()


def backend_names() -> tuple[str, ...]:
    """Names of the registered backends, preferred first."""
    names = _entries(BACKEND_GROUP)
    return tuple(sorted(names, key=lambda n: (PREFERENCE.index(n) if n in PREFERENCE else len(PREFERENCE), n)))


def installed(name: str) -> str | None:
    """None when the backend loads, else why it does not."""
    try:
        load_backend(name)
    except (BackendError, ConfigError) as error:  # a variable of the framework may be what is wrong
        return str(error)
    return None


def choose_backend(name: str | None = None) -> str:
    """The backend's name: the argument, ``use_backend``, GRIFFIN_BACKEND, or the first that is installed.

    Raises:
        BackendError: the name is not registered.
    """
    chosen = name or _forced.get() or env.read("GRIFFIN_BACKEND")
    if chosen:
        if chosen not in backend_names():
            raise BackendError(f"unknown backend {chosen!r}; {nearest(chosen, backend_names())}")
        return chosen
    for candidate in backend_names():
        if _framework_present(candidate):
            log.info("backend %s (first installed of %s)", candidate, ", ".join(backend_names()))
            return candidate
    raise BackendError("no backend is registered; install griffin-core (pip install griffin-core)")


def load_backend(name: str | None = None) -> ModuleType:
    """The chosen backend's module, checked against the protocol once.

    Raises:
        BackendError: unknown, not importable (the import error is quoted), or not the protocol.
    """
    if name in _loaded:  # reading the entry points takes tens of milliseconds
        return _loaded[name]
    chosen = choose_backend(name)
    if chosen not in _loaded:
        entry = _entries(BACKEND_GROUP)[chosen]
        try:
            module = importlib.import_module(entry.value)
        except ImportError as error:
            raise BackendError(
                f"backend {chosen!r} cannot be imported ({error}); pip install 'griffin-core[{chosen}]', "
                f"or choose another of {', '.join(backend_names())}"
            ) from error
        check_backend(chosen, module)
        _loaded[chosen] = module
    return _loaded[chosen]


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[ModuleType]:
    """Choose a backend inside a ``with`` block, over GRIFFIN_BACKEND."""
    token = _forced.set(name)
    try:
        yield load_backend(name)
    finally:
        _forced.reset(token)


@contextlib.contextmanager
def on_device(backend: str | None, device: str | None) -> Iterator[None]:
    """Inside the block a backend makes its arrays on this device; None is its own default.

    Raises:
        BackendError: the backend cannot be told where to compute, or the device is not there.
        ConfigError: no such device.
    """
    if device is None:
        yield
        return
    name = choose_backend(backend)
    with capability(name, load_backend(name), "on_device")(device):
        yield


def kernels(backend: str) -> tuple[Kernel, ...]:
    """Every kernel of a backend: its own, then those of other distributions.

    Raises:
        BackendError: two kernels of one operation share a name, or an entry point is not a Kernel.
    """
    backend = kernels_of(backend)
    if backend not in _kernels:
        records = list(load_backend(backend).KERNELS)
        for name, entry in _entries(KERNEL_GROUP + backend).items():
            record = entry.load()
            if not isinstance(record, Kernel):
                raise BackendError(f"entry point {name!r} ({entry.value}) is a {type(record).__name__}, not a Kernel")
            records.append(record)
        _refuse_doubles(backend, records)
        _kernels[backend] = tuple(records)
    return _kernels[backend]


def kernels_of(backend: str) -> str:
    """The backend whose kernels this one runs: itself, or the one that it names as ``KERNELS_OF``."""
    return str(getattr(load_backend(backend), "KERNELS_OF", backend))


def register_kernel(backend: str, kernel: Kernel) -> None:
    """Add a kernel to this process (an entry point adds it for good)."""
    backend = kernels_of(backend)
    records = [*kernels(backend), kernel]
    _refuse_doubles(backend, records)
    _kernels[backend] = tuple(records)


def requested_kernel(kernel: str | None = None) -> str:
    """The kernel's name: the argument, else GRIFFIN_KERNEL, else "auto"."""
    return kernel or env.read("GRIFFIN_KERNEL") or AUTO


def select_kernel(backend: str, op: str, call: KernelCall, kernel: str | None = None) -> Kernel | None:
    """The kernel that runs ``op``, or None when ``op`` is to be composed of inner operations.

    A named kernel that stands under an inner operation is honoured there. "auto" takes the first whose
    ``supports`` says yes, and logs it once.

    Raises:
        KernelNotSupported: the named kernel does not exist or cannot run this call; the reason is given.
    """
    wanted = requested_kernel(kernel)
    records = [record for record in kernels(backend) if record.op == op]
    if wanted != AUTO:
        return _named(backend, op, call, wanted, records)
    for record in records:
        if not record.approximate and record.supports(call) is None:
            _announce(backend, record)
            return record
    if _inner(op):
        return None
    reasons = "; ".join(f"{r.name}: {r.supports(call)}" for r in records) or "none is registered"
    raise KernelNotSupported(f"no {backend} kernel can run {op}: {reasons}")


def packed_kernel(backend: str, op: str, call: KernelCall, kernel: str | None = None) -> Kernel | None:
    """The first kernel of ``op`` itself that runs packed sequences in one call; None when there is none.

    The operation then runs each sequence alone: that is what ``starts`` means, so nothing is refused here.
    """
    wanted = requested_kernel(kernel)
    records = [
        r for r in kernels(backend) if r.op == op and (r.name == wanted or (wanted == AUTO and not r.approximate))
    ]
    return next((record for record in records if record.supports(call) is None), None)


def part_kernel(backend: str, op: str, kernel: str | None = None) -> str:
    """The name to ask of a neighbouring operation (the conv beside the scan) when ``kernel`` was named for the whole.

    The name itself where ``op`` has such a kernel, else "auto": the name is honoured by the operation that has it.
    """
    wanted = requested_kernel(kernel)
    return wanted if any(r.op == op and r.name == wanted for r in kernels(backend)) else AUTO


def _named(backend: str, op: str, call: KernelCall, wanted: str, records: list[Kernel]) -> Kernel | None:
    for record in records:
        if record.name == wanted:
            reason = record.supports(call)
            if reason is not None:
                raise KernelNotSupported(f"kernel {wanted!r} cannot run {op} on {backend}: {reason}")
            _announce(backend, record)
            return record
    if any(r.name == wanted and r.op in _inner(op) for r in kernels(backend)):
        return None
    known = sorted({r.name for r in kernels(backend) if r.op == op or r.op in _inner(op)})
    raise KernelNotSupported(f"{backend} has no kernel {wanted!r} for {op}; {nearest(wanted, [AUTO, *known])}")


def _inner(op: str) -> tuple[str, ...]:
    return KERNEL_OPS[: KERNEL_OPS.index(op)] if op in KERNEL_OPS[:-1] else ()


def _announce(backend: str, record: Kernel) -> None:
    key = (backend, record.op, record.name)
    if key not in _announced:
        _announced.add(key)
        log.info("%s: %s runs on kernel %s", backend, record.op, record.name)


def _refuse_doubles(backend: str, records: Iterable[Kernel]) -> None:
    seen: set[tuple[str, str]] = set()
    for record in records:
        if (record.op, record.name) in seen:
            raise BackendError(f"two {backend} kernels of {record.op} are named {record.name!r}; rename one")
        seen.add((record.op, record.name))


def _framework_present(name: str) -> bool:
    entry = _entries(BACKEND_GROUP)[name]
    try:
        module = importlib.util.find_spec(entry.value)
    except ImportError:
        return False
    return module is not None and installed(name) is None


def _entries(group: str) -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        if entry.name in found and found[entry.name].value != entry.value:
            owners = sorted(str(e.dist.name if e.dist else "?") for e in (entry, found[entry.name]))
            raise BackendError(
                f"{group} {entry.name!r} is registered twice, by {owners[0]} and {owners[1]}; remove one"
            )
        found[entry.name] = entry
    return found
