"""On the card, equal inputs give equal bits: over launches, streams, graphs, poisoned memory and tile sizes."""

from __future__ import annotations

import pytest
import torch

from griffin_core_torch.triton.plan import Plan, fixed
from tests.torch.gpu import carry
from tests.torch.gpu.calls import MARKS, RECORDS, bits, differs, make_call

pytestmark = pytest.mark.gpu

COUNT, WAYS = 10_000, 3
"""Launches, or replays of a graph; streams."""
MEMORY, GRAPH_MEMORY = (1 << 18, 16), (1 << 13, 2)
"""(words of the largest poisoned block, blocks of each size): 130 MB and 0.5 MB."""
REPEATS = 200
CHAINED = [
    (("gated_scan", "triton-exact"), (3, 1037, 195), "bfloat16"),
    (("gated_scan", "triton-aggregate"), (3, 1037, 195), "float32"),
    (("gated_scan", "triton-aggregate"), (1, 4099, 65), "bfloat16"),
    (("rg_lru", "triton-fused"), (3, 1037, 120), "bfloat16"),
]
"""Ragged in time and channels, with odd numbers of programs."""
PLANS = [Plan(1, 1, 32), Plan(4, 2, 16), Plan(8, 8, 32), Plan(16, 4, 64), Plan(32, 4, 64), Plan(16, 8, 128)]


@pytest.mark.parametrize(("key", "shape", "dtype"), CHAINED)
def test_launches_on_several_streams(key: tuple[str, str], shape: tuple[int, int, int], dtype: str) -> None:
    call = make_call(RECORDS[key], shape, "cuda", dtype)
    assert carry.launched(call.values, "cuda", COUNT, WAYS, *MEMORY) == 0


def test_replays_of_two_graphs_on_two_streams() -> None:
    for pair in (CHAINED[:2], CHAINED[2:]):
        calls = [make_call(RECORDS[key], shape, "cuda", dtype) for key, shape, dtype in pair]
        assert carry.replayed([call.values for call in calls], "cuda", COUNT, *GRAPH_MEMORY) == 0


def test_new_memory_is_poisoned() -> None:
    torch.cuda.empty_cache()  # what other proofs left is given back
    carry.poison("cuda", *MEMORY)
    for words in (1_000, 5_000, 200_000):
        found = torch.empty(words, dtype=torch.int64, device="cuda")
        assert ((found == carry.STALE) | (found == carry.ALL_ONES)).all()


@pytest.mark.parametrize("marks", MARKS)
@pytest.mark.parametrize("key", RECORDS, ids="-".join)
def test_both_passes_and_their_reductions(key: tuple[str, str], marks: str) -> None:
    """On one stream: libraries of matrix products promise equal bits no further."""
    batch = 1 if marks == "packed" else 3
    call = make_call(RECORDS[key], (batch, 1037, 120), "cuda", "bfloat16", marks)
    assert carry.launched(call.both, "cuda", REPEATS, 1, *MEMORY) == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("marks", MARKS)
@pytest.mark.parametrize("op", ["linear_scan", "gated_scan"])
def test_no_tile_size_changes_a_bit_of_the_exact_kernel(op: str, marks: str, dtype: str) -> None:
    call = make_call(RECORDS[op, "triton-exact"], (1, 1037, 195), "cuda", dtype, marks)
    first = [bits(x) for x in call.values()]
    for plan in PLANS:
        with fixed(plan):
            assert int(differs(call.values(), first)) == 0, plan
