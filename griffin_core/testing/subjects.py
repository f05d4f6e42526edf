"""What is judged, and how it is called: arrays go in and come out as NumPy, whatever the framework between."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from griffin_core.errors import KernelNotSupported
from griffin_core.protocol import Kernel, KernelCall, device_of
from griffin_core.shapes import Array
from griffin_core.testing.inputs import Inputs
from griffin_core.testing.operations import Operation, arranged, named
from griffin_core.testing.placing import place
from griffin_core.testing.search import JudgedError, RefusedCase
from griffin_core.testing.tolerance import dtype_name

Native = Any
"""An array of the judged backend."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A callable under judgement.

    Attributes:
        label: its name in reports.
        op: the operation that it claims to be.
        backend: name of the backend whose arrays it takes.
        arrays: that backend's module: from_numpy, to_numpy and perhaps vjp.
        function: takes the operation's positional arguments on the backend's arrays.
        packed: the same with ``starts`` as a last argument, or None.
        vjp: a kernel's own gradient ``vjp(*inputs, *outputs, *cotangents)``, or None to differentiate ``function``.
        supports: a kernel's reason not to run a call.
        target: code that evaluates to the judged thing, for reproductions.
        exact: cutting the sequence must not change a bit.
    """

    label: str
    op: Operation
    backend: str
    arrays: ModuleType
    function: Callable[..., Any]
    packed: Callable[..., Any] | None = None
    vjp: Callable[..., Any] | None = None
    supports: Callable[[KernelCall], str | None] | None = None
    target: str = ""
    exact: bool = False

    def to_native(self, inputs: Inputs, layout: str = "contiguous") -> dict[str, Native]:
        """The backend's arrays for a call; those over time and the states lie in memory as ``layout`` says."""
        placed = {*self.op.timed, self.op.marks, *(name for name, _ in self.op.carries)}
        return {
            name: place(self.arrays, value, layout if name in placed else "contiguous")
            if isinstance(value, np.ndarray)
            else value
            for name, value in inputs.items()
        }

    def run(self, inputs: Inputs, layout: str = "contiguous", starts: Array | None = None) -> dict[str, Array]:
        """Flat outputs as fresh NumPy arrays.

        Raises:
            JudgedError: the judged function raised, or did not return the operation's outputs.
            RefusedCase: the kernel does not support the call.
        """
        native = self.to_native(inputs, layout)
        return self.to_numpy(self.call(native, starts))

    def to_numpy(self, outputs: Mapping[str, Native]) -> dict[str, Array]:
        """Flat outputs as NumPy arrays; an absent one is left out."""
        try:
            found = {name: self.arrays.to_numpy(value) for name, value in outputs.items() if value is not None}
        except Exception as error:
            raise JudgedError(f"it returned something that is not an array of {self.backend}: {say(error)}") from error
        return found

    def call(self, native: dict[str, Native], starts: Array | None = None) -> dict[str, Native]:
        """The judged function on native arrays, its outputs by flat name; errors as in ``run``."""
        self._ask_support(native, packed=starts is not None)
        return self._invoke(native, starts)

    def _invoke(self, native: dict[str, Native], starts: Array | None = None) -> dict[str, Native]:
        arguments = self.op.arrange(native)
        try:
            with np.errstate(all="ignore"):  # NaN and infinity are part of the questions
                if starts is None:
                    outputs = self.function(*arguments)
                else:
                    outputs = (self.packed or self.function)(*arguments, self.arrays.from_numpy(starts))
        except KernelNotSupported as refusal:
            raise RefusedCase(str(refusal)) from refusal
        except Exception as error:
            raise JudgedError(f"it raised {say(error)}") from error
        return self._named(outputs)

    def _ask_support(self, native: Mapping[str, Native], needs_grad: bool = False, packed: bool = False) -> None:
        if self.supports is None:
            return
        arrays = {name: value for name, value in native.items() if hasattr(value, "shape")}
        shapes = {name: tuple(value.shape) for name, value in arrays.items()}
        dtypes = {name: dtype_name(self.arrays.to_numpy(value).dtype) for name, value in arrays.items()}
        call = KernelCall(shapes, dtypes, device_of(self.arrays), packed=packed, needs_grad=needs_grad)
        reason = self.supports(call)
        if reason is not None:
            raise RefusedCase(reason)

    def _named(self, outputs: Any) -> dict[str, Native]:
        expected = len(self.op.outputs)
        if not isinstance(outputs, Sequence) or len(outputs) != expected:
            kind = f"{len(outputs)} values" if isinstance(outputs, Sequence) else type(outputs).__name__
            names = ", ".join(slot if isinstance(slot, str) else slot.name for slot in self.op.outputs)
            raise JudgedError(f"it returned {kind}; {self.op.name} returns ({names})")
        return self.op.name_outputs(outputs)

    @property
    def differentiable(self) -> tuple[str, ...]:
        """Flat names of the arguments that have a gradient, in order."""
        flat = [name for slot in self.op.slots for name in ([slot] if isinstance(slot, str) else slot.names)]
        return tuple(name for name in flat if name not in ("reset", "positions"))

    def gradient(self, inputs: Inputs, cotangents: Inputs, layout: str = "contiguous") -> dict[str, Array | None]:
        """Gradients by flat name for cotangents by output name; None where the backend gives none.

        Raises:
            JudgedError: the forward or the backward pass raised.
            RefusedCase: the kernel does not support the call.
        """
        found = self.gradient_of(self.to_native(inputs, layout), cotangents)
        return {name: None if value is None else self.arrays.to_numpy(value) for name, value in found.items()}

    def gradient_of(self, native: dict[str, Native], cotangents: Inputs) -> dict[str, Native]:
        """``gradient`` on native arrays."""
        seeds = {name: self.arrays.from_numpy(value) for name, value in cotangents.items()}
        self._ask_support(native, needs_grad=True)
        with np.errstate(all="ignore"):
            return self._own_gradient(native, seeds) if self.vjp else self._differentiate(native, seeds)

    def _own_gradient(self, native: dict[str, Native], seeds: dict[str, Native]) -> dict[str, Native]:
        outputs = self.call(native)
        arguments, vjp = self.op.arrange(native), self.vjp
        results = [arranged(slot, outputs) for slot in self.op.outputs]
        try:
            found = vjp(*arguments, *results, *(arranged(slot, seeds) for slot in self.op.outputs)) if vjp else ()
        except Exception as error:
            raise JudgedError(f"its vjp raised {say(error)}") from error
        if not isinstance(found, Sequence) or len(found) != len(self.op.slots):
            raise JudgedError(f"its vjp did not return {len(self.op.slots)} gradients, one for each argument")
        gradients = named(self.op.slots, found)
        return {name: gradients[name] for name in self.differentiable if native[name] is not None}

    def _differentiate(self, native: dict[str, Native], seeds: dict[str, Native]) -> dict[str, Native]:
        names = [name for name in self.differentiable if native[name] is not None]
        outputs = [slot for slot in self.op.outputs if isinstance(slot, str)]

        def f(*values: Native) -> tuple[Native, ...]:
            got = self._invoke({**native, **dict(zip(names, values, strict=True))})  # support is asked by now
            return tuple(got[name] for name in outputs)

        try:
            found = self.arrays.vjp(f, tuple(native[n] for n in names), tuple(seeds[n] for n in outputs))
        except (JudgedError, RefusedCase):
            raise
        except KernelNotSupported as refusal:
            raise RefusedCase(str(refusal)) from refusal
        except Exception as error:
            raise JudgedError(f"its gradient raised {say(error)}") from error
        return dict(zip(names, found, strict=True))


