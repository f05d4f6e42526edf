"""JSON files that are no JSON, or another one: unreadable, of the wrong kind, absurd."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.checkpoints.corruption.cases import Case, Ground
from tests.checkpoints.corruption.sources import GIVEN, MODEL, reseal

UNREADABLE: dict[str, bytes] = {
    "nothing": b"",
    "lists 100000 deep": b"[" * 100_000,
    "closed lists 100000 deep": b"[" * 100_000 + b"]" * 100_000,
    "objects 100000 deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a number of 100000 digits": b'{"hidden_size": ' + b"9" * 100_000 + b"}",
    "bytes that are no UTF-8": b'{"hidden_size\xff\xfe": 1}',
    "half a character": b'{"\xc3": 1}',
    "zeros": bytes(300),
    "an executable": b"\x7fELF\x02\x01\x01\x00" * 20,
    "no JSON": b"hidden_size = 16\nvocab_size = 40\n",
    "two objects": b"{}\n{}",
    "NaN": b"NaN",
    "null": b"null",
    "true": b"true",
    "a number": b"17",
    "a text": b'"config\\u0000\\n\\u001b[31m"',
    "a list": b"[1, 2]",
    "an empty object": b"{}",
}
"""What may stand where a JSON object should."""
_SAME: dict[str, Callable[[bytes], bytes]] = {
    "with a mark of byte order": lambda text: b"\xef\xbb\xbf" + text,
    "in UTF-16": lambda text: text.decode().encode("utf-16"),
    "in UTF-32": lambda text: text.decode().encode("utf-32-le"),
}
VALUES: dict[str, Any] = {
    "NaN": float("nan"),
    "infinity": float("inf"),
    "null": None,
    "true": True,
    "a text": "sixteen\nlines",
    "a list": [16],
    "a nested list": [[["recurrent"]]],
    "an object": {"width": 16},
    "0": 0,
    "-1": -1,
    "16.5": 16.5,
    "10^9": 10**9,
    "2^31": 2**31,
    "2^63": 2**63,
    "10^400": 10**400,
    "of 4300 nines": int("9" * 4300),
    "a long text": "x" * 10**6,
    "a long list": ["recurrent"] * 10**5,
}
"""What may stand where a config has a count or a name."""
_ILLEGAL = ("NaN", "infinity", "true", "a text", "a list", "a nested list", "an object", "-1", "a long text")
_CHOICES = (("attention_window", "null"), ("logits_soft_cap", "null"), ("logits_soft_cap", "0"))
"""No damage, but other models; not every format can express them."""
_OPTIONAL = ("tokenizer.json", "tokenizer_config.json")


def unreadable(ground: Ground) -> Iterator[Case]:
    """Files without which the source is not whole, with another content; the manifest fits again."""
    for path in ground.source.texts(ground.home):
        for label, content in ground.some(list(UNREADABLE.items())):
            empty = path.name in _OPTIONAL and content == b"{}"
            yield Case(f"{path.name} is {label}", put(path, lambda _, c=content: c), path.name, strict=not empty)
        yield Case(f"{path.name} with a zero behind", put(path, lambda text: text + b"\0"), path.name)
        for label, change in _SAME.items():
            yield Case(f"{path.name} {label}", put(path, change), path.name, strict=False)


def wrong_fields(ground: Ground) -> Iterator[Case]:
    """A field of the config has a value that it can not have, or that the weights do not have."""
    path, keys, section = _config(ground)
    twice = ground.source.files == "keras"  # the config inside of the file must be the same
    for key in keys:
        for label, value in ground.some(list(VALUES.items())):
            damage = put(path, _field(key, value, section))
            if (key, label) not in _CHOICES:
                yield Case(f"{key} is {label}", damage, path.name, strict=twice or label in _ILLEGAL, legal=True)


def absurd_counts(ground: Ground) -> Iterator[Case]:
    """Counts that no model has: refused early, without room for them."""
    path, keys, section = _config(ground)
    for key in keys:
        if key not in ("attention_window", "attention_window_size", "logits_soft_cap", "block_types", "block_pattern"):
            for value in (10**9, 2**63, 10**4000):
                damage = put(path, _field(key, value, section))
                yield Case(f"{key} is {str(value)[:12]}", damage, path.name)


def _config(ground: Ground) -> tuple[Path, tuple[str, ...], str | None]:
    """The file with the config, keys of it, and the section in which they stand."""
    if (ground.home / GIVEN).exists():
        return ground.home / GIVEN, _OWN, None
    path = ground.home / MODEL / "config.json"
    return (path, _OWN, "griffin") if "griffin" in json.loads(path.read_text()) else (path, _FOREIGN, None)


_OWN = (
    "width",
    "lru_width",
    "mlp_width",
    "num_heads",
    "head_dim",
    "gate_blocks",
    "num_layers",
    "vocab_size",
    "conv_width",
    "attention_window",
    "logits_soft_cap",
    "block_pattern",
)
_FOREIGN = (
    "hidden_size",
    "lru_width",
    "intermediate_size",
    "num_attention_heads",
    "head_dim",
    "num_hidden_layers",
    "vocab_size",
    "conv1d_width",
    "attention_window_size",
    "logits_soft_cap",
    "block_types",
)


def _field(key: str, value: Any, section: str | None) -> Callable[[bytes], bytes]:
    def change(text: bytes) -> bytes:
        fields = json.loads(text)
        (fields[section] if section else fields)[key] = value
        return json.dumps(fields).encode()

    return change


def put(path: Path, change: Callable[[bytes], bytes], sealed: bool = True) -> Callable[[Path], None]:
    """A damage: the file's content is changed, and the manifest fits it again."""
    where = path.name if path.name == GIVEN else f"{MODEL}/{path.name}"

    def damage(home: Path) -> None:
        (home / where).write_bytes(change((home / where).read_bytes()))
        if sealed:
            reseal(home / MODEL)

    return damage
