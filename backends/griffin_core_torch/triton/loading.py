"""The modules of ``device``: as Triton compiles them, or as its interpreter runs them on CPU tensors.

Triton decides when a function is decorated whether it will be compiled or interpreted. To have both in one process, the
folder is imported a second time under another name, with interpretation switched on while it loads.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Literal

from griffin_core.errors import BackendError

_COMPILED = f"{__package__}.device"
_INTERPRETED = "griffin_core_torch_triton_interpreted"
_interpreting = ""  # of the process: a context variable could not be read in compiled code


@contextlib.contextmanager
def interpreting(body: Literal["plain", "worst"] = "plain") -> Iterator[None]:
    """Run the kernels inside the block in Triton's interpreter, one program after another, on CPU tensors.

    For proofs without a GPU: it is thousands of times slower, and its special functions are NumPy's (``body`` of
    ``device.special``: "worst" gives them a GPU's errors).
    """
    global _interpreting
    before, _interpreting = _interpreting, body
    try:
        yield
    finally:
        _interpreting = before


def interpreted() -> str:
    """The body of ``device.special`` with which kernels are interpreted here; "" where they are not."""
    return _interpreting


def absent() -> str | None:
    """Why Triton cannot be used, or None."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; PyTorch's CUDA and ROCm builds bring it"
    return None


def device(name: str) -> ModuleType:
    """A module of ``device`` in the form that is in force.

    Raises:
        BackendError: Triton is not installed.
    """
    reason = absent()
    if reason is not None:
        raise BackendError(reason)
    if not interpreted():
        return importlib.import_module(f"{_COMPILED}.{name}")
    return _interpreted(name)


def _interpreted(name: str) -> ModuleType:
    found = sys.modules.get(f"{_INTERPRETED}.{name}")
    if found is not None:
        return found
    import triton

    with triton.knobs.runtime.scope():
        triton.knobs.runtime.interpret = True
        if _INTERPRETED not in sys.modules:
            _alias(importlib.import_module(_COMPILED))
        found = importlib.import_module(f"{_INTERPRETED}.{name}")
    _mend()
    _shorten()
    return found


def _mend() -> None:
    """Put right what some versions of Triton's interpreter get wrong.

    3.6 cannot count to a number with a current NumPy; 3.9 takes a comparison of two numbers, once it is spread over a
    block, for an integer and refuses it as a mask.
    """
    from triton.runtime import interpreter

    patch, builder = interpreter._patch_lang_tensor, interpreter.InterpreterBuilder
    if getattr(patch, "mended", False):
        return

    def mended_patch(tensor: Any, *scope: Any) -> None:
        patch(tensor, *scope)
        tensor.__index__ = lambda self: int(self.handle.data.reshape(()))

    def with_bools(access: Callable[..., Any], place: int) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            mask = arguments[place]
            mask.data = mask.data.astype(bool, copy=False)
            return access(*arguments)

        return run

    mended_patch.mended = True  # type: ignore[attr-defined]
    interpreter._patch_lang_tensor = mended_patch
    builder.create_masked_load = with_bools(builder.create_masked_load, 2)
    builder.create_masked_store = with_bools(builder.create_masked_store, 3)


def _shorten() -> None:
    """Let interpreted functions call each other directly, and reductions be NumPy's.

    The interpreter prepares Triton's language anew in every call of one function by another, which takes as long as
    all else it does. It is prepared once for the kernel that calls them. Of reductions it knows those of Triton's own
    functions; any other it does number by number.
    """
    from triton.language import standard
    from triton.runtime.interpreter import InterpretedFunction

    known = {"add": standard._sum_combine, "least": standard._elementwise_min}
    for name, module in list(sys.modules.items()):
        if not name.startswith(f"{_INTERPRETED}."):
            continue
        for attribute, value in list(vars(module).items()):
            if isinstance(value, InterpretedFunction) and not attribute.endswith("_kernel"):
                plain = value.rewrite()
                plain.fn = plain  # where scans look for the function of what they are given
                setattr(module, attribute, known.get(attribute, plain))


def _alias(package: ModuleType) -> None:
    """A second package on the same folder."""
    spec = importlib.util.spec_from_file_location(
        _INTERPRETED, package.__file__, submodule_search_locations=list(package.__path__)
    )
    if spec is None or spec.loader is None:
        raise BackendError(f"{package.__file__} cannot be loaded a second time")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_INTERPRETED] = module
    spec.loader.exec_module(module)
