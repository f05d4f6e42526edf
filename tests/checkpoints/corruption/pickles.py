"""Torch files that were made by hand: pickles that run code or never end, sizes that lie."""

from __future__ import annotations

import builtins
import io
import math
import os
import pickle
import subprocess
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from tests.checkpoints.corruption.archives import PICKLE, changed, read, write
from tests.checkpoints.corruption.cases import RAN, Case, Ground
from tests.checkpoints.corruption.sources import MODEL, reseal


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._what = (function, arguments)

    def __reduce__(self) -> Any:
        return self._what


class Stored:
    """Pickles as the reference to a record."""

    def __init__(self, key: str, count: int, kind: type = torch.FloatStorage) -> None:
        self.id = ("storage", kind, key, "cpu", count)


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.id if isinstance(obj, Stored) else None


def pickled(value: Any) -> bytes:
    """As torch pickles, with references to records."""
    out = io.BytesIO()
    _Pickler(out, protocol=2).dump(value)
    return out.getvalue()


def rebuilt(
    count: int, size: tuple[int, ...], stride: tuple[int, ...] | None = None, offset: int = 0, key: str = "0"
) -> Call:
    """A tensor over a record that is said to hold ``count`` values."""
    dense = tuple(math.prod(size[axis + 1 :]) for axis in range(len(size)))
    strides = dense if stride is None else stride
    return Call(torch._utils._rebuild_tensor_v2, Stored(key, count), offset, size, strides, False, OrderedDict())


def hostile(ground: Ground) -> Iterator[Case]:
    """Pickles that ask for code to be run."""
    (path,) = ground.source.weights(ground.home)
    makers: dict[str, Callable[[str], Any]] = {
        "os.system": lambda mark: Call(os.system, f"touch '{mark}'"),
        "subprocess": lambda mark: Call(subprocess.check_call, ["touch", mark]),
        "eval": lambda mark: Call(builtins.eval, f"open({mark!r}, 'w')"),
        "exec": lambda mark: Call(builtins.exec, f"open({mark!r}, 'w')"),
        "open": lambda mark: Call(builtins.open, mark, "w"),
        "a path": lambda mark: Call(os.mkdir, mark),
        "getattr": lambda mark: Call(builtins.getattr, Call(builtins.__import__, "os"), "system"),
        "torch.load": lambda mark: Call(torch.load, mark),
        "a module": lambda mark: Call(torch.nn.Linear, 2, 2),
    }
    for label, maker in makers.items():
        yield Case(f"a pickle with {label}", _hostile(path, maker, False), path.name)
        yield Case(f"a tensor with {label} beside it", _hostile(path, maker, True), path.name)


def _hostile(path: Path, maker: Callable[[str], Any], beside: bool) -> Callable[[Path], None]:
    def damage(home: Path) -> None:
        bad = maker(str(home / RAN))
        records = read(home / MODEL / path.name)
        records[PICKLE] = pickled({"a": rebuilt(1, (1,)), "b": bad} if beside else bad)
        write(home / MODEL / path.name, records)
        reseal(home / MODEL)

    return damage


def _deep(depth: int) -> bytes:
    """A dict in a dict, without recursion."""
    return b"\x80\x02" + b"}X\x01\x00\x00\x00a" * depth + b"}" + b"s" * depth + b"."


def _cycle() -> dict[str, Any]:
    found: dict[str, Any] = {}
    found["a"] = found
    return found


def _doubling(levels: int) -> dict[str, Any]:
    """Few bytes, 2^levels names."""
    found: dict[str, Any] = {"a": 1}
    for _ in range(levels):
        found = {"a": found, "b": found}
    return found


