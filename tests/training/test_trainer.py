"""One trainer step against first principles: loss, gradient, figures, refusals."""

import math
import subprocess
import sys

import numpy as np
import pytest

from griffin_core.errors import InputError
from griffin_core.layouts.initialise import init_params
from griffin_core.reference import model as reference
from griffin_core.schedules import TrainerOptions
from griffin_core.shapes import UNIT_ROUNDOFF

torch = pytest.importorskip("torch")
trainers = pytest.importorskip("griffin_core_torch.trainer")

GROWTH = 64
"""Float32 roundings that a partial derivative gathers on its way through three layers."""
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


@pytest.mark.parametrize("tied", [True, False])
def test_loss_and_gradient_equal_the_float64_reference(tiny_config, options, make_batch, tied, lively, gradients):
    config = tiny_config.replace(
        tie_embeddings=tied, embedding_scale="sqrt_width", attention_window=6 if tied else None
    )
    params, batch = lively(config), make_batch()
    loss, grads = gradients(trainers.Trainer(config, params, options), batch)
    assert loss == pytest.approx(reference_loss(config, params, batch), rel=2e-6)
    rng = np.random.default_rng(5)
    for _ in range(6):
        way = {n: rng.standard_normal(a.shape) * np.abs(a).mean() for n, a in params.items()}
        step = 1e-5
        ahead, behind = (
            reference_loss(config, {n: a + sign * step * way[n] for n, a in params.items()}, batch) for sign in (1, -1)
        )
        expected = (ahead - behind) / (2 * step)
        found = sum(float((grads[n] * way[n]).sum()) for n in params)
        size = math.sqrt(sum(float(((grads[n] * way[n]) ** 2).sum()) for n in params))
        assert abs(found - expected) <= GROWTH * UNIT_ROUNDOFF["float32"] * size + QUOTIENT / step, (found, expected)


def test_each_parameter_alone_has_the_reference_gradient(tiny_config, options, make_batch, lively, gradients):
    params, batch = lively(tiny_config), make_batch()
    _, grads = gradients(trainers.Trainer(tiny_config, params, options), batch)
    rng = np.random.default_rng(6)
    for name, array in params.items():
        way = rng.standard_normal(array.shape) * np.abs(array).mean()
        step = 1e-5
        values = [reference_loss(tiny_config, {**params, name: array + sign * step * way}, batch) for sign in (1, -1)]
        expected = (values[0] - values[1]) / (2 * step)
        size = math.sqrt(float(((grads[name] * way) ** 2).sum()))
        found = float((grads[name] * way).sum())
        assert abs(found - expected) <= GROWTH * UNIT_ROUNDOFF["float32"] * size + QUOTIENT / step, name


def test_recomputing_activations_changes_no_bit_of_the_gradient(tiny_config, options, make_batch, lively, gradients):
    params, batch = lively(tiny_config), make_batch()
    kept = trainers.Trainer(tiny_config, params, options)
    again = trainers.Trainer(
        tiny_config, params, TrainerOptions(**{**options.to_dict(), "checkpoint_activations": True})
    )
    (loss, grads), (other_loss, other_grads) = gradients(kept, batch), gradients(again, batch)
    assert loss == other_loss
    for name in grads:
        np.testing.assert_array_equal(grads[name], other_grads[name], err_msg=name)


def test_figures_of_a_step(tiny_config, options, make_batch, lively, gradients):
    batch, params = make_batch(), lively(tiny_config)
    trainer = trainers.Trainer(tiny_config, params, options)
    loss, grads = gradients(trainer, batch)
    figures = trainer.step(batch)
    assert set(figures) == {"loss", "grad_norm", "learning_rate", "tokens"}
    assert figures["loss"] == loss
    assert figures["grad_norm"] == pytest.approx(math.sqrt(sum(float((g**2).sum()) for g in grads.values())), rel=1e-6)
    assert figures["tokens"] == (batch["positions"] >= 0).sum() == 55


