"""The contenders of each path, what they are compared with, and what they must reach."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from griffin_core import registry
from griffin_core.benchmarks import work
from griffin_core.benchmarks.cases import DEVICE_OPS, TARGETS, Target, device_target
from griffin_core.benchmarks.gate import runnable
from griffin_core.benchmarks.pairing import Contender
from griffin_core.benchmarks.products import (
    Product,
    logit_products,
    model_products,
    total_flops,
    weights_read,
    with_gradients,
)
from griffin_core.benchmarks.work import Setup
from griffin_core.protocol import device_of
from griffin_core.shapes import DTYPES

BARE = "products alone"
COPY = "copy of the same bytes"
SCAN_BYTES = 12
"""A float32 scan reads x and log_a and writes y: 12 bytes per element."""
PEER_SECONDS = 60.0
"""A peer sits out the rounds after its calls have taken so long."""
BF16_PREFILL = Target(limit=0.45, at_most=True)
FIRST_CALL = 15.0
"""Seconds that the first training step may take, compilation included."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One contender.

    Attributes:
        contender: what is timed.
        versus: name of the entry it is compared with; None for a baseline.
        rate: whether its ratio is the baseline's time over its own (how much of the rate it reaches).
        target: what the ratio must reach.
        flops, moved: work of one unit, for the note.
        remark: what the note says beside.
    """

    contender: Contender
    versus: str | None = None
    rate: bool = False
    target: Target | None = None
    flops: int = 0
    moved: int = 0
    remark: str = ""

    @property
    def name(self) -> str:
        """The row's name."""
        return self.contender.name


@dataclass(frozen=True)
class Plan:
    """How a path is measured: the setup, the backend's timers, whether targets apply, and lines for the report."""

    setup: Setup
    timers: ModuleType
    judged: bool
    peers: bool
    notes: list[str] = field(default_factory=list)

    def target(self, path: str) -> Target | None:
        return TARGETS[path] if self.judged else None

    def products(self, name: str, listing: list[Product], per: int = 1, setup: Setup | None = None) -> Entry:
        """A baseline entry that runs the products, ``per`` times in a call, with the model's own weights."""
        setup = setup or self.setup
        call = self.timers.products(listing, setup.dtype, setup.params)
        read = weights_read(listing) * DTYPES[setup.dtype].itemsize if setup.sizes.context else 0
        return Entry(
            contender=Contender(name=name, call=_repeat(call, per), per=per), flops=total_flops(listing), moved=read
        )

    def entry(self, name: str, call: work.Call, versus: str, **options: Any) -> Entry:
        """An entry of ours: ``per``, ``limit`` and the rest go to the contender and the entry."""
        timed = {key: options.pop(key) for key in ("per", "limit") if key in options}
        return Entry(contender=Contender(name=name, call=call, **timed), versus=versus, **options)

    def peer_entries(self, path: str, versus: Callable[[str], str], per: int = 1, rate: bool = False) -> list[Entry]:
        """Entries of the installed peers, none when they are not asked for."""
        if not self.peers or self.setup.dtype != "float32":
            return []
        sizes = self.setup.sizes
        found = self.timers.peers(path, self.setup.config, sizes.batch, sizes.tokens, sizes.context)
        return [
            Entry(
                contender=Contender(name=name, call=call, per=per, limit=PEER_SECONDS), versus=versus(name), rate=rate
            )
            for name, call in found
        ]


def prefill(plan: Plan) -> list[Entry]:
    """Ours with the last token's logits and with all; the products of each; peers; bfloat16 where it pays."""
    setup, sizes = plan.setup, plan.setup.sizes
    body = model_products(setup.config, sizes.batch, sizes.tokens)
    last = body + logit_products(setup.config, sizes.batch)
    full = body + logit_products(setup.config, sizes.batch * sizes.tokens)
    ours, every, bare_every = "state and last logits", "all logits", f"{BARE}, all logits"
    entries = [
        plan.entry(
            ours, work.prefill(setup, every=False), BARE, target=plan.target("prefill"), flops=total_flops(last)
        ),
        plan.products(BARE, last),
        plan.entry(every, work.prefill(setup, every=True), bare_every, flops=total_flops(full)),
        plan.products(bare_every, full),
    ]
    if _has_bfloat16(plan):
        call = work.prefill(_bfloat16(setup), every=False)
        target = BF16_PREFILL if plan.judged else None
        entries.append(plan.entry("bfloat16, last logits", call, ours, target=target, flops=total_flops(last)))
    # The official code always makes every token's logits.
    return entries + plan.peer_entries("prefill", lambda name: bare_every if name.startswith("official") else BARE)


