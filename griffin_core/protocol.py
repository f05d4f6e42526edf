"""What a backend exports. The numpy backend is the protocol: a test compares every backend's signatures to it.

A backend is a module. ``FUNCTIONS`` must all be there; ``CAPABILITIES`` may be missing and are then refused
by name. ``KERNELS`` is the backend's tuple of kernel records, best first within an operation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from griffin_core.config import GriffinConfig
from griffin_core.errors import BackendError

API_VERSION = 1

RECURRENT_OPS = ("linear_scan", "gated_scan", "rg_lru", "recurrent_middle")
"""Nested: each is defined through the one before it. A kernel may stand under any of them."""

CONV_OP = "conv1d"
KERNEL_OPS = (*RECURRENT_OPS, CONV_OP)

FUNCTIONS = (
    "from_numpy",
    "to_numpy",
    *KERNEL_OPS,
    "rms_norm",
    "local_attention",
    "init_state",
    "hidden",
    "logits",
    "forward",
    "load_params",
    "dump_params",
    "load_state",
    "dump_state",
    "take",
    "put",
)
CAPABILITIES = ("vjp", "decode", "Trainer")
"""Optional: ``vjp(f, inputs, cotangents)``, ``decode(...)``, ``Trainer(config, params, options)``."""


@dataclass(frozen=True)
class KernelCall:
    """What a kernel is asked to run, as plain facts.

    Attributes:
        shapes: shape by argument name; absent arguments are left out.
        dtypes: dtype name by argument name.
        device: "cpu", "cuda", "tpu", ...
        packed: whether ``starts`` is given.
        needs_grad: whether a gradient will be asked for.
    """

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    device: str = "cpu"
    packed: bool = False
    needs_grad: bool = False


EXAMPLE = (1, 256)
"""Rows and tokens of ``example_call``."""


def example_call(op: str, config: GriffinConfig, device: str = "cpu") -> KernelCall:
    """The call of an operation in prefill: shapes and dtypes as a backend would state them."""
    b, t = EXAMPLE
    d, h, k, w = config.lru_width, config.gate_blocks, config.block_width, config.conv_width
    row, gates = (b, t, d), {"recurrent_param": (d,)}
    shapes: dict[str, tuple[int, ...]] = {"x": row}
    if op == "linear_scan":
        shapes |= {"log_a": row}
    elif op == "gated_scan":
        shapes |= {"gate_x": row, "gate_a": row, **gates}
    elif op == CONV_OP:
        shapes |= {"weight": (d, 1, w), "bias": (d,)}
    else:
        for gate in ("input_gate", "recurrent_gate"):
            shapes |= {f"{gate}_weight": (h, k, k), f"{gate}_bias": (h, k)}
        shapes |= gates
    if op == "recurrent_middle":
        shapes |= {"conv_weight": (d, 1, w), "conv_bias": (d,)}
    return KernelCall(shapes, dict.fromkeys(shapes, "float32"), device)


def one_sequence_per_row(call: KernelCall) -> str | None:
    """What a kernel supports that says nothing else: every call but packed ones."""
    return "it runs one sequence per row" if call.packed else None


@dataclass(frozen=True)
class Kernel:
    """An implementation of one operation.

    Attributes:
        op: a name of ``KERNEL_OPS``.
        name: how users ask for it.
        forward: the operation's function on the backend's arrays, positional, without ``kernel``.
        vjp: ``vjp(*inputs, *outputs, *cotangents) -> gradients, one per input`` (None where an input is
            absent or not differentiable); None when the framework differentiates ``forward`` itself.
        supports: None when it can run the call, else the reason why not. Left out, it runs every call but packed
            ones, for which ``forward`` and ``vjp`` need ``starts`` as their last input.
        exact: promises bit-equality with its own single-tile run.
        approximate: promises less than the bounds of the conformance kit. It runs by name only, and is judged and
            listed among those to be timed only where it is named.
    """

    op: str
    name: str
    forward: Callable[..., Any]
    vjp: Callable[..., Any] | None = None
    supports: Callable[[KernelCall], str | None] = one_sequence_per_row
    exact: bool = False
    approximate: bool = False

    def __post_init__(self) -> None:
        if self.op not in KERNEL_OPS:
            raise BackendError(f"kernel {self.name!r} names the operation {self.op!r}; known: {', '.join(KERNEL_OPS)}")
        if not self.name or self.name == "auto":
            raise BackendError(f"a kernel for {self.op} is named {self.name!r}; choose a name other than 'auto'")


def device_of(module: ModuleType) -> str:
    """Where a backend's arrays lie when nothing is said: its ``platform()``, or "cpu" where it has none."""
    found = getattr(module, "platform", None)
    return "cpu" if found is None else str(found())


def compiles_shapes(module: ModuleType) -> bool:
    """Whether a backend compiles a program for every shape it meets: it says so with ``COMPILES_SHAPES = True``."""
    return bool(getattr(module, "COMPILES_SHAPES", False))


def release_programs(module: ModuleType) -> None:
    """Let a backend drop programs that it compiled, by its ``release_programs()``, if they have become too many."""
    release = getattr(module, "release_programs", None)
    if release is not None:
        release()


def check_backend(name: str, module: ModuleType) -> None:
    """Refuse a backend that does not export the protocol.

    Raises:
        BackendError: listing what is missing, or naming the API version it was written for.
    """
    version = getattr(module, "API_VERSION", None)
    if version != API_VERSION:
        raise BackendError(f"backend {name!r} has API_VERSION {version!r}; this griffin-core speaks {API_VERSION}")
    missing = [f for f in (*FUNCTIONS, "KERNELS") if not hasattr(module, f)]
    if missing:
        raise BackendError(f"backend {name!r} lacks {', '.join(missing)}; see docs/add-a-backend.md")


def capability(name: str, module: ModuleType, what: str) -> Any:
    """The optional function ``what`` of a backend.

    Raises:
        BackendError: the backend does not have it.
    """
    found = getattr(module, what, None)
    if found is None:
        raise BackendError(f"the {name} backend has no {what}; choose another with GRIFFIN_BACKEND or --backend")
    return found
