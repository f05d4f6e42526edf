"""The list of matrix products: counted against the parameter table, and run at the shapes it names."""

from __future__ import annotations

import math

import pytest

from griffin_core.benchmarks import BENCH_110M, numpy_timers
from griffin_core.benchmarks.products import (
    Product,
    logit_products,
    model_products,
    total_flops,
    weights_read,
    with_gradients,
)
from griffin_core.layouts.initialise import init_params
from griffin_core.layouts.params import EMBEDDING, param_table, parameter_count
from griffin_core.presets import preset

TINY = preset("griffin-tiny").config


def matrices(config) -> dict[str, int]:
    """Sizes of the parameters that a matrix product reads."""
    return {row.name: row.size for row in param_table(config) if row.quantise or row.name.endswith("gate_weight")}


@pytest.mark.parametrize("config", [TINY, BENCH_110M], ids=["tiny", "110m"])
def test_every_matrix_of_the_model_is_in_the_list_once(config) -> None:
    listing = model_products(config, 2, 64)
    with_weight = [p for p in listing if p.weight is not None]
    assert len(with_weight) == len({p.weight for p in with_weight}) == len(matrices(config))
    assert weights_read(listing) == sum(matrices(config).values())
    assert total_flops(with_weight) == 2 * 2 * 64 * sum(matrices(config).values())


def test_the_logits_read_the_embedding_once_and_come_in_pieces() -> None:
    listing = logit_products(BENCH_110M, 2048)
    assert [p.m for p in listing] == [512] * 4
    assert weights_read(listing) == BENCH_110M.vocab_size * BENCH_110M.width
    assert total_flops(listing) == 2 * 2048 * BENCH_110M.vocab_size * BENCH_110M.width
    assert [p.m for p in logit_products(BENCH_110M, 1)] == [1]


def test_the_benchmark_model_has_its_name_s_size() -> None:
    assert 105e6 < parameter_count(BENCH_110M) < 115e6
    assert next(row.size for row in param_table(BENCH_110M) if row.name == EMBEDDING) == 32_000 * 768


def test_attention_reads_only_the_keys_that_a_block_of_queries_sees() -> None:
    config = TINY.replace(attention_window=300)
    scores = [p for p in model_products(config, 3, 600) if p.name.startswith("2.scores")]
    assert [(p.batch, p.m // config.num_heads, p.k, p.n) for p in scores] == [
        (3, 256, config.head_dim, 256),
        (3, 256, config.head_dim, 512),
        (3, 88, config.head_dim, 600 - (512 - 299)),
    ]
    values = [p for p in model_products(config, 3, 600) if p.name.startswith("2.values")]
    assert [(p.m, p.k, p.n) for p in values] == [(p.m, p.n, p.k) for p in scores]


@pytest.mark.parametrize(("context", "keys"), [(0, 1), (200, 201), (5000, 300)])
def test_a_decoded_token_reads_the_window(context: int, keys: int) -> None:
    config = TINY.replace(attention_window=300)
    (scores,) = (p for p in model_products(config, 1, 1, context) if p.name.startswith("2.scores"))
    assert (scores.m, scores.n) == (config.num_heads, keys)


def test_global_attention_reads_everything_before() -> None:
    config = TINY.replace(attention_window=None)
    scores = [p for p in model_products(config, 1, 512) if p.name.startswith("2.scores")]
    assert [p.n for p in scores] == [256, 512]


def test_a_training_step_has_three_products_for_each_one_forward() -> None:
    listing = model_products(TINY, 1, 300)
    full = with_gradients(listing)
    assert len(full) == 3 * len(listing)
    assert total_flops(full) == 3 * total_flops(listing)
    forward, to_input, to_weight = full[:3]
    assert (forward.form, to_input.form, to_weight.form) == ("nt", "nn", "tn")
    assert (to_input.m, to_input.k, to_input.n) == (forward.m, forward.n, forward.k)
    assert (to_weight.m, to_weight.k, to_weight.n) == (forward.n, forward.m, forward.k)


@pytest.mark.parametrize("form", ["nt", "nn", "tn"])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_torch_products_have_the_listed_shapes(form: str, batch: int) -> None:
    pytest.importorskip("torch")
    from griffin_core_torch import benchmarks

    rows, columns = (11, 7) if form == "nt" else (7, 11)
    weight = benchmarks.torch.ones((rows, columns) if batch == 1 else (batch, rows, columns))
    pool = benchmarks._Operands(benchmarks.torch.float32, {"w": weight})
    result = pool.step(Product("p", 5, 7, 11, batch, form, "w"))()
    assert tuple(result.shape) == ((5, 11) if batch == 1 else (batch, 5, 11))


@pytest.mark.parametrize("tie", [True, False])
def test_the_products_run_on_the_model_s_own_weights_and_share_activations(tie: bool) -> None:
    pytest.importorskip("torch")
    import griffin_core_torch as backend
    from griffin_core_torch import benchmarks

    config = TINY.replace(tie_embeddings=tie)
    params = backend.load_params(config, init_params(config, 0))
    pool = benchmarks._Operands(benchmarks.torch.float32, params)
    listing = model_products(config, 1, 8) + logit_products(config, 8)
    for product in with_gradients(listing):
        pool.step(product)()
    assert {p.weight for p in listing if p.weight} <= params.keys()
    assert {key[0] for key in pool._made} == {"left", "right", "2.scores", "2.values", "5.scores", "5.values"}
    made = len(pool._made)
    for product in listing:
        pool.step(product)
    assert len(pool._made) == made


def test_a_copy_moves_the_bytes_it_is_asked_to() -> None:
    assert numpy_timers.copy(1 << 20)().nbytes * 2 == 1 << 20
    pytest.importorskip("torch")
    from griffin_core_torch import benchmarks

    assert benchmarks.copy(1 << 20)().nbytes * 2 == 1 << 20


def test_numpy_runs_every_form() -> None:
    listing = with_gradients(model_products(TINY, 1, 4) + logit_products(TINY, 4))
    assert math.isfinite(total_flops(listing))
    assert numpy_timers.products(listing, "float32", {})() is None