def test_loss_falls_and_evaluate_learns_nothing(tiny_config, make_batch):
    trainer = trainers.Trainer(
        tiny_config, init_params(tiny_config, 0), TrainerOptions(steps=60, learning_rate=2e-2, warmup=5)
    )
    batch = make_batch()
    nats, count = trainer.evaluate(batch)
    assert (nats, count) == (trainer.evaluate(batch)[0], int((batch["targets"] >= 0).sum()))
    losses = [trainer.step(batch)["loss"] for _ in range(60)]
    assert losses[0] == pytest.approx(nats / count, rel=1e-6)
    assert losses[-1] < 0.2 * losses[0]


def test_bfloat16_products_train_float32_parameters(tiny_config, options, make_batch, lively):
    wide = trainers.Trainer(tiny_config, lively(tiny_config), options)
    narrow_options = TrainerOptions(**{**options.to_dict(), "compute_dtype": "bfloat16"})
    narrow = trainers.Trainer(tiny_config, lively(tiny_config), narrow_options)
    losses = [(wide.step(make_batch())["loss"], narrow.step(make_batch())["loss"]) for _ in range(8)]
    assert all(array.dtype == np.float32 for array in narrow.params().values())
    for expected, found in losses:
        assert found == pytest.approx(expected, rel=0.03)
        assert found != expected
    assert losses[-1][1] < losses[0][1]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_step_that_is_not_finite_changes_nothing(tiny_config, options, make_batch, lively):
    params = lively(tiny_config)
    params["model.layers.1.mlp_block.up_proj.weight"][0, 0] = np.inf
    trainer = trainers.Trainer(tiny_config, params, options)
    before = trainer.params()
    figures = trainer.step(make_batch())
    assert not math.isfinite(figures["loss"])
    assert trainer.step_number == 0
    for name, array in trainer.params().items():
        np.testing.assert_array_equal(array, before[name])


def test_inputs_are_not_written_and_equal_runs_have_equal_bits(tiny_config, options, make_batch, read_only):
    params = {name: read_only(array) for name, array in init_params(tiny_config, 0).items()}
    batches = [{name: read_only(array) for name, array in make_batch(seed).items()} for seed in range(3)]
    runs = []
    for _ in range(2):
        trainer = trainers.Trainer(tiny_config, params, options)
        runs.append(([trainer.step(batch) for batch in batches], trainer.params()))
    assert runs[0][0] == runs[1][0]
    for name in params:
        np.testing.assert_array_equal(runs[0][1][name], runs[1][1][name])


def test_illegal_batches_are_refused_by_name(tiny_config, options, make_batch):
    trainer = trainers.Trainer(tiny_config, init_params(tiny_config, 0), options)
    batch = make_batch()
    wrong = [
        ({**batch, "targets": np.full_like(batch["targets"], -1)}, "no position of the batch has a target"),
        ({**batch, "targets": batch["targets"] + 300}, "targets are"),
        ({**batch, "targets": batch["targets"][:, :3]}, "one shape"),
        ({name: batch[name] for name in ("tokens", "targets")}, "expected tokens, targets and positions"),
        ({**batch, "tokens": batch["tokens"] + 300}, "outside the vocabulary"),
        ({**batch, "positions": batch["positions"] + 2}, "position"),
    ]
    for given, message in wrong:
        with pytest.raises(InputError, match=message):
            trainer.step(given)
    assert trainer.step_number == 0


def test_training_loads_no_compiler(tiny_config):
    code = (
        "import sys, numpy as np; from griffin_core_torch.trainer import Trainer\n"
        "from griffin_core.config import from_json; from griffin_core.schedules import TrainerOptions\n"
        "from griffin_core.layouts.initialise import init_params; config = from_json(sys.argv[1])\n"
        "trainer = Trainer(config, init_params(config, 0), TrainerOptions(steps=1), threads=1)\n"
        "row = np.arange(4, dtype=np.int32)[None]\n"
        "trainer.step({'tokens': row, 'targets': row, 'positions': row})\n"
        "print([name for name in ('torch._dynamo', 'torch._inductor', 'sympy') if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, tiny_config.to_json()], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
