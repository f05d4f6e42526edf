"""Properties over time: a sequence may be cut anywhere, the future is not seen, documents stay apart."""

from __future__ import annotations

import itertools

import numpy as np

from griffin_core.testing.inputs import Inputs, generator
from griffin_core.testing.making import cache
from griffin_core.testing.trial import Outputs, Trial, comparable, joined

STEPS = 9
"""Tokens that are fed one at a time."""


def cut(trial: Trial) -> None:
    """The whole equals a prefix and then the rest, from the state that the prefix gave."""
    trial = trial.replace(t=max(2, trial.case.t))
    whole = trial.run(given := trial.inputs())
    k = 1 + trial.case.cut % (trial.case.t - 1)
    _pieces(trial, given, whole, (0, k, trial.case.t), f"cut at {k}")


def steps(trial: Trial) -> None:
    """One token at a time equals all at once."""
    trial = trial.replace(t=min(STEPS, trial.case.t))
    whole = trial.run(given := trial.inputs())
    _pieces(trial, given, whole, tuple(range(trial.case.t + 1)), "one token at a time")


def _pieces(trial: Trial, given: Inputs, whole: Outputs, cuts: tuple[int, ...], about: str) -> None:
    pieces = _with_cache(trial, given)
    got: Outputs | None = None
    carry = None
    for start, stop in itertools.pairwise(cuts):
        carry = trial.run(trial.between(pieces, start, stop, carry))
        got = carry if got is None else joined(got, carry)
    if got is None:
        return
    got = {name: got[name] for name in whole}
    if trial.subject.exact:
        trial.same(got, whole, about)
    trial.agree(got, whole, given, about)


def _with_cache(trial: Trial, given: Inputs) -> Inputs:
    """Attention continues only from a cache: give it an empty one where it had none."""
    if "cache_k" not in given or given["cache_k"] is not None:
        return given
    return {**given, **cache(trial.case, generator(trial.case), given["k"].shape[-1], seen=0)}


def causal(trial: Trial) -> None:
    """Changing the future leaves the past as it was, bit for bit."""
    given, k = trial.marked(trial.inputs()), trial.case.cut % trial.case.t
    other = trial.replace(seed=trial.case.seed + 1).marked(trial.replace(seed=trial.case.seed + 1).inputs())
    changed = dict(given)
    for name in trial.subject.op.timed:
        changed[name] = np.concatenate([given[name][:, :k], other[name][:, k:]], axis=1)
    before, after = trial.run(given)["y"][:, :k], trial.run(changed)["y"][:, :k]
    trial.same({"y": after}, {"y": before}, f"before token {k}, when later tokens change")


def reset(trial: Trial) -> None:
    """A document that starts at token k gives what it gives alone."""
    trial = trial.replace(pads=0)
    k = trial.case.cut % trial.case.t
    given = trial.starting_at(trial.inputs(), k)
    alone = trial.without_state(trial.between(given, k, trial.case.t))
    if "cache_k" in given and given["cache_k"] is not None:
        alone |= cache(trial.case, generator(trial.case), given["k"].shape[-1], seen=0)
    got = trial.run(given)
    trial.agree({**got, "y": got["y"][:, k:]}, trial.run(alone), alone, f"of the document that starts at {k}")


def fresh(trial: Trial) -> None:
    """No state that comes in passes a document start at token 0, NaN included."""
    trial = trial.replace(carry=True, pads=0)
    given = trial.starting_at(trial.inputs(), 0)
    if "cache_k" in given:
        bad = {name: given[name] + np.asarray(1e4, given[name].dtype) for name in ("cache_k", "cache_v")}
        got, expected = trial.run({**given, **bad}), trial.run(given)
        trial.same(comparable(got), comparable(expected), "after a cache full of 1e4")
        return
    alone = trial.without_state(given)
    poisoned = {**given, **{name: np.full_like(given[name], np.nan) for name, _ in trial.subject.op.carries}}
    for about, changed in (("after a NaN state", poisoned), ("after a state", given)):
        trial.agree(trial.run(changed), trial.run(alone), alone, about)


def documents(trial: Trial) -> None:
    """NaN and infinity in one document never reach the next."""
    trial = trial.replace(t=max(2, trial.case.t), pads=0)
    k = 1 + trial.case.cut % (trial.case.t - 1)
    given = trial.starting_at(trial.inputs(), k)
    if trial.subject.op.name == "local_attention":
        bad = dict(given)
        for name in ("k", "v"):
            bad[name] = given[name].copy()
            bad[name][:, :k] += np.asarray(1e4, bad[name].dtype)
    else:
        bad = trial.poisoned(given, (slice(None), slice(0, k)), (slice(None),))
    clean, dirty = trial.run(given), trial.run(bad)
    later = {"y": dirty["y"][:, k:]} | {output: dirty[output] for argument, output in _numbers(trial)}
    expected = {"y": clean["y"][:, k:]} | {output: clean[output] for argument, output in _numbers(trial)}
    trial.same(later, expected, f"of the document that starts at {k}, after a poisoned one")


def _numbers(trial: Trial) -> tuple[tuple[str, str], ...]:
    """The states that forget an earlier document (slots of a cache may keep it unseen)."""
    return () if trial.subject.op.name == "local_attention" else trial.subject.op.carries


def padding(trial: Trial) -> None:
    """Padding changes no state, gives 0, and what it holds does not matter."""
    trial = trial.replace(b=1, pads=max(1, min(trial.case.pads, trial.case.t - 1)), t=max(2, trial.case.t))
    given, real = trial.inputs(), trial.case.t - trial.case.pads
    got, alone = trial.run(given), trial.run(part := trial.between(given, 0, real))
    zeros = np.zeros_like(got["y"][:, real:])
    trial.same({"y": got["y"][:, real:]}, {"y": zeros}, "at padding")
    trial.agree({**got, "y": got["y"][:, :real]}, alone, part, "beside padding")
    if trial.subject.op.name != "local_attention":
        bad = trial.poisoned(given, (slice(None), slice(real, None)), None)
        trial.same(trial.run(bad), got, "when padding holds NaN")


def packed(trial: Trial) -> None:
    """Sequences packed in one row (``starts``) give what each gives alone."""
    trial = trial.replace(b=1, pads=0)
    lengths = _lengths(trial.case.t, generator(trial.case, purpose=4))
    trials = [trial.replace(t=n, seed=trial.case.seed + i) for i, n in enumerate(lengths)]
    parts = [one.marked(one.inputs()) for one in trials]
    op = trial.subject.op
    shared = {name: parts[0][name] for name in parts[0]}
    parts = [{**shared, **{n: part[n] for n in (*op.timed, op.marks, *(a for a, _ in op.carries))}} for part in parts]
    row = {**shared, **{n: np.concatenate([part[n] for part in parts], axis=1) for n in (*op.timed, op.marks)}}
    row |= {a: None if shared[a] is None else np.concatenate([p[a] for p in parts]) for a, _ in op.carries}
    ends = np.cumsum([0, *(part[op.timed[0]].shape[1] for part in parts)]).astype(np.int32)
    got = trial.subject.run(row, starts=ends)
    for i, part in enumerate(parts):
        mine = {"y": got["y"][:, ends[i] : ends[i + 1]]} | {o: got[o][i : i + 1] for _, o in op.carries}
        trial.agree(mine, trial.run(part), part, f"of packed sequence {i}")


def _lengths(time: int, rng: np.random.Generator) -> list[int]:
    """Lengths of one to four sequences; the last is the case's own."""
    return [*(int(n) for n in rng.integers(1, time + 1, rng.integers(0, 4))), time]
