"""Keras files that are whole, but hold something else than they should: datasets, links, members, configs."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.checkpoints.corruption import texts
from tests.checkpoints.corruption.cases import Case, Ground
from tests.checkpoints.corruption.keras_files import CONFIG, WEIGHTS, Members, changed, names, weights_changed
from tests.checkpoints.corruption.sources import MODEL, reseal

Edit = Callable[[Any, str], None]
"""Edits an HDF5 file at one dataset."""
_ABSURD = 2**40


def _put(make: Callable[[Any], dict[str, Any]]) -> Edit:
    """Another dataset in the place of the one, from its values."""

    def edit(root: Any, name: str) -> None:
        arguments = make(np.array(root[name]))
        del root[name]
        root.create_dataset(name, **arguments)

    return edit


_DTYPES = ("int8", "uint8", "int32", "int64", "bool", "float64", "complex64", ">f4", "S4", "V2")
_DATASETS: dict[str, Edit] = {
    **{dtype: _put(lambda x, d=dtype: {"shape": x.shape, "dtype": d}) for dtype in _DTYPES},
    "text": _put(lambda x: {"shape": x.shape, "dtype": h5py.string_dtype()}),
    "references": _put(lambda x: {"shape": x.shape, "dtype": h5py.ref_dtype}),
    "records": _put(lambda x: {"shape": x.shape, "dtype": [("a", "f4"), ("b", "f4")]}),
    "vectors of any length": _put(lambda x: {"shape": x.shape, "dtype": h5py.vlen_dtype("f4")}),
    "a number": _put(lambda x: {"data": x.reshape(-1)[0]}),
    "empty": _put(lambda x: {"data": x[:0]}),
    "nothing": _put(lambda x: {"data": h5py.Empty("f4")}),
    "one axis": _put(lambda x: {"data": np.stack([x, x]).reshape(-1)}),
    "a row less": _put(lambda x: {"data": x[:-1]}),
    "an axis more": _put(lambda x: {"data": x[None]}),
    "in chunks": _put(lambda x: {"data": x, "chunks": x.shape}),
    "compressed": _put(lambda x: {"data": x, "compression": "gzip"}),
    "an absurd shape in chunks": _put(lambda x: {"shape": (_ABSURD, _ABSURD), "dtype": "f4", "chunks": (8, 8)}),
    "an absurd shape without room": _put(lambda x: {"shape": (_ABSURD,), "dtype": "f4"}),
    "in another file": _put(lambda x: {"shape": x.shape, "dtype": "f4", "external": [("/etc/passwd", 0, x.nbytes)]}),
}


def _link(link: Any) -> Edit:
    def edit(root: Any, name: str) -> None:
        del root[name]
        root[name] = link

    return edit


def _virtual(root: Any, name: str) -> None:
    shape = root[name].shape
    layout = h5py.VirtualLayout(shape=shape, dtype="f4")
    layout[...] = h5py.VirtualSource("/etc/passwd", "a", shape=shape)
    del root[name]
    root.create_virtual_dataset(name, layout)


def _soft_link(root: Any, name: str) -> None:
    """To the very values, which stand where nobody looks."""
    root.move(name, "optimizer/vars/0")
    root[name] = h5py.SoftLink("/optimizer/vars/0")


def _group(root: Any, name: str) -> None:
    del root[name]
    root.create_group(name)


def _moved(root: Any, name: str) -> None:
    root.move(name, f"{name}x")


def _twice(root: Any, name: str) -> None:
    other = next(n for n in ("final_norm/vars/scale", "embedding/vars/0") if n != name)
    del root[name]
    root[name] = root[other]


def _loop(root: Any, name: str) -> None:
    owner = name.rpartition("/")[0]
    root[f"{owner}/again"] = root[owner]


def _crowd(root: Any, name: str) -> None:
    owner = root[name.rpartition("/")[0]]
    for number in range(300):
        owner[f"more{number}"] = np.zeros(1, "f4")


def _added(key: str) -> Edit:
    def edit(root: Any, name: str) -> None:
        root[f"{name.rpartition('/')[0]}/{key}"] = np.zeros(3, "f4")

    return edit


_STRUCTURE: dict[str, Edit] = {
    "absence": lambda root, name: root.__delitem__(name),
    "another name": _moved,
    "a group": _group,
    "a virtual dataset": _virtual,
    "a link to another file": _link(h5py.ExternalLink("/etc/passwd", "/a")),
    "a soft link": _soft_link,
    "a link to nothing": _link(h5py.SoftLink("/nothing")),
    "a dataset that stands there twice": _twice,
    "a group within itself": _loop,
    "300 datasets more": _crowd,
    "the scale of a quantised weight": _added("2"),
    "a factor of LoRA": _added("lora_kernel_a"),
    "a colour in a name more": _added("\x1b[31m"),
}


def _optimiser(root: Any) -> None:
    owner = root.create_group("optimizer/vars")
    owner["0"] = np.int64(7)
    owner["1"] = np.ones((3, 4), "f4")
    owner.create_dataset("2", data=np.ones((30, 40), "f4"), compression="gzip")


def _metrics(root: Any) -> None:
    root["seed_generator/vars/0"] = np.ones(2, "u4")
    root["metrics/vars/total"] = np.float32(3)
    root.attrs["note"] = "a\nb"


def edited(ground: Ground) -> Iterator[Case]:
    """Datasets of another kind or shape, links, names missing or added; and what Keras stores beside the weights."""
    (path,) = ground.source.weights(ground.home)
    found = names(path)
    matrices = [name for name in found if name.endswith("/0")]
    for label, edit in {**_DATASETS, **_STRUCTURE}.items():
        name = ground.random.choice(matrices)
        owner = name.rpartition("/")[0]
        damage = weights_changed(lambda root, e=edit, n=name: e(root, n))
        yield Case(f"{name} is {label}", damage, path.name, () if label in _ELSEWHERE else (name, owner))
    for label, whole in (("an optimiser", _optimiser), ("metrics", _metrics)):
        yield Case(f"the file is whole, with {label}", weights_changed(whole), path.name, strict=False)


_ELSEWHERE = ("a dataset that stands there twice",)
"""The error may name the other place."""


def _member(name: str, content: bytes) -> Callable[[Members], Members]:
    return lambda members: {**members, name: content}


def rearranged(ground: Ground) -> Iterator[Case]:
    """Archives with other members than Keras writes."""
    (path,) = ground.source.weights(ground.home)
    for label, change in _ARCHIVES.items():
        yield Case(f"an archive with {label}", changed(change), path.name)
    for kind, word in ((zipfile.ZIP_DEFLATED, "compressed"), (zipfile.ZIP_LZMA, "tightly compressed")):
        yield Case(f"a {word} archive", changed(lambda members: members, kind), path.name)
    bomb = changed(_member(CONFIG, b"{" + b" " * 10**8), zipfile.ZIP_DEFLATED)
    yield Case("a compressed archive of much", bomb, path.name)
    assets = changed(_member("assets/../../outside", b"x"))
    yield Case("an archive that is whole, with assets", assets, path.name, strict=False)
    yield Case("something before the archive", _shifted, path.name, strict=False)


def _shifted(home: Path) -> None:
    (path,) = (home / MODEL).glob("*.keras")
    path.write_bytes(b"PK" + bytes(62) + path.read_bytes())
    reseal(home / MODEL)


_ARCHIVES: dict[str, Callable[[Members], Members]] = {
    "nothing": lambda members: {},
    "no weights": lambda members: {n: d for n, d in members.items() if n != WEIGHTS},
    "no config": lambda members: {n: d for n, d in members.items() if n != CONFIG},
    "weights as npz": lambda members: {n.replace(".h5", ".npz"): d for n, d in members.items()},
    "weights that are empty": _member(WEIGHTS, b""),
    "weights that are zeros": _member(WEIGHTS, bytes(10_000)),
    "weights that are text": _member(WEIGHTS, b"weights\n" * 100),
    "weights cut short": lambda members: {**members, WEIGHTS: members[WEIGHTS][:-100]},
    "the head of the weights alone": lambda members: {**members, WEIGHTS: members[WEIGHTS][:96]},
    "the weights elsewhere": lambda members: {f"x/{n}" if n == WEIGHTS else n: d for n, d in members.items()},
}


def configured(ground: Ground) -> Iterator[Case]:
    """The config inside of the archive: unreadable, of another model, with fields that can not be."""
    (path,) = ground.source.weights(ground.home)
    for label, content in texts.UNREADABLE.items():
        yield Case(f"its config is {label}", changed(_member(CONFIG, content)), path.name)
    for label, change in _CONFIGS.items():
        yield Case(f"its config has {label}", _reconfigured(change), path.name)
    for key in ("width", "num_layers", "vocab_size", "gate_blocks", "block_pattern", "tie_embeddings"):
        for label, value in ground.some(list(texts.VALUES.items()), 3):
            damage = _reconfigured(lambda fields, k=key, v=value: fields["config"]["config"].__setitem__(k, v))
            same = key == "tie_embeddings" and label == "true"
            twice = ground.source.hashed and not same  # the config beside the file must be the same
            yield Case(f"its {key} is {label}", damage, path.name, strict=twice, legal=True)


_CONFIGS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another class": lambda fields: fields.__setitem__("class_name", "Functional"),
    "no class": lambda fields: fields.pop("class_name"),
    "a class that is a list": lambda fields: fields.__setitem__("class_name", ["GriffinCausalLM\n"]),
    "no arguments": lambda fields: fields.pop("config"),
    "arguments that are a list": lambda fields: fields.__setitem__("config", [1]),
    "no section": lambda fields: fields["config"].pop("config"),
    "a section that is a text": lambda fields: fields["config"].__setitem__("config", "griffin-tiny"),
    "a field more": lambda fields: fields["config"]["config"].__setitem__("colour", "\x1b[31m"),
    "a field less": lambda fields: fields["config"]["config"].pop("width"),
    "a lambda": lambda fields: fields["config"].__setitem__(
        "config", {"class_name": "__lambda__", "config": {"value": "4wAAAA=="}}
    ),
}


def _reconfigured(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(members: Members) -> Members:
        fields = json.loads(members[CONFIG])
        change(fields)
        return {**members, CONFIG: json.dumps(fields).encode()}

    return changed(edit)
