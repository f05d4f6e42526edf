"""Open a checkpoint of any format: its content says which."""

from __future__ import annotations

from pathlib import Path

from griffin_core.checkpoints import framework, hub, huggingface, native
from griffin_core.checkpoints.checkpoint import Checkpoint, Progress
from griffin_core.checkpoints.detect import describe, detect
from griffin_core.checkpoints.files import read_small
from griffin_core.checkpoints.formats import FORMATS, HUGGINGFACE, NATIVE
from griffin_core.checkpoints.hf_config import SECTION, parse
from griffin_core.config import GriffinConfig, from_dict
from griffin_core.errors import CheckpointError, ConfigError
from griffin_core.presets import PRESETS, preset


def open_checkpoint(
    path: str | Path,
    verify: bool = True,
    progress: Progress | None = None,
    values: bool = True,
    config: str | Path | GriffinConfig | None = None,
    window_convention: str | None = None,
    scratch: Path | None = None,
) -> Checkpoint:
    """Open a checkpoint of any format. Weights stay on disk until they are used.

    Args:
        path: a directory, a torch or a Keras file; "hub:OWNER/NAME" downloads from the Hugging Face Hub.
        verify: compare files with the manifest or the format's own checksums, and refuse NaN and infinite weights.
        progress: called with the number of bytes just looked at.
        values: verifying looks at the values too.
        config: a preset's name, a JSON file or a config, for files of a framework with no config of their own.
        window_convention: what the window of a config.json of another program counts: "official" (None) or "hf".
        scratch: a directory on disk for what cannot be memory-mapped; None uses memory.

    Raises:
        CheckpointError: nothing known is there, or it is damaged; the file or tensor is named.
        CheckpointMismatch: names or shapes are not the config's.
        ConfigError: an option that the checkpoint's format has no use for, or an illegal one.
    """
    path = hub.local(path)
    found = detect(path)
    if found is None:
        raise CheckpointError(f"{path} is {describe(found)}")
    if found != HUGGINGFACE and window_convention is not None:
        raise ConfigError(f"{path} is {describe(found)}, whose window needs no convention; leave it out")
    if config is not None and FORMATS[found].layout is None:
        raise ConfigError(f"{path} is {describe(found)}, which has its own config; give none")
    if found == NATIVE:
        return native.read(path, verify, progress, values)
    if found == HUGGINGFACE:
        return huggingface.read(path, verify, progress, values, window_convention)
    given = find_config(config)
    origin = "the config given" if isinstance(config, GriffinConfig) else str(config)
    return framework.read(path, found, verify, progress, values, given, scratch, origin)


def find_config(config: str | Path | GriffinConfig | None) -> GriffinConfig | None:
    """The config that a preset's name or a JSON file gives; a ``config.json`` of ours is such a file.

    Raises:
        ConfigError: it is neither.
        CheckpointError: the file holds no legal config.
    """
    if config is None or isinstance(config, GriffinConfig):
        return config
    if str(config) in PRESETS or not Path(config).is_file():
        return preset(str(config)).config
    path = Path(config).resolve()
    fields = parse(path, read_small(path.parent, path.name))
    try:
        return from_dict(fields.get(SECTION, fields))
    except ConfigError as error:
        raise CheckpointError(f"{config}: {error}") from error
