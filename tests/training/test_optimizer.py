"""AdamW, its decay mask, clipping and the schedule, against their formulas and PyTorch's own optimiser."""

import itertools
import math

import numpy as np
import pytest

from griffin_core.errors import ConfigError
from griffin_core.layouts.params import param_table
from griffin_core.schedules import TrainerOptions, learning_rate

torch = pytest.importorskip("torch")
trainers = pytest.importorskip("griffin_core_torch.trainer")


def adamw(config, params, grads_of, options, steps):
    """The optimiser's definition in float64."""
    params = {n: a.copy() for n, a in params.items()}
    first, second = ({n: np.zeros_like(a) for n, a in params.items()} for _ in range(2))
    decayed = {row.name for row in param_table(config) if row.decay}
    for step in range(steps):
        grads = grads_of(params)
        norm = math.sqrt(sum(float((g**2).sum()) for g in grads.values()))
        scale = min(1.0, options.clip_norm / norm) if options.clip_norm else 1.0
        rate = learning_rate(step, options)
        for name, grad in grads.items():
            grad = grad * scale
            first[name] = options.beta1 * first[name] + (1 - options.beta1) * grad
            second[name] = options.beta2 * second[name] + (1 - options.beta2) * grad**2
            if name in decayed:
                params[name] = params[name] * (1 - rate * options.weight_decay)
            m_hat = first[name] / (1 - options.beta1 ** (step + 1))
            v_hat = second[name] / (1 - options.beta2 ** (step + 1))
            params[name] = params[name] - rate * m_hat / (np.sqrt(v_hat) + options.epsilon)
    return params


@pytest.mark.parametrize("clip_norm", [0.0, 0.05])
def test_steps_are_adamw_with_the_tables_decay_and_the_schedule(tiny_config, make_batch, clip_norm, lively, gradients):
    # A large epsilon keeps the quotient smooth, so that rounding of tiny gradients is not blown up to the rate.
    options = TrainerOptions(
        steps=10, learning_rate=1e-2, warmup=2, weight_decay=0.5, clip_norm=clip_norm, epsilon=1e-3
    )
    params, batch = lively(tiny_config), make_batch()
    trainer = trainers.Trainer(tiny_config, params, options)
    seen = [trainer.step(batch) for _ in range(4)]
    assert [figures["learning_rate"] for figures in seen] == [learning_rate(step, options) for step in range(4)]
    assert trainer.step_number == 4
    expected = adamw(
        tiny_config,
        params,
        lambda now: gradients(trainers.Trainer(tiny_config, now, options), batch)[1],
        options,
        4,
    )
    for name, array in trainer.params().items():
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=2e-5, err_msg=name)


def test_only_the_tables_parameters_decay(tiny_config, make_batch, lively):
    # A learning rate without a gradient leaves the decay alone to be seen.
    options = TrainerOptions(steps=1, learning_rate=0.1, warmup=0, weight_decay=0.5, epsilon=1e30)
    params = lively(tiny_config)
    trainer = trainers.Trainer(tiny_config, params, options)
    trainer.step(make_batch())
    for row in param_table(tiny_config):
        kept = 0.95 if row.decay else 1.0
        np.testing.assert_allclose(trainer.params()[row.name], kept * params[row.name].astype(np.float32), rtol=1e-6)
    untouched = {"recurrent_param", "conv_1d.weight", "embed_tokens.weight", "input_gate_weight", "linear_x.bias"}
    table = {row.name: row.decay for row in param_table(tiny_config)}
    for ending in untouched:
        assert not any(decay for name, decay in table.items() if name.endswith(ending))
    assert table["model.layers.0.mlp_block.up_proj.weight"]


def test_schedule_warms_up_then_falls_to_its_final_fraction():
    options = TrainerOptions(steps=100, learning_rate=2.0, final_fraction=0.1, warmup=10)
    rates = [learning_rate(step, options) for step in range(101)]
    np.testing.assert_allclose(rates[:10], 2.0 * np.arange(1, 11) / 10)
    assert max(rates) == rates[9] == rates[10] == 2.0
    assert rates[100] == pytest.approx(0.2)
    assert rates[55] == pytest.approx(1.1)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[10:]))
    assert learning_rate(0, TrainerOptions(steps=5, warmup=0, learning_rate=1.0)) == 1.0
    for wrong in ({"steps": 0}, {"learning_rate": -1.0}, {"beta1": 1.5}, {"compute_dtype": "float16"}, {"warmup": -1}):
        with pytest.raises(ConfigError):
            TrainerOptions(**{"steps": 5, **wrong})


def test_the_optimiser_is_torchs_own_to_the_bit(tiny_config, options, make_batch, lively):
    trainer = trainers.Trainer(
        tiny_config, lively(tiny_config), TrainerOptions(**{**options.to_dict(), "clip_norm": 0})
    )
    mirror = {name: p.detach().clone() for name, p in trainer._params.items()}
    batches = [make_batch(seed) for seed in range(3)]
    decay = {row.name: row.decay for row in param_table(tiny_config)}
    groups = [
        {"params": [p for name, p in mirror.items() if decay[name] is flag], "weight_decay": 0.1 * flag}
        for flag in (True, False)
    ]
    peer = torch.optim.AdamW(groups, betas=(options.beta1, options.beta2), eps=options.epsilon, fused=True)
    for batch in batches:
        loss = trainer._loss(batch, 1.0 / int((batch["targets"] >= 0).sum()))
        grads = torch.autograd.grad(loss, list(trainer._params.values()))
        for p, grad in zip(mirror.values(), grads, strict=True):
            p.grad = grad.clone(memory_format=torch.contiguous_format)
        for group in peer.param_groups:
            group["lr"] = learning_rate(trainer.step_number, options)
        peer.step()
        trainer.step(batch)
        for name, array in trainer.params().items():
            np.testing.assert_array_equal(array, mirror[name].numpy(), err_msg=name)