_PICKLES: dict[str, Callable[[], bytes]] = {
    "itself inside": lambda: pickled(_cycle()),
    "2^40 names": lambda: pickled(_doubling(40)),
    "dicts 500 deep": lambda: _deep(500),
    "dicts 100000 deep": lambda: _deep(100_000),
    "nothing": lambda: b"",
    "no end": lambda: b"\x80\x02}",
    "a short number": lambda: b"\x80\x02J\x01",
    "an unknown memo": lambda: b"\x80\x02h\x07.",
    "an empty stack": lambda: b"\x80\x02.",
    "marks without end": lambda: b"\x80\x02" + b"(" * 100_000,
    "tuples without end": lambda: b"\x80\x02)" + b"\x85" * 100_000 + b".",
    "protocol 5": lambda: pickle.dumps({"a": 1}, 5),
    "a foreign reference": lambda: b"\x80\x02X\x01\x00\x00\x00aQ.",
    "a reference to no storage": lambda: b"\x80\x02K\x01Q.",
    "a storage alone": lambda: pickled({"a": Stored("0", 4)}),
    "an array of 10^12 bytes": lambda: pickled({"a": Call(bytearray, 10**12)}),
    "a tensor of 10^12 values": lambda: pickled({"a": Call(torch.Tensor, 10**12)}),
    "a text that is too long": lambda: b"\x80\x02X\xff\xff\xff\xffabc.",
}
_LIES: dict[str, Callable[[tuple[int, ...], str], Call]] = {
    "a storage of 2^40 values": lambda shape, key: rebuilt(2**40, shape, key=key),
    "a storage of 2^62 values": lambda shape, key: rebuilt(2**62, shape, key=key),
    "a storage of -1 values": lambda shape, key: rebuilt(-1, shape, key=key),
    "a storage longer than its record": lambda shape, key: rebuilt(2 * math.prod(shape), shape, key=key),
    "a storage shorter than the tensor": lambda shape, key: rebuilt(math.prod(shape) - 1, shape, key=key),
    "no storage to speak of": lambda shape, key: rebuilt(0, shape, key=key),
    "one stored value for all": lambda shape, key: rebuilt(1, shape, (0,) * len(shape), key=key),
    "a shape of 2^80": lambda shape, key: rebuilt(4, (2**40, 2**40), (0, 0), key=key),
    "a shape of 2^40, of one value": lambda shape, key: rebuilt(4, (2**40,), (0,), key=key),
    "negative strides": lambda shape, key: rebuilt(math.prod(shape), shape, (-1,) * len(shape), key=key),
    "a negative offset": lambda shape, key: rebuilt(math.prod(shape), shape, offset=-4, key=key),
    "an offset beyond": lambda shape, key: rebuilt(math.prod(shape), shape, offset=4, key=key),
    "an offset of 2^62": lambda shape, key: rebuilt(math.prod(shape), shape, offset=2**62, key=key),
    "negative sizes": lambda shape, key: rebuilt(math.prod(shape), (-1,) * len(shape), key=key),
    "a missing record": lambda shape, key: rebuilt(math.prod(shape), shape, key="999"),
    "a record outside": lambda shape, key: rebuilt(math.prod(shape), shape, key="../data.pkl"),
}


def crafted(ground: Ground) -> Iterator[Case]:
    """Pickles that are too deep or too large; and whole models of which one tensor lies about its record."""
    (path,) = ground.source.weights(ground.home)
    for label, make in _PICKLES.items():
        yield Case(f"a pickle with {label}", changed(path, lambda records, m=make: {**records, PICKLE: m()}), path.name)
    names = [name for name in torch.load(path, weights_only=True) if name.endswith("weight")]
    for label, lie in _LIES.items():
        name = ground.random.choice(names)
        yield Case(f"{name} with {label}", _lying(path, name, lie), path.name)


def _lying(path: Path, liar: str, lie: Callable[[tuple[int, ...], str], Call]) -> Callable[[Path], None]:
    def damage(home: Path) -> None:
        target = home / MODEL / path.name
        records, calls = read(target), {}
        for number, (name, tensor) in enumerate(torch.load(target, weights_only=True).items()):
            key, shape = str(number), tuple(tensor.shape)
            records[f"archive/data/{key}"] = tensor.numpy().tobytes()
            calls[name] = lie(shape, key) if name == liar else rebuilt(math.prod(shape), shape, key=key)
        write(target, {**records, PICKLE: pickled(calls)})
        reseal(home / MODEL)

    return damage
