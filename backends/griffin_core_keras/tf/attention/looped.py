"""Banded attention as one loop over blocks of queries, for long calls and for those of unknown length."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from griffin_core_keras.tf.arrays import Size, sizes
from griffin_core_keras.tf.attention import band
from griffin_core_keras.tf.attention.band import attend, attend_gradients, visible
from griffin_core_keras.tf.loops import collect

_NOBODY = -2
"""Document of keys that stand in front of the first and behind the last."""


class _Plan(NamedTuple):
    """``count`` blocks of ``block`` queries, each with ``before`` keys more than queries.

    Keys get ``front`` in front, or lose the first ``drop``, so that block i's are those from i * block on; queries
    and keys get ``extra`` behind.
    """

    block: Size
    count: Size
    before: Size
    front: Size
    drop: Size
    extra: Size

    @property
    def reach(self) -> Size:
        return self.before + self.block


def forward(
    q: tf.Tensor,
    keys: tf.Tensor,
    values: tf.Tensor,
    query_document: tf.Tensor,
    key_document: tf.Tensor,
    window: int | None,
) -> tf.Tensor:
    """``banded_attention`` in the dtype of its arguments."""
    plan = _plan(q, keys, window)
    q, query_document = _queries(plan, q), _queries(plan, query_document)
    keys, values, key_document = (_keys(plan, x, fill) for x, fill in ((keys, 0), (values, 0), (key_document, _NOBODY)))

    def step(index: tf.Tensor, carry: tuple[()]) -> tuple[tuple[()], list[tf.Tensor]]:
        start = index * plan.block
        seen = visible(
            _cut(query_document, start, plan.block), _cut(key_document, start, plan.reach), plan.before, window
        )
        part = (_cut(q, start, plan.block), _cut(keys, start, plan.reach), _cut(values, start, plan.reach))
        return carry, [attend(*part, seen)]

    _, (blocks,) = collect(plan.count, step, (), [_zeros(q, plan.block)])
    return _joined(blocks)[:, : sizes(q)[1] - plan.extra]


def gradients(
    q: tf.Tensor,
    keys: tf.Tensor,
    values: tf.Tensor,
    dy: tf.Tensor,
    query_document: tf.Tensor,
    key_document: tf.Tensor,
    window: int | None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Its gradients of q, keys and values; those of keys that several blocks see are summed as the blocks go by."""
    plan, total = _plan(q, keys, window), sizes(keys)[1]
    q, dy, query_document = (_queries(plan, x) for x in (q, dy, query_document))
    keys, values, key_document = (_keys(plan, x, fill) for x, fill in ((keys, 0), (values, 0), (key_document, _NOBODY)))
    fresh = _zeros(keys, plan.block)

    def step(index: tf.Tensor, sums: list[tf.Tensor]) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        start = index * plan.block
        seen = visible(
            _cut(query_document, start, plan.block), _cut(key_document, start, plan.reach), plan.before, window
        )
        part = (_cut(q, start, plan.block), _cut(keys, start, plan.reach), _cut(values, start, plan.reach))
        dq, *back = attend_gradients(*part, seen, _cut(dy, start, plan.block))
        sums = [tf.concat([carried, fresh], axis=1) + found for carried, found in zip(sums, back, strict=True)]
        # the next block begins ``block`` keys later: what stands before is done
        return [x[:, plan.block :] for x in sums], [dq, *(x[:, : plan.block] for x in sums)]

    like = [_zeros(q, plan.block), fresh, fresh]
    rest, (dq, *done) = collect(plan.count, step, [_zeros(keys, plan.before)] * 2, like)
    found = [
        tf.pad(tf.concat([_joined(x), last], axis=1)[:, plan.front :], ((0, 0), (plan.drop, 0), (0, 0)))[:, :total]
        for x, last in zip(done, rest, strict=True)
    ]
    return _joined(dq)[:, : sizes(q)[1] - plan.extra], found[0], found[1]


def _plan(q: tf.Tensor, keys: tf.Tensor, window: int | None) -> _Plan:
    time, total = sizes(q)[1], sizes(keys)[1]
    block = _largest(_smallest(time, band.BLOCK), 1)
    count = -(-time // block)
    before = _largest(total if window is None else _smallest(total, window), 1) - 1
    shift = before - (total - time)
    return _Plan(block, count, before, _largest(shift, 0), _largest(-shift, 0), count * block - time)


def _queries(plan: _Plan, x: tf.Tensor) -> tf.Tensor:
    return tf.pad(x, [(0, 0), (0, plan.extra), *[(0, 0)] * (len(x.shape) - 2)])


def _keys(plan: _Plan, x: tf.Tensor, fill: int) -> tf.Tensor:
    widths = [(0, 0), (plan.front, plan.extra), *[(0, 0)] * (len(x.shape) - 2)]
    return tf.pad(x[:, plan.drop :], widths, constant_values=tf.constant(fill, x.dtype))


def _cut(x: tf.Tensor, start: tf.Tensor, length: Size) -> tf.Tensor:
    batch, _, *rest = sizes(x)
    return tf.slice(x, [0, start, *[0] * len(rest)], [batch, length, *rest])


def _zeros(x: tf.Tensor, length: Size) -> tf.Tensor:
    batch, _, *rest = sizes(x)
    return tf.zeros((batch, length, *rest), x.dtype)


def _joined(blocks: tf.Tensor) -> tf.Tensor:
    """[c b r ...] as [b c*r ...]."""
    count, batch, rows, *rest = sizes(blocks)
    found = tf.transpose(blocks, (1, 0, 2, *range(3, len(blocks.shape))))
    return tf.reshape(found, (batch, count * rows, *rest))


def _smallest(one: Size, other: Size) -> Size:
    return min(one, other) if isinstance(one, int) and isinstance(other, int) else tf.minimum(one, other)


def _largest(one: Size, other: Size) -> Size:
    return max(one, other) if isinstance(one, int) and isinstance(other, int) else tf.maximum(one, other)
