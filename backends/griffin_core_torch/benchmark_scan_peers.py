"""Public kernels of the same recurrence, which ``griffin bench scan`` times beside ours on a GPU: the table."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from griffin_core_torch import benchmark_scan_adapters as adapters
from griffin_core_torch.benchmark_scan_adapters import Run, Shape


def as_it_is(*arrays: Tensor) -> tuple[Tensor, ...]:
    """The arrays: the peer takes ours."""
    return arrays


def _any_call(shape: Shape, dtype: str) -> None:
    """No call is refused."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A public kernel.

    Attributes:
        name: what its rows are called.
        op: the operation of ours that it computes.
        module: the top-level module.
        package: what the user would install.
        load: imports it; returns its function of arrays in its own layout.
        differs: what it lacks or does otherwise, for the report.
        refuses: why it cannot run arrays of a shape [b t d] and dtype, or None.
        enter: our arrays in its layout and terms, as a user of [b t d] would have to make them.
        leave: its output as [b t d], contiguous.
        forward_only: why there is no backward pass to time; None where there is one.
        starts: whether token 0 starts a document, as in ours; else it continues from a state of zeros.
        longest: tokens that it is given at most.
    """

    name: str
    op: str
    module: str
    package: str
    load: Callable[[], Run]
    differs: str
    refuses: Callable[[Shape, str], str | None] = _any_call
    enter: Callable[..., tuple[Tensor, ...]] = as_it_is
    leave: Callable[[Tensor], Tensor] = torch.Tensor.contiguous
    forward_only: str | None = None
    starts: bool = True
    longest: int | None = None

    def absent(self) -> str | None:
        """Why it is not there, or None; nothing is imported for that."""
        return f"{self.package} is not installed" if importlib.util.find_spec(self.module) is None else None


_ACCELERATED = functools.partial(
    Peer, op="linear_scan", package="accelerated-scan", enter=adapters.decays_channels_first, leave=adapters.time_first
)
_FLA = functools.partial(Peer, op="linear_scan", module="fla", package="flash-linear-attention")
PEERS = (
    _ACCELERATED(
        name="accelerated-scan warp",
        module="accelerated_scan",
        load=adapters.accelerated_warp,
        refuses=adapters.warp_refuses,
        differs="decays, state and sums in the arrays' dtype; no reset, no states in or out",
    ),
    _ACCELERATED(
        name="accelerated-scan scalar",
        module="accelerated_scan",
        load=adapters.accelerated_scalar,
        refuses=adapters.within_32_bits,
        differs="decays and sums in the arrays' dtype, state in float32 between spans of 2048 tokens; no reset, "
        "no states in or out",
    ),
    _FLA(
        name="fla chunk_hgrn",
        load=adapters.fla_chunk,
        differs="state in float32; no reset, no gradients of states, none from the last state",
    ),
    _FLA(name="fla fused_recurrent_hgrn", load=adapters.fla_recurrent, differs="state in float32; no reset"),
    Peer(
        name="mamba-ssm selective_scan",
        op="linear_scan",
        module="mamba_ssm",
        package="mamba-ssm",
        load=adapters.mamba_scan,
        refuses=adapters.mamba_refuses,
        enter=adapters.steps_channels_first,
        leave=adapters.time_first,
        differs="takes x / -log_a, so digits of log_a's gradient go where log_a is small, and log_a = 0 has no form; "
        "makes gradients of its A, B and C too; state in float32; no reset, no state in",
    ),
    Peer(
        name="transformers loop",
        op="linear_scan",
        module="transformers",
        package="transformers",
        load=adapters.transformers_loop,
        longest=256,
        differs="state in float32, decays in the arrays' dtype; a few launches for each token, so few tokens are timed",
    ),
    Peer(
        name="hawk-pytorch",
        op="gated_scan",
        module="hawk",
        package="hawk-pytorch",
        load=adapters.hawk_scan,
        refuses=adapters.hawk_refuses,
        starts=False,
        differs="token 0 is multiplied by sqrt(1 - a^2) as any other; state in float32; no reset, no states in or out",
    ),
    Peer(
        name="torch.compile associative_scan",
        op="gated_scan",
        module="torch",
        package="PyTorch",
        load=adapters.compiled_tree,
        forward_only="its backward pass makes a T x T array for each channel",
        differs="state in float32; no reset after token 0",
    ),
)
