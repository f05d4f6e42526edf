"""One trainer step against first principles: gradient, AdamW, decay mask, schedule, clipping, saved state."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest

from griffin_core.errors import CheckpointError, CheckpointMismatch, ConfigError, InputError
from griffin_core.layouts.initialise import init_params
from griffin_core.layouts.params import param_table
from griffin_core.reference import model as reference
from griffin_core.schedules import TrainerOptions, learning_rate
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


def lively(config, seed=0):
    """Weights with every kind of parameter away from zero, as float64."""
    rng = np.random.default_rng(seed)
    params = {name: array.astype(np.float64) for name, array in init_params(config, seed).items()}
    return {
        name: array if name.endswith("recurrent_param") else array + 0.1 * rng.standard_normal(array.shape)
        for name, array in params.items()
    }


def gradients(trainer, batch):
    count = int((batch["targets"] >= 0).sum())
    loss = trainer._loss(batch, 1.0 / count)
    names = list(trainer._params)
    grads = torch.autograd.grad(loss, [trainer._params[name] for name in names])
    return loss.item(), {name: grad.double().numpy() for name, grad in zip(names, grads, strict=True)}


@pytest.mark.parametrize("tied", [True, False])
def test_loss_and_gradient_equal_the_float64_reference(tiny_config, options, make_batch, tied):
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


def test_each_parameter_alone_has_the_reference_gradient(tiny_config, options, make_batch):
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


def test_recomputing_activations_changes_no_bit_of_the_gradient(tiny_config, options, make_batch):
    params, batch = lively(tiny_config), make_batch()
    kept = trainers.Trainer(tiny_config, params, options)
    again = trainers.Trainer(
        tiny_config, params, TrainerOptions(**{**options.to_dict(), "checkpoint_activations": True})
    )
    (loss, grads), (other_loss, other_grads) = gradients(kept, batch), gradients(again, batch)
    assert loss == other_loss
    for name in grads:
        np.testing.assert_array_equal(grads[name], other_grads[name], err_msg=name)


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
def test_steps_are_adamw_with_the_tables_decay_and_the_schedule(tiny_config, make_batch, clip_norm):
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


def test_only_the_tables_parameters_decay(tiny_config, make_batch):
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


def test_figures_of_a_step(tiny_config, options, make_batch):
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


def test_bfloat16_products_train_float32_parameters(tiny_config, options, make_batch):
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
def test_a_step_that_is_not_finite_changes_nothing(tiny_config, options, make_batch):
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


def test_a_restored_trainer_goes_on_bit_for_bit(tiny_config, options, make_batch, tmp_path):
    trainer = trainers.Trainer(tiny_config, init_params(tiny_config, 0), options)
    for seed in range(3):
        trainer.step(make_batch(seed))
    trainer.save(tmp_path / "state")
    expected = [trainer.step(make_batch(seed)) for seed in range(3, 7)]
    other = trainers.Trainer(tiny_config, init_params(tiny_config, 9), options)
    other.restore(tmp_path / "state")
    assert other.step_number == 3
    assert [other.step(make_batch(seed)) for seed in range(3, 7)] == expected
    for name, array in trainer.params().items():
        np.testing.assert_array_equal(other.params()[name], array)


def test_a_trainer_that_never_stepped_can_be_saved(tiny_config, options, make_batch, tmp_path):
    trainer = trainers.Trainer(tiny_config, init_params(tiny_config, 0), options)
    trainer.save(tmp_path / "state")
    other = trainers.Trainer(tiny_config, init_params(tiny_config, 1), options)
    other.restore(tmp_path / "state")
    assert other.step(make_batch()) == trainer.step(make_batch())


FILES = ["weights.safetensors", "first_moments.safetensors", "second_moments.safetensors", "trainer.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "empty"])
def test_damaged_states_are_refused_by_file_and_change_nothing(tiny_config, options, tmp_path, name, damage):
    trainer = trainers.Trainer(tiny_config, init_params(tiny_config, 0), options)
    trainer.save(tmp_path / "state")
    victim = tmp_path / "state" / name
    content = bytearray(victim.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    elif damage == "cut":
        del content[-1:]
    elif damage == "empty":
        content.clear()
    victim.unlink() if damage == "gone" else victim.write_bytes(content)
    other = trainers.Trainer(tiny_config, init_params(tiny_config, 1), options)
    before = other.params()
    if damage == "cut" and name == "trainer.json":  # only the final line break is lost
        other.restore(tmp_path / "state")
        return
    with pytest.raises(CheckpointError, match=name):
        other.restore(tmp_path / "state")
    for key, array in other.params().items():
        np.testing.assert_array_equal(array, before[key])


@pytest.mark.prove
def test_any_flipped_bit_is_refused(tiny_config, options, tmp_path):
    trainers.Trainer(tiny_config, init_params(tiny_config, 0), options).save(tmp_path / "state")
    other = trainers.Trainer(tiny_config, init_params(tiny_config, 1), options)
    rng = np.random.default_rng(0)
    for name in FILES:
        victim = tmp_path / "state" / name
        content = victim.read_bytes()
        for place in rng.integers(0, 8 * (len(content) - 1), 100):
            flipped = bytearray(content)
            flipped[place // 8] ^= 1 << (place % 8)
            victim.write_bytes(flipped)
            with pytest.raises(CheckpointError):
                other.restore(tmp_path / "state")
        victim.write_bytes(content)
    other.restore(tmp_path / "state")


def test_a_state_of_another_run_is_refused_by_the_difference(tiny_config, options, tmp_path):
    trainers.Trainer(tiny_config, init_params(tiny_config, 0), options).save(tmp_path / "state")
    wider = tiny_config.replace(mlp_width=40)
    with pytest.raises(CheckpointMismatch, match="mlp_width=32"):
        trainers.Trainer(wider, init_params(wider, 0), options).restore(tmp_path / "state")
    faster = TrainerOptions(**{**options.to_dict(), "learning_rate": 0.5})
    with pytest.raises(CheckpointMismatch, match=r"learning_rate=0\.01"):
        trainers.Trainer(tiny_config, init_params(tiny_config, 0), faster).restore(tmp_path / "state")


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


def test_the_optimiser_is_torchs_own_to_the_bit(tiny_config, options, make_batch):
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
