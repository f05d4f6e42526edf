"""Training through Keras is the training of the other backends: optimiser, loss curve, resumed runs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import griffin_core_keras as backend
from griffin_core import registry
from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointError, CheckpointMismatch, ConfigError, InputError
from griffin_core.schedules import TrainerOptions, learning_rate
from griffin_core.shapes import Array
from griffin_core_keras import variables

to_numpy = backend.to_numpy
STEPS = 50


def batches(config: GriffinConfig, count: int, seed: int = 0) -> Iterator[dict[str, Array]]:
    """Packed rows with padding at their ends, of a text that can be learned."""
    rng = np.random.default_rng(seed)
    positions = np.tile(np.concatenate([np.arange(14), np.arange(10)]), (3, 1)).astype(np.int32)
    for _ in range(count):
        text = rng.integers(0, 3, (3, 25)).cumsum(axis=1) % config.vocab_size
        targets, where = text[:, 1:].astype(np.int32), positions.copy()
        targets[:, 13] = -1
        where[1, 18:], targets[1, 18:] = -1, -1
        yield {"tokens": text[:, :-1].astype(np.int32), "targets": targets, "positions": where}


class Stream:
    """The same batches as an endless, resumable stream."""

    def __init__(self, config: GriffinConfig) -> None:
        self.given, self.at = list(batches(config, 12)), 0

    def __next__(self) -> dict[str, Array]:
        self.at += 1
        return self.given[(self.at - 1) % len(self.given)]

    def get_state(self) -> dict[str, Any]:
        return {"at": self.at}

    def set_state(self, state: dict[str, Any]) -> None:
        self.at = state["at"]


def fitted(config: GriffinConfig, weights: dict[str, Array], options: TrainerOptions) -> Any:
    model = backend.GriffinCausalLM(config, init=None)
    variables.assign(model, weights.items())
    model.compile(backend.AdamW.from_options(options))
    return model


def test_the_loss_curve_is_that_of_the_pytorch_trainer(config: GriffinConfig, weights: Callable[..., Any]) -> None:
    pytest.importorskip("torch")
    options = TrainerOptions(steps=STEPS, warmup=5, learning_rate=1e-2)
    trainer = registry.load_backend("torch").Trainer(config, weights(config), options)
    model = fitted(config, weights(config), options)
    losses = []
    for batch in batches(config, STEPS):
        expected = trainer.step(batch)
        inputs = {"tokens": batch["tokens"], "positions": batch["positions"]}
        found = model.fit(inputs, batch["targets"], batch_size=3, verbose=0).history["loss"][0]
        losses.append((found, expected["loss"]))
        norm = float(to_numpy(model.optimizer.grad_norm.value))
        assert norm == pytest.approx(expected["grad_norm"], rel=1e-3)
    apart = [abs(found - expected) / expected for found, expected in losses]
    assert max(apart[:10]) <= 1e-4
    assert apart[-1] <= 1e-3
    assert losses[-1][0] < 0.8 * losses[0][0]


def test_the_first_update_is_in_the_form_of_the_spec(config: GriffinConfig, weights: Callable[..., Any]) -> None:
    options = TrainerOptions(steps=10, warmup=0, learning_rate=1e-2, clip_norm=0.0, epsilon=1e-2)
    model = fitted(config, weights(config), options)
    model.optimizer.build(model.trainable_variables)
    before = [to_numpy(variable.value) for variable in model.trainable_variables]
    grads = [backend.from_numpy(np.full(variable.shape, 1e-3, np.float32)) for variable in model.trainable_variables]
    model.optimizer.apply(grads, model.trainable_variables)
    decays = variables.decayed(config)
    step = 1e-3 / (1e-3 + 1e-2)  # m_hat / (sqrt(v_hat) + epsilon)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        moved = old - 1e-2 * (step + (0.1 * old if variable.path in decays else 0.0))
        np.testing.assert_allclose(to_numpy(variable.value), moved, rtol=1e-5, atol=1e-7)


def test_the_schedule_is_the_librarys() -> None:
    options = TrainerOptions(steps=40, warmup=7, learning_rate=3e-3, final_fraction=0.2)
    schedule = backend.AdamW.from_options(options)._learning_rate
    for step in range(45):
        assert float(to_numpy(schedule(step))) == pytest.approx(learning_rate(step, options), rel=1e-5)
    assert type(schedule).from_config(schedule.get_config()).get_config() == schedule.get_config()


def test_a_step_that_is_not_finite_changes_nothing(config: GriffinConfig, weights: Callable[..., Any]) -> None:
    model = fitted(config, weights(config), TrainerOptions(steps=10))
    model.optimizer.build(model.trainable_variables)
    before = variables.dump(model)
    grads = [backend.from_numpy(np.zeros(variable.shape, np.float32)) for variable in model.trainable_variables]
    grads[3] = grads[3] + float("nan")
    model.optimizer.apply(grads, model.trainable_variables)
    after = variables.dump(model)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert float(to_numpy(model.optimizer.updates.value)) == 0.0


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_a_restored_trainer_goes_on_to_the_bit(
    compute: str, config: GriffinConfig, weights: Callable[..., Any], tmp_path: Path
) -> None:
    options = TrainerOptions(steps=8, warmup=2, compute_dtype=compute)
    given = list(batches(config, 8))
    trainer = backend.Trainer(config, weights(config), options)
    for batch in given[:4]:
        trainer.step(batch)
    trainer.save(tmp_path / "state")
    other = backend.Trainer(config, weights(config, seed=1), options)
    other.restore(tmp_path / "state")
    for batch in given[4:]:
        assert trainer.step(batch) == other.step(batch)
    assert all(np.array_equal(trainer.params()[name], value) for name, value in other.params().items())
    total, count = trainer.evaluate(given[0])
    assert count == int((given[0]["targets"] >= 0).sum())
    assert total / count < 5


def test_recomputed_activations_give_the_same_steps(config: GriffinConfig, weights: Callable[..., Any]) -> None:
    found = []
    for again in (False, True):
        trainer = backend.Trainer(config, weights(config), TrainerOptions(steps=3, checkpoint_activations=again))
        found.append([trainer.step(batch)["loss"] for batch in batches(config, 3)])
    assert found[0] == pytest.approx(found[1], rel=1e-6)


@pytest.mark.parametrize("rank", [0, 2])
def test_a_fit_that_is_cut_off_goes_on(
    rank: int, config: GriffinConfig, weights: Callable[..., Any], tmp_path: Path
) -> None:
    options = TrainerOptions(steps=12, warmup=2, learning_rate=1e-2)

    def made() -> Any:
        model = fitted(config, weights(config), options)
        if rank:
            model.enable_lora(rank)
            model.compile(backend.AdamW.from_options(options))
        return model

    def run(model: Any, directory: Path, epochs: int) -> list[float]:
        feed = backend.FitBatches(Stream(config))
        saving = backend.SaveAndResume(directory, feed)
        begin = saving.restore(model)
        how: dict[str, Any] = {"steps_per_epoch": 3, "epochs": epochs, "initial_epoch": begin}
        return model.fit(feed.stream(), callbacks=[saving], shuffle=False, verbose=0, **how).history["loss"]  # type: ignore[no-any-return]

    if rank:  # adapters begin with draws: the two runs begin with the same
        start = made()
        start.optimizer.build(start.trainable_variables)
        values = [to_numpy(variable.value) for variable in start.variables]
        plain = made

        def made() -> Any:
            model = plain()
            for variable, value in zip(model.variables, values, strict=True):
                variable.assign(backend.from_numpy(value))
            return model

    whole = made()
    losses = run(whole, tmp_path / "whole", 4)
    first = run(made(), tmp_path / "parts", 2)
    again = made()
    assert first + run(again, tmp_path / "parts", 4) == losses
    for one, other in zip(whole.variables, again.variables, strict=True):
        np.testing.assert_array_equal(to_numpy(one.value), to_numpy(other.value))


def test_a_damaged_or_other_saved_fit_is_refused(
    config: GriffinConfig, weights: Callable[..., Any], tmp_path: Path
) -> None:
    model = fitted(config, weights(config), TrainerOptions(steps=4))
    saving = backend.SaveAndResume(tmp_path / "fit")
    batch = next(batches(config, 1))
    inputs = {"tokens": batch["tokens"], "positions": batch["positions"]}
    model.fit(inputs, batch["targets"], batch_size=3, verbose=0, callbacks=[saving])
    assert saving.restore(model) == 1
    other = fitted(config, weights(config), TrainerOptions(steps=4))
    other.enable_lora(2)
    other.compile(backend.AdamW(1e-3))
    with pytest.raises(CheckpointMismatch, match="saved from another variables: "):
        saving.restore(other)
    with pytest.raises(CheckpointMismatch, match="was saved without a feed"):
        backend.SaveAndResume(tmp_path / "fit", backend.FitBatches(Stream(config))).restore(model)
    path = tmp_path / "fit" / "variables.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="does not match its SHA-256"):
        saving.restore(model)
    record = tmp_path / "fit" / "fit.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "epochs": 5}))
    with pytest.raises(CheckpointError, match="does not match its own hash"):
        saving.restore(model)


def test_text_is_sampled_while_it_learns() -> None:
    model = backend.GriffinCausalLM.from_preset("griffin-tiny")
    model.compile(backend.AdamW(1e-3))
    out = io.StringIO()
    sampling = backend.SampleText("ab", every=2, max_new_tokens=4, to=out, temperature=0.0)
    ids = np.arange(20, dtype=np.int32)[None] + 60
    model.fit(ids, ids, epochs=2, verbose=0, callbacks=[sampling])
    assert out.getvalue().startswith("epoch 2: ab")


def test_wrong_use(config: GriffinConfig, weights: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="has no optimizer 'schedule-free'"):
        backend.Trainer(config, weights(config), TrainerOptions(steps=3, optimizer="schedule-free"))
    trainer = backend.Trainer(config, weights(config), TrainerOptions(steps=3))
    batch = next(batches(config, 1))
    with pytest.raises(InputError, match="no position of the batch has a target"):
        trainer.step({**batch, "targets": np.full_like(batch["targets"], -1)})
    with pytest.raises(InputError, match="expected ids"):
        trainer.step({**batch, "targets": batch["targets"] + 1000})
    with pytest.raises(InputError, match=r"is not known; known are 0\.\.0"):
        backend.FitBatches(Stream(config)).place_after(2)
