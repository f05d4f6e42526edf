"""One token through a recurrent block, in buffers made once per call."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from griffin_core.config import GriffinConfig
from griffin_core.layouts.params import layer_prefix
from griffin_core_torch.arrays import accumulate_dtype
from griffin_core_torch.decoding.derived import Recurrence

_gelu = torch.ops.aten.gelu_


class RecurrentScratch:
    """Buffers that all recurrent blocks of a model share, with the views of them that a step uses.

    Attributes:
        gate, z: compute dtype [b d]: the gelu branch and the conv's output; ``wide_z`` is z before rounding.
        products: [b w d] inputs of the conv times its taps.
        blocks: z as [h b k].
        gates: compute dtype [h b 2k]; ``recurrent`` and ``inputs`` are its halves in float32.
        decays: [2 h b k]; ``log_a`` and ``twice`` are its halves.
        u: [h b k] what enters the state.
    """

    def __init__(self, config: GriffinConfig, batch: int, dtype: torch.dtype, device: torch.device) -> None:
        wide, d = accumulate_dtype(dtype), config.lru_width
        h, k = config.gate_blocks, config.block_width

        def make(*shape: int, dtype: torch.dtype = wide) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        self.same = dtype == wide
        self.gate, self.mixed = make(batch, d, dtype=dtype), make(batch, d, dtype=dtype)
        self.wide_z = make(batch, d)
        self.z = self.wide_z if self.same else make(batch, d, dtype=dtype)
        self.products = make(batch, config.conv_width, d)
        self.blocks = self.z.view(batch, h, k).transpose(0, 1)
        self.gates = make(h, batch, 2 * k, dtype=dtype)
        self.wide_gates = self.gates if self.same else make(h, batch, 2 * k)
        self.recurrent, self.inputs = self.wide_gates[..., :k], self.wide_gates[..., k:]
        self.decays = make(2, h, batch, k)
        self.log_a, self.twice = self.decays.unbind(0)
        self.u = make(h, batch, k)


class RecurrentStep:
    """A recurrent block: its weights, its state h [h b k] and the last w inputs of the conv as a ring [b w d].

    Args:
        position: tokens that the first row has consumed.
        scratch: shared with the other recurrent blocks.
    """

    def __init__(
        self,
        config: GriffinConfig,
        params: Mapping[str, Tensor],
        recurrence: Recurrence,
        index: int,
        state: Mapping[str, Tensor],
        position: int,
        scratch: RecurrentScratch,
    ) -> None:
        prefix = layer_prefix(index) + "temporal_block."
        names = [f"{prefix}linear_{name}" for name in ("y", "x", "out")]
        # (bias, transposed weight): what torch.addmm takes
        self.linear_y, self.linear_x, self.linear_out = (
            (params[n + ".bias"], params[n + ".weight"].t()) for n in names
        )
        self.name, self.recurrence, self.scratch = f"layers.{index}.", recurrence, scratch
        self.dtype = state[self.name + "conv"].dtype
        h = state[self.name + "h"].view(-1, config.gate_blocks, config.block_width)
        self.h = h.transpose(0, 1).clone(memory_format=torch.contiguous_format)
        conv = state[self.name + "conv"].to(h.dtype)
        ring = torch.cat([conv, torch.zeros_like(conv[:, :1])], dim=1)
        # Position p stands in slot p mod w, so that the order of the sum over the taps, and with it every bit,
        # does not depend on where one call ended and the next began.
        self.ring, self.phase = ring.roll(position + 1, dims=1), position % ring.shape[1]
        self.slots = self.ring.unbind(1)
        self.rows = self.h.view(1, -1) if len(conv) == 1 and scratch.same else None

    def __call__(self, x: Tensor) -> Tensor:
        """[b m] to [b m]."""
        scratch = self.scratch
        bias, weight = self.linear_y
        gate = torch.addmm(bias, x, weight, out=scratch.gate)
        bias, weight = self.linear_x
        if scratch.same:
            torch.addmm(bias, x, weight, out=self.slots[self.phase])
        else:
            self.slots[self.phase].copy_(torch.addmm(bias, x, weight))
        torch.mul(self.ring, self.recurrence.taps[self.phase], out=scratch.products)
        self.phase = (self.phase + 1) % len(self.slots)
        torch.sum(scratch.products, 1, out=scratch.wide_z).add_(self.recurrence.conv_bias)
        if not scratch.same:
            scratch.z.copy_(scratch.wide_z)
        self._recur(scratch)
        bias, weight = self.linear_out
        return torch.addmm(bias, _gelu(gate, approximate="tanh").mul_(self._mixed()), weight)

    def _recur(self, scratch: RecurrentScratch) -> None:
        """Advance the state by the input in ``scratch.z``; the position is not 0."""
        recurrence = self.recurrence
        torch.baddbmm(recurrence.gate_bias, scratch.blocks, recurrence.gate_weight, out=scratch.gates)
        if not scratch.same:
            scratch.wide_gates.copy_(scratch.gates)
        scratch.wide_gates.sigmoid_()
        torch.mul(scratch.recurrent, recurrence.rates, out=scratch.decays)
        u = torch.mul(scratch.inputs, scratch.blocks, out=scratch.u)
        u.mul_(scratch.twice.expm1_().neg_().sqrt_())
        torch.addcmul(u, scratch.log_a.exp_(), self.h, out=self.h)

    def _mixed(self) -> Tensor:
        """The state as [b d] in the compute dtype."""
        if self.rows is not None:
            return self.rows
        mixed = self.scratch.mixed
        mixed.view(mixed.shape[0], len(self.h), -1).copy_(self.h.transpose(0, 1))
        return mixed

    def state(self) -> dict[str, Tensor]:
        """h and conv, canonical."""
        h = self.h.transpose(0, 1).reshape(self.h.shape[1], -1)
        conv = torch.stack([self.slots[(self.phase + i) % len(self.slots)] for i in range(1, len(self.slots))], dim=1)
        return {self.name + "h": h, self.name + "conv": conv.to(self.dtype)}
