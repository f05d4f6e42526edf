"""The state handed from a tile of time to the next: 64-bit words, a float32 beside a flag, each moved in one access.

A reader that sees the flag sees the number: no fence is needed, and none can be forgotten. The words are zero when a
launch begins. Tiles are taken in the order of a ticket, so a program only ever waits for one that runs already.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def least(a, b):
    return tl.minimum(a, b)


@triton.jit
def receive(words, at, inside):
    """Wait until every word at ``at`` [segments, width] is there; its numbers."""
    ready = 1 << 32
    word = tl.load(words + at, mask=inside, other=ready, volatile=True)
    while tl.reduce(tl.reduce(word, 1, least), 0, least) < ready:
        word = tl.load(words + at, mask=inside, other=ready, volatile=True)
    return word.to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def publish(words, at, value, where):
    """Hand numbers over, ``where`` they are the ones that count."""
    bits = value.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF
    tl.atomic_xchg(words + at, bits | (1 << 32), mask=where, sem="relaxed")
