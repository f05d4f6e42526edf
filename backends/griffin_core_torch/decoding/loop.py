"""Many tokens, one after another, on the device: no logits travel, and the caller's state is not written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from griffin_core.checks import PAD
from griffin_core.config import ATTENTION, RECURRENT, GriffinConfig
from griffin_core.errors import InputError
from griffin_core.layouts.params import EMBEDDING, layer_prefix
from griffin_core.layouts.states import POSITION
from griffin_core.protocol import Kernel
from griffin_core.sampling import SamplingRows
from griffin_core_torch.arrays import as_dtype, dtype_name
from griffin_core_torch.attention.ring import check_room
from griffin_core_torch.decoding import kept
from griffin_core_torch.decoding.attention import Places
from griffin_core_torch.decoding.device_step import DeviceStep
from griffin_core_torch.decoding.step import TokenStep
from griffin_core_torch.kernels import EAGER_KERNELS, TRITON_KERNELS
from griffin_core_torch.model import check_host, forward
from griffin_core_torch.sampling import Sampler, log_probability
from griffin_core_torch.scan.dispatch import choose, part_kernel
from griffin_core_torch.weights import MIDDLE_NAMES


@torch.no_grad()
def decode(
    config: GriffinConfig,
    params: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    token: Any,
    n: int,
    sampling: SamplingRows,
    active: Any = None,
    kernel: str | None = None,
    compute_dtype: str | None = None,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Consume ``token``, sample the next, and so on, n times. The last token is not consumed.

    Args:
        state: has seen everything before ``token``.
        token: int [b], the last token of each row; a tensor or an array.
        n: how many tokens to sample.
        sampling: settings, seeds and recent tokens of the rows.
        active: bool [b]; other rows keep their state, and get tokens -1 and log probabilities 0.
        kernel: name of a kernel for the recurrent operations, or None.
        compute_dtype: dtype of the products; None is that of the embedding.

    Returns:
        (tokens int32 [b n], logprobs float32 [b n] by the model's own softmax, state).

    Raises:
        InputError: n is negative, ``token`` does not have one legal id for each row, or a global layer's
            capacity does not hold n more tokens.
    """
    device, batch = state[POSITION].device, len(state[POSITION])
    token = torch.as_tensor(token).to(device, torch.int64)
    if n < 0 or tuple(token.shape) != (batch,):
        raise InputError(f"decode of n={n} after token of shape {tuple(token.shape)}; expected n >= 0 and ({batch},)")
    live = None if active is None else torch.as_tensor(active).to(device, torch.bool)
    live = None if live is None or bool(live.all()) else live
    if n == 0 or (live is not None and not bool(live.any())):
        return _outputs([], [], state, state, live, n)
    check_host(
        config, token[:, None], None if live is None else torch.where(live, state[POSITION], PAD)[:, None], state
    )
    dtype = as_dtype(compute_dtype, params[EMBEDDING].dtype)
    steps = _Steps(config, params, state, n, live, kernel, dtype)
    sampler, chosen, logprobs = Sampler(sampling, device), [], []
    for position in steps.after.unbind(1):
        scores = steps(token)
        with torch.inference_mode():  # dispatches faster; nothing that it makes is returned
            token = sampler(scores, position)
            logprobs.append(log_probability(scores, token))
            sampler.push(token, live)
        chosen.append(token)
    return _outputs(chosen, logprobs, steps.state(), state, live, n)


