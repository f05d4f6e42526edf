"""The byte tokenizer is exact, equals the library's reading of its file, and streams whole characters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin_core.errors import CheckpointError, InputError
from griffin_core.text.byte_file import SPECIALS
from griffin_core.text.stream import REPLACEMENT, TextStream
from griffin_core.text.tokenizer import ByteTokenizer, LibraryTokenizer, from_files, load_tokenizer

BYTES = ByteTokenizer()
TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.lists(
    st.sampled_from([*SPECIALS, "<eo", "s>", "é", "日本", "\U0001f600", " ", "\x00"])
).map("".join)


def write(directory: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (directory / name).write_bytes(data)
    return directory


@given(TEXT)
def test_ids_are_the_bytes_and_text_comes_back(text: str) -> None:
    assert BYTES.encode(text, special=False) == list(text.encode())
    assert BYTES.decode(BYTES.encode(text, special=False)) == text
    assert BYTES.decode(BYTES.encode(text), special=True) == text


def test_special_tokens_have_the_documented_ids() -> None:
    assert BYTES.encode("a<pad><eos><bos><start_of_turn><end_of_turn>b") == [97, 256, 257, 258, 259, 260, 98]
    assert (BYTES.pad_id, BYTES.eos_id, BYTES.bos_id, BYTES.vocab_size) == (256, 257, 258, 264)
    assert BYTES.decode([258, 104, 105, 257]) == "hi"
    assert BYTES.decode([258, 104, 105, 257], special=True) == "<bos>hi<eos>"


def test_the_library_reads_the_file_and_gives_the_same_ids() -> None:
    library = pytest.importorskip("tokenizers").Tokenizer.from_buffer(BYTES.files()["tokenizer.json"])

    @given(TEXT, st.lists(st.integers(0, 260)))
    def same(text: str, ids: list[int]) -> None:
        assert library.encode(text, add_special_tokens=False).ids == BYTES.encode(text)
        assert library.decode(ids) == BYTES.decode(ids)

    same()


def test_transformers_reads_the_files(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    loaded = transformers.AutoTokenizer.from_pretrained(str(write(tmp_path, BYTES.files())))
    assert loaded("né<eos>").input_ids == [110, 195, 169, 257]
    assert (loaded.pad_token_id, loaded.eos_token_id, loaded.bos_token_id) == (256, 257, 258)


def test_our_file_is_recognised_whatever_its_layout(tmp_path: Path) -> None:
    assert isinstance(load_tokenizer(write(tmp_path, BYTES.files())), ByteTokenizer)
    compact = json.dumps(json.loads(BYTES.files()["tokenizer.json"])).encode()
    assert isinstance(from_files({"tokenizer.json": compact}), ByteTokenizer)


def other_file() -> bytes:
    data = json.loads(BYTES.files()["tokenizer.json"])
    data["added_tokens"].append({**data["added_tokens"][0], "id": 261, "content": "<extra>"})
    return json.dumps(data).encode()


def test_other_files_go_through_the_library() -> None:
    pytest.importorskip("tokenizers")
    settings = json.dumps({"bos_token": {"content": "<bos>"}, "eos_token": None}).encode()
    files = {"tokenizer.json": other_file(), "tokenizer_config.json": settings}
    tokenizer = from_files(files)
    assert isinstance(tokenizer, LibraryTokenizer)
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (262, 258, None, 256)
    assert tokenizer.encode("é<extra>") == [195, 169, 261]
    assert tokenizer.encode("<eos>", special=False) == list(b"<eos>")
    assert tokenizer.decode([195, 169, 261]) == "é"
    assert tokenizer.files() == files


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(InputError, match=r"griffin-core\[text\]"):
        from_files({"tokenizer.json": other_file()})
    assert isinstance(from_files(BYTES.files()), ByteTokenizer)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no tokenizer.json"),
        ({"tokenizer.json": b""}, "tokenizer.json is not JSON"),
        ({"tokenizer.json": b"[1]"}, "holds a JSON list"),
        ({"tokenizer.json": b"{}"}, "cannot be read by tokenizers"),
        ({"tokenizer.model": b"\x0a"}, "tokenizer.model cannot be read by sentencepiece"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    pytest.importorskip("tokenizers")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_tokenizer(write(tmp_path, files))
    assert "\n" not in str(caught.value)


def test_wrong_values_are_refused() -> None:
    with pytest.raises(InputError, match=r"U\+D800"):
        BYTES.encode("a\ud800")
    with pytest.raises(InputError, match=r"token id 264 is outside the vocabulary 0\.\.263"):
        BYTES.decode([1, 264])


@given(st.lists(st.integers(0, 260)), st.data())
def test_streamed_pieces_join_to_the_whole(ids: list[int], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)))))
    stream = BYTES.stream()
    pieces = [stream.push(ids[a:b]) for a, b in zip([0, *cuts], [*cuts, len(ids)], strict=True)]
    assert "".join(pieces) + stream.finish() == BYTES.decode(ids)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_stream_breaks_a_character(text: str) -> None:
    for stream in (BYTES.stream(), TextStream(BYTES.decode)):
        shown = ""
        for token in text.encode():
            shown += stream.push([token])
            assert text.startswith(shown)
        assert shown + stream.finish() == text


def test_a_generic_stream_keeps_leading_spaces_and_ends_a_long_wait() -> None:
    words = {1: "a", 2: "b", 3: REPLACEMENT}
    stream = TextStream(lambda ids: " ".join(words[i] for i in ids))
    assert stream.push([1]) + stream.push([2]) == "a b"
    assert stream.push([3] * 7) == ""
    assert stream.push([3]) == (" " + REPLACEMENT) * 8
    assert stream.push([3]) == ""
    assert stream.finish() == " " + REPLACEMENT
