"""The loop over pieces: what is kept, what is shown when, and where every row's state stands afterwards."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin_core import presets
from griffin_core.errors import InputError
from griffin_core.generation import pace
from griffin_core.generation.service import begin, generate, stream
from griffin_core.generation.stops import Stops

EOS = 257


def naive(script, stops, ids):
    """Kept text, kept bytes and reason, one character of ASCII after the other and without any pieces."""
    text = ""
    for byte in script:
        if byte in ids:
            return text, "stop", byte
        text += chr(byte)
        hits = [stop for stop in stops if text.endswith(stop)]
        if hits:
            longest = max(hits, key=len)
            return text[: len(text) - len(longest)], "stop", longest
    return text, "length", None


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text("ab", min_size=1, max_size=150), min_size=1, max_size=3),
    stops=st.lists(st.text("ab", min_size=1, max_size=9), max_size=3),
    ends=st.lists(st.integers(0, 150), min_size=3, max_size=3),
    lively=st.booleans(),
)
def test_every_row_keeps_what_the_naive_reading_keeps(scripted, digest_of, texts, stops, ends, lively):
    scripts = [(text.encode()[:end] + bytes([0]) + text.encode()) for text, end in zip(texts, ends, strict=False)]
    wanted = max(map(len, scripts))
    scripts = [list(script.ljust(wanted, b"a")) for script in scripts]
    run = begin(
        scripted(scripts),
        [[row] for row in range(len(scripts))],
        max_new_tokens=wanted,
        stop=stops,
        stop_ids=[0],
        lively=lively,
    )
    shown = ["".join(column) for column in zip(*run, strict=True)]
    for row, (script, result) in enumerate(zip(scripts, run.results, strict=True)):
        text, reason, stop = naive(script, stops, {0})
        assert (result.text, result.finish_reason, result.stop) == (text, reason, stop)
        assert shown[row] == text
        assert result.tokens == list(text.encode())
        assert len(result.logprobs) == len(result.tokens)
        history = [row, *result.tokens]
        assert result.session.histories == (tuple(history),)
        assert result.session.positions == (len(history) - 1,)
        assert result.session.state["position"].tolist() == [len(history) - 1]
        assert result.session.state["digest"].tolist() == [digest_of(history[:-1])]


@settings(max_examples=60, deadline=None)
@given(data=st.binary(min_size=1, max_size=200) | st.text(min_size=1, max_size=80).map(str.encode))
def test_streamed_text_is_never_broken_and_adds_up_to_the_whole(scripted, data):
    pieces = list(stream(scripted([data]), [0], max_new_tokens=len(data), stop_ids=()))
    for piece in pieces:
        assert piece.encode("utf-8").decode("utf-8") == piece != ""
    text = "".join(pieces)
    whole = data.decode("utf-8", "replace")
    # What may be missing at the end is one unfinished character, which a continuation may still complete.
    assert whole in (text, text + "\ufffd")
    if whole != text:
        tails = [bytes(tail) for n in (1, 2, 3) for tail in itertools.product((0x80, 0x90, 0xA0), repeat=n)]
        assert any("\ufffd" not in (data + tail).decode("utf-8", "replace")[len(text) :] for tail in tails)


@pytest.mark.parametrize("cut", [2, 3, 4, 5, 6])
def test_a_continuation_completes_a_character_that_was_cut(scripted, cut):
    data = "h\U0001f600é".encode()
    model = scripted([data])
    first = generate(model, [0], max_new_tokens=cut, stop_ids=())[0]
    rest = generate(model, None, session=first.session, max_new_tokens=len(data) - cut, stop_ids=())[0]
    assert (first.text, rest.text) == (("h", "\U0001f600é") if cut < 5 else ("h\U0001f600", "é"))


def test_a_stop_string_may_straddle_every_piece_boundary(scripted, digest_of):
    for begin_at in range(70):
        script = b"x" * begin_at + b"STOP" + b"y" * 80
        run = begin(scripted([script]), [0], max_new_tokens=len(script), stop="STOP", stop_ids=())
        shown = [piece for (piece,) in run]
        assert "".join(shown) == "x" * begin_at, begin_at
        assert run.session.state["digest"].tolist() == [digest_of([0, *b"x" * begin_at][:-1])], begin_at


def test_tokens_end_where_the_kept_text_has_whole_characters(scripted):
    # The stop string begins with the second byte-token's character; its first byte belongs to no kept character.
    result = generate(scripted(["aé!".encode()]), [0], max_new_tokens=4, stop="é", stop_ids=())[0]
    assert (result.text, result.tokens, result.stop) == ("a", [97], "é")


def test_rows_that_stopped_keep_their_state_while_others_go_on(scripted, digest_of):
    scripts = [b"ab" + bytes([EOS - 256]) + b"c" * 97, b"d" * 100]
    run = begin(scripted(scripts), [[0], [1]], max_new_tokens=100, stop_ids=[EOS - 256]).finish()
    assert [r.finish_reason for r in run.results] == ["stop", "length"]
    assert run.session.histories == ((0, *b"ab"), (1, *b"d" * 100))
    assert run.session.state["digest"].tolist() == [digest_of([0, *b"a"]), digest_of([1, *b"d" * 99])]


def test_eos_stops_by_default_and_is_no_part_of_the_text(scripted):
    result = generate(scripted([[104, 105, EOS, 106]]), [0], max_new_tokens=4)[0]
    assert (result.text, result.tokens, result.stop) == ("hi", [104, 105], EOS)
    result = generate(scripted([[104, 105, EOS, 106]]), [0], max_new_tokens=4, stop_ids=())[0]
    assert (result.text, result.tokens) == ("hij", [104, 105, EOS, 106])


def test_zero_new_tokens_read_the_prompt_and_write_nothing(scripted, digest_of):
    model = scripted([b"abc"])
    result = generate(model, [0, 5, 6], max_new_tokens=0)[0]
    assert (result.text, result.tokens, result.finish_reason, model.fake.decoded) == ("", [], "length", 0)
    assert result.session.state["digest"].tolist() == [digest_of([0, 5])]


def test_piece_sizes_are_powers_of_two_and_waste_no_more_than_was_made(scripted):
    sizes, steps = [], pace.Pace(lively=False)
    for wanted in (1000, 999, 997, 993, 985, 969, 937, 873, 809):
        sizes.append(steps.next(wanted))
        steps.took(sizes[-1], 9.0)
    assert sizes == [1, 2, 4, 8, 16, 32, 64, 64, 64]
    assert [pace.Pace(lively=True).next(n) for n in (1, 3, 64)] == [1, 1, 1]
    model = scripted([b"x" * 20 + bytes([1]) + b"x" * 200])
    generate(model, [0], max_new_tokens=200, stop_ids=[1], keep_state=False)
    assert model.fake.decoded == 31


def test_a_slow_model_is_streamed_in_small_pieces():
    steps = pace.Pace(lively=True)
    for _ in range(10):
        size = steps.next(1000)
        steps.took(size, size * pace.LIVELY_SECONDS / 3)
    assert steps.next(1000) == 2
    for _ in range(10):
        steps.took(steps.next(1000), 10.0)
    assert steps.next(1000) == 1


def test_prompts_of_text_start_with_bos_and_continuations_do_not(scripted):
    model = scripted([b"zz"])
    model.fake.scripts[258] = list(b"zzzzzzzz")
    first = generate(model, "hi", max_new_tokens=1)[0]
    assert first.session.histories == ((258, *b"hi", 122),)
    second = generate(model, "yo", session=first.session, max_new_tokens=1)[0]
    assert second.session.histories == ((258, *b"hi", 122, *b"yo", 122),)
    assert second.session.positions == (6,)
    named = generate(model, "<bos>hi", max_new_tokens=0)[0]
    assert named.session.histories == ((258, *b"hi"),)


def test_long_prompts_of_unequal_length_are_read_in_pieces(scripted, digest_of):
    model = scripted([b"a", b"b", b"c"])
    prompts = [[0] * 5000, [1], [2] * 700]
    run = begin(model, prompts, max_new_tokens=3).finish()
    assert [r.text for r in run.results] == ["aaa", "bbb", "ccc"]
    expected = [digest_of([*prompt, *b"abc"[row : row + 1] * 2]) for row, prompt in enumerate(prompts)]
    assert run.session.state["digest"].tolist() == expected


def test_a_session_without_states_cannot_be_continued(scripted):
    run = begin(scripted([b"abc"]), [0], max_new_tokens=2, keep_state=False).finish()
    assert run.results[0].session is None
    with pytest.raises(InputError, match="keep_state"):
        _ = run.session


def test_rows_may_be_fed_texts_of_unequal_length(scripted, digest_of):
    session = begin(scripted([b"abc", b"def"]), [[0], [1]], max_new_tokens=2).finish().session
    fed = session.feed([[5, 6, 7], [8]])
    assert fed.histories == ((0, *b"ab", 5, 6, 7), (1, *b"de", 8))
    assert fed.positions == (5, 3)
    assert fed.state["digest"].tolist() == [digest_of(history[:-1]) for history in fed.histories]


def test_the_stop_string_that_is_complete_first_wins_then_the_longer():
    config = presets.preset("griffin-tiny").config
    stops = Stops.of(config, ["cd", "abcd", "bc", "xyzxyz"])
    assert stops.find("abcdef", 0) == (1, "bc")
    assert Stops.of(config, ["cd", "abcd"]).find("_abcd", 3) == (1, "abcd")
    assert stops.find("__abde", 0) is None
    assert [stops.held(text) for text in ("", "_", "_a", "_ab", "_xyzxy", "xyzx", "abc_")] == [0, 0, 1, 2, 5, 4, 0]
