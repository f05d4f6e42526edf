"""Documents to train on: the running interpreter's own documentation, or the user's files.

Nothing is downloaded. The embedded corpus is Python's language reference (one document per topic) and the
docstrings of the standard library (one document per module), about 2 MB of English. It differs a little
between Python versions, so its digest is recorded with everything that is trained on it.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from griffin_core.errors import InputError
from griffin_core.text.files import Document, read_documents

EMBEDDED = "embedded"
"""The source name of the interpreter's documentation."""
HELDOUT_FRACTION = 0.05
"""Share of the documents that is never trained on."""
SHORTEST_DOCSTRING = 80
"""Docstrings of at most this many characters are left out."""

_NOT_LIBRARY = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "pydoc_data"})


@dataclass(frozen=True)
class Corpus:
    """Documents and where they came from.

    Attributes:
        source: "embedded", or the files in the order they were read.
        documents: in a fixed order.
    """

    source: str | tuple[str, ...]
    documents: tuple[Document, ...]

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over the documents' digests: equal corpora have equal digests."""
        whole = hashlib.sha256()
        for document in self.documents:
            whole.update(bytes.fromhex(document.digest))
        return whole.hexdigest()

    def split(self, fraction: float = HELDOUT_FRACTION) -> tuple[tuple[Document, ...], tuple[Document, ...]]:
        """The documents to train on and those held out, decided by each document's own SHA-256.

        Adding documents moves none from one side to the other, and equal documents stand on one side. When no
        digest falls under ``fraction`` and there are two different documents or more, the one of the lowest
        digest is held out, so that small corpora can be evaluated, too.

        Args:
            fraction: share held out, in [0, 1).

        Raises:
            InputError: ``fraction`` is out of range.
        """
        if not 0.0 <= fraction < 1.0:
            raise InputError(f"held-out fraction is {fraction!r}; expected a number in [0, 1)")
        limit = int(fraction * 2.0**64)
        held = {document.digest for document in self.documents if int(document.digest[:16], 16) < limit}
        digests = {document.digest for document in self.documents}
        if fraction > 0 and len(digests) > 1:
            held = held or {min(digests)}
            held -= {max(digests)} if held == digests else set()
        train = tuple(document for document in self.documents if document.digest not in held)
        return train, tuple(document for document in self.documents if document.digest in held)


def load_corpus(text: str | Sequence[str] | None = None) -> Corpus:
    """The corpus of ``text``: file names and glob patterns, or None for the embedded one.

    Raises:
        InputError: a pattern matches no file, or a file is not UTF-8 text or not legal JSONL.
    """
    if text is None:
        return embedded_corpus()
    patterns = (text,) if isinstance(text, str) else tuple(text)
    files, documents = read_documents(patterns)
    return Corpus(source=files, documents=documents)


@functools.cache
def embedded_corpus() -> Corpus:
    """The interpreter's language reference and standard-library docstrings.

    Raises:
        InputError: this Python carries neither (some minimal builds do not).
    """
    documents = (*_topics(), *_docstrings(Path(sysconfig.get_paths()["stdlib"])))
    distinct = {document.digest: document for document in reversed(documents)}  # the first of equal ones stays
    if not distinct:
        raise InputError("this Python carries no documentation to train on; give --text FILE")
    return Corpus(source=EMBEDDED, documents=tuple(reversed(distinct.values())))


def _topics() -> Iterator[Document]:
    if importlib.util.find_spec("pydoc_data") is None:  # a minimal Python: the docstrings alone make the corpus
        return
    topics = importlib.import_module("pydoc_data.topics").topics
    for name in sorted(topics):
        yield Document(name=f"topics/{name}", text=topics[name])


def _docstrings(library: Path) -> Iterator[Document]:
    seen: set[str] = set()
    for path in sorted(library.rglob("*.py")):
        relative = path.relative_to(library)
        if _NOT_LIBRARY & set(relative.parts):
            continue
        fresh = [text for text in module_docstrings(path.read_bytes()) if text not in seen]
        seen.update(fresh)
        if fresh:
            yield Document(name=relative.as_posix(), text="\n\n".join(dict.fromkeys(fresh)))


def module_docstrings(source: bytes) -> list[str]:
    """Docstrings longer than 80 characters of a module, its classes and functions, outer ones first.

    Args:
        source: Python source of this interpreter's version.
    """
    if b'"""' not in source and b"'''" not in source:  # parsing is nearly all of the time
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old escapes in the library's own source
        tree = ast.parse(source)
    found = [ast.get_docstring(node) or "" for node in _definitions(tree)]
    return [text for text in found if len(text) > SHORTEST_DOCSTRING]


_Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _definitions(node: ast.AST) -> Iterator[_Definition]:
    """Walks statements only: expressions hold no docstrings and are most of a tree."""
    if isinstance(node, _Definition):
        yield node
    for field in ("body", "handlers", "orelse", "finalbody", "cases"):
        inner = getattr(node, field, ())
        if isinstance(inner, list):
            for child in inner:
                yield from _definitions(child)