def from_callable(
    function: Callable[..., Any], op: Operation, backend: str, arrays: ModuleType, target: str
) -> Subject:
    """A function of one's own, with the operation's positional signature."""
    name = getattr(function, "__qualname__", type(function).__name__)
    return Subject(label=name, op=op, backend=backend, arrays=arrays, function=function, target=target)


def from_kernel(kernel: Kernel, op: Operation, backend: str, arrays: ModuleType, target: str) -> Subject:
    """A kernel record by itself, registered or not: its own forward and its own gradient."""
    return Subject(
        label=f"kernel {kernel.name}",
        op=op,
        backend=backend,
        arrays=arrays,
        function=kernel.forward,
        packed=kernel.forward if "starts" in inspect.signature(kernel.forward).parameters else None,
        vjp=kernel.vjp,
        supports=kernel.supports,
        target=target,
        exact=kernel.exact,
    )


def from_backend(op: Operation, backend: str, arrays: ModuleType, record: Kernel | None = None) -> Subject:
    """A backend's operation as users call it, with one of its kernels named or with "auto"."""
    function = getattr(arrays, op.name)
    options = {} if op.name == "local_attention" else {"kernel": record.name if record else "auto"}
    vjp = record.vjp if record is not None and not hasattr(arrays, "vjp") else None
    return Subject(
        label=f"{op.name}" + (f" [{record.name}]" if record else ""),
        op=op,
        backend=backend,
        arrays=arrays,
        function=lambda *arguments: function(*arguments, **options),
        packed=None if not options else lambda *arguments: function(*arguments[:-1], starts=arguments[-1], **options),
        vjp=vjp,
        target=repr(record.name) if record else "None",
        exact=bool(record and record.exact),
    )


def importable(function: Any) -> str:
    """ "module:attribute" when that is what ``function`` is, else ""."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    found = inspect.getattr_static(sys.modules.get(module or ""), name or "", None) if module and name else None
    return f"{module}:{name}" if found is function and module != "__main__" else ""


def say(error: Exception) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
