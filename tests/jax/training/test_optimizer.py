"""The optimisers on given gradients, against their formulas in float64: decay mask, clipping, averages, refusals."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import griffin_core_jax as backend
from griffin_core.errors import ConfigError
from griffin_core.layouts.params import param_table
from griffin_core.schedules import TrainerOptions, learning_rate
from griffin_core_jax.optimizer import clipped, decay_mask, evaluation_params, init_optimizer
from griffin_core_jax.step import apply_gradients

STEPS = 4


@pytest.fixture(scope="module")
def table(config):
    return {row.name: row for row in param_table(config)}


def gradients_of(table, step):
    """Canonical gradients of mixed sizes, and another set at every step."""
    rng = np.random.default_rng(step)
    return {name: rng.standard_normal(row.shape) * 10.0 ** rng.uniform(-3, 0) for name, row in table.items()}


def run(config, options, params, table, grads_at=gradients_of):
    """(canonical parameters to evaluate, figures of each step)."""
    native = backend.load_params(config, params, "float32")
    state = init_optimizer(config, options, native)
    apply = jax.jit(functools.partial(apply_gradients, config, options))
    figures = []
    for step in range(STEPS):
        grads = backend.load_params(config, grads_at(table, step), "float32")
        rate = np.float32(learning_rate(step, options))
        native, state, found = apply(native, state, np.float32(1.0), grads, rate)
        figures.append(found)
    learned = jax.jit(functools.partial(evaluation_params, options))(native, state)
    return backend.dump_params(config, learned), figures


def scaled(options, grads):
    norm = math.sqrt(sum(float((g**2).sum()) for g in grads.values()))
    scale = min(1.0, options.clip_norm / norm) if options.clip_norm else 1.0
    return {name: g * scale for name, g in grads.items()}, norm


def adamw(options, params, table):
    """The optimiser's definition in float64."""
    params = {n: a.copy() for n, a in params.items()}
    first, second = ({n: np.zeros_like(a) for n, a in params.items()} for _ in range(2))
    for step in range(STEPS):
        rate = learning_rate(step, options)
        for name, grad in scaled(options, gradients_of(table, step))[0].items():
            first[name] = options.beta1 * first[name] + (1 - options.beta1) * grad
            second[name] = options.beta2 * second[name] + (1 - options.beta2) * grad**2
            m_hat = first[name] / (1 - options.beta1 ** (step + 1))
            v_hat = second[name] / (1 - options.beta2 ** (step + 1))
            decay = options.weight_decay * params[name] if table[name].decay else 0.0
            params[name] = params[name] - rate * (m_hat / (np.sqrt(v_hat) + options.epsilon) + decay)
    return params


def schedule_free(options, params, table):
    """Schedule-free AdamW in float64: gradients at y, steps of z, x the average weighted by the squared rate."""
    z, x, weights = dict(params), dict(params), 0.0
    second = {n: np.zeros_like(a) for n, a in params.items()}
    for step in range(STEPS):
        rate = learning_rate(step, options)
        weights += rate**2
        for name, grad in scaled(options, gradients_of(table, step))[0].items():
            y = options.beta1 * x[name] + (1 - options.beta1) * z[name]
            second[name] = options.beta2 * second[name] + (1 - options.beta2) * grad**2
            v_hat = second[name] / (1 - options.beta2 ** (step + 1))
            decay = options.weight_decay * y if table[name].decay else 0.0
            z[name] = z[name] - rate * (grad / (np.sqrt(v_hat) + options.epsilon) + decay)
            x[name] = x[name] + rate**2 / weights * (z[name] - x[name])
    return x


@pytest.mark.parametrize(("definition", "name"), [(adamw, "adamw"), (schedule_free, "schedule-free")])
def test_steps_are_the_definition_with_the_tables_decay_and_the_schedule(config, lively, table, definition, name):
    options = TrainerOptions(steps=10, learning_rate=1e-2, warmup=2, weight_decay=0.5, clip_norm=0.05, optimizer=name)
    params = lively(config)
    found, figures = run(config, options, params, table)
    expected = definition(options, params, table)
    for key, array in found.items():
        # Each step rounds a parameter once or twice and moves it by at most some rates.
        np.testing.assert_allclose(array, expected[key], rtol=16 * 2.0**-24, atol=1e-6, err_msg=key)
    norms = [scaled(options, gradients_of(table, step))[1] for step in range(STEPS)]
    np.testing.assert_allclose([f["grad_norm"] for f in figures], norms, rtol=1e-6)
    assert all(bool(f["finite"]) for f in figures)


def test_only_gradients_above_the_clipping_norm_are_scaled():
    grads = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([4.0])}
    for limit, factor in ((10.0, 1.0), (5.0, 1.0), (2.5, 0.5), (0.0, 1.0)):
        found = clipped(TrainerOptions(steps=1, clip_norm=limit), grads, jnp.float32(5.0))
        np.testing.assert_array_equal(found["a"], np.array([3.0, 0.0]) * factor)
        np.testing.assert_array_equal(found["b"], np.array([4.0]) * factor)


def test_the_mask_is_the_tables(config, table):
    mask = decay_mask(config)
    assert jax.tree.structure(mask) == jax.tree.structure(
        backend.load_params(config, {name: np.zeros(row.shape, np.float32) for name, row in table.items()})
    )
    assert mask["segments"][0][0]["up_proj.kernel"] is True
    for name in ("recurrent_param", "conv_weight", "temporal_norm", "input_gate_weight", "linear_x.bias"):
        assert mask["segments"][0][0][name] is False
    assert mask["embedding"] is mask["final_norm"] is False


@pytest.mark.parametrize("name", ["adamw", pytest.param("schedule-free", marks=pytest.mark.prove)])
def test_what_is_not_finite_changes_nothing(config, lively, table, name):
    options = TrainerOptions(steps=10, learning_rate=1e-2, warmup=2, weight_decay=0.5, clip_norm=0.05, optimizer=name)
    params = backend.load_params(config, lively(config), "float32")
    state = init_optimizer(config, options, params)
    apply = jax.jit(functools.partial(apply_gradients, config, options))
    grads = backend.load_params(config, gradients_of(table, 0), "float32")
    params, state, found = apply(params, state, np.float32(1.0), grads, np.float32(0.1), np.float32(7.0))
    assert found["grad_norm"] == 7.0  # a norm that is known already is taken
    for loss, norm in ((np.inf, 1.0), (1.0, np.nan)):
        after = apply(params, state, np.float32(loss), grads, np.float32(0.1), np.float32(norm))
        assert not after[2]["finite"]
        for old, new in zip(jax.tree.leaves((params, state)), jax.tree.leaves(after[:2]), strict=True):
            np.testing.assert_array_equal(old, new)


def test_the_schedule_free_rate_stays_at_its_peak_and_its_options_are_checked():
    options = TrainerOptions(steps=100, learning_rate=2.0, warmup=10, optimizer="schedule-free")
    rates = [learning_rate(step, options) for step in range(100)]
    np.testing.assert_allclose(rates[:10], 2.0 * np.arange(1, 11) / 10)
    assert set(rates[9:]) == {2.0}
    with pytest.raises(ConfigError, match="did you mean 'schedule-free'"):
        TrainerOptions(steps=1, optimizer="schedulefree")
    with pytest.raises(ConfigError, match=r"beta1=0\.0"):
        TrainerOptions(steps=1, optimizer="schedule-free", beta1=0.0)
