"""The arguments of each operation for a case."""

from __future__ import annotations

import numpy as np

from griffin_core.shapes import DTYPES, Array
from griffin_core.testing.cases import Case
from griffin_core.testing.inputs import (
    Inputs,
    carried_length,
    document_starts,
    gates,
    generator,
    log_decays,
    normal,
    positions,
)


def linear_scan(case: Case) -> Inputs:
    """x, log_a [b t d], h0 [b d], reset bool [b t]."""
    rng = generator(case)
    return {
        "x": normal(rng, (case.b, case.t, case.d), case.dtype),
        "log_a": log_decays(case, rng),
        "h0": _state(case, rng, case.d),
        "reset": None if case.resets == "none" else document_starts(case, rng),
    }


def gated_scan(case: Case) -> Inputs:
    """x, gate_x, gate_a [b t d], recurrent_param float32 [d], h0 [b d], positions int32 [b t]."""
    rng = generator(case)
    shape = (case.b, case.t, case.d)
    input_gate, recurrent_gate, param = gates(case, rng, case.d)
    return {
        "x": normal(rng, shape, case.dtype),
        "gate_x": (input_gate + rng.standard_normal(shape)).astype(_dtype(case)),
        "gate_a": (recurrent_gate + rng.standard_normal(shape)).astype(_dtype(case)),
        "recurrent_param": param.astype(np.float32),
        "h0": _state(case, rng, case.d),
        "positions": positions(case, rng),
    }


def rg_lru(case: Case) -> Inputs:
    """x [b t d] and the gates' parameters; d is ``blocks`` blocks of ceil(case.d / blocks) channels."""
    rng = generator(case)
    width = -(-case.d // case.blocks) * case.blocks
    return {
        "x": normal(rng, (case.b, case.t, width), case.dtype),
        **_gate_params(case, rng, width),
        "h0": _state(case, rng, width),
        "positions": positions(case, rng),
    }


def recurrent_middle(case: Case) -> Inputs:
    """``rg_lru``'s arguments, the convolution's parameters and its state [b w-1 d]."""
    inputs = rg_lru(case)
    width = inputs["x"].shape[-1]
    weight, bias, state = _conv(case, width)
    return {**inputs, "conv_weight": weight, "conv_bias": bias, "conv_state": state}


def conv1d(case: Case) -> Inputs:
    """x [b t d], weight [d 1 w], bias [d], state [b w-1 d], positions int32 [b t]."""
    rng = generator(case)
    weight, bias, state = _conv(case, case.d)
    return {
        "x": normal(rng, (case.b, case.t, case.d), case.dtype),
        "weight": weight,
        "bias": bias,
        "state": state,
        "positions": positions(case, rng),
    }


def local_attention(case: Case) -> Inputs:
    """q [b t n e], k and v [b t e], a cache as long as the window (or as all tokens when it is global)."""
    rng = generator(case)
    size = 4 * (1 + case.d % 3)
    window = case.window or None
    inputs: Inputs = {
        "q": normal(rng, (case.b, case.t, case.heads, size), case.dtype),
        "k": normal(rng, (case.b, case.t, size), case.dtype),
        "v": normal(rng, (case.b, case.t, size), case.dtype),
        "positions": positions(case, rng),
        "window": window,
        "cache_k": None,
        "cache_v": None,
        "cache_position": None,
    }
    return {**inputs, **(cache(case, rng, size, carried_length(case)) if case.carry else {})}


def cache(case: Case, rng: np.random.Generator, size: int, seen: int) -> Inputs:
    """A cache that has seen this many tokens; slots not yet written are 0."""
    length = case.window or case.t + 10
    written = np.arange(length)[:, None] < seen
    return {
        "cache_k": np.where(written, normal(rng, (case.b, length, size), "float32"), 0).astype(_dtype(case)),
        "cache_v": np.where(written, normal(rng, (case.b, length, size), "float32"), 0).astype(_dtype(case)),
        "cache_position": np.full(case.b, seen, np.int32),
    }


def _gate_params(case: Case, rng: np.random.Generator, width: int) -> Inputs:
    blocks, block = case.blocks, width // case.blocks
    input_gate, recurrent_gate, param = gates(case, rng, width)
    out: Inputs = {"recurrent_param": param.astype(np.float32)}
    for name, offset in (("input_gate", input_gate), ("recurrent_gate", recurrent_gate)):
        out[name + "_weight"] = normal(rng, (blocks, block, block), case.dtype, block**-0.5)
        out[name + "_bias"] = (offset + 0.1 * rng.standard_normal(width)).reshape(blocks, block).astype(_dtype(case))
    return out


def _conv(case: Case, width: int) -> tuple[Array, Array, Array | None]:
    rng = generator(case, purpose=1)
    weight = normal(rng, (width, 1, case.taps), case.dtype, 0.5)
    bias = normal(rng, (width,), case.dtype, 0.5)
    if not case.carry:
        return weight, bias, None
    state = normal(rng, (case.b, case.taps - 1, width), case.dtype)
    state[:, : max(0, case.taps - 1 - carried_length(case))] = 0
    return weight, bias, state


def _state(case: Case, rng: np.random.Generator, width: int) -> Array | None:
    return normal(rng, (case.b, width), "float32") if case.carry else None


def _dtype(case: Case) -> np.dtype:
    return DTYPES[case.dtype]
