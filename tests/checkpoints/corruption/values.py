"""Values that are not finite, in every dtype: where no hash notices them, or the manifest was made to fit."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from griffin_core.shapes import DTYPES, Array
from tests.checkpoints.corruption import keras_files
from tests.checkpoints.corruption.cases import Case, Ground
from tests.checkpoints.corruption.sources import MODEL, reseal

_WHAT = {"NaN": "quiet", "a signalling NaN": "signalling", "infinity": "inf", "minus infinity": "-inf"}
_SIGNALLING = {"float32": 0x7F800001, "float16": 0x7C01, "bfloat16": 0x7F81}


def not_finite(ground: Ground) -> Iterator[Case]:
    """One bad value in one tensor of a file in a dtype, which is kept or changed."""
    path = ground.random.choice(ground.source.weights(ground.home))
    names = sorted(load(path))
    for dtype, (label, what) in itertools.product(_SIGNALLING, _WHAT.items()):
        name = ground.random.choice(names)
        damage = _damage(path, dtype, name, what, ground.random.randrange(2**20))
        for change in ("", "bfloat16", "float16"):
            options = ("--dtype", change) if change else ()
            words = f"{label} in {name} in {dtype}" + (f", to {change}" if change else "")
            yield Case(words, damage, path.name, (name,), options=options)


def load(path: Path) -> dict[str, Array]:
    """Every tensor of a file."""
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix == ".keras":
        return keras_files.load(path)
    return {name: _to_numpy(tensor) for name, tensor in torch.load(path, weights_only=True).items()}


def save(path: Path, arrays: dict[str, Array]) -> None:
    """The inverse."""
    if path.suffix == ".safetensors":
        save_file(arrays, path)
    elif path.suffix == ".keras":
        keras_files.save(path, arrays)
    else:
        torch.save({name: to_torch(array) for name, array in arrays.items()}, path)


def to_torch(array: Array) -> torch.Tensor:
    """A tensor with the same bits."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def _to_numpy(tensor: torch.Tensor) -> Array:
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def _damage(path: Path, dtype: str, name: str, what: str, where: int) -> Callable[[Path], None]:
    def damage(home: Path) -> None:
        target = home / MODEL / path.name
        arrays = {other: np.array(array.astype(DTYPES[dtype])) for other, array in load(target).items()}
        flat = arrays[name].reshape(-1)
        flat[where % flat.size] = float("nan" if what in ("quiet", "signalling") else what)
        if what == "signalling":
            bits = flat.view(f"u{flat.itemsize}")
            bits[where % flat.size] = _SIGNALLING[dtype]
        save(target, arrays)
        reseal(home / MODEL)

    return damage
