"""The TPU generations that the kernels are compiled for, and which of them a trace is for.

A *device* is what JAX calls one: a TPU7x chip and a v4 chip (as the ahead-of-time topologies describe it) hold two,
a v5p chip is one device with two cores that split "parallel" grid dimensions between them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import jax

from griffin_core.errors import BackendError, nearest

MIB = 2**20


@dataclass(frozen=True)
class Chip:
    """One TPU generation.

    Attributes:
        name: as users and tables write it.
        device_kinds: what ``device.device_kind`` says on a live device; the first is the topology's own.
        topology: smallest topology that ahead-of-time compilation describes.
        vmem_bytes: VMEM of a core.
        vmem_default: what a kernel may use of it without asking.
        vmem_limit: what it may use with ``vmem_limit_bytes`` (seen to compile; the rest is the compiler's).
        hbm_bytes: memory of a device that a program may use, as the compiler states it.
        hbm_bandwidth: bytes per second of a device (vendor's figure, divided by the devices of a chip).
        cores: cores of a device.
        clock: cycles per second: an ASSUMPTION, inferred from public peak figures and never measured.
        static_profile: whether the compiler's static cycle profile knows the generation.
    """

    name: str
    device_kinds: tuple[str, ...]
    topology: str
    vmem_bytes: int
    vmem_default: int
    vmem_limit: int
    hbm_bytes: int
    hbm_bandwidth: float
    cores: int
    clock: float
    static_profile: bool = True

    @property
    def bytes_per_cycle(self) -> float:
        """HBM bytes that one core may move in one (assumed) cycle when all cores move."""
        return self.hbm_bandwidth / self.cores / self.clock


CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        Chip(
            "v4",
            ("TPU v4",),
            "v4:2x2x1",
            vmem_bytes=16 * MIB,
            vmem_default=16 * MIB,
            vmem_limit=16 * MIB,
            hbm_bytes=int(15.25 * 2**30),
            hbm_bandwidth=614e9,
            cores=1,
            clock=1.05e9,
            static_profile=False,
        ),
        Chip(
            "v5e",
            ("TPU v5 lite", "TPU v5e"),
            "v5e:2x2",
            vmem_bytes=128 * MIB,
            vmem_default=16 * MIB,
            vmem_limit=100 * MIB,
            hbm_bytes=int(15.75 * 2**30),
            hbm_bandwidth=819e9,
            cores=1,
            clock=1.5e9,
        ),
        Chip(
            "v5p",
            ("TPU v5", "TPU v5p"),
            "v5p:2x2x1",
            vmem_bytes=64 * MIB,
            vmem_default=16 * MIB,
            vmem_limit=60 * MIB,
            hbm_bytes=int(95.73 * 2**30),
            hbm_bandwidth=2765e9,
            cores=2,
            clock=1.75e9,
        ),
        Chip(
            "v6e",
            ("TPU v6 lite", "TPU v6e"),
            "v6e:2x2",
            vmem_bytes=128 * MIB,
            vmem_default=32 * MIB,
            vmem_limit=100 * MIB,
            hbm_bytes=int(31.24 * 2**30),
            hbm_bandwidth=1640e9,
            cores=1,
            clock=1.75e9,
        ),
        Chip(
            "tpu7x",
            ("TPU7x", "TPU v7x"),
            "tpu7x:2x2x1",
            vmem_bytes=64 * MIB,
            vmem_default=32 * MIB,
            vmem_limit=60 * MIB,
            hbm_bytes=int(94.74 * 2**30),
            hbm_bandwidth=3690e9,
            cores=1,
            clock=2.2e9,
        ),
    )
}
"""Every generation the kernels are proven to compile for, oldest first."""

SMALLEST = CHIPS["v4"]
"""What a trace is planned for when nothing says which chip it is for: the least VMEM of all."""

_target = jax.make_user_context(None)  # part of jit's cache key: one function may be traced for several chips


def chip(name: str) -> Chip:
    """The generation called ``name``.

    Raises:
        BackendError: no such row.
    """
    if name not in CHIPS:
        raise BackendError(f"unknown TPU generation {name!r}; {nearest(name, CHIPS)}")
    return CHIPS[name]


def chip_of(device_kind: str) -> Chip | None:
    """The generation of a live device by its ``device_kind``; None when the table has no such row."""
    return next((row for row in CHIPS.values() if device_kind in row.device_kinds), None)


def targeting(target: Chip | None) -> AbstractContextManager[None]:
    """Plan every kernel traced inside the ``with`` block for this generation (None: for what JAX runs on)."""
    context: AbstractContextManager[None] = _target(None if target is None else target.name)
    return context


def device_kind() -> str | None:
    """The kind of TPU that is traced for: the mesh's in use, else the default device's; None when it is no TPU."""
    described = jax.sharding.get_abstract_mesh().abstract_device
    if described is not None:
        return str(described.device_kind)
    return str(jax.devices()[0].device_kind) if jax.default_backend() == "tpu" else None


def current() -> Chip:
    """The generation to plan a kernel for: ``targeting``'s, else the device's, else the one with the least VMEM."""
    if _target.value is not None:
        return CHIPS[_target.value]
    kind = device_kind()
    return SMALLEST if kind is None else chip_of(kind) or SMALLEST
