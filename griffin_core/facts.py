"""What ``griffin info`` shows, as plain data: backends and their kernels, the environment, presets, checkpoints."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from griffin_core import env, memory, protocol, registry
from griffin_core.checkpoints.checkpoint import Checkpoint
from griffin_core.checkpoints.formats import FORMATS, programs
from griffin_core.checkpoints.manifest import library_version
from griffin_core.checkpoints.opening import open_checkpoint
from griffin_core.config import GriffinConfig
from griffin_core.errors import GriffinError, KernelNotSupported
from griffin_core.layouts.params import parameter_count
from griffin_core.presets import PRESETS, preset
from griffin_core.protocol import CONV_OP, KERNEL_OPS, example_call
from griffin_core.text.tokenizer import from_files

TOKENS = 2048
"""Tokens for which memory is estimated: the length of a training row, and the capacity of a global layer."""
DTYPES = ("float32", "bfloat16")


def environment() -> list[dict[str, Any]]:
    """Every variable that the library reads, with its value now."""
    return [
        {"name": v.name, "value": env.read(v.name), "default": v.default, "meaning": v.meaning} for v in env.VARIABLES
    ]


def machine() -> dict[str, Any]:
    """Versions and sizes that decide what can run."""
    return {
        "griffin_core": library_version(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "memory_available": memory.available(),
    }


def backends(config: GriffinConfig) -> list[dict[str, Any]]:
    """Every registered backend: does it load, its version, devices, capabilities, and its kernels for ``config``."""
    chosen = registry.choose_backend()
    rows = []
    for name in registry.backend_names():
        problem = registry.installed(name)
        row: dict[str, Any] = {"name": name, "chosen": name == chosen, "problem": problem}
        if problem is None:
            module = registry.load_backend(name)
            row |= {
                "version": _version(name, module),
                "engine": getattr(module, "ENGINE", None),
                "devices": _devices(module),
                "capabilities": {what: hasattr(module, what) for what in protocol.CAPABILITIES},
                "kernels": [_operation(name, op, config, protocol.device_of(module)) for op in KERNEL_OPS],
            }
        rows.append(row)
    return rows


def preset_facts(name: str) -> dict[str, Any]:
    """A preset's config, its exact parameter count, and what it needs of memory; nothing is allocated.

    Raises:
        ConfigError: there is no such preset.
    """
    found = preset(name)
    config = found.config
    capacity = TOKENS if config.has_global_attention else None
    inference = {dtype: memory.inference(config, dtype, capacity=capacity) for dtype in DTYPES}
    training = {
        f"{dtype}{', recomputing' if recompute else ''}": memory.training(config, 1, TOKENS, dtype, recompute)
        for dtype in DTYPES
        for recompute in (False, True)
    }
    return {
        "preset": name,
        "about": found.about,
        "init": found.init,
        "config": config.to_dict(),
        "parameters": parameter_count(config),
        "capacity": capacity,
        "state_bytes": {dtype: estimate.state for dtype, estimate in inference.items()},
        "inference_bytes": {dtype: _bytes(estimate) for dtype, estimate in inference.items()},
        "training_bytes": {how: _bytes(estimate) for how, estimate in training.items()},
    }


def checkpoint_facts(
    path: str | Path, verify: bool = True, config: str | Path | None = None, window_convention: str | None = None
) -> dict[str, Any]:
    """What a checkpoint of any format holds and whether it is whole.

    Args:
        verify: hash every file and look for NaN; else only sizes, names and shapes are checked.
        config, window_convention: as in ``griffin_core.load``.

    Raises:
        CheckpointError: it is no checkpoint, or is damaged.
    """
    found = open_checkpoint(path, verify=verify, config=config, window_convention=window_convention)
    dtypes: dict[str, int] = {}
    for value in found.params.values():
        dtypes[value.dtype.name] = dtypes.get(value.dtype.name, 0) + value.size
    hashes = {} if found.manifest is None else {name: r.sha256 for name, r in found.manifest.files.items()}
    return {
        "path": str(path),
        "format": found.format,
        "about": FORMATS[found.format].about,
        "preset": next((name for name, known in PRESETS.items() if known.config == found.config), None),
        "config": found.config.to_dict(),
        "parameters": parameter_count(found.config),
        "dtypes": dtypes,
        "shards": [
            {
                "file": file or "the orbax tree",
                "tensors": len(tensors),
                "bytes": found.sizes.get(file, sum(tensor.nbytes for tensor in tensors.values())),
                "sha256": hashes.get(file),
            }
            for file, tensors in found.layout.items()
        ],
        "bytes": sum(found.sizes.values()) or sum(tensor.nbytes for tensor in found.stored.values()),
        "integrity": _integrity(found, verify),
        "verified": verify,
        "weights_sha256": found.digest,
        "library_version": None if found.manifest is None else found.manifest.library_version,
        "metadata": found.metadata,
        "notes": list(found.notes),
        "tokenizer": _tokenizer_facts(found.tokenizer_files),
        "formats": {name: row.cannot(found.config) for name, row in FORMATS.items()},
        "programs": programs(found.config, found.format, dtypes, found.manifest is not None),
    }


def _integrity(found: Checkpoint, verified: bool) -> str:
    """What is known about damage, in words."""
    if not verified:
        return "names, shapes and sizes only; nothing was hashed"
    if found.manifest is not None:
        return "every file matches its SHA-256, no NaN"
    return "names and shapes fit, no NaN; there is no manifest, so a changed value cannot be noticed"


def _bytes(estimate: memory.Estimate) -> dict[str, int]:
    return {**asdict(estimate), "total": estimate.total}


def _version(name: str, module: ModuleType) -> str | None:
    """The framework's version; a backend's distribution is asked where no module has the backend's name."""
    framework = sys.modules.get(name)
    found = getattr(framework, "__version__", None)
    if found is None:
        owners = metadata.packages_distributions().get(module.__name__.split(".")[0], [])
        found = metadata.version(owners[0]) if owners else None
    return None if found is None else str(found)


def _devices(module: ModuleType) -> list[str]:
    """Backends may say what they can run on (``devices()``); those that do not run on the processor."""
    listed = getattr(module, "devices", None)
    return ["cpu"] if listed is None else [str(device) for device in listed()]


def _operation(backend: str, op: str, config: GriffinConfig, device: str) -> dict[str, Any]:
    """Which kernel would run one operation of ``config`` in float32, and why not the others."""
    call = example_call(op, config, device)
    records = [record for record in registry.kernels(backend) if record.op == op]
    reasons = {record.name: record.supports(call) for record in records}
    wanted = registry.requested_kernel()
    part = registry.part_kernel(backend, op) if op == CONV_OP else wanted
    try:
        chosen, problem = registry.select_kernel(backend, op, call, part), None
    except KernelNotSupported as error:
        chosen, problem = None, str(error)
    return {"op": op, "runs": None if chosen is None else chosen.name, "problem": problem, "kernels": reasons}


def _tokenizer_facts(files: Any) -> dict[str, Any] | None:
    """Kind, size and special ids; a tokenizer that cannot be loaded here says why."""
    try:
        tokenizer = from_files(files)
    except GriffinError as error:
        return {"kind": None, "problem": str(error)}
    if tokenizer is None:
        return None
    ids = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    return {"kind": type(tokenizer).__name__, "vocab_size": tokenizer.vocab_size, **ids, "problem": None}
