"""The sentencepiece tokenizer of the official checkpoints: the library's ids, control symbols by name, streams."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin_core.checkpoints import native
from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointError, InputError
from griffin_core.layouts.initialise import init_params
from griffin_core.presets import PRESETS
from griffin_core.text.sentencepiece_file import SentencePieceTokenizer, sentencepiece_ids
from griffin_core.text.tokenizer import from_files, special_ids

sentencepiece = pytest.importorskip("sentencepiece")


def _model() -> bytes:
    """A small model with the family's special ids and bytes for what it does not know."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quick brown fox jumps over the lazy dog", "a gated linear recurrence"] * 40),
        model_writer=made,
        vocab_size=330,
        model_type="bpe",
        byte_fallback=True,
        **{"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "pad_piece": "<pad>"},
        **{"eos_piece": "<eos>", "bos_piece": "<bos>", "minloglevel": 2, "hard_vocab_limit": False},
    )
    return made.getvalue()


FILES = {"tokenizer.model": _model()}
TOKENIZER = SentencePieceTokenizer(FILES)
LIBRARY = sentencepiece.SentencePieceProcessor(model_proto=FILES["tokenizer.model"])


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_plain_text_has_the_librarys_ids(text: str) -> None:
    assert TOKENIZER.encode(text, special=False) == LIBRARY.encode(text)
    assert TOKENIZER.decode(LIBRARY.encode(text)) == LIBRARY.decode(LIBRARY.encode(text))


def test_control_symbols_have_names() -> None:
    ids = TOKENIZER.encode("<bos>the fox<eos>")
    assert (ids[0], ids[-1]) == (2, 1)
    assert ids[1:-1] == LIBRARY.encode("the fox")
    assert TOKENIZER.decode(ids) == "the fox"
    assert TOKENIZER.decode(ids, special=True) == "<bos>the fox<eos>"
    assert 1 not in TOKENIZER.encode("<eos>", special=False)
    with pytest.raises(InputError, match=r"token id 9999 is outside the vocabulary"):
        TOKENIZER.decode([9999])


def test_special_ids_come_from_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    assert special_ids(FILES) == {"bos": 2, "eos": 1, "pad": 0}
    assert sentencepiece_ids({}) == {"bos": None, "eos": None, "pad": None}
    monkeypatch.setitem(__import__("sys").modules, "sentencepiece", None)
    assert special_ids(FILES)["eos"] is None
    with pytest.raises(InputError, match=r"needs sentencepiece; pip install 'griffin-core\[text\]'"):
        from_files(FILES)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_streamed_pieces_join_to_the_whole(text: str) -> None:
    ids = TOKENIZER.encode("fox " + text, special=False)
    stream = TOKENIZER.stream()
    assert "".join(stream.push([token]) for token in ids) + stream.finish() == TOKENIZER.decode(ids)


def test_it_travels_with_a_checkpoint(tmp_path: Path) -> None:
    config = PRESETS["griffin-tiny"].config.replace(num_layers=1, vocab_size=TOKENIZER.vocab_size)
    assert isinstance(config, GriffinConfig)
    native.save(tmp_path / "m", config, init_params(config, 0), TOKENIZER.files())
    read = native.read(tmp_path / "m")
    assert isinstance(from_files(read.tokenizer_files), SentencePieceTokenizer)
    assert json.loads((tmp_path / "m/config.json").read_text())["eos_token_id"] == 1


def test_a_damaged_model_is_refused() -> None:
    for damaged in (FILES["tokenizer.model"][:40], b"\x0a", b""):
        with pytest.raises(CheckpointError, match=r"tokenizer\.model cannot be read by sentencepiece"):
            from_files({"tokenizer.model": damaged})
