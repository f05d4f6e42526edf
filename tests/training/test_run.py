"""Runs as a service: what they leave on disk, interrupts, resuming, fine-tuning, wrong use."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest

from griffin_core import memory
from griffin_core.checkpoints import native
from griffin_core.errors import (
    BackendError,
    CheckpointError,
    CheckpointMismatch,
    ConfigError,
    InputError,
    KernelNotSupported,
    NotEnoughMemory,
    TrainingError,
)
from griffin_core.schedules import TrainerOptions
from griffin_core.text.tokenizer import ByteTokenizer
from griffin_core.training import plots
from griffin_core.training import run as runs
from griffin_core.training import spec as specs
from griffin_core.training.rundir import RunDirectory
from griffin_core.training.spec import TrainSpec, spec_from_dict

pytest.importorskip("griffin_core_torch.trainer")


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch):
    monkeypatch.setattr(plots, "available", lambda: False)  # drawing takes longer than training here


def timeless(metrics):
    return [{k: v for k, v in record.items() if k not in ("seconds", "tokens_per_second")} for record in metrics]


def weights(directory):
    return {name: np.array(array) for name, array in native.read(directory).params.items()}


def same(first, second):
    assert timeless(RunDirectory(first).metrics()) == timeless(RunDirectory(second).metrics())
    one, two = weights(first / "checkpoint"), weights(second / "checkpoint")
    for name, array in one.items():
        np.testing.assert_array_equal(two[name], array, err_msg=name)


def interrupt_at(step):
    """A reporter that asks for a stop, as Ctrl-C does, while that step is reported."""

    class Interrupts:
        def begin(self, *_):
            pass

        note = begin

        def end(self):
            pass

        def step(self, record):
            if record["step"] == step:
                os.kill(os.getpid(), signal.SIGINT)

    return Interrupts()


def test_a_run_leaves_metrics_states_a_checkpoint_and_a_summary(spec, tmp_path, reporter, monkeypatch):
    monkeypatch.setattr(plots, "available", lambda: True)
    spec = replace(spec, eval_every=5)
    outcome = runs.start(tmp_path / "run", spec, ByteTokenizer(), reporter)
    run = RunDirectory(tmp_path / "run")
    assert outcome.step == 12
    assert outcome.summary == run.summary()
    steps = [record for record in run.metrics() if "loss" in record]
    assert [record["step"] for record in steps] == list(range(1, 13))
    assert [record["step"] for record in run.metrics() if "heldout_bits_per_byte_in_rows" in record] == [5, 10]
    assert steps == reporter.records
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert run.steps() == [8, 12]
    checkpoint = native.read(run.checkpoint)
    assert checkpoint.config == spec.config
    assert set(checkpoint.tokenizer_files) == set(ByteTokenizer().files())
    assert checkpoint.manifest.metadata["training"]["steps"] == 12
    summary = outcome.summary
    assert summary["heldout_bits_per_byte"] == summary["heldout"]["bits_per_byte"] > 0
    assert summary["gzip_bits_per_byte"] > 0 < summary["xz_bits_per_byte"]
    assert (run.path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert reporter.notes[-1] == "evaluating the held-out documents"
    assert reporter.began == [0]


def test_the_final_weights_are_those_of_the_last_step(spec, whole):
    run = RunDirectory(whole)
    trainer = runs.make_trainer(spec)
    run.load_state(12, trainer)
    for name, array in weights(run.checkpoint).items():
        np.testing.assert_array_equal(trainer.params()[name], array)


@pytest.mark.parametrize("step", [1, 4, 7, 12])
def test_interrupts_save_and_resuming_changes_no_bit(spec, whole, tmp_path, reporter, step):
    before = signal.getsignal(signal.SIGINT)  # ignored where a shell started the tests in the background
    stopped = runs.start(tmp_path / "cut", spec, ByteTokenizer(), interrupt_at(step))
    if step < 12:
        assert (stopped.step, stopped.summary) == (step, None)
        assert RunDirectory(tmp_path / "cut").steps()[-1] == step
    assert signal.getsignal(signal.SIGINT) is before
    outcome = runs.resume(tmp_path / "cut", reporter)
    assert outcome.summary is not None
    same(whole, tmp_path / "cut")


def test_resuming_a_finished_run_gives_its_figures_again(whole, reporter):
    before = sorted((path, path.stat().st_mtime_ns) for path in whole.rglob("*"))
    outcome = runs.resume(whole, reporter)
    assert (outcome.step, outcome.summary) == (12, RunDirectory(whole).summary())
    assert reporter.began == []
    assert sorted((path, path.stat().st_mtime_ns) for path in whole.rglob("*")) == before


def test_resuming_before_the_first_saved_state_starts_again(spec, whole, tmp_path, reporter):
    run = RunDirectory(tmp_path / "cut")
    run.create(replace(spec, kernel="auto"), runs.load_corpus(spec.text).digest, ByteTokenizer().files())
    run.metrics_file.write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "lo')
    runs.resume(tmp_path / "cut", reporter)
    same(whole, tmp_path / "cut")


def test_a_damaged_state_is_refused_and_an_older_one_serves(spec, whole, tmp_path, reporter):
    runs.start(tmp_path / "cut", spec, ByteTokenizer(), interrupt_at(10))
    run = RunDirectory(tmp_path / "cut")
    assert run.steps() == [8, 10]
    for name in ("data.json", "trainer/weights.safetensors"):
        victim = run.state(10) / name
        content = victim.read_bytes()
        victim.write_bytes(content[:200] + bytes([content[200] ^ 4]) + content[201:])
        with pytest.raises(CheckpointError, match=victim.name):
            runs.resume(run.path, reporter)
        victim.write_bytes(content)
    for path in sorted(run.state(10).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    run.state(10).rmdir()
    runs.resume(run.path, reporter)
    same(whole, tmp_path / "cut")


def test_a_run_that_diverges_stops_and_keeps_its_last_state(spec, tmp_path, reporter):
    wild = TrainerOptions(steps=12, learning_rate=1e37, warmup=0, clip_norm=0.0)
    config = spec.config.replace(logits_soft_cap=None)
    with pytest.raises(TrainingError, match=r"at step \d+, learning rate .* lower --lr"):
        runs.start(
            tmp_path / "run", replace(spec, config=config, options=wild, checkpoint_every=1), ByteTokenizer(), reporter
        )
    run = RunDirectory(tmp_path / "run")
    assert run.summary() is None
    assert not run.checkpoint.exists()
    assert len(run.metrics()) == run.steps()[-1] < 12


def test_fine_tuning_starts_from_the_checkpoint_and_refuses_another(spec, whole, tmp_path, reporter):
    base = whole / "checkpoint"
    start, tokenizer = specs.start_from_checkpoint(base)
    assert isinstance(tokenizer, ByteTokenizer)
    chat = tmp_path / "chat.jsonl"
    lines = [{"prompt": f"<start_of_turn>user {i}\n", "completion": f"the state of {i}"} for i in range(8)]
    chat.write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = replace(spec.options, learning_rate=1e-30, weight_decay=0.0)
    tuned = TrainSpec(**start, options=options, text=(str(chat),), batch=1, length=32, checkpoint_every=0, threads=1)
    assert spec_from_dict(json.loads(json.dumps(tuned.to_dict()))) == tuned
    runs.start(tmp_path / "second", tuned, tokenizer, interrupt_at(2))
    runs.resume(tmp_path / "second", reporter)
    for name, array in weights(base).items():  # a rate of 1e-30 moves nothing: what is left is the start
        np.testing.assert_array_equal(weights(tmp_path / "second" / "checkpoint")[name], array)
    with pytest.raises(CheckpointMismatch, match="has changed"):
        specs.initial_params(replace(tuned, init_digest="0" * 64))


def test_wrong_use_is_refused_and_writes_nothing(spec, tmp_path, reporter, monkeypatch):
    out = tmp_path / "run"
    wrong = [
        (replace(spec, backend="numpy"), BackendError, "numpy backend has no Trainer"),
        (replace(spec, backend="tensorflow"), BackendError, "unknown backend"),
        (replace(spec, kernel="fastest"), KernelNotSupported, "no kernel 'fastest'"),
        (replace(spec, text=(str(tmp_path / "none.txt"),)), InputError, "no file matches"),
    ]
    for given, error, message in wrong:
        with pytest.raises(error, match=message):
            runs.start(out, given, ByteTokenizer(), reporter)
    monkeypatch.setattr(memory, "available", lambda: 1000)
    with pytest.raises(NotEnoughMemory, match="training tiny with batch 2"):
        runs.start(out, spec, ByteTokenizer(), reporter)
    assert not out.exists()
    for field in ("batch", "length", "seed", "threads"):
        with pytest.raises(ConfigError, match=f"{field}=-1"):
            replace(spec, **{field: -1})


def test_directories_in_use_are_refused(spec, tmp_path, reporter):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="is not empty"):
        runs.start(tmp_path / "full", spec, ByteTokenizer(), reporter)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]
    with pytest.raises(InputError, match="holds no training run"):
        runs.resume(tmp_path / "full", reporter)
    runs.start(tmp_path / "run", spec, ByteTokenizer(), interrupt_at(2))
    with pytest.raises(InputError, match="--resume it"):
        runs.start(tmp_path / "run", spec, ByteTokenizer(), reporter)
    run = RunDirectory(tmp_path / "run")
    with run.locked(), pytest.raises(InputError, match="another process"):
        runs.resume(run.path, reporter)


def test_changed_text_is_refused(spec, tmp_path, text_file, reporter):
    copy = tmp_path / "copy.jsonl"
    copy.write_text(text_file.read_text())
    runs.start(tmp_path / "run", replace(spec, text=(str(copy),)), ByteTokenizer(), interrupt_at(2))
    copy.write_text(text_file.read_text() + '{"text": "more"}\n')
    with pytest.raises(InputError, match="text of this run has changed"):
        runs.resume(tmp_path / "run", reporter)


def test_presets_and_tokenizers_must_fit():
    fields = specs.start_from_preset("griffin-tiny", ByteTokenizer())
    assert fields["config"].vocab_size == 264
    with pytest.raises(InputError, match="needs a tokenizer"):
        specs.start_from_preset("griffin-100m", ByteTokenizer())
    with pytest.raises(ConfigError, match="griffin-tiny"):
        specs.start_from_preset("griffin-tinny", ByteTokenizer())
