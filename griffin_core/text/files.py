"""The user's documents: text files, and JSONL with prompts that carry no loss."""

from __future__ import annotations

import functools
import glob
import gzip
import hashlib
import json
import lzma
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from griffin_core.errors import InputError

LONGEST_DOCUMENT = 16_384
"""Characters after which a text file is cut, at a blank line where there is one."""

_BLANK_LINE = "\n\n"


@dataclass(frozen=True)
class Document:
    """One text that starts with nothing before it.

    Attributes:
        name: where it came from; no part of its identity.
        text: what is learned.
        prompt: text before it that is read but carries no loss.
        special: names of special tokens in it (such as ``<start_of_turn>``) give their ids.
    """

    name: str
    text: str
    prompt: str = ""
    special: bool = False

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the prompt's length, the prompt and the text."""
        prompt = self.prompt.encode()
        head = b"%d\n" % len(prompt) if prompt else b""
        return hashlib.sha256(head + prompt + self.text.encode()).hexdigest()

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of the text, prompt left out."""
        return len(self.text.encode())


def read_documents(patterns: Sequence[str]) -> tuple[tuple[str, ...], tuple[Document, ...]]:
    """The files that the patterns name, absolute and sorted within a pattern, and their documents.

    A file whose name ends in ``.jsonl`` holds one document a line, ``{"text": ...}`` or ``{"prompt": ...,
    "completion": ...}``. Any other file is UTF-8 text and one document; above 16 384 characters it is cut into
    several at its last blank line before every such length. Files without text are left out. Names of special
    tokens count as such in JSONL (chat turns) and are plain text in text files.

    Raises:
        InputError: naming the pattern, file, line or byte that is not understood.
    """
    files = tuple(dict.fromkeys(name for pattern in patterns for name in _expand(pattern)))
    documents = tuple(document for name in files for document in _read(Path(name)))
    if not documents:
        raise InputError(f"no text in {', '.join(patterns)}; expected at least one file that is not empty")
    return files, documents


def compressed_bits_per_byte(documents: Iterable[Document]) -> dict[str, float]:
    """What gzip -9 and xz -9 need for the documents' texts, all in one stream: bits per byte by program name.

    Raises:
        InputError: there is no text.
    """
    data = "".join(document.text for document in documents).encode()
    if not data:
        raise InputError("no text to compress; there are no held-out documents")
    sizes = {"gzip": len(gzip.compress(data, 9, mtime=0)), "xz": len(lzma.compress(data, preset=9))}
    return {program: 8.0 * size / len(data) for program, size in sizes.items()}


def cut_text(text: str, longest: int = LONGEST_DOCUMENT) -> list[str]:
    """``text`` in pieces of at most ``longest`` characters; joined they are ``text`` again."""
    pieces = []
    while len(text) > longest:
        blank = text.rfind(_BLANK_LINE, 1, longest)
        cut = longest if blank < 0 else min(longest, blank + len(_BLANK_LINE))
        pieces.append(text[:cut])
        text = text[cut:]
    return [*pieces, text] if text else pieces


def _expand(pattern: str) -> list[str]:
    expanded = str(Path(pattern).expanduser())
    names = [expanded] if Path(expanded).is_file() else sorted(glob.glob(expanded, recursive=True))  # noqa: PTH207 (absolute patterns)
    files = [str(Path(name).resolve()) for name in names if Path(name).is_file()]
    if not files:
        raise InputError(f"no file matches {pattern!r}; give a file, or a glob pattern in quotes")
    return files


def _read(path: Path) -> Iterator[Document]:
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; expected a readable text file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text at byte {error.start}; convert it first") from error
    if path.suffix == ".jsonl":
        yield from _jsonl(path, text)
        return
    pieces = cut_text(text)
    for index, piece in enumerate(pieces):
        yield Document(name=path.name if len(pieces) == 1 else f"{path.name}#{index}", text=piece)


def _jsonl(path: Path, text: str) -> Iterator[Document]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path.name}:{number}"
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise InputError(f"{where} is not JSON ({error}); expected one object a line") from error
        yield _document(where, fields)


def _document(where: str, fields: Any) -> Document:
    keys = set(fields) if isinstance(fields, dict) else set()
    if keys not in ({"text"}, {"prompt", "completion"}):
        seen = ", ".join(sorted(map(repr, keys))) or type(fields).__name__
        raise InputError(f'{where} has {seen}; expected {{"text"}} or {{"prompt", "completion"}}')
    for key in sorted(keys):
        if not isinstance(fields[key], str):
            raise InputError(f"{where}: {key!r} is a {type(fields[key]).__name__}; expected a string")
        if any("\ud800" <= letter <= "\udfff" for letter in fields[key]):
            raise InputError(f"{where}: {key!r} has a lone surrogate, which is not Unicode text; remove it")
    text = fields.get("text", fields.get("completion"))
    if not text:
        raise InputError(f"{where} has nothing to learn: its {'text' if 'text' in keys else 'completion'} is empty")
    return Document(name=where, text=text, prompt=fields.get("prompt", ""), special=True)
