"""The trainer's saved state: it goes on bit for bit, and nothing damaged or foreign is taken."""

import os

import numpy as np
import pytest

from griffin_core.errors import CheckpointError, CheckpointMismatch
from griffin_core.layouts.initialise import init_params
from griffin_core.schedules import TrainerOptions

torch = pytest.importorskip("torch")
trainers = pytest.importorskip("griffin_core_torch.trainer")


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
@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "empty", "link", "pipe"])
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
    victim.unlink()
    if damage == "pipe":
        os.mkfifo(victim)
    elif damage == "link":
        (tmp_path / "elsewhere").write_bytes(content)
        victim.symlink_to(tmp_path / "elsewhere")
    elif damage != "gone":
        victim.write_bytes(content)
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
