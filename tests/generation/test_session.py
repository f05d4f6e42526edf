"""Sessions on real backends: batches, pieces, early stops, continuations, and the same text everywhere."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from griffin_core import memory
from griffin_core.errors import InputError, NotEnoughMemory
from griffin_core.generation import engine as engines
from griffin_core.generation.service import begin, generate
from griffin_core.generation.session import Session
from griffin_core.sampling import Sampling

PROMPTS = ["the state is a value", "a", "window and beyond: " + "0123456789" * 3, "é"]
GREEDY = Sampling(temperature=0.0)
SAMPLED = Sampling(
    temperature=0.9, top_k=40, top_p=0.95, min_p=0.01, repetition_penalty=1.2, repetition_window=8, seed=7
)


def canonical(session):
    return session.engine.module.dump_state(session.engine.config, session.state)


def assert_equal_states(one, other):
    one, other = canonical(one), canonical(other)
    assert sorted(one) == sorted(other)
    for name, value in one.items():
        assert value.dtype == other[name].dtype, name
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def next_logits(session):
    """float32 [b v]: the scores from which the next token of each row will be chosen."""
    engine, module = session.engine, session.engine.module
    last = np.array([[history[-1]] for history in session.histories], np.int32)
    out, _ = module.forward(engine.config, engine.params, module.from_numpy(last), state=session.state)
    return module.to_numpy(out)[:, 0]


def test_a_padded_batch_is_read_as_each_prompt_alone(tiny, backend_name, logits_after):
    model = tiny(backend_name)
    batch = begin(model, PROMPTS, max_new_tokens=0).session
    together = next_logits(batch)
    for row, prompt in enumerate(PROMPTS):
        alone = begin(model, prompt, max_new_tokens=0).session
        expected, bound = logits_after(model, list(alone.histories[0]))
        assert np.abs(next_logits(alone)[0] - expected).max() <= bound
        assert np.abs(together[row] - expected).max() <= bound


def test_a_batch_writes_what_each_prompt_alone_writes(tiny, backend_name, logits_after):
    model = tiny(backend_name)
    for sampling in (GREEDY, SAMPLED):
        batch = generate(model, PROMPTS, max_new_tokens=8, sampling=sampling, stop_ids=(), keep_state=False)
        for row, prompt in enumerate(PROMPTS):
            own = Sampling(**{**vars(sampling), "seed": sampling.seed + row})
            alone = generate(model, prompt, max_new_tokens=8, sampling=own, stop_ids=())[0]
            assert_same_text(model, logits_after, alone.session, batch[row].tokens, 8)


def test_every_backend_writes_the_text_of_the_reference(tiny, backend_name, logits_after):
    for sampling in (GREEDY, SAMPLED):
        options = {"max_new_tokens": 16, "sampling": sampling, "stop_ids": ()}
        ours = generate(tiny(backend_name), PROMPTS, **options, keep_state=False)
        theirs = generate(tiny("numpy"), PROMPTS, **options)
        for one, other in zip(ours, theirs, strict=True):
            same = assert_same_text(tiny("numpy"), logits_after, other.session, one.tokens, 16)
            if same:
                np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-3)


def assert_same_text(model, logits_after, session, tokens, count):
    """Equal tokens; where they part, the two leading scores must be closer than the bound (a tie).

    Returns:
        Whether all are equal.
    """
    history = list(session.histories[0])
    start = len(history) - count
    for index, token in enumerate(tokens):
        if token != history[start + index]:
            scores, bound = logits_after(model, history[: start + index])
            gap = abs(scores[token] - scores[history[start + index]])
            assert gap <= 2 * bound, f"token {index}: {token}, expected {history[start + index]}, {gap} > 2 x {bound}"
            return False
    return True


def test_pieces_change_nothing(tiny, monkeypatch, logits_after):
    model = tiny()
    whole = begin(model, PROMPTS, max_new_tokens=0).session
    monkeypatch.setattr(memory, "PREFILL_TOKENS", 4)
    monkeypatch.setattr(engines, "PREFILL_ROW", 3)
    pieces = begin(model, PROMPTS, max_new_tokens=0).session
    for row, history in enumerate(whole.histories):
        expected, bound = logits_after(model, list(history))
        assert np.abs(next_logits(pieces)[row] - expected).max() <= bound
    assert pieces.positions == whole.positions == tuple(canonical(pieces)["position"])


def test_an_early_stop_leaves_the_state_of_an_uninterrupted_run(tiny, backend_name):
    model = tiny(backend_name)
    options = {"sampling": SAMPLED, "stop_ids": ()}
    long = generate(model, "early", max_new_tokens=18, **options)[0]
    distinct = [t for t, _ in itertools.groupby(sorted(long.tokens)) if long.tokens.count(t) == 1]
    assert len(distinct) >= 3
    for stop in distinct[:3]:
        kept = long.tokens.index(stop)
        stopped = generate(model, "early", max_new_tokens=18, sampling=SAMPLED, stop_ids=[stop])[0]
        assert (stopped.tokens, stopped.stop) == (long.tokens[:kept], stop)
        exact = generate(model, "early", max_new_tokens=kept, **options)[0]
        assert_equal_states(stopped.session, exact.session)
        rest = generate(model, None, session=stopped.session, max_new_tokens=18 - kept, **options)[0]
        assert stopped.tokens + rest.tokens == long.tokens


def test_rows_of_a_batch_stop_by_themselves(tiny, backend_name):
    model = tiny(backend_name)
    free = generate(model, PROMPTS, max_new_tokens=20, sampling=SAMPLED, stop_ids=(), keep_state=False)
    stops = [free[0].tokens[3], free[2].tokens[11]]
    results = generate(model, PROMPTS, max_new_tokens=20, sampling=SAMPLED, stop_ids=stops)
    for one, whole in zip(results, free, strict=True):
        kept = min((whole.tokens.index(stop) for stop in stops if stop in whole.tokens), default=20)
        assert one.tokens == whole.tokens[:kept]
        assert one.finish_reason == ("stop" if kept < 20 else "length")
        assert canonical(one.session)["position"].tolist() == [len(one.session.histories[0]) - 1]


def test_a_conversation_equals_one_long_prompt(tiny, logits_after):
    model = tiny()
    first = generate(model, "question", max_new_tokens=3, sampling=GREEDY, stop_ids=())[0].session
    session = first.feed([list(b"more")])
    expected, bound = logits_after(model, list(session.histories[0]))
    assert session.histories[0] == (*first.histories[0], *b"more")
    assert np.abs(next_logits(session)[0] - expected).max() <= bound
    assert canonical(first)["position"].tolist() == [11], "the earlier session was written"


def test_branches_of_one_prompt(tiny):
    model = tiny()
    session = begin(model, "branch", max_new_tokens=0).session.take([0, 0, 0])
    results = generate(model, None, session=session, max_new_tokens=8, sampling=Sampling(seed=5), stop_ids=())
    for row, result in enumerate(results):
        alone = generate(model, "branch", max_new_tokens=8, sampling=Sampling(seed=5 + row), stop_ids=())[0]
        assert result.tokens == alone.tokens
    assert len({tuple(result.tokens) for result in results}) == 3


def test_global_attention_gets_the_room_it_needs(tiny):
    model = tiny(attention_window=None)
    whole = generate(model, "global", max_new_tokens=12, sampling=SAMPLED, stop_ids=())[0]
    assert whole.session.capacity == 6 + 12
    first = generate(model, "global", max_new_tokens=5, sampling=SAMPLED, stop_ids=())[0]
    assert first.session.capacity == 6 + 5
    rest = generate(model, None, session=first.session, max_new_tokens=7, sampling=SAMPLED, stop_ids=())[0]
    assert first.tokens + rest.tokens == whole.tokens
    assert_equal_states(rest.session, whole.session)


def test_memory_is_refused_with_the_figure_before_it_is_taken(tiny, monkeypatch):
    model = tiny(attention_window=None)
    monkeypatch.setattr(memory, "available", lambda: 200_000_000)
    with pytest.raises(NotEnoughMemory, match=r"room for 900005 tokens each needs \d+ MB, but 200 MB are free"):
        begin(model, "global", max_new_tokens=900_000 - 1)
    session = Session.start(model.engine(), [[1]])
    with pytest.raises(NotEnoughMemory, match="900000"):
        session.reserve(900_000)


def test_a_restored_session_refuses_a_window_it_does_not_remember(tiny):
    model = tiny()
    session = begin(model, "remember", max_new_tokens=0).session
    short = Session(session.engine, session.state, (session.histories[0][-4:],), session.positions)
    with pytest.raises(InputError, match="last 4 tokens"):
        generate(model, None, session=short, sampling=SAMPLED)
    assert len(generate(model, None, session=short, max_new_tokens=2, stop_ids=())[0].tokens) == 2