class _Steps:
    """One call per token: on private buffers where the kernels are this backend's own, else through ``forward``.

    Attributes:
        after: int64 [b n], each row's position after each step.
    """

    def __init__(
        self,
        config: GriffinConfig,
        params: Mapping[str, Tensor],
        state: Mapping[str, Tensor],
        count: int,
        live: Tensor | None,
        kernel: str | None,
        dtype: torch.dtype,
    ) -> None:
        self.config, self.params, self.kernel, self.dtype = config, params, kernel, dtype
        self.live, self.count, self.whole = live, count, dict(state)
        position = state[POSITION].long()
        self.after = position[:, None] + torch.arange(1, count + 1, device=position.device)
        rows = position if live is None else position[live]
        # Rows that are not live are computed and thrown away; at a live row's position they cost nothing extra.
        self.begin = position.tolist() if live is None else torch.where(live, position, rows[0]).tolist()
        _check_room(config, state, rows, count)
        self.token_step: TokenStep | None = None
        self.device_step: DeviceStep | None = None
        self.places = Places(
            self.begin, count, config.head_dim if ATTENTION in config.layer_kinds else None, position.device
        )
        records = token_kernels(config, params, len(position), dtype, kernel)
        self.lean = records <= set(EAGER_KERNELS)
        if not self.lean and records <= set(TRITON_KERNELS):
            self.device_step = kept.take(config, params, state, dtype)
            self.device_step.load(state, live)

    def __call__(self, token: Tensor) -> Tensor:
        """Float32 logits [b v]."""
        if self.device_step is not None:
            return self.device_step(token)
        places = self.places
        if self.token_step is None and self.lean and (places.step or 0 not in self.begin):
            weights = {
                name: x if name.endswith("recurrent_param") else x.to(self.dtype) for name, x in self.params.items()
            }
            self.token_step = TokenStep(self.config, weights, self.whole, places)
        if self.token_step is None:
            scores = self._forward(token)
        else:
            with torch.inference_mode():
                scores = self.token_step(token)
        places.step += 1
        return scores

    def _forward(self, token: Tensor) -> Tensor:
        positions = self.whole[POSITION]
        positions = positions if self.live is None else torch.where(self.live, positions, PAD)
        compute = dtype_name(self.dtype)
        found = forward(
            self.config, self.params, token[:, None], positions[:, None], self.whole, "right", self.kernel, compute
        )
        self.whole = found[1] or self.whole
        return found[0][:, 0]

    def state(self) -> dict[str, Tensor]:
        """The state after the last token; rows that are not live hold anything."""
        if self.device_step is not None:
            found = self.device_step.state(self.after[:, -1])
            kept.put(self.device_step, found)
            return found
        if self.token_step is None:
            return self.whole
        return {POSITION: self.after[:, -1].to(torch.int32), **self.token_step.state()}


def token_kernels(
    config: GriffinConfig, params: Mapping[str, Tensor], batch: int, dtype: torch.dtype, kernel: str | None
) -> set[Kernel | None]:
    """The kernels that the recurrent operations of one token would run on; None stands for no kernel of a part.

    Raises:
        KernelNotSupported: the named kernel does not exist or cannot run one token.
    """
    if RECURRENT not in config.layer_kinds:
        return set()
    prefix = layer_prefix(config.layer_kinds.index(RECURRENT)) + "temporal_block."
    weights = {short: params[prefix + name] for short, name in MIDDLE_NAMES.items()}
    x = torch.empty(batch, 1, config.lru_width, dtype=dtype, device=params[EMBEDDING].device)
    gates = {"gate_x": x, "gate_a": x, "recurrent_param": weights["recurrent_param"]}
    conv = {"weight": weights["conv_weight"], "bias": weights["conv_bias"]}
    part = part_kernel("conv1d", kernel)
    wholes = [choose(op, kernel, {"x": x, **weights}) for op in ("recurrent_middle", "rg_lru")]
    found = {record for record in wholes if record is not None} or {choose("gated_scan", kernel, {"x": x, **gates})}
    return {*found, choose("conv1d", part, {"x": x, **conv})}


def _check_room(config: GriffinConfig, state: Mapping[str, Tensor], rows: Tensor, count: int) -> None:
    if config.has_global_attention:
        size = state[f"layers.{config.layer_kinds.index(ATTENTION)}.k"].shape[1]
        check_room(size, None, rows + count)


def _outputs(
    chosen: list[Tensor],
    logprobs: list[Tensor],
    after: Mapping[str, Tensor],
    before: Mapping[str, Tensor],
    live: Tensor | None,
    count: int,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Stack the steps; rows that are not live get -1, 0 and the state they had."""
    batch, device = len(before[POSITION]), before[POSITION].device
    if not chosen:
        empty = torch.full((batch, count), -1, dtype=torch.int32, device=device)
        return empty, torch.zeros(batch, count, device=device), {name: x.clone() for name, x in before.items()}
    tokens, scores = torch.stack(chosen, dim=1).to(torch.int32), torch.stack(logprobs, dim=1).float()
    if live is None:
        return tokens, scores, {name: after[name] for name in before}
    state = {name: torch.where(live.view(-1, *(1,) * (x.ndim - 1)), after[name], x) for name, x in before.items()}
    return tokens.masked_fill(~live[:, None], -1), scores.masked_fill(~live[:, None], 0.0), state
