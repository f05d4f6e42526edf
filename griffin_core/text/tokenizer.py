"""Text to token ids and back. The byte tokenizer needs no library; others go through ``tokenizers``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from griffin_core.errors import CheckpointError, InputError
from griffin_core.presets import BYTE_VOCAB
from griffin_core.text.byte_file import BOS, EOS, PAD, SETTINGS, SPECIALS, byte_tokenizer
from griffin_core.text.sentencepiece_file import SENTENCEPIECE_FILE, SentencePieceTokenizer, sentencepiece_ids
from griffin_core.text.stream import ByteStream, StreamDecoder, TextStream

TOKENIZER_FILE = "tokenizer.json"
SETTINGS_FILE = "tokenizer_config.json"
TOKENIZER_FILES = (
    TOKENIZER_FILE,
    SETTINGS_FILE,
    SENTENCEPIECE_FILE,
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
"""Files of a checkpoint directory that belong to its tokenizer and travel with it."""


class Tokenizer(Protocol):
    """What generation, training and the command line ask of a tokenizer.

    Attributes:
        vocab_size: number of ids; a model's vocabulary may be padded beyond it.
        bos_id, eos_id, pad_id: special ids, None where the tokenizer has none.
    """

    vocab_size: int
    bos_id: int | None
    eos_id: int | None
    pad_id: int | None

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Ids of ``text``, nothing added. ``special=False`` reads names of special tokens as plain text."""

    def decode(self, ids: Iterable[int], special: bool = False) -> str:
        """Text of ``ids``; special tokens are left out unless ``special``. Broken UTF-8 gives U+FFFD."""

    def stream(self) -> StreamDecoder:
        """A fresh incremental decoder."""

    def files(self) -> dict[str, bytes]:
        """The files that a checkpoint keeps of it, by name."""


class ByteTokenizer:
    """UTF-8 bytes as ids 0 to 255, then five special tokens. Exact on any text, no library, no training."""

    vocab_size: int = BYTE_VOCAB
    bos_id: int | None = BOS
    eos_id: int | None = EOS
    pad_id: int | None = PAD

    def encode(self, text: str, special: bool = True) -> list[int]:
        """The UTF-8 bytes of ``text``; the name of a special token, such as ``<eos>``, gives its id.

        Raises:
            InputError: the text holds a lone surrogate, which no UTF-8 can express.
        """
        try:
            if not special:
                return list(text.encode())
            ids: list[int] = []
            for piece in _SPECIAL.split(text):
                ids += [SPECIALS[piece]] if piece in SPECIALS else piece.encode()
            return ids
        except UnicodeEncodeError as error:
            code = ord(error.object[error.start])
            raise InputError(f"text has the lone surrogate U+{code:04X}, which UTF-8 cannot hold; remove it") from error

    def decode(self, ids: Iterable[int], special: bool = False) -> str:
        """Text of ``ids``.

        Raises:
            InputError: an id is outside the vocabulary.
        """
        pieces = bytearray()
        for token in ids:
            if not 0 <= token < BYTE_VOCAB:
                raise InputError(f"token id {token} is outside the vocabulary 0..{BYTE_VOCAB - 1}")
            if token < 256:
                pieces.append(token)
            elif special:
                pieces += _NAMES.get(token, "").encode()
        return pieces.decode("utf-8", "replace")

    def stream(self) -> StreamDecoder:
        """A fresh incremental decoder."""
        return ByteStream()

    def files(self) -> dict[str, bytes]:
        """``tokenizer.json`` of the ``tokenizers`` library and the settings that transformers reads."""
        return {TOKENIZER_FILE: _dump(byte_tokenizer()), SETTINGS_FILE: _dump(SETTINGS)}


