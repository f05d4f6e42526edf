"""Torch files that hold something else than they should: what ``torch.save`` writes of another dict."""

from __future__ import annotations

import collections
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.checkpoints.corruption.cases import Case, Ground
from tests.checkpoints.corruption.sources import MODEL, reseal

Edit = Callable[[dict[str, Any], str], Any]
"""From the file's dict and the name of one tensor to another object."""

_DTYPES = ("int32", "int64", "int8", "uint8", "bool", "float64", "complex64", "float8_e4m3fn", "float8_e5m2")
_EXACT = ("ordered", "parameters", "views", "negative", "one storage", "nested", "with a prefix")


def _value(change: Callable[[Tensor], Any]) -> Edit:
    return lambda found, name: {**found, name: change(found[name])}


def _renamed(form: str) -> Edit:
    return lambda found, name: {form.replace("{}", n) if n == name else n: t for n, t in found.items()}


def _quantised(tensor: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8)


def _csr(tensor: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tensor.float().reshape(tensor.shape[0], -1).to_sparse_csr()


_VALUES: dict[str, Callable[[Tensor], Any]] = {
    **{dtype: (lambda t, d=dtype: t.to(getattr(torch, d))) for dtype in _DTYPES},
    "sparse": lambda t: t.to_sparse(),
    "in sparse rows": _csr,
    "quantised": _quantised,
    "on no device": lambda t: t.to("meta"),
    "a list": lambda t: t.tolist(),
    "a number": lambda t: 3.5,
    "a text": lambda t: "weights\n",
    "None": lambda t: None,
    "a dict": lambda t: {"weight": t},
    "empty": lambda t: t[:0],
    "a scalar": lambda t: t.reshape(-1)[0],
    "flat, with an axis more": lambda t: t.reshape(1, 1, 1, -1),
    "a row less": lambda t: t[:-1],
    "a row more": lambda t: torch.cat([t, t[:1]]),
    "one value for all": lambda t: t.reshape(-1)[:1].clone().as_strided(t.shape, (0,) * t.ndim),
    "rows that overlap": lambda t: torch.zeros(t.numel() - 1).as_strided((t.numel(), 2), (0, 1)),
}
_DICTS: dict[str, Edit] = {
    "absence": lambda found, name: {n: t for n, t in found.items() if n != name},
    "a name more": lambda found, name: {**found, f"{name}.more": found[name]},
    "20000 names more": lambda found, name: {**found, **dict.fromkeys(map(str, range(20_000)), torch.zeros(1))},
    "a number for a name": lambda found, name: {**found, 7: found[name]},
    "the name twice": lambda found, name: {**found, name.split(".")[0]: {name.split(".", 1)[1]: found[name]}},
    "a line in the name": _renamed("{}\nsecond line"),
    "a lone surrogate in the name": _renamed("{}\ud800"),
    "a colour in the name": _renamed("\x1b[31m{}"),
    "another name": _renamed("x{}"),
    "no name": _renamed(""),
    "a long name": _renamed("{}" * 10_000),
    "a prefix": _renamed("module.{}"),
}
_WHOLE: dict[str, Edit] = {
    "a list": lambda found, name: list(found.values()),
    "a tensor": lambda found, name: found[name],
    "an empty dict": lambda found, name: {},
    "None": lambda found, name: None,
    "a number": lambda found, name: 3,
    "a text": lambda found, name: "model",
    "a dict in a list": lambda found, name: [found],
    "two models": lambda found, name: {"model": found, "average": found},
    "a model beside its optimiser": lambda found, name: {"model": found, "step": 3},
}
_SAME: dict[str, Edit] = {
    "ordered": lambda found, name: collections.OrderedDict(found),
    "parameters": lambda found, name: {n: torch.nn.Parameter(t) for n, t in found.items()},
    "views": lambda found, name: {n: torch.stack([t, t], -1)[..., 0] for n, t in found.items()},
    "negative": lambda found, name: {**found, name: torch.complex(found[name], -found[name]).conj().imag},
    "in one storage": lambda found, name: _shared(found),
    "with a prefix": lambda found, name: {f"model.{n}": t for n, t in found.items()},
    "nested": lambda found, name: {"state": found},
}
"""Files that are whole: refused, or converted exactly."""


def _shared(found: dict[str, Tensor]) -> dict[str, Tensor]:
    flat = torch.cat([tensor.reshape(-1) for tensor in found.values()])
    sizes = [tensor.numel() for tensor in found.values()]
    pairs = zip(found.items(), flat.split(sizes), strict=True)
    return {name: part.view(tensor.shape) for (name, tensor), part in pairs}


def edited(ground: Ground) -> Iterator[Case]:
    """Tensors of another dtype, layout or shape; names missing, added or changed; something that is no dict."""
    (path,) = ground.source.weights(ground.home)
    names = list(torch.load(path, weights_only=True))
    matrices = [name for name in names if name.endswith(("weight", ".w"))]
    for label, change in _VALUES.items():
        name = ground.random.choice(matrices)
        yield Case(f"{name} is {label}", _apply(path, _value(change), name), path.name, (name,))
    for label, edit in _DICTS.items():
        name = ground.random.choice(names)
        damage = _apply(path, edit, name)
        yield Case(f"{label} at {name}", damage, path.name, () if "20000" in label else (name, "'7'"))
    for label, edit in _WHOLE.items():
        yield Case(f"the file is {label}", _apply(path, edit, names[0]), path.name)
    for label, edit in _SAME.items():
        yield Case(f"the file is whole, {label}", _apply(path, edit, matrices[0]), path.name, strict=False)


def old_format(ground: Ground) -> Iterator[Case]:
    """The format before zip files: whole, and cut at random places."""
    (path,) = ground.source.weights(ground.home)
    yield Case("whole, in the old format", _old(path, 1.0), path.name, strict=False)
    for part in sorted([0.0, *(ground.random.random() for _ in range(3 * ground.few))]):
        yield Case(f"the old format, cut at {part:.3f}", _old(path, part), path.name)


def _old(path: Path, part: float) -> Callable[[Path], None]:
    def damage(home: Path) -> None:
        target = home / MODEL / path.name
        torch.save(torch.load(target, weights_only=True), target, _use_new_zipfile_serialization=False)
        data = target.read_bytes()
        target.write_bytes(data[: max(2, int(part * len(data)))])
        reseal(home / MODEL)

    return damage


def _apply(path: Path, edit: Edit, name: str) -> Callable[[Path], None]:
    def damage(home: Path) -> None:
        target = home / MODEL / path.name
        torch.save(edit(torch.load(target, weights_only=True), name), target)
        reseal(home / MODEL)

    return damage
