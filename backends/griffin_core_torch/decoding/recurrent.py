"""One token through a recurrent block, in buffers made once per call."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from griffin_core.config import GriffinConfig
from griffin_core.layouts.params import layer_prefix
from griffin_core_torch.arrays import accumulate_dtype
from griffin_core_torch.decoding.attention import Places
from griffin_core_torch.decoding.derived import Recurrence
from griffin_core_torch.decoding.stream import Call, Stream, gelu_product, linear


class RecurrentScratch:
    """Buffers that all recurrent blocks of a model share, with the views of them that a step uses.

    Attributes:
        gate, z: compute dtype [b d]: the gelu branch and the conv's output; ``wide_z`` is z before rounding.
        products: [b w+1 d] inputs of the conv times its taps, and its bias.
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
        self.products = make(batch, config.conv_width + 1, d)
        self.blocks = self.z.view(batch, h, k).transpose(0, 1)
        self.gates = make(h, batch, 2 * k, dtype=dtype)
        self.wide_gates = self.gates if self.same else make(h, batch, 2 * k)
        self.recurrent, self.inputs = self.wide_gates[..., :k], self.wide_gates[..., k:]
        self.decays = make(2, h, batch, k)
        self.log_a, self.twice = self.decays.unbind(0)
        self.u = make(h, batch, k)


class RecurrentStep:
    """A recurrent block: its weights, its state h [h b k] and the last w inputs of the conv as a ring [b w+1 d].

    The ring's last row is 1, which the bias multiplies.

    Args:
        places: positions of the tokens to come.
        scratch: shared with the other recurrent blocks.
    """

    def __init__(
        self,
        config: GriffinConfig,
        params: Mapping[str, Tensor],
        recurrence: Recurrence,
        index: int,
        state: Mapping[str, Tensor],
        places: Places,
        scratch: RecurrentScratch,
    ) -> None:
        self.params, self.prefix = params, layer_prefix(index) + "temporal_block."
        self.name, self.recurrence, self.scratch, self.places = f"layers.{index}.", recurrence, scratch, places
        self.dtype = state[self.name + "conv"].dtype
        h = state[self.name + "h"].view(-1, config.gate_blocks, config.block_width)
        self.h = h.transpose(0, 1).clone(memory_format=torch.contiguous_format)
        conv = state[self.name + "conv"].to(h.dtype)
        ring = torch.cat([conv, torch.zeros_like(conv[:, :1])], dim=1)
        # Position p stands in slot p mod w, so that the order of the sum over the taps, and with it every bit,
        # does not depend on where one call ended and the next began.
        ring = ring.roll(places.phase(config.conv_width) + 1, dims=1)
        self.ring = torch.cat([ring, torch.ones_like(ring[:, :1])], dim=1)
        self.slots = self.ring.unbind(1)[:-1]

    def calls(self, stream: Stream, phase: int) -> list[Call]:
        """Add the block of ``stream.y`` to the stream, for a token whose position is ``phase`` mod w and not 0."""
        scratch, slot = self.scratch, self.slots[phase]
        into = slot if scratch.same else scratch.mixed
        return [
            linear(self.params, self.prefix + "linear_y", stream.y, scratch.gate),
            linear(self.params, self.prefix + "linear_x", stream.y, into),
            *([] if scratch.same else [partial(slot.copy_, into)]),
            partial(torch.mul, self.ring, self.recurrence.taps[phase], out=scratch.products),
            partial(torch.sum, scratch.products, 1, out=scratch.wide_z),
            *([] if scratch.same else [partial(scratch.z.copy_, scratch.wide_z)]),
            *self._recur(scratch),
            *self._mix(scratch),
            *stream.add(self.params, self.prefix + "linear_out", scratch.gate),
        ]

    def _recur(self, scratch: RecurrentScratch) -> list[Call]:
        """Advance the state by the input in ``scratch.z``."""
        bias, weight = self.recurrence.gate_bias, self.recurrence.gate_weight
        return [
            partial(torch.baddbmm, bias, scratch.blocks, weight, out=scratch.gates),
            *([] if scratch.same else [partial(scratch.wide_gates.copy_, scratch.gates)]),
            scratch.wide_gates.sigmoid_,
            partial(torch.mul, scratch.recurrent, self.recurrence.rates, out=scratch.decays),
            partial(torch.mul, scratch.inputs, scratch.blocks, out=scratch.u),
            scratch.twice.expm1_,
            scratch.twice.neg_,
            scratch.twice.sqrt_,
            partial(scratch.u.mul_, scratch.twice),
            scratch.log_a.exp_,
            partial(torch.addcmul, scratch.u, scratch.log_a, self.h, out=self.h),
        ]

    def _mix(self, scratch: RecurrentScratch) -> list[Call]:
        """gate = gelu(gate) * h in the compute dtype."""
        blocks, batch, width = self.h.shape
        if batch == 1 and scratch.same:
            return gelu_product(scratch.gate, self.h.view(1, -1))
        turned = scratch.mixed.view(batch, blocks, width).transpose(0, 1)
        return [partial(turned.copy_, self.h), *gelu_product(scratch.gate, scratch.mixed)]

    def state(self) -> dict[str, Tensor]:
        """h and conv, canonical."""
        h = self.h.transpose(0, 1).reshape(self.h.shape[1], -1)
        width = len(self.slots)
        phase = self.places.phase(width)  # of the token to come, which will replace the oldest input
        conv = torch.stack([self.slots[(phase + i) % width] for i in range(1, width)], dim=1)
        return {self.name + "h": h, self.name + "conv": conv.to(self.dtype)}
