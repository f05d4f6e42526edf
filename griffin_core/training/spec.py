"""What a training run is: everything that decides its bits, as one record that ``run.json`` keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from griffin_core.checkpoints.opening import open_checkpoint
from griffin_core.config import GriffinConfig, from_dict
from griffin_core.errors import CheckpointMismatch, ConfigError, InputError
from griffin_core.layouts.initialise import init_params
from griffin_core.presets import BYTE_VOCAB, preset
from griffin_core.schedules import TrainerOptions
from griffin_core.shapes import Array
from griffin_core.text.tokenizer import ByteTokenizer, Tokenizer, from_files, read_files


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """One run, from its data to its last step.

    Attributes:
        name: the preset or checkpoint it starts from, for people.
        config: the architecture.
        options: steps, schedule, optimiser, precision.
        text: files and patterns; None is the embedded corpus.
        batch, length: rows b and tokens t of a step.
        seed: of the initial weights and of the data's order.
        init: rule of the random initial weights ("paper", "released"), or None when ``init_from`` is given.
        init_from: checkpoint to fine-tune, with the digest of its weights; None draws random weights.
        init_digest: that digest.
        checkpoint_every, eval_every: steps between saved states and between held-out evaluations; 0 is only at
            the end.
        backend: name of the backend.
        kernel: kernel of the recurrent operations, or None.
        threads: threads of the backend, or None for its own choice.
    """

    name: str
    config: GriffinConfig
    options: TrainerOptions
    text: tuple[str, ...] | None = None
    batch: int = 8
    length: int = 256
    seed: int = 0
    init: str | None = "paper"
    init_from: str | None = None
    init_digest: str | None = None
    checkpoint_every: int = 100
    eval_every: int = 0
    backend: str = "torch"
    kernel: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        least = {"batch": 1, "length": 1, "seed": 0, "checkpoint_every": 0, "eval_every": 0, "threads": 1}
        for field, minimum in least.items():
            value = getattr(self, field)
            if field == "threads" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
                raise ConfigError(f"{field}={value!r}; expected an integer of at least {minimum}")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dict; ``spec_from_dict`` is the inverse."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**fields, "config": self.config.to_dict(), "options": self.options.to_dict()}


def spec_from_dict(fields: Mapping[str, Any]) -> TrainSpec:
    """The run that ``TrainSpec.to_dict`` described."""
    text = fields["text"]
    return TrainSpec(
        **{
            **fields,
            "config": from_dict(fields["config"]),
            "options": TrainerOptions(**fields["options"]),
            "text": None if text is None else tuple(text),
        }
    )


def start_from_preset(name: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """Fields of a run that starts from a preset's random weights.

    Raises:
        ConfigError: unknown preset.
        InputError: the preset's vocabulary is not the tokenizer's.
    """
    found = preset(name)
    if found.config.vocab_size < tokenizer.vocab_size:
        raise InputError(
            f"preset {name} has {found.config.vocab_size} token ids, the tokenizer {tokenizer.vocab_size}; "
            "use a tokenizer with fewer"
        )
    if isinstance(tokenizer, ByteTokenizer) and found.config.vocab_size != BYTE_VOCAB:
        raise InputError(
            f"preset {name} has {found.config.vocab_size} token ids and needs a tokenizer; give --tokenizer DIR "
            "with its tokenizer.json, or take a byte-level preset such as griffin-tiny"
        )
    return {"name": name, "config": found.config, "init": found.init}


def start_from_checkpoint(directory: str | Path) -> tuple[dict[str, Any], Tokenizer]:
    """Fields of a run that fine-tunes a checkpoint of any format, and its tokenizer.

    Raises:
        CheckpointError: it cannot be read.
        InputError: it has no tokenizer.
    """
    checkpoint = open_checkpoint(directory)
    tokenizer = from_files(checkpoint.tokenizer_files)
    if tokenizer is None:
        raise InputError(f"{directory} has no tokenizer, so it cannot be trained on text; add its tokenizer.json")
    where = str(Path(directory).resolve())
    fields = {"name": Path(where).name, "config": checkpoint.config, "init": None, "init_from": where}
    return {**fields, "init_digest": checkpoint.digest}, tokenizer


def load_tokenizer_or_bytes(directory: str | Path | None) -> Tokenizer:
    """The tokenizer in a directory; None is the byte tokenizer.

    Raises:
        InputError: the directory holds none.
    """
    if directory is None:
        return ByteTokenizer()
    tokenizer = from_files(read_files(Path(directory)))
    if tokenizer is None:
        raise InputError(f"{directory} holds no tokenizer.json; give the directory of a tokenizer or a checkpoint")
    return tokenizer


def initial_params(spec: TrainSpec) -> Mapping[str, Array]:
    """Float32 weights that the run starts from, by canonical name.

    Raises:
        CheckpointError: the checkpoint to fine-tune cannot be read.
        CheckpointMismatch: it is no longer the one that the run began with.
    """
    if spec.init_from is None:
        return init_params(spec.config, spec.seed, spec.init or "paper")
    checkpoint = open_checkpoint(spec.init_from)
    if checkpoint.digest != spec.init_digest:
        raise CheckpointMismatch(f"{spec.init_from} has changed since this run began; put the old one back")
    return {name: array.astype(np.float32) for name, array in checkpoint.params.items()}
