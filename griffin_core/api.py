"""The library's front door: load, init, convert, verify. Re-exported by ``griffin_core``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from griffin_core import env, memory, registry
from griffin_core.checkpoints.convert import convert
from griffin_core.checkpoints.opening import open_checkpoint
from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointError, ConfigError, KernelNotSupported, nearest
from griffin_core.layouts.initialise import init_params
from griffin_core.layouts.params import EMBEDDING
from griffin_core.model import Model
from griffin_core.presets import BYTE_VOCAB, PRESETS
from griffin_core.presets import preset as find_preset
from griffin_core.shapes import DTYPES, Array
from griffin_core.text.tokenizer import ByteTokenizer, from_files

if TYPE_CHECKING:
    from griffin_core.testing.conformance import Target
    from griffin_core.testing.report import Report

__all__ = ["convert", "init", "load", "packaged_checkpoint", "verify"]

log = logging.getLogger("griffin_core")

_PACKAGED = Path(__file__).parent / "data" / "griffin-docs"


def load(
    path: str | Path,
    backend: str | None = None,
    dtype: str | None = None,
    kernel: str | None = None,
    verify: bool = True,
    device: str | None = None,
    config: str | Path | GriffinConfig | None = None,
    window_convention: str | None = None,
) -> Model:
    """A model from a checkpoint of any format; its content says which.

    Args:
        path: a directory, a torch or a Keras file; "hub:OWNER/NAME" downloads from the Hugging Face Hub. A preset
            has no weights, so its name is refused here: see ``init``.
        backend: None follows ``use_backend``, GRIFFIN_BACKEND, or takes the first that is installed.
        dtype: compute dtype by name; None keeps the checkpoint's. A CPU without bfloat16 units computes many
            times faster in "float32".
        kernel: kernel of the recurrent operations; None follows GRIFFIN_KERNEL.
        verify: prove the files' integrity and refuse NaN and infinite weights.
        device: None is the backend's default.
        config: a preset's name, a JSON file or a config, for official checkpoints with no config beside them.
        window_convention: what the window of a config.json of another program counts: "official" (None) or "hf".

    Raises:
        CheckpointError: it is not a checkpoint, or is damaged.
        BackendError: the backend is unknown or not installed, or lacks the kernel.
        NotEnoughMemory: the weights do not fit.
    """
    _refuse_preset(path)
    name = _prepare(backend, dtype, kernel)
    checkpoint = open_checkpoint(path, verify=verify, config=config, window_convention=window_convention)
    for note in checkpoint.notes:
        log.info("%s: %s", path, note)
    tokenizer = from_files(checkpoint.tokenizer_files)
    chosen = dtype or checkpoint.params[EMBEDDING].dtype.name
    return _assemble(
        checkpoint.config,
        checkpoint.params,
        name,
        chosen,
        tokenizer=tokenizer,
        kernel=kernel,
        device=device,
        source=checkpoint.path,
        weights_digest=checkpoint.digest,
    )


def init(
    preset: str | GriffinConfig,
    seed: int = 0,
    init: str | None = None,
    backend: str | None = None,
    dtype: str | None = None,
    kernel: str | None = None,
    device: str | None = None,
) -> Model:
    """A model with random weights; generating text from it warns.

    Args:
        preset: name of a preset, or a config.
        seed: equal seeds give equal weights on every machine and backend.
        init: "paper" or "released"; None is the preset's own, "paper" for a config.
        backend, kernel, device: as in ``load``.
        dtype: compute dtype by name; None is float32.

    Raises:
        ConfigError: unknown preset, init or dtype, or an illegal seed.
        BackendError: as in ``load``.
        NotEnoughMemory: the weights do not fit.
    """
    if isinstance(preset, GriffinConfig):
        config, rule = preset, init or "paper"
    else:
        found = find_preset(preset)
        config, rule = found.config, init or found.init
    name = _prepare(backend, dtype, kernel)
    memory.require(memory.weight_bytes(config), "drawing the weights")
    params = init_params(config, seed, rule)
    tokenizer = ByteTokenizer() if config.vocab_size == BYTE_VOCAB else None
    return _assemble(
        config, params, name, dtype or "float32", tokenizer=tokenizer, kernel=kernel, device=device, trained=False
    )


def verify(target: Target = None, backend: str | None = None, **options: Any) -> Report:
    """Judge a function, a kernel or a whole backend against the reference: the conformance kit.

    Args:
        target: "module:attribute", a callable, a kernel or its name; None is the whole backend.
        backend: as in ``load``.
        options: as in ``griffin_core.testing.judge``: op, properties, profile, seed.

    Returns:
        A report; ``passed`` says whether all holds.
    """
    from griffin_core.testing import conformance

    return conformance.verify(target, backend=backend, **options)


def packaged_checkpoint() -> Path:
    """The small trained checkpoint that comes with the library.

    Raises:
        CheckpointError: this installation does not carry it.
    """
    if not _PACKAGED.is_dir():
        raise CheckpointError(f"the packaged checkpoint is not at {_PACKAGED}; install griffin-core again, or name one")
    return _PACKAGED


def _prepare(backend: str | None, dtype: str | None, kernel: str | None) -> str:
    """The backend's name, after every choice that was named is known to exist."""
    env.warn_unknown()
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}; {nearest(dtype, DTYPES)}")
    name = registry.choose_backend(backend)
    registry.load_backend(name)
    wanted = registry.requested_kernel(kernel)
    known = {record.name for record in registry.kernels(name)}
    if wanted not in (registry.AUTO, *known):
        raise KernelNotSupported(f"{name} has no kernel {wanted!r}; {nearest(wanted, [registry.AUTO, *known])}")
    return name


def _assemble(config: GriffinConfig, params: Mapping[str, Array], name: str, dtype: str, **rest: Any) -> Model:
    memory.require(memory.weight_bytes(config, dtype), "loading the weights")
    module = registry.load_backend(name)
    loaded = module.load_params(config, params, dtype=dtype, device=rest["device"])
    model = Model(config=config, params=loaded, backend=name, dtype=dtype, **rest)
    facade = getattr(module, "facade", None)
    return model if facade is None else facade(model)


def _refuse_preset(path: str | Path) -> None:
    if str(path) in PRESETS and not Path(path).exists():
        raise ConfigError(
            f"{str(path)!r} is a preset, which has no weights; griffin_core.init({str(path)!r}) draws random ones, "
            "or give the directory of a checkpoint"
        )
