"""The matrix products of a model at their own shapes: what a path would cost if nothing else cost anything.

Every product with a weight is listed once per layer, because each layer reads its own weights. The attention's
products are those of a block-local pass: blocks of 256 queries (all heads as rows) against the keys that some
query of the block sees. A training step has each product three times: forward and its two gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from griffin_core.config import ATTENTION, RECURRENT, GriffinConfig
from griffin_core.layouts.params import EMBEDDING, LM_HEAD, layer_prefix

QUERY_BLOCK = 256
LOGIT_ROWS = 512
"""Rows of logits made at a time when every token's are wanted."""
FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT = "nt", "nn", "tn"
"""Forms of A B: A [m k] with B [n k]; A [m k] with B [k n]; A [k m] with B [k n]."""


@dataclass(frozen=True)
class Product:
    """One matrix product, done ``batch`` times at once.

    Attributes:
        name: which operation of the model it is, with the layer.
        m, k, n: rows, contracted axis, columns.
        batch: matrices multiplied at once (gate blocks, batch rows of attention).
        form: how the factors lie in memory: "nt", "nn" or "tn".
        weight: canonical name of the parameter that one factor is (or whose gradient the result is); None for
            attention.
    """

    name: str
    m: int
    k: int
    n: int
    batch: int = 1
    form: str = FORWARD
    weight: str | None = None

    @property
    def flops(self) -> int:
        """Two per multiply-add."""
        return 2 * self.batch * self.m * self.k * self.n

    @property
    def weight_size(self) -> int:
        """Elements of the weight that the product reads, 0 without one."""
        return self.batch * self.k * self.n if self.weight is not None and self.form != WEIGHT_GRADIENT else 0


def model_products(config: GriffinConfig, batch: int, tokens: int, context: int = 0) -> list[Product]:
    """Products of ``hidden`` for [batch, tokens] after ``context`` tokens."""
    return [
        p for layer, kind in enumerate(config.layer_kinds) for p in _layer(config, layer, kind, batch, tokens, context)
    ]


def logit_products(config: GriffinConfig, rows: int) -> list[Product]:
    """Products of ``logits`` for so many rows, in pieces."""
    sizes = [min(LOGIT_ROWS, rows - start) for start in range(0, rows, LOGIT_ROWS)]
    head = EMBEDDING if config.tie_embeddings else LM_HEAD
    return [Product(f"logits.{i}", m, config.width, config.vocab_size, weight=head) for i, m in enumerate(sizes)]


def with_gradients(products: list[Product]) -> list[Product]:
    """Each product, then its two gradients."""
    return [p for product in products for p in (product, *_gradients(product))]


def total_flops(products: list[Product]) -> int:
    """Operations of the whole list."""
    return sum(product.flops for product in products)


def weights_read(products: list[Product]) -> int:
    """Elements of all weights that the list reads, each parameter once."""
    return sum({p.weight: p.weight_size for p in products if p.weight is not None}.values())


def _gradients(product: Product) -> tuple[Product, Product]:
    """Of C [m n] = A [m k] B: dA = dC B^T, and dB^T [n k] = dC^T A."""
    m, k, n, batch, name = product.m, product.k, product.n, product.batch, product.name
    to_input = INPUT_GRADIENT if product.form == FORWARD else FORWARD
    return (
        Product(name + ".input", m, n, k, batch, to_input, product.weight),
        Product(name + ".weight", n, m, k, batch, WEIGHT_GRADIENT, product.weight),
    )


def _layer(config: GriffinConfig, layer: int, kind: str, batch: int, tokens: int, context: int) -> Iterator[Product]:
    rows, m, f = batch * tokens, config.width, config.mlp_width
    temporal, channel = (f"{layer_prefix(layer)}{block}." for block in ("temporal_block", "mlp_block"))

    def linear(name: str, width_in: int, width_out: int, block: str = temporal) -> Product:
        return Product(f"{layer}.{name}", rows, width_in, width_out, weight=f"{block}{name}.weight")

    if kind == RECURRENT:
        d, k = config.lru_width, config.block_width
        yield from (linear("linear_x", m, d), linear("linear_y", m, d))
        for gate in ("input_gate", "recurrent_gate"):
            weight = f"{temporal}rg_lru.{gate}_weight"
            yield Product(f"{layer}.{gate}", rows, k, k, config.gate_blocks, INPUT_GRADIENT, weight)
        yield linear("linear_out", d, m)
    elif kind == ATTENTION:
        e, ne = config.head_dim, config.num_heads * config.head_dim
        yield from (linear("q_proj", m, ne), linear("k_proj", m, e), linear("v_proj", m, e))
        yield from _attention(config, layer, batch, tokens, context)
        yield linear("o_proj", ne, m)
    yield from (linear("gate_proj", m, f, channel), linear("up_proj", m, f, channel))
    yield linear("down_proj", f, m, channel)


def _attention(config: GriffinConfig, layer: int, batch: int, tokens: int, context: int) -> Iterator[Product]:
    window = context + tokens if config.attention_window is None else config.attention_window
    for start in range(context, context + tokens, QUERY_BLOCK):
        queries = min(QUERY_BLOCK, context + tokens - start)
        keys = start + queries - max(0, start - window + 1)
        rows, e = config.num_heads * queries, config.head_dim
        yield Product(f"{layer}.scores.{start}", rows, e, keys, batch, FORWARD)
        yield Product(f"{layer}.values.{start}", rows, keys, e, batch, INPUT_GRADIENT)
