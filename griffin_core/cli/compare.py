"""``griffin verify --checkpoint A --against B``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from griffin_core.cli.console import Output
from griffin_core.errors import InputError

if TYPE_CHECKING:
    from griffin_core.comparison import Comparison

_SHOWN = 20


def compare_checkpoints(
    out: Output,
    checkpoint: str | None,
    against: str | None,
    backend: str | None,
    config: str | None,
    logits: bool,
    seed: int,
    judging: Mapping[str, str | None],
) -> int:
    """Compare, print, and give the exit code: 0 when the weights are the same.

    Args:
        judging: options of the other use of the verb, which must be absent.
    """
    from griffin_core.comparison import compare

    if checkpoint is None or against is None:
        raise InputError("comparing checkpoints needs both --checkpoint and --against")
    for name, value in judging.items():
        if value is not None:
            raise InputError(f"{name} judges a kernel; leave it out to compare checkpoints")
    found = compare(checkpoint, against, backend=backend, config=config, logits=logits, seed=seed)
    _show(out, found)
    out.result({**found.to_dict(), "checkpoint": checkpoint, "against": against})
    return 0 if found.same else 1


def _show(out: Output, found: Comparison) -> None:
    if found.config:
        out.table(("config", *found.formats), [(name, str(a), str(b)) for name, (a, b) in found.config.items()])
        out.say("the configs differ, so the weights cannot be compared")
        return
    unlike = [tensor for tensor in found.tensors if not tensor.same or len(set(tensor.dtypes)) == 2]
    rows = [
        (t.name, " -> ".join(t.dtypes), t.differing, f"{t.largest:.3g}", f"{t.ulps:.3g}")
        for t in sorted(unlike, key=lambda t: (t.same, -t.ulps))
    ]
    if rows:
        out.table(("tensor", "dtype", "differing", "largest", "ulps"), rows[:_SHOWN])
    if len(rows) > _SHOWN:
        out.say(f"and {len(rows) - _SHOWN} more")
    if found.logits is not None:
        out.say(
            f"logits of 2 x {found.logits.tokens} random tokens ({found.logits.backend}, {found.logits.dtype}): "
            f"largest difference {found.logits.largest:.3g} of {found.logits.scale:.3g}, "
            f"{found.logits.same_choice:.1%} with the same first choice"
        )
    out.say(_verdict(found))


def _verdict(found: Comparison) -> str:
    formats = " and ".join(found.formats)
    differing = sum(not tensor.same for tensor in found.tensors)
    if differing:
        return f"{formats}: {differing} of {len(found.tensors)} tensors differ"
    if not found.same:
        return f"{formats}: the weights are equal, but their logits differ"
    how = "bit for bit" if found.exact else "up to rounding to the narrower dtype"
    return f"{formats}: all {len(found.tensors)} tensors are equal {how}"
