"""Wrong prompts, counts, stops and settings are refused with one clear line."""

from __future__ import annotations

import numpy as np
import pytest

from griffin_core.errors import CheckpointError, ConfigError, InputError
from griffin_core.generation.service import begin, generate, stream
from griffin_core.sampling import Sampling


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ("", {}, "zero tokens"),
        ([], {}, "no prompt"),
        ([[]], {}, "zero tokens"),
        (["a", ""], {}, "zero tokens"),
        (None, {}, "NoneType"),
        (3, {}, "int"),
        ([1.5], {}, "1.5"),
        ([264], {}, "264"),
        ([[0], [-1]], {}, "prompt 1"),
        ("a", {"max_new_tokens": -1}, "max_new_tokens=-1"),
        ("a", {"max_new_tokens": True}, "max_new_tokens=True"),
        ("a", {"max_new_tokens": 1 << 20}, "1048576"),
        ("a", {"stop": ""}, "stop string"),
        ("a", {"stop": ["x", 3]}, "stop string 3"),
        ("a", {"stop_ids": [264]}, "stop id 264"),
        ("a\ud800", {}, "surrogate"),
    ],
)
def test_wrong_use_is_one_clear_error(scripted, prompts, options, message):
    with pytest.raises(InputError, match=message) as caught:
        generate(scripted([b"a"]), prompts, **options)
    assert "\n" not in str(caught.value)


def test_wrong_settings_are_refused(scripted):
    with pytest.raises(ConfigError, match="top_p=0"):
        generate(scripted([b"a"]), [0], sampling=Sampling(top_p=0.0))
    with pytest.raises(TypeError, match="temprature"):
        generate(scripted([b"a"]), [0], temprature=1.0)
    with pytest.raises(InputError, match="2 prompts"):
        stream(scripted([b"a", b"b"]), [[0], [1]])
    model = scripted([b"a"])
    model.tokenizer = None
    with pytest.raises(InputError, match="no tokenizer"):
        generate(model, "text")
    with pytest.raises(InputError, match="need a tokenizer"):
        generate(model, [0], stop="x")
    assert generate(model, [0], max_new_tokens=2)[0].tokens == [97, 97]


def test_scores_that_are_nan_are_an_error_and_no_text(scripted, monkeypatch):
    model = scripted([b"abcdef"])
    decode = model.fake.decode

    def broken(*args, **kwargs):
        tokens, logprobs, state = decode(*args, **kwargs)
        return tokens, np.where(tokens == ord("c"), np.float32("nan"), logprobs), state

    monkeypatch.setattr(model.fake, "decode", broken)
    with pytest.raises(CheckpointError, match="NaN"):
        generate(model, [0], max_new_tokens=6)


def test_a_prompt_list_must_match_the_rows_of_the_session(scripted):
    model = scripted([b"abc", b"def"])
    session = begin(model, [[0], [1]], max_new_tokens=1).finish().session
    with pytest.raises(InputError, match="1 prompts for a session of 2 rows"):
        generate(model, [[5]], session=session)
    grown = session.feed([[5], []])
    assert grown.histories == ((0, 97, 5), (1, 100))