def decode(plan: Plan) -> list[Entry]:
    """Ours and the products, per token; peers; bfloat16 where it pays."""
    setup, n = plan.setup, plan.setup.sizes.tokens
    # Halfway through the tokens of a call.
    seen = setup.sizes.context + n // 2
    listing = model_products(setup.config, setup.sizes.batch, 1, seen) + logit_products(setup.config, setup.sizes.batch)
    options: dict[str, Any] = {"per": n, "rate": True, "target": plan.target("decode")}
    entries = [
        plan.entry("decode", work.decode(setup), BARE, **options),
        plan.products(BARE, listing, per=n),
    ]
    if _has_bfloat16(plan):
        bare, narrow = f"{BARE}, bfloat16", _bfloat16(setup)
        entries += [
            plan.entry("decode, bfloat16", work.decode(narrow), bare, **options),
            plan.products(bare, listing, per=n, setup=narrow),
        ]
    return entries + plan.peer_entries("decode", lambda name: BARE, per=n, rate=True)


def train(plan: Plan) -> list[Entry]:
    """One optimiser step, and the products of its forward and backward pass."""
    setup, sizes = plan.setup, plan.setup.sizes
    body = model_products(setup.config, sizes.batch, sizes.tokens)
    listing = with_gradients(body + logit_products(setup.config, sizes.batch * sizes.tokens))
    return [
        plan.entry("train step", work.train(setup), BARE, target=plan.target("train"), flops=total_flops(listing)),
        plan.products(BARE, listing),
        *plan.peer_entries("train", lambda name: BARE),
    ]


def scan(plan: Plan) -> list[Entry]:
    """Every kernel of the bare scan (or the named one), the numpy backend's beside them, and the copy."""
    setup = plan.setup
    if device_of(setup.module) != "cpu" and hasattr(plan.timers, "passes"):
        return device_scan(plan)
    sizes = setup.sizes
    moved = SCAN_BYTES * sizes.batch * sizes.tokens * sizes.width
    wanted = registry.requested_kernel(setup.kernel)
    entries = [
        plan.entry(
            f"{setup.name} {name}", work.scan(setup, name), COPY, rate=True, target=plan.target("scan"), moved=moved
        )
        for name in (_scan_kernels(setup) if wanted == registry.AUTO else [wanted])
    ]
    if setup.name != "numpy":
        beside = dataclasses.replace(setup, name="numpy", module=registry.load_backend("numpy"))
        entries += [
            plan.entry(f"numpy {name}", work.scan(beside, name), COPY, rate=True, moved=moved)
            for name in _scan_kernels(beside)
        ]
    copied = moved * DTYPES[setup.dtype].itemsize // DTYPES["float32"].itemsize
    return [*entries, Entry(contender=Contender(name=COPY, call=plan.timers.copy(copied)), moved=copied)]


def device_scan(plan: Plan) -> list[Entry]:
    """Both passes of every kernel of the recurrence and the convolution, of public ones too, and a copy for each."""
    setup, sizes, timers = plan.setup, plan.setup.sizes, plan.timers
    wanted = registry.requested_kernel(setup.kernel)
    pairs = [
        (op, kernel.name)
        for op in DEVICE_OPS
        for kernel in runnable(setup, op)
        if wanted in (registry.AUTO, kernel.name)
    ]
    shape = sizes.batch, sizes.tokens, sizes.width
    found = []
    for one in timers.passes(pairs, shape, setup.dtype):
        target = device_target(one.name, shape, setup.dtype)
        options = {"per": timers.LAUNCHES, "rate": True, "moved": one.moved, "target": target}
        found.append(plan.entry(one.name, one.call, _copy_of(one.moved), **options))
    if plan.peers and hasattr(timers, "peer_passes"):
        found += _peer_passes(plan, {op for op, _ in pairs}, shape)
    copies = [
        Entry(contender=Contender(name=_copy_of(moved), call=timers.copies(moved), per=timers.LAUNCHES), moved=moved)
        for moved in dict.fromkeys(entry.moved for entry in found)
    ]
    return [*found, *copies]


def _peer_passes(plan: Plan, ops: set[str], shape: tuple[int, int, int]) -> list[Entry]:
    """The same of the public kernels, without targets; the plan's notes say what differs and which are left out."""
    beside, lines = plan.timers.peer_passes(ops, shape, plan.setup.dtype)
    plan.notes.extend(lines)
    options = {"per": plan.timers.LAUNCHES, "rate": True, "limit": PEER_SECONDS}
    return [
        plan.entry(one.name, one.call, _copy_of(one.moved), moved=one.moved, remark=one.remark, **options)
        for one in beside
    ]


def _copy_of(moved: int) -> str:
    return f"copy of {moved:,} bytes"


ENTRIES: dict[str, Callable[[Plan], list[Entry]]] = {"scan": scan, "prefill": prefill, "decode": decode, "train": train}


def _scan_kernels(setup: Setup) -> list[str]:
    return [kernel.name for kernel in runnable(setup, "linear_scan")]


def _has_bfloat16(plan: Plan) -> bool:
    return plan.setup.dtype == "float32" and plan.timers.matrix_units("bfloat16") is None


def _bfloat16(setup: Setup) -> Setup:
    return dataclasses.replace(setup, dtype="bfloat16")


def _repeat(call: work.Call, times: int) -> work.Call:
    if times == 1:
        return call

    def run() -> None:
        for _ in range(times):
            call()

    return run
