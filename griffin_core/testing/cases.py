"""What a property is tried on: sizes, a seed, and kinds. Arrays are made from these in ``inputs``, in NumPy.

A case is a flat frozen record, so that it prints as the code that makes it, can be kept in a set, and
shrinks field by field towards the defaults, which are the simplest.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

DECAYS = ("1e-1", "1e-2", "1e-3", "1e-4", "1e-5", "1e-6", "1e-8", "one", "zero", "subnormal", "mixed")
"""1 - a around a power of ten; a exactly 1; a exactly 0; log a and a below the smallest normal; all in turn."""
RESETS = ("none", "start", "every", "edges", "random")
"""Where documents start: nowhere, at 0, everywhere, at and beside multiples of 16 and 256, anywhere."""
LAYOUTS = ("contiguous", "channels", "transposed", "strided")
"""How an array lies in memory: whole; a slice of a wider one; time outermost; every second channel."""
FLOATS = ("float32", "bfloat16", "float16")

Record = TypeVar("Record", bound="_Printed")


@dataclass(frozen=True, kw_only=True)
class _Printed:
    def __repr__(self) -> str:
        given = [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in dataclasses.fields(self)
            if getattr(self, f.name) != f.default or f.name in ("b", "t", "d")
        ]
        return f"{type(self).__name__}({', '.join(given)})"

    def replace(self: Record, **changes: Any) -> Record:
        """The same case with some fields changed."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True, kw_only=True, repr=False)
class Case(_Printed):
    """One call of an operation.

    Attributes:
        b, t, d: rows, tokens, channels (operations with gate blocks have ``blocks`` times ceil(d/blocks)).
        seed: of every random number in the case.
        dtype: of the arrays that the caller chooses: inputs, log decays, weights.
        decay: a kind of ``DECAYS``.
        resets: a kind of ``RESETS``.
        carry: whether a state comes in (h0, conv state, cache).
        cut: where a sequence is cut in two, modulo its length + 1.
        pads: padding tokens at the end of the first row.
        layout: a kind of ``LAYOUTS``.
        taps: width w of the convolution.
        blocks: gate blocks.
        heads: query heads.
        window: keys a query sees; 0 is all.
    """

    b: int = 1
    t: int = 1
    d: int = 1
    seed: int = 0
    dtype: str = "float32"
    decay: str = "1e-1"
    resets: str = "none"
    carry: bool = False
    cut: int = 0
    pads: int = 0
    layout: str = "contiguous"
    taps: int = 2
    blocks: int = 1
    heads: int = 1
    window: int = 0


@dataclass(frozen=True, kw_only=True, repr=False)
class ModelCase(_Printed):
    """One call of a whole model.

    Attributes:
        model: a name of ``MODELS``.
        b, t: rows and tokens.
        seed: of weights and tokens.
        dtype: of weights and products.
        documents: where documents start, a kind of ``RESETS``.
        carry: whether a state comes in, with some tokens already seen.
        cut: where the sequence is cut, modulo its length + 1.
    """

    model: str = "hawk"
    b: int = 1
    t: int = 1
    seed: int = 0
    dtype: str = "float32"
    documents: str = "none"
    carry: bool = False
    cut: int = 0


MODELS: dict[str, dict[str, Any]] = {
    "hawk": {"block_pattern": ("recurrent",), "num_layers": 2, "attention_window": 5},
    "griffin": {"block_pattern": ("recurrent", "recurrent", "attention"), "num_layers": 3, "attention_window": 5},
    "capped": {
        "block_pattern": ("recurrent", "attention"),
        "num_layers": 3,
        "attention_window": 3,
        "conv_width": 3,
        "logits_soft_cap": 5.0,
        "embedding_scale": "sqrt_width",
        "tie_embeddings": False,
    },
    "mqa": {"block_pattern": ("attention",), "num_layers": 2, "attention_window": None},
}
"""Tiny configs that between them use every field of the config."""
MODEL_SIZES: dict[str, Any] = {
    "width": 12,
    "lru_width": 18,
    "mlp_width": 20,
    "num_heads": 3,
    "head_dim": 8,
    "gate_blocks": 2,
    "vocab_size": 23,
}
"""Sizes of the tiny configs: no two equal, so that swapped axes do not fit."""

LONG = Case(t=4096, d=3, decay="1e-5", carry=True)
"""4096 steps at 1 - a = 1e-5: a carry that is not float32 has lost its digits by then."""
WIDE = Case(b=2, t=257, d=130)
"""66 820 elements: beyond what a 16-bit offset can address."""

SHAPES: dict[str, Case] = {
    "train": Case(b=8, t=8192, d=2560, dtype="bfloat16"),
    "prefill": Case(b=1, t=2048, d=2560),
    "long": Case(b=1, t=131_072, d=4096, dtype="bfloat16"),
    "cpu": Case(b=1, t=4096, d=2560),
    "short_rows": Case(b=32, t=2048, d=1024, dtype="bfloat16"),
    "decode": Case(b=8, t=1, d=2560, carry=True),
}
"""Shapes of real use, for benchmarks and for whoever tunes a kernel."""

CORNERS: tuple[Case, ...] = (
    Case(t=1, d=1, carry=True),
    Case(b=2, t=3, d=5, resets="start", carry=True, cut=1, taps=4),
    Case(b=2, t=17, d=3, resets="every", carry=True, cut=16, taps=3, decay="1e-2"),
    Case(b=3, t=33, d=9, resets="edges", carry=True, decay="mixed", cut=16, taps=4, blocks=2, pads=5),
    Case(t=257, d=7, decay="1e-3", resets="edges", carry=True, cut=256, heads=2, window=16),
    Case(b=2, t=19, d=65, decay="zero", resets="random", cut=7, blocks=2),
    Case(b=1, t=40, d=4, decay="1e-6", carry=True, cut=39, dtype="bfloat16", taps=4),
    Case(b=2, t=24, d=6, decay="one", carry=True, cut=9, dtype="float16", resets="random", window=4),
    Case(b=1, t=16, d=2, decay="subnormal", carry=True, cut=8),
    Case(b=2, t=12, d=6, layout="transposed", carry=True, cut=5, resets="random"),
    Case(b=2, t=11, d=5, layout="strided", dtype="bfloat16", carry=True, cut=4, decay="mixed"),
)
"""Cases that the properties of whole sequences are tried on before any is drawn."""
SHORT_CORNERS = tuple(case for case in CORNERS if case.t <= 64)
"""Those that the other properties are tried on."""

MODEL_CORNERS: tuple[ModelCase, ...] = (
    ModelCase(t=1, carry=True),
    ModelCase(model="griffin", b=2, t=11, documents="random", carry=True, cut=6),
    ModelCase(model="capped", b=2, t=9, documents="none", carry=True, cut=3),
    ModelCase(model="mqa", b=2, t=7, documents="random", carry=True, cut=4),
    ModelCase(model="griffin", b=2, t=8, dtype="bfloat16", documents="start", cut=5),
    ModelCase(model="capped", b=1, t=6, dtype="float16", documents="random", carry=True, cut=2),
)
"""Cases that every law is tried on before any is drawn."""
