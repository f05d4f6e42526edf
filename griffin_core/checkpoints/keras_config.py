"""The config inside of a Keras checkpoint: what ``keras.models.load_model`` makes a model of, read as JSON alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from griffin_core.checkpoints import keras_archive
from griffin_core.checkpoints.hf_config import parse
from griffin_core.config import GriffinConfig, from_dict
from griffin_core.errors import CheckpointError, ConfigError

CLASS = "GriffinCausalLM"
MODULE = "griffin_core_keras.causal_lm"
PACKAGE = "griffin_core_keras"
"""The model's class, its module, and the package under which Keras knows it."""

_NAME = "griffin"
_OLDEST = "3.12.0"
"""The oldest Keras that reads what we write."""


def archive_texts(config: GriffinConfig, dtype: str, decay_dtype: str) -> dict[str, bytes]:
    """The small members of a ``.keras`` archive.

    Args:
        dtype: of the embedding, which is the model's.
        decay_dtype: of the decay parameters, which the model computes with in float32 whatever it is.
    """
    policy = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": dtype}, "registered_name": None}
    how = {"init": None, "decay_dtype": decay_dtype}
    model = {
        "module": MODULE,
        "class_name": CLASS,
        "config": {"name": _NAME, "trainable": True, "dtype": policy, "config": config.to_dict(), **how},
        "registered_name": f"{PACKAGE}>{CLASS}",
        "build_config": {},
    }
    metadata = {"keras_version": _OLDEST, "writer": "griffin-core"}
    return {keras_archive.METADATA: json.dumps(metadata).encode(), keras_archive.CONFIG: json.dumps(model).encode()}


def archived_config(path: Path) -> GriffinConfig | None:
    """The config in a ``.keras`` archive; None for a file that is no archive.

    Raises:
        CheckpointError: it is damaged, or that of another model.
    """
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    if not zipped:
        return None
    where = Path(f"{path}: {keras_archive.CONFIG}")
    return model_config(where, parse(where, keras_archive.read_text(path, keras_archive.CONFIG)))


def model_config(where: Path, fields: dict[str, Any]) -> GriffinConfig:
    """The config in what Keras writes of a model.

    Raises:
        CheckpointError: it is that of another model, or not legal.
    """
    found = fields.get("class_name")
    if found != CLASS:
        raise CheckpointError(f"{where} describes a model of the class {found!r}; expected {CLASS}")
    arguments = fields.get("config")
    section = arguments.get("config") if isinstance(arguments, dict) else None
    if not isinstance(section, dict):
        raise CheckpointError(f"{where} has no config of {CLASS}; save it again with model.save")
    try:
        return from_dict(section)
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}") from error
