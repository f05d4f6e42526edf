"""The tokenizer of the family's official checkpoints: a sentencepiece model, ``tokenizer.model``."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterable, Mapping

from griffin_core.errors import CheckpointError, InputError
from griffin_core.text.stream import StreamDecoder, TextStream

SENTENCEPIECE_FILE = "tokenizer.model"


class SentencePieceTokenizer:
    """Any ``tokenizer.model``, through the ``sentencepiece`` library.

    Args:
        files: content by file name, the model among them.

    Raises:
        CheckpointError: the file is not one that the library reads.
        InputError: the library is not installed.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        try:
            import sentencepiece
        except ImportError as error:
            raise InputError("this tokenizer needs sentencepiece; pip install 'griffin-core[text]'") from error
        self._files = dict(files)
        self._inner = sentencepiece.SentencePieceProcessor()
        try:
            self._inner.LoadFromSerializedProto(files[SENTENCEPIECE_FILE])
        except (RuntimeError, TypeError) as error:
            raise CheckpointError(f"{SENTENCEPIECE_FILE} cannot be read by sentencepiece; copy it again") from error
        self.vocab_size: int = self._inner.get_piece_size()
        self.bos_id: int | None = _known(self._inner.bos_id())
        self.eos_id: int | None = _known(self._inner.eos_id())
        self.pad_id: int | None = _known(self._inner.pad_id())
        # Control symbols are never made from text by sentencepiece itself, so their names are looked for here.
        self._control = {
            self._inner.id_to_piece(token): token
            for token in range(self.vocab_size)
            if self._inner.is_control(token) and self._inner.id_to_piece(token)
        }
        self._pattern = re.compile("(" + "|".join(map(re.escape, self._control)) + ")") if self._control else None

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Ids of ``text``, nothing added; ``special=False`` reads names of control symbols as plain text."""
        if not special or self._pattern is None:
            return list(self._inner.encode(text, out_type=int))
        ids: list[int] = []
        for piece in self._pattern.split(text):
            ids += [self._control[piece]] if piece in self._control else self._inner.encode(piece, out_type=int)
        return ids

    def decode(self, ids: Iterable[int], special: bool = False) -> str:
        """Text of ``ids``; control symbols have text only if ``special``.

        Raises:
            InputError: an id is outside the vocabulary.
        """
        ids = list(ids)
        for token in ids:
            if not 0 <= token < self.vocab_size:
                raise InputError(f"token id {token} is outside the vocabulary 0..{self.vocab_size - 1}")
        if not special:
            return str(self._inner.decode(ids))
        names = {token: name for name, token in self._control.items()}
        runs = itertools.groupby(ids, names.__contains__)
        return "".join(
            "".join(names[token] for token in run) if control else str(self._inner.decode(list(run)))
            for control, run in runs
        )

    def stream(self) -> StreamDecoder:
        """A fresh incremental decoder."""
        return TextStream(self.decode)

    def files(self) -> dict[str, bytes]:
        """The files it was made from."""
        return dict(self._files)


def sentencepiece_ids(files: Mapping[str, bytes]) -> dict[str, int | None]:
    """Ids of "bos", "eos" and "pad"; None where there is no model, the model has none, or the library is absent.

    Raises:
        CheckpointError: the model cannot be read.
    """
    found: dict[str, int | None] = dict.fromkeys(("bos", "eos", "pad"))
    if SENTENCEPIECE_FILE in files:
        with contextlib.suppress(InputError):
            tokenizer = SentencePieceTokenizer(files)
            found = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    return found


def _known(token: int) -> int | None:
    """An id, or None for sentencepiece's -1."""
    return token if token >= 0 else None