class LibraryTokenizer:
    """Any ``tokenizer.json``, through the ``tokenizers`` library.

    Raises:
        CheckpointError: the file is not one that the library reads.
        InputError: the library is not installed.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        try:
            import tokenizers
        except ImportError as error:
            raise InputError("this tokenizer needs the tokenizers library; pip install 'griffin-core[text]'") from error
        self._files = dict(files)
        try:
            self._inner = tokenizers.Tokenizer.from_buffer(files[TOKENIZER_FILE])
        except ValueError as error:
            raise CheckpointError(f"{TOKENIZER_FILE} cannot be read by tokenizers: {error}") from error
        self.vocab_size: int = self._inner.get_vocab_size(with_added_tokens=True)
        ids = special_ids(files)
        self.bos_id: int | None = ids["bos"]
        self.eos_id: int | None = ids["eos"]
        self.pad_id: int | None = ids["pad"]

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Ids of ``text``, nothing added; ``special=False`` reads names of special tokens as plain text."""
        self._inner.encode_special_tokens = not special
        return list(self._inner.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Iterable[int], special: bool = False) -> str:
        """Text of ``ids``."""
        return str(self._inner.decode(list(ids), skip_special_tokens=not special))

    def stream(self) -> StreamDecoder:
        """A fresh incremental decoder."""
        return TextStream(self.decode)

    def files(self) -> dict[str, bytes]:
        """The files it was made from."""
        return dict(self._files)


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """The tokenizer of a checkpoint directory.

    Raises:
        CheckpointError: there is none, or it cannot be read.
        InputError: it needs a library that is not installed.
    """
    files = read_files(Path(directory))
    found = from_files(files)
    if found is None:
        raise CheckpointError(f"{directory} has no {TOKENIZER_FILE}; add one, or give token ids instead of text")
    return found


def from_files(files: Mapping[str, bytes]) -> Tokenizer | None:
    """The tokenizer that these files (by name) make, or None when no tokenizer is among them.

    Raises:
        CheckpointError: a file is damaged, or of a kind that is not read.
        InputError: a library is missing.
    """
    if TOKENIZER_FILE in files:
        if _parse(TOKENIZER_FILE, files[TOKENIZER_FILE]) == byte_tokenizer():
            return ByteTokenizer()
        return LibraryTokenizer(files)
    return SentencePieceTokenizer(files) if SENTENCEPIECE_FILE in files else None


def special_ids(files: Mapping[str, bytes]) -> dict[str, int | None]:
    """Ids of "bos", "eos" and "pad", read from the files alone; None where the tokenizer has none.

    ``tokenizer_config.json`` names the tokens; without it they are ``<bos>``, ``<eos>`` and ``<pad>``. A sentencepiece
    model tells its own where the library is installed.
    """
    if TOKENIZER_FILE not in files:
        return sentencepiece_ids(files)
    settings = _parse(SETTINGS_FILE, files[SETTINGS_FILE]) if SETTINGS_FILE in files else {}
    added = _parse(TOKENIZER_FILE, files[TOKENIZER_FILE]).get("added_tokens")
    entries = [entry for entry in added if isinstance(entry, dict)] if isinstance(added, list) else []
    known = {entry["content"]: entry.get("id") for entry in entries if isinstance(entry.get("content"), str)}
    ids: dict[str, int | None] = {}
    for role in ("bos", "eos", "pad"):
        name = settings.get(f"{role}_token", f"<{role}>")
        name = name.get("content") if isinstance(name, dict) else name
        found = known.get(name) if isinstance(name, str) else None
        ids[role] = found if isinstance(found, int) else None
    return ids


def read_files(directory: Path) -> dict[str, bytes]:
    """The tokenizer files of a directory, by name."""
    try:
        return {name: (directory / name).read_bytes() for name in TOKENIZER_FILES if (directory / name).is_file()}
    except OSError as error:
        raise CheckpointError(f"cannot read the tokenizer in {directory}: {error.strerror}") from error


_SPECIAL = re.compile("(" + "|".join(re.escape(name) for name in SPECIALS) + ")")
_NAMES = {token: name for name, token in SPECIALS.items()}


def _dump(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def _parse(name: str, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name} is not JSON ({error}); take an undamaged copy") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{name} holds a JSON {type(value).__name__}; expected an object")
    return value
