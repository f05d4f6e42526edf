"""The residual stream of one decode step, and the operations on it as calls with nothing left to decide.

A decode step reads every weight once, so little else stays in cache, the interpreter's own code included: a line of
Python between two products took up to ten times as long as it does in a loop of its own. Every operation works on
buffers that never move, so it is bound once (``functools.partial``) and a step is a list of such calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn import functional

from griffin_core.config import NORM_EPS, GriffinConfig
from griffin_core_torch.arrays import accumulate_dtype

Call = Callable[[], object]


def linear(params: Mapping[str, Tensor], name: str, x: Tensor, out: Tensor) -> Call:
    """out = x W^T + b on rows."""
    return partial(torch.addmm, params[name + ".bias"], x, params[name + ".weight"].t(), out=out)


def gelu_product(gate: Tensor, up: Tensor) -> list[Call]:
    """gate = gelu_tanh(gate) * up."""
    return [partial(functional.gelu, gate, approximate="tanh", out=gate), partial(gate.mul_, up)]


class Stream:
    """The residual stream, with the buffers that its norms share.

    Attributes:
        x: [b m] in the compute dtype.
        y: [b m] in the compute dtype, what the last norm wrote.
        same: whether the compute dtype is the one that norms and recurrence run in.
        wide: [b m] that the norms read: x itself where ``same``, else a copy.
        row: [b m+1]: ``wide`` and after it sqrt(m eps), so that one vector norm is sqrt(m) times the root mean square.
    """

    def __init__(self, config: GriffinConfig, batch: int, dtype: torch.dtype, device: torch.device) -> None:
        width, kind = config.width, accumulate_dtype(dtype)
        self.same = dtype == kind
        self.row = torch.full((batch, width + 1), (width * NORM_EPS) ** 0.5, dtype=kind, device=device)
        self.wide = self.row[:, :width]
        self.x = self.wide if self.same else torch.empty(batch, width, dtype=dtype, device=device)
        self._length, self._unit = self.row.new_empty(batch, 1), self.row.new_empty(batch, width)
        self.y = self._unit if self.same else torch.empty_like(self.x)

    def norm(self, factor: Tensor) -> list[Call]:
        """y = x factor / sqrt(|x|^2 + m eps), which is ``rms_norm`` with factor = sqrt(m) (1 + scale) [m]."""
        calls = [
            partial(vector_norm, self.row, dim=-1, keepdim=True, out=self._length),
            partial(torch.mul, self.wide, factor, out=self._unit),
            partial(self._unit.div_, self._length),
        ]
        return calls if self.same else [partial(self.wide.copy_, self.x), *calls, partial(self.y.copy_, self._unit)]

    def add(self, params: Mapping[str, Tensor], name: str, x: Tensor) -> list[Call]:
        """x + W x + b for a block's last product."""
        weight = params[name + ".weight"].t()
        return [partial(self.x.add_, params[name + ".bias"]), partial(self.x.addmm_, x, weight)]


def mlp(params: Mapping[str, Tensor], prefix: str, stream: Stream, buffers: tuple[Tensor, Tensor]) -> list[Call]:
    """x + down(gelu(gate(y)) * up(y)).

    Args:
        buffers: two [b f] in the compute dtype.
    """
    gate, up = buffers
    return [
        linear(params, prefix + "gate_proj", stream.y, gate),
        linear(params, prefix + "up_proj", stream.y, up),
        *gelu_product(gate, up),
        *stream.add(params, prefix + "down_proj", gate),
    ]
