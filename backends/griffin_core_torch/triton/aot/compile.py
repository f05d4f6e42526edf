"""Compile a program for a GPU and read registers, spills and instructions from the result."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from griffin_core.errors import BackendError, ConfigError, nearest
from griffin_core_torch.triton.aot.programs import Program
from griffin_core_torch.triton.launch import OPTIONS
from griffin_core_torch.triton.loading import device

TARGETS: dict[str, tuple[str, int | str, int]] = {
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "sm_100": ("cuda", 100, 32),
    "gfx942": ("hip", "gfx942", 64),
}
"""Backend, architecture and lanes of a warp by name."""

_FLOATS = (
    "param",
    "h",
    "h0",
    "last",
    "states",
    "states_in",
    "dlast",
    "dh0",
    "drate",
    "given",
    "sums",
    "partial",
    "dstate",
)
_INTEGERS = {"marks": "*i32", "begins": "*i32", "ends": "*i32", "slots": "*i32", "words": "*i64", "ticket": "*i64"}
_INTEGERS |= {"local": "*i32", "sequences": "*i32", "starts": "*i64", "positions": "*i64"}
_SIZES = ("batch", "time", "width", "tiles", "saved", "count")
_SPECIAL = {"cuda": re.compile(r"MUFU"), "hip": re.compile(r"v_(exp|rcp|rsq|log|sqrt)_f32")}
_NOT_COUNTED = ("NOP", "s_nop", "s_endpgm", "s_waitcnt", "s_code_end")


@dataclass(frozen=True)
class Build:
    """What a compiler made of a program.

    Attributes:
        registers: of a thread.
        spills: bytes of a thread that did not fit into registers.
        instructions, special: of a thread for each element; the special ones are exp2, reciprocal and roots. Every
            instruction counts once, so loops that wait count as if they waited once.
        memory: shared memory of a program, bytes.
    """

    registers: int
    spills: int
    instructions: float
    special: float
    memory: int


def build(program: Program, target: str) -> Build:
    """Compile for one of ``TARGETS``.

    Raises:
        ConfigError: no such target.
        BackendError: Triton is not installed, or its own tools fail.
    """
    if target not in TARGETS:
        raise ConfigError(f"unknown GPU {target!r}; {nearest(target, TARGETS)}")
    kernel = getattr(device(program.module), program.kernel)
    from triton import compile as compile_triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    maker, architecture, lanes = TARGETS[target]
    constants = {**program.constants, "BODY": "ptx" if maker == "cuda" else "hip"}
    signature = {name: _type(name, program.dtype, constants) for name in kernel.arg_names}
    index = {name: (place,) for place, name in enumerate(kernel.arg_names)}
    aligned = [name for name, kind in signature.items() if kind.startswith("*") or kind == "i64" or name == "width"]
    source = ASTSource(
        kernel,
        signature=signature,
        constexprs={index[name]: constants[name] for name in signature if signature[name] == "constexpr"},
        attrs={index[name]: [["tt.divisibility", 16]] for name in aligned if name != "ticket"},
    )
    options = {"num_warps": program.warps, **OPTIONS}
    made = compile_triton(source, target=GPUTarget(maker, architecture, lanes), options=options)
    elements = program.elements * 32 / lanes
    read = _read_cubin if maker == "cuda" else _read_amd
    return read(made, elements)


def _type(name: str, dtype: str, constants: dict[str, Any]) -> str:
    if name in constants:
        return "constexpr"
    if name in _INTEGERS:
        return _INTEGERS[name]
    if name in _SIZES:
        return "i32"
    if name.endswith("_batch"):
        return "i64"
    if name == "eps":
        return "fp32"
    return "*fp32" if name in _FLOATS else f"*{dtype}"


def _read_cubin(made: Any, elements: float) -> Build:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(made.asm["cubin"])
        usage, text = _tool("cuobjdump", "-res-usage", str(path)), _tool("nvdisasm", "-c", str(path))
    sizes = {name: int(value) for name, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", usage)}
    found = [line.strip() for line in re.findall(r"/\*[0-9a-f]{4,}\*/\s+(.*?);", text)]
    names = [re.sub(r"^@!?U?P\w+\s+", "", line).split()[0] for line in found]
    counts = _count(names, "cuda", elements)
    return Build(sizes["REG"], sizes["STACK"] + sizes["LOCAL"], *counts, memory=made.metadata.shared)


def _read_amd(made: Any, elements: float) -> Build:
    text = made.asm["amdgcn"]
    sizes = {
        name: int(value) for name, value in re.findall(r"\.(vgpr_count|private_segment_fixed_size):\s+(\d+)", text)
    }
    names = re.findall(r"^\t([sv]_\w+|ds_\w+|global_\w+|buffer_\w+|flat_\w+|scratch_\w+)", text, re.MULTILINE)
    counts = _count(names, "hip", elements)
    return Build(sizes["vgpr_count"], sizes["private_segment_fixed_size"], *counts, memory=made.metadata.shared)


def _count(names: list[str], maker: str, elements: float) -> tuple[float, float]:
    """(instructions, special functions) for each element, to two places."""
    counted = Counter(name for name in names if name not in _NOT_COUNTED)
    special = sum(count for name, count in counted.items() if _SPECIAL[maker].match(name))
    return round(sum(counted.values()) / elements, 2), round(special / elements, 2)


def _tool(name: str, *arguments: str) -> str:
    """The output of one of the NVIDIA tools that come with Triton."""
    import triton

    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    if not path.exists():
        raise BackendError(f"{path} is missing; reinstall triton {triton.__version__}")
    found = subprocess.run([str(path), *arguments], capture_output=True, text=True, check=False)
    if found.returncode:
        raise BackendError(f"{name} failed: {found.stderr.strip()[:300]}")
    return found.stdout
