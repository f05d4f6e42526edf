"""The state that programs hand to each other, under load: many launches, streams, graphs, memory full of old words."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from tests.torch.gpu.calls import bits, differs

STALE = (1 << 32) | 0x3F800000
"""A word of an earlier launch: the flag is set, and the number beside it is 1."""
ALL_ONES = -1
"""0xFF in every byte: a NaN in floats, and a ticket of which nothing is left."""

Values = Callable[[], list[Tensor]]
Step = Callable[[], object]


def poison(device: str, largest: int, copies: int) -> None:
    """Leave the allocator of the current stream nothing but old words to hand out again.

    Args:
        largest: words of the largest block; every power of two from 64 up to it is taken.
        copies: blocks of each size and kind.
    """
    blocks, words = [], 64
    while words <= largest:
        for value in (STALE, ALL_ONES):
            blocks += [torch.full((words,), value, dtype=torch.int64, device=device) for _ in range(copies)]
        words *= 2


def streams(device: str, count: int) -> list[Callable[[], AbstractContextManager[object]]]:
    """Makers of contexts in which work goes to one stream each; a processor has none."""
    if device == "cpu":
        return [contextlib.nullcontext] * count
    made = [torch.cuda.Stream() for _ in range(count)]
    return [lambda stream=stream: torch.cuda.stream(stream) for stream in made]  # type: ignore[misc]


def synchronise(device: str) -> None:
    """Wait for everything that was started."""
    if device != "cpu":
        torch.cuda.synchronize()


def launched(run: Values, device: str, count: int, ways: int, largest: int, copies: int) -> int:
    """How many of ``count`` runs, in turn on several streams, differ by a bit from a first one.

    Memory is poisoned before, on every stream, and again after each tenth of the runs.
    """
    first = [bits(x) for x in run()]
    enter = streams(device, ways)
    found = [torch.zeros((), dtype=torch.int64, device=device) for _ in enter]
    synchronise(device)
    for index in range(count):
        with enter[index % ways]():
            if index % max(count // 10, ways) < ways:
                poison(device, largest, copies)
            found[index % ways] += differs(run(), first)
    synchronise(device)
    return sum(int(x) for x in found)


def record(step: Step, device: str) -> Step:
    """``step`` as a CUDA graph that was captured on the current stream; on a processor itself."""
    if device == "cpu":
        return step
    stream = torch.cuda.current_stream()
    step()  # compiles what is compiled, so that the capture launches only
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        step()
    return graph.replay


def replayed(runs: Sequence[Values], device: str, count: int, largest: int, copies: int) -> int:
    """How many of ``count`` replays of one graph for each run, each on its stream, differ from a first run.

    Each graph poisons its own memory before it runs: a graph's memory is the same in every replay.
    """
    enter = streams(device, len(runs))
    found = [torch.zeros((), dtype=torch.int64, device=device) for _ in runs]
    first = [[bits(x) for x in run()] for run in runs]
    synchronise(device)

    def checked(index: int) -> Step:
        def step() -> None:
            poison(device, largest, copies)
            found[index] += differs(runs[index](), first[index])

        return step

    graphs: list[Step] = []
    for index in range(len(runs)):
        with enter[index]():
            poison(device, largest, copies)
            graphs.append(record(checked(index), device))
    synchronise(device)
    for turn in range(count):
        with enter[turn % len(runs)]():
            graphs[turn % len(runs)]()
    synchronise(device)
    return sum(int(x) for x in found)
