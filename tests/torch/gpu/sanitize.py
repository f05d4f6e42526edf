"""Every kernel on small ragged arrays, forward and backward: what ``compute-sanitizer`` is to watch.

    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck python -m tests.torch.gpu.sanitize

With the allocator's cache off, each array ends where its own allocation ends. ``make gpu-sanitize`` does so with each
tool. Without a GPU the kernels are interpreted: each once or twice.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import numpy as np
import torch

from griffin_core_torch.triton import loading
from griffin_core_torch.triton.plan import Plan, fixed
from griffin_core_torch.triton.step import recurrent_step
from griffin_core_torch.triton.token_ops import gelu_product, norm
from tests.torch.gpu.calls import MARKS, RECORDS, TAPS, Call, make_call, randn

SMALL = Plan(rows=4, segments=2, width=16, again=2)
"""Tiles of the interpreter, of which nine tokens fill two."""
TIME, WIDTH = {"cuda": 301, "cpu": 9}, {"cuda": 70, "cpu": 6}
"""Several tiles and programs, the last ones not full. The card's gate blocks have 35 channels."""

CHOSEN = [(op, "triton") for op in ("linear_scan", "gated_scan")]
"""Records that run what the others run, as the shape allows."""


def calls(device: str) -> Iterator[tuple[str, Call]]:
    """Names and calls of the records: with every kind of marks and in two dtypes on a card."""
    for number, ((op, name), kernel) in enumerate(RECORDS.items()):
        for turn, marks in enumerate(MARKS):
            if device == "cpu" and (number % len(MARKS) != turn or (op, name) in CHOSEN):
                continue
            shape = (1 if marks == "packed" or device == "cpu" else 2, TIME[device], WIDTH[device])
            for dtype in ("bfloat16", "float32") if device == "cuda" else ("float32",):
                if device == "cuda" and (op, dtype) == ("rg_lru", "float32"):
                    continue  # it refuses them: matrix units are too coarse
                yield f"{op} {name} {marks} {dtype}", make_call(kernel, shape, device, dtype, marks)


def one_token(device: str, batch: int) -> list[torch.Tensor]:
    """What a decoded token runs: the recurrent block's middle on chosen rows of states, a norm, a gelu product."""
    heads, block = 2, WIDTH[device] // 2
    width, kind = heads * block, torch.float32
    shapes = {"conv_weight": (width, 1, TAPS), "conv_bias": (width,), "recurrent_param": (width,)}
    for gate in ("input", "recurrent"):
        shapes |= {f"{gate}_gate_weight": (heads, block, block), f"{gate}_gate_bias": (heads, block)}
    params = {name: randn(shape, device, kind, seed) for seed, (name, shape) in enumerate(shapes.items())}
    x, h = randn((batch, width), device, kind, 20), randn((batch + 2, width), device, kind, 21)
    ring = randn((batch + 2, TAPS, width), device, kind, 22)
    positions = (torch.arange(batch) - 1 if batch > 1 else torch.tensor([5])).to(device)  # padding, a start, others
    slots = torch.arange(batch, 0, -1, dtype=torch.int32).to(device)
    out = recurrent_step(x, params, h, ring, positions, slots)
    return [out, h, norm(x, params["conv_bias"]), gelu_product(x, out)]


def main(device: str) -> list[str]:
    """Run everything; what ran, by name.

    Raises:
        AssertionError: a result is not finite, so that something was read that nobody wrote.
    """
    ran = []
    interpreter = contextlib.ExitStack()
    with interpreter:
        if device == "cpu":
            interpreter.enter_context(loading.interpreting())
            interpreter.enter_context(fixed(SMALL))
            interpreter.enter_context(np.errstate(all="ignore"))
        for name, call in calls(device):
            assert all(bool(x.isfinite().all()) for x in call.both()), name
            ran.append(name)
        for batch in (1, 3):
            assert all(bool(x.isfinite().all()) for x in one_token(device, batch)), batch
            ran.append(f"one token for {batch}")
    return ran


if __name__ == "__main__":
    found = main("cuda" if torch.cuda.is_available() else "cpu")
    sys.stdout.write("\n".join([*found, f"{len(found)} ran"]) + "\n")
