"""Judge a function, a kernel or a whole backend against the reference: ``judge``, ``verify`` and ``replay``."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

from griffin_core import registry
from griffin_core.errors import BackendError, ConfigError, InputError, nearest
from griffin_core.presets import preset
from griffin_core.protocol import Kernel, device_of, example_call
from griffin_core.testing import laws, search, subjects
from griffin_core.testing.cases import Case, ModelCase
from griffin_core.testing.judging import Effort, choose, judge_subject
from griffin_core.testing.operations import OPERATIONS, Operation
from griffin_core.testing.report import Record, Report
from griffin_core.testing.subjects import Subject
from griffin_core.testing.trial import Trial

DEFAULT_OP = "linear_scan"

Target = str | Kernel | ModuleType | Callable[..., Any] | None
Progress = Callable[[str], None]
"""Called with the name of what is judged next."""


def judge(
    target: Target = None,
    *,
    backend: str | None = None,
    op: str | None = None,
    properties: Iterable[str] | None = None,
    profile: str = "quick",
    seed: int = 0,
    large: bool = True,
    progress: Progress | None = None,
) -> Report:
    """Judge something against the reference.

    Args:
        target: a function with an operation's positional signature on the backend's arrays; a ``Kernel``; the
            name of a registered kernel; "module:attribute" of either; or None for the whole backend.
        backend: whose arrays it takes; None chooses as everywhere.
        op: the operation that a function claims to be (default linear_scan), or the only one to judge.
        properties: names of the only properties to judge; None is all that apply.
        profile: "quick", "ci" or "thorough": how many cases are drawn.
        seed: of the draws.
        large: draw sizes beside those of large blocks too. An interpreted kernel, whose blocks are small, takes
            minutes for one of them.
        progress: told what is judged next.

    Returns:
        A report. An exception in what is judged is a failed property, never an exception here.

    Raises:
        BackendError: unknown backend or kernel.
        ConfigError: unknown operation, property or profile.
        InputError: "module:attribute" names nothing that can be judged.
    """
    effort, names = Effort(profile, seed, large), None if properties is None else list(properties)
    search.draws(profile)  # refuses an unknown profile before anything runs
    if op is not None and op not in OPERATIONS:
        raise ConfigError(f"unknown operation {op!r}; {nearest(op, OPERATIONS)}")
    name = registry.choose_backend(backend)
    module = registry.load_backend(name)
    records: list[Record] = []
    whole = target is None and op is None
    chosen = None if names is None else [n for n in names if n not in laws.BY_NAME or not whole]
    choose(chosen)
    for subject in subjects_of(target, name, module, op):
        if progress is not None:
            progress(subject.label)
        records += judge_subject(subject, effort, chosen)
    if whole:
        records += laws.judge_backend(name, module, effort, names, progress)
    return Report(f"{name} backend" if target is None else f"{_title(target)} on {name}", tuple(records))


def verify(target: Target = None, backend: str | None = None, **options: Any) -> Report:
    """``judge``, under the name of the command: ``griffin.verify("my_package:my_scan", backend="torch")``."""
    return judge(target, backend=backend, **options)


def replay(
    target: Target, name: str, case: Case | ModelCase, *, op: str = DEFAULT_OP, backend: str | None = None
) -> None:
    """Run one property on one case; what a report prints for a failure calls this.

    Raises:
        AssertionError: the property does not hold.
        JudgedError: what is judged raised; the cause is chained.
    """
    backend = registry.choose_backend(backend)
    module = registry.load_backend(backend)
    if isinstance(case, ModelCase):
        laws.check_law(name, case, backend, module)
        return
    for subject in subjects_of(target, backend, module, op):
        choose([name])[0].check(Trial(subject, case))


def subjects_of(target: Target, backend: str, module: ModuleType, op: str | None) -> Iterator[Subject]:
    """What a target stands for: one subject for each operation that it can be asked for."""
    label = ""
    if isinstance(target, str) and ":" in target:
        label, target = target, load(target)
    if isinstance(target, Kernel):
        if op not in (None, target.op):
            raise ConfigError(f"kernel {target.name!r} is a {target.op}, not a {op}; leave --op out")
        yield subjects.from_kernel(target, OPERATIONS[target.op], backend, module, _expression(label, target))
    elif callable(target):
        chosen = OPERATIONS[op or DEFAULT_OP]
        yield subjects.from_callable(target, chosen, backend, module, _expression(label, target))
    elif isinstance(target, str):
        yield from _registered(target, backend, module, op)
    elif target is None:
        for operation in OPERATIONS.values():
            if op in (None, operation.name):
                yield from _of_backend(operation, backend, module)
    else:
        raise InputError(f"{target!r} is a {type(target).__name__}; expected a function, a Kernel or a name")


def load(path: str) -> Kernel | Callable[..., Any]:
    """The function or kernel at "module:attribute".

    Raises:
        InputError: the module cannot be imported, has no such attribute, or it is neither.
    """
    module_name, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # whatever a module does while it is imported is its own doing
        raise InputError(
            f"cannot import {module_name!r} for {path!r} ({error}); run in its folder, or install it"
        ) from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise InputError(
                f"{path!r}: {name!r} does not exist; {nearest(name, [n for n in vars(found) if n[0] != '_'])}"
            )
        found = getattr(found, name)
    if isinstance(found, Kernel):
        return found
    if not callable(found):
        raise InputError(f"{path!r} is a {type(found).__name__}; expected a function or a griffin_core.protocol.Kernel")
    judged: Callable[..., Any] = found
    return judged


def _registered(name: str, backend: str, module: ModuleType, op: str | None) -> Iterator[Subject]:
    records = registry.kernels(backend)
    found = [r for r in records if r.name == name and op in (None, r.op)]
    if not found:
        of = f" for {op}" if op else ""
        known = {r.name for r in records if op in (None, r.op)}
        raise BackendError(f"{backend} has no kernel {name!r}{of}; {nearest(name, known)}, or module:attribute")
    for record in found:
        yield subjects.from_backend(OPERATIONS[record.op], backend, module, record)


def _of_backend(operation: Operation, backend: str, module: ModuleType) -> Iterator[Subject]:
    """Every kernel of the operation that promises its bounds, and the operation itself where none runs here."""
    records = [r for r in registry.kernels(backend) if r.op == operation.name and not r.approximate]
    call = example_call(operation.name, preset("griffin-tiny").config, device_of(module))
    if not any(record.supports(call) is None for record in records):
        yield subjects.from_backend(operation, backend, module)
    for record in records:
        yield subjects.from_backend(operation, backend, module, record)


def _expression(label: str, target: Any) -> str:
    path = label or ("" if isinstance(target, Kernel) else subjects.importable(target))
    return repr(path) if path else ""


def _title(target: Target) -> str:
    if isinstance(target, str):
        return target
    return f"kernel {target.name}" if isinstance(target, Kernel) else str(getattr(target, "__qualname__", target))
