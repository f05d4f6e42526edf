"""Laws of tokenising, cutting, packing and resuming."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin_core.checks import PAD, check_positions
from griffin_core.errors import InputError
from griffin_core.text.files import Document
from griffin_core.text.tokenizer import ByteTokenizer
from griffin_core.training.data import Batches, ordered_batches
from griffin_core.training.examples import NO_LOSS, tokenise

BOS, EOS = ByteTokenizer.bos_id, ByteTokenizer.eos_id
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def corpus(lengths, prompts=None):
    """Documents whose every position holds another letter than its neighbours."""
    prompts = prompts or [0] * len(lengths)
    letter = lambda i, j: ALPHABET[(7 * i + j) % 26]  # noqa: E731
    return [
        Document(f"d{i}", "".join(letter(i, j) for j in range(n)), prompt="".join(letter(i, -j) for j in range(p)))
        for i, (n, p) in enumerate(zip(lengths, prompts, strict=True))
    ]


def examples(*arguments):
    return tokenise(corpus(*arguments), ByteTokenizer())


def segments(batch):
    """(tokens, targets) of every packed piece of a batch."""
    for tokens, targets, positions in zip(batch["tokens"], batch["targets"], batch["positions"], strict=True):
        real = int((positions != PAD).sum())
        assert (positions[real:] == PAD).all()
        assert (targets[real:] == NO_LOSS).all()
        cuts = [*np.flatnonzero(positions[:real] == 0), real]
        for start, stop in itertools.pairwise(cuts):
            yield tokens[start:stop], targets[start:stop]


def whole(document):
    return [BOS, *(document.prompt + document.text).encode(), EOS]


sizes = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 12)), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@given(sizes=sizes, batch=st.integers(1, 3), length=st.integers(1, 17))
def test_ordered_batches_predict_every_token_of_every_document_once(sizes, batch, length):
    texts = corpus([n for n, _ in sizes], [p for _, p in sizes])
    data = tokenise(texts, ByteTokenizer())
    seen = []
    for packed in ordered_batches(data, batch, length):
        assert {name: (a.shape, a.dtype.name) for name, a in packed.items()} == dict.fromkeys(
            ("tokens", "targets", "positions"), ((batch, length), "int32")
        )
        check_positions(packed["positions"], (batch, length))
        for tokens, targets in segments(packed):
            loss = targets != NO_LOSS
            assert (tokens[1:][loss[:-1]] == targets[:-1][loss[:-1]]).all()  # the target is the next input
            seen += [(int(a), int(b)) for a, b in zip(tokens[loss], targets[loss], strict=True)]
    expected = []
    for document in texts:
        row = whole(document)
        expected += list(itertools.pairwise(row))[len(document.prompt.encode()) :]
    assert sorted(seen) == sorted(expected)
    assert len(seen) == data.token_count == sum(n + 1 for n, _ in sizes)
    assert data.text_bytes == sum(n for n, _ in sizes)


@settings(max_examples=3, deadline=None)
@given(lengths=st.lists(st.integers(1, 60), min_size=2, max_size=10), length=st.integers(4, 20), seed=st.integers(0, 9))
def test_shuffled_pieces_are_runs_of_one_document(lengths, length, seed):
    texts = corpus(lengths)
    rows = [whole(document) for document in texts]
    stream = Batches(tokenise(texts, ByteTokenizer()), 2, length, seed)
    for _ in range(3):
        packed = next(stream)
        check_positions(packed["positions"], (2, length))
        for tokens, targets in segments(packed):
            piece = [*tokens, targets[-1]]
            assert (targets[:-1] == tokens[1:]).all()
            assert any(piece == row[i : i + len(piece)] for row in rows for i in range(len(row) - len(piece) + 1))


def test_an_epoch_holds_every_pair_once_and_epochs_differ():
    data = examples([90, 3, 41, 250, 17])
    stream, taken, epochs = Batches(data, 1, 16, seed=3), [], []
    per_epoch = data.token_count
    while sum(map(len, taken)) < 4 * per_epoch:
        taken += [[(int(a), int(b)) for a, b in zip(*piece, strict=True)] for piece in segments(next(stream))]
    flat = [pair for piece in taken for pair in piece]
    counts = {pair: flat.count(pair) for pair in set(flat)}
    base = {}
    for batch in ordered_batches(data, 1, 16):
        for tokens, targets in segments(batch):
            for pair in zip(tokens.tolist(), targets.tolist(), strict=True):
                base[pair] = base.get(pair, 0) + 1
    assert set(counts) == set(base)
    assert all(3 * base[pair] <= counts[pair] <= 5 * base[pair] + 1 for pair in base)
    epochs = {tuple(piece) for piece in taken}
    assert len(epochs) > 1.5 * len(taken) / 4  # cuts fall elsewhere in each epoch


def test_prompts_carry_no_loss_even_when_cut():
    data = examples([5, 30], [20, 7])
    for length in (4, 9, 64):
        targets = [t for batch in ordered_batches(data, 1, length) for _, ts in segments(batch) for t in ts if t >= 0]
        texts = [document.text.encode() for document in corpus([5, 30], [20, 7])]
        assert sorted(targets) == sorted([*texts[0], *texts[1], EOS, EOS])


def test_special_tokens_count_only_where_the_document_says_so():
    plain = tokenise([Document("a", "x<eos>")], ByteTokenizer())
    chat = tokenise([Document("a", "x<eos>", special=True)], ByteTokenizer())
    assert plain.tokens.tolist() == [BOS, *b"x<eos>", EOS]
    assert chat.tokens.tolist() == [BOS, ord("x"), EOS, EOS]


def test_the_stream_is_a_function_of_its_arguments():
    data = examples([50] * 20)
    first, again, other = (Batches(data, 2, 16, seed) for seed in (1, 1, 2))
    same = [(next(first), next(again), next(other)) for _ in range(4)]
    for a, b, _ in same:
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    assert any((a["tokens"] != c["tokens"]).any() for a, _, c in same)


@pytest.mark.parametrize("batch", [1, 3])
def test_resume_goes_on_with_the_same_batches(batch):
    data = examples([int(n) for n in np.random.default_rng(0).integers(1, 120, 60)])
    stream, states, batches = Batches(data, batch, 16, seed=5), [], []
    for _ in range(120):
        states.append(json.dumps(stream.get_state()))
        batches.append(next(stream))
    for start in (0, 1, 31, 63, 64, 65, 119):
        fresh = Batches(data, batch, 16, seed=5)
        fresh.set_state(json.loads(states[start]))
        for expected in batches[start : start + 3]:
            found = next(fresh)
            for name in expected:
                np.testing.assert_array_equal(found[name], expected[name])


def test_wrong_arguments_are_refused():
    data = examples([5])
    for arguments in ((0, 4, 0), (1, 0, 0), (1, 4, -1), (1, 4, 1 << 31)):
        with pytest.raises(InputError, match="expected"):
            Batches(data, *arguments)
    with pytest.raises(InputError, match="no document"):
        tokenise([], ByteTokenizer())


class Bare(ByteTokenizer):
    """A tokenizer that marks neither start nor end."""

    bos_id = eos_id = None


def test_without_special_tokens_the_first_token_is_read_only():
    data = tokenise([Document("a", "xyz"), Document("b", "q"), Document("c", "no", prompt="yes")], Bare())
    pieces = [data.piece(index, 0, 99) for index in range(len(data))]
    assert [piece["tokens"].tolist() for piece in pieces] == [[*b"xy"], [*b"yesn"]]
    assert [piece["targets"].tolist() for piece in pieces] == [[*b"yz"], [-1, -1, *b"no"]]
    with pytest.raises(InputError, match="no document"):
        tokenise([Document("b", "q")], Bare())
