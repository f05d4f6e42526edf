"""The trainer's saved state: it goes on bit for bit, and nothing damaged or foreign is taken."""

import gc
import json
import os
import threading

import numpy as np
import pytest

from griffin_core.checkpoints import sealed
from griffin_core.errors import CheckpointError, CheckpointMismatch, InputError
from griffin_core.layouts.initialise import init_params
from griffin_core.schedules import TrainerOptions
from griffin_core_jax.checkpoints import KIND
from griffin_core_jax.trainer import Trainer, _step


@pytest.fixture(scope="module")
def trained(config, options, batch_of, tmp_path_factory):
    """A trainer after three steps, and where it was saved then."""
    trainer = Trainer(config, init_params(config, 0), options)
    for seed in range(3):
        trainer.step(batch_of(seed))
    directory = tmp_path_factory.mktemp("jax") / "state"
    trainer.save(directory)
    return trainer, directory


def test_a_restored_trainer_goes_on_bit_for_bit(trained, config, options, batch_of):
    trainer, directory = trained
    before = trainer.params()
    compiled = _step._cache_size()
    other = Trainer(config, init_params(config, 9), options)
    other.restore(directory)
    assert other.step_number == 3
    for name, array in other.params().items():
        np.testing.assert_array_equal(before[name], array)
    trainer.restore(directory)  # whatever steps other tests have taken
    steps = [[each.step(batch_of(seed)) for seed in range(3, 6)] for each in (trainer, other)]
    assert steps[0] == steps[1]
    assert compiled == _step._cache_size()  # restored arrays run the program that is there
    for name, array in trainer.params().items():
        np.testing.assert_array_equal(other.params()[name], array)


def test_saving_again_replaces_and_leaves_nothing_running(trained, config, options, tmp_path):
    fresh = Trainer(config, init_params(config, 1), options)  # one that never took a step
    _, directory = trained
    fresh.save(tmp_path / "state")
    other = Trainer(config, init_params(config, 2), options)
    other.restore(directory)
    other.save(tmp_path / "state")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state"]
    assert [path.name for path in (tmp_path / "state" / "arrays").iterdir()] == ["3"]
    fresh.restore(tmp_path / "state")
    assert fresh.step_number == 3
    gc.collect()  # orbax leaves idle threads to the collector
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(10)
            assert not thread.is_alive(), thread


def test_damaged_states_are_refused_by_file_and_change_nothing(trained, config, options):
    _, directory = trained
    other = Trainer(config, init_params(config, 1), options)
    before = other.params()
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    assert len(files) > 5
    for victim in files:
        content = victim.read_bytes()
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 1
        for damaged in (bytes(flipped), content[: len(content) // 2], b"", None):
            victim.unlink() if damaged is None else victim.write_bytes(damaged)
            with pytest.raises(CheckpointError, match=victim.name):
                other.restore(directory)
            victim.write_bytes(content)
    for key, array in other.params().items():
        np.testing.assert_array_equal(array, before[key])
    other.restore(directory)


def test_a_state_of_another_run_is_refused_by_the_difference(trained, config, options):
    _, directory = trained
    wider = config.replace(mlp_width=40)
    with pytest.raises(CheckpointMismatch, match="mlp_width=32"):
        Trainer(wider, init_params(wider, 0), options).restore(directory)
    faster = TrainerOptions(**{**options.to_dict(), "beta2": 0.5})
    with pytest.raises(CheckpointMismatch, match=r"beta2=0\.95, this trainer has 0\.5"):
        Trainer(config, init_params(config, 0), faster).restore(directory)


def test_backends_refuse_each_others_states(trained, config, options, tmp_path):
    torch = pytest.importorskip("griffin_core_torch.trainer")
    theirs = torch.Trainer(config, init_params(config, 0), options)
    theirs.save(tmp_path / "theirs")
    trainer, directory = trained
    with pytest.raises(CheckpointError, match="expected 'griffin-core jax trainer state 1'"):
        trainer.restore(tmp_path / "theirs")
    with pytest.raises(CheckpointError, match="expected 'griffin-core trainer state 1'"):
        theirs.restore(directory)


def test_a_state_from_before_there_were_optimisers_is_taken(trained, config, options, tmp_path):
    trainer, _ = trained
    trainer.save(tmp_path / "state")
    record = tmp_path / "state" / "trainer.json"
    body = sealed.read_sealed(record, KIND)
    assert body["options"].pop("optimizer") == "adamw"
    sealed.write_sealed(record, KIND, body)
    trainer.restore(tmp_path / "state")
    assert TrainerOptions(**json.loads(json.dumps(body["options"]))) == options


def test_states_that_are_not_finite_or_cannot_be_written_are_refused(config, options, tmp_path, monkeypatch):
    params = init_params(config, 0)
    params["model.final_norm.weight"][2] = np.nan
    with pytest.raises(CheckpointError, match=r"final_norm.* holds NaN"):
        Trainer(config, params, options).save(tmp_path / "state")
    monkeypatch.setattr(os, "fsync", _full_disk)
    with pytest.raises(CheckpointError, match=r"cannot write .*no space left"):
        Trainer(config, init_params(config, 0), options).save(tmp_path / "state")
    assert list(tmp_path.iterdir()) == []


def _full_disk(handle):
    raise OSError(28, "No space left on device")


def test_grains_iterator_is_kept_beside_the_arrays(trained, tmp_path):
    grain = pytest.importorskip("grain")
    trainer, directory = trained
    stream = iter(grain.MapDataset.range(100).shuffle(seed=3).to_iter_dataset())
    _ = [next(stream) for _ in range(7)]
    trainer.save(tmp_path / "state", iterator=stream)
    expected = [next(stream) for _ in range(5)]
    again = iter(grain.MapDataset.range(100).shuffle(seed=3).to_iter_dataset())
    trainer.restore(tmp_path / "state", iterator=again)
    assert [next(again) for _ in range(5)] == expected
    trainer.restore(tmp_path / "state")  # the iterator may be left aside
    with pytest.raises(InputError, match="saved without an iterator"):
        trainer.restore(directory, iterator=again)
