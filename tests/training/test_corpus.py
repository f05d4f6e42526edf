"""The embedded corpus, users' files, and the split by document."""

import gzip
import json
import lzma
import subprocess
import sys

import pytest

from griffin_core.errors import InputError
from griffin_core.text.corpus import Corpus, embedded_corpus, load_corpus, module_docstrings
from griffin_core.text.files import LONGEST_DOCUMENT, Document, compressed_bits_per_byte, cut_text, read_documents


def documents(count: int, size: int = 40) -> tuple[Document, ...]:
    return tuple(Document(f"d{i}", f"document number {i} " * size) for i in range(count))


def test_embedded_corpus_is_two_megabytes_of_distinct_documents():
    corpus = embedded_corpus()
    assert 1.5e6 < sum(document.text_bytes for document in corpus.documents) < 4e6
    assert len({document.digest for document in corpus.documents}) == len(corpus.documents) > 400
    names = [document.name for document in corpus.documents]
    assert "topics/lambda" in names
    assert "argparse.py" in names
    assert not [name for name in names if {"test", "tests", "site-packages"} & set(name.split("/"))]


def test_embedded_heldout_needs_more_than_two_bits_per_byte_from_gzip_and_xz():
    train, held = embedded_corpus().split()
    share = sum(d.text_bytes for d in held) / sum(d.text_bytes for d in (*train, *held))
    assert 0.02 < share < 0.09
    data = "".join(document.text for document in held).encode()
    figures = compressed_bits_per_byte(held)
    assert figures == {
        "gzip": 8 * len(gzip.compress(data, 9, mtime=0)) / len(data),
        "xz": 8 * len(lzma.compress(data, preset=9)) / len(data),
    }
    assert 2.0 < figures["xz"] < figures["gzip"] < 3.0


@pytest.mark.prove
def test_another_process_reads_the_same_corpus():
    code = "from griffin_core.text.corpus import embedded_corpus; print(embedded_corpus().digest)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == embedded_corpus().digest


def test_docstrings_are_found_where_they_hide():
    long = "A sentence that is repeated until it is long enough to count. " * 2
    source = f'''
"""Module. {long}"""
x = """not a docstring {long}"""
class A:
    """Class. {long}"""
    if x:
        def method(self):
            """Method. {long}"""
try:
    pass
except ValueError:
    async def late():
        """Late. {long}"""
def short():
    """Too short."""
'''
    found = module_docstrings(source.encode())
    assert [text.split(".")[0] for text in found] == ["Module", "Class", "Method", "Late"]
    assert module_docstrings(b"x = 'nothing here'") == []


def test_split_is_decided_by_each_document_alone():
    many = documents(600)
    train, held = Corpus("x", many).split()
    assert set(train) | set(held) == set(many)
    assert not set(train) & set(held)
    assert 10 <= len(held) <= 60  # 5 % of 600, five standard deviations either side
    fewer = Corpus("x", many[100:500]).split()[1]
    assert set(fewer) == set(held) & set(many[100:500])
    assert Corpus("x", many[::-1]).split()[1] == held[::-1]


def test_small_corpora_hold_out_one_document_and_train_on_one():
    for count in range(2, 12):
        train, held = Corpus("x", documents(count)).split()
        assert train
        assert held
    alone = Corpus("x", documents(1))
    assert [len(side) for side in alone.split()] == [1, 0]
    assert [len(side) for side in Corpus("x", documents(20)).split(0.0)] == [20, 0]
    with pytest.raises(InputError, match="fraction"):
        alone.split(1.0)


def test_digest_follows_content_order_and_prompt_but_not_names():
    first, second = documents(2)
    corpus = Corpus("x", (first, second))
    assert corpus.digest == Corpus("y", (Document("other", first.text), second)).digest
    assert corpus.digest != Corpus("x", (second, first)).digest
    assert Document("a", "bc").digest != Document("a", "c", prompt="b").digest


def test_cut_text_loses_nothing_and_cuts_at_blank_lines():
    text = "".join(f"paragraph {i} " * (i % 40) + "\n\n" for i in range(300))
    pieces = cut_text(text)
    assert "".join(pieces) == text
    assert len(pieces) > 1
    assert all(0 < len(piece) <= LONGEST_DOCUMENT for piece in pieces)
    assert all(piece.endswith("\n\n") for piece in pieces)
    assert [len(piece) for piece in cut_text("x" * 25, 10)] == [10, 10, 5]
    assert cut_text("") == []


def test_text_files_and_patterns(tmp_path):
    (tmp_path / "b.txt").write_text("second <eos>")
    (tmp_path / "a.txt").write_text("first é")
    (tmp_path / "empty.txt").write_text("")
    files, found = read_documents([str(tmp_path / "*.txt"), str(tmp_path / "b.txt")])
    assert files == tuple(str((tmp_path / name).resolve()) for name in ("a.txt", "b.txt", "empty.txt"))
    assert [(d.name, d.text, d.special) for d in found] == [
        ("a.txt", "first é", False),
        ("b.txt", "second <eos>", False),
    ]
    assert load_corpus(str(tmp_path / "a.txt")).documents == found[:1]


def test_jsonl_holds_texts_and_prompts(tmp_path):
    lines = [{"text": "plain"}, {"prompt": "ask", "completion": "answer\u2028more"}]
    path = tmp_path / "chat.jsonl"
    path.write_text("\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n")
    assert [(d.text, d.prompt, d.special) for d in load_corpus(str(path)).documents] == [
        ("plain", "", True),
        ("answer\u2028more", "ask", True),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", b"abc\xff", "not UTF-8 text at byte 3"),
        ("x.txt", b"", "no text in"),
        ("x.jsonl", b'{"text": "a"}\n{"text"', "x.jsonl:2 is not JSON"),
        ("x.jsonl", b'{"txt": "a"}', "x.jsonl:1 has 'txt'; expected"),
        ("x.jsonl", b'{"text": "a", "prompt": "b"}', "x.jsonl:1 has 'prompt', 'text'; expected"),
        ("x.jsonl", b"[1]", "x.jsonl:1 has list; expected"),
        ("x.jsonl", b'{"text": 3}', "'text' is a int; expected a string"),
        ("x.jsonl", b'{"prompt": "a", "completion": ""}', "its completion is empty"),
        ("x.jsonl", b'{"text": "\\ud800"}', "lone surrogate"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_corpus(str(tmp_path / name))


def test_patterns_without_files_are_refused(tmp_path):
    for pattern in (tmp_path / "none*.txt", tmp_path):
        with pytest.raises(InputError, match="no file matches"):
            load_corpus(str(pattern))
