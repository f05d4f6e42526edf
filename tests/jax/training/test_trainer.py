"""The trainer against the float64 reference and against PyTorch's; figures, refusals, who owns which array."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import griffin_core_jax as backend
from griffin_core.errors import ConfigError, InputError
from griffin_core.layouts.initialise import init_params
from griffin_core.reference import model as reference
from griffin_core.schedules import TrainerOptions
from griffin_core.shapes import UNIT_ROUNDOFF
from griffin_core_jax import step
from griffin_core_jax.trainer import Trainer

GROWTH = 64 + 60
"""Float32 roundings of a partial derivative: on its way through four layers, and in its sum over 3 x 20 positions."""
QUOTIENT = 5 * 2.0**-50
"""Error of a float64 central difference of a loss near 5, before it is divided by the step."""


def reference_loss(config, params, batch):
    """Mean cross-entropy in float64, from the reference model."""
    x, _ = reference.hidden(config, params, batch["tokens"], batch["positions"])
    logits = reference.logits(config, params, x)
    peak = logits.max(axis=-1, keepdims=True)
    log_p = logits - peak - np.log(np.exp(logits - peak).sum(axis=-1, keepdims=True))
    rows, columns = np.nonzero(batch["targets"] >= 0)
    return -log_p[rows, columns, batch["targets"][rows, columns]].mean()


def test_the_trainer_is_exported():
    assert backend.Trainer is Trainer
    with pytest.raises(AttributeError, match="Trainers"):
        _ = backend.Trainers


@pytest.mark.parametrize("tied", [True, pytest.param(False, marks=pytest.mark.prove)])
def test_loss_and_gradient_equal_the_float64_reference(config, options, batch_of, lively, gradients, tied):
    if not tied:
        config = config.replace(tie_embeddings=False, embedding_scale="sqrt_width", attention_window=None)
        gradients = jax.jit(lambda p, b: step.gradients(config, options, p, b))
    params, batch = lively(config), batch_of()
    loss, grads = gradients(backend.load_params(config, params, "float32"), batch)
    grads = {name: grad.astype(np.float64) for name, grad in backend.dump_params(config, grads).items()}
    assert float(loss) == pytest.approx(reference_loss(config, params, batch), rel=2e-6)
    rng = np.random.default_rng(6)
    for name, array in params.items():  # each parameter alone
        way = rng.standard_normal(array.shape) * np.abs(array).mean()
        size = 1e-5
        values = [reference_loss(config, {**params, name: array + sign * size * way}, batch) for sign in (1, -1)]
        expected = (values[0] - values[1]) / (2 * size)
        bound = GROWTH * UNIT_ROUNDOFF["float32"] * math.sqrt(float(((grads[name] * way) ** 2).sum()))
        assert abs(float((grads[name] * way).sum()) - expected) <= bound + QUOTIENT / size, name


def test_fifty_steps_follow_pytorchs_trainer(config, options, batch_of):
    torch = pytest.importorskip("griffin_core_torch.trainer")
    params = init_params(config, 0)
    trainers = [Trainer(config, params, options), torch.Trainer(config, params, options)]
    for number in range(1, 51):
        ours, theirs = (trainer.step(batch_of(number)) for trainer in trainers)
        assert {name: type(value) for name, value in ours.items()} == dict.fromkeys(theirs, float)
        assert (ours["learning_rate"], ours["tokens"]) == (theirs["learning_rate"], theirs["tokens"])
        near = 1e-4 if number <= 10 else 1e-3
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=near), number
    assert trainers[0].step_number == trainers[1].step_number == 50
    totals = [trainer.evaluate(batch_of(0)) for trainer in trainers]
    assert totals[0][1] == totals[1][1] == 52
    assert totals[0][0] == pytest.approx(totals[1][0], rel=1e-3)


def test_figures_and_an_evaluation_that_learns_nothing(config, options, batch_of):
    batch = batch_of()
    trainer = Trainer(config, init_params(config, 0), options)
    nats, count = trainer.evaluate(batch)
    before = trainer.params()
    assert (nats, count) == (trainer.evaluate(batch)[0], int((batch["targets"] >= 0).sum()))
    for name, array in trainer.params().items():
        np.testing.assert_array_equal(array, before[name])
    losses = [trainer.step(batch)["loss"] for _ in range(40)]
    assert losses[0] == pytest.approx(nats / count, rel=1e-6)
    assert losses[-1] < 0.4 * losses[0]
    assert all(array.dtype == np.float32 for array in trainer.params().values())


def test_inputs_stay_the_callers_and_equal_runs_have_equal_bits(config, options, batch_of, read_only):
    params = {name: read_only(array) for name, array in init_params(config, 0).items()}
    batches = [{name: read_only(array) for name, array in batch_of(seed).items()} for seed in range(3)]
    given = {name: jnp.asarray(array) for name, array in params.items()}  # JAX arrays are copied as well
    runs = []
    for start in (params, given):
        trainer = Trainer(config, start, options)
        runs.append(([trainer.step(batch) for batch in batches], trainer.params()))
    assert runs[0][0] == runs[1][0]
    for name, array in params.items():
        np.testing.assert_array_equal(runs[0][1][name], runs[1][1][name])
        np.testing.assert_array_equal(given[name], array)  # neither donated nor written
    kept = trainer.params()
    trainer.step(batches[0])
    for name, array in runs[1][1].items():
        np.testing.assert_array_equal(kept[name], array)


def test_a_step_that_is_not_finite_changes_nothing(config, options, batch_of):
    params = init_params(config, 0)
    params["model.layers.1.mlp_block.up_proj.weight"][0, 0] = np.inf
    trainer = Trainer(config, params, options)
    before = trainer.params()
    assert not math.isfinite(trainer.step(batch_of())["loss"])
    assert trainer.step_number == 0
    for name, array in trainer.params().items():
        np.testing.assert_array_equal(array, before[name])


def test_illegal_batches_are_refused_by_name(config, options, batch_of):
    trainer = Trainer(config, init_params(config, 0), options)
    batch = batch_of()
    inside = batch["positions"].copy()
    inside[0, 4] = -1
    inside[0, 5:] -= 1
    wrong = [
        ({**batch, "targets": np.full_like(batch["targets"], -1)}, "no position of the batch has a target"),
        ({**batch, "targets": batch["targets"] + 300}, "targets are"),
        ({**batch, "targets": batch["targets"][:, :3]}, "one shape"),
        ({name: batch[name] for name in ("tokens", "targets")}, "expected tokens, targets and positions"),
        ({**batch, "tokens": batch["tokens"] + 300}, "outside the vocabulary"),
        ({**batch, "positions": batch["positions"] + 2}, "position"),
        ({**batch, "positions": inside}, "padding stands inside a row"),
    ]
    for given, message in wrong:
        with pytest.raises(InputError, match=message):
            trainer.step(given)
    assert trainer.step_number == 0


def test_wrong_settings_are_refused(config, options):
    for given, message in (({"threads": 10_000}, "threads=10000"), ({"remat": "blocks"}, "did you mean 'block'")):
        with pytest.raises(ConfigError, match=message):
            Trainer(config, init_params(config, 0), options, **given)


def test_the_schedule_free_trainer_learns_and_shows_its_average(config, batch_of):
    options = TrainerOptions(steps=50, learning_rate=1e-2, warmup=3, optimizer="schedule-free")
    start = init_params(config, 0)
    trainer = Trainer(config, start, options)
    for name, array in trainer.params().items():
        np.testing.assert_array_equal(array, start[name])
    batch = batch_of()
    first = trainer.evaluate(batch)[0]
    for _ in range(40):
        figures = trainer.step(batch)
    nats, count = trainer.evaluate(batch)
    assert nats < 0.5 * first
    assert nats / count != pytest.approx(figures["loss"], rel=1e-3)  # the average is another point
    average = Trainer(config, trainer.params(), replace(options, optimizer="adamw"))
    assert average.evaluate(batch)[0] == pytest.approx(nats, rel=1e-6)


def test_bfloat16_products_recomputed_by_block_train_float32_parameters(config, options, batch_of):
    wide = Trainer(config, init_params(config, 0), options)
    narrow_options = replace(options, compute_dtype="bfloat16", checkpoint_activations=True)
    narrow = Trainer(config, init_params(config, 0), narrow_options)
    losses = [(wide.step(batch_of())["loss"], narrow.step(batch_of())["loss"]) for _ in range(8)]
    assert all(array.dtype == np.float32 for array in narrow.params().values())
    for expected, found in losses:
        assert found == pytest.approx(expected, rel=0.03)
        assert found != expected
    assert losses[-1][1] < losses[0][1]
