"""A model and texts small enough to train in milliseconds."""

from dataclasses import replace

import numpy as np
import pytest

from griffin_core.config import GriffinConfig
from griffin_core.layouts.initialise import init_params
from griffin_core.presets import BYTE_VOCAB, GRIFFIN_PATTERN
from griffin_core.schedules import TrainerOptions
from griffin_core.text.tokenizer import ByteTokenizer
from griffin_core.training import run as runs
from griffin_core.training.spec import TrainSpec


@pytest.fixture(scope="session")
def tiny_config():
    return GriffinConfig(
        width=16,
        lru_width=24,
        mlp_width=32,
        num_heads=2,
        head_dim=8,
        gate_blocks=2,
        block_pattern=GRIFFIN_PATTERN,
        num_layers=3,
        attention_window=6,
        vocab_size=BYTE_VOCAB,
        logits_soft_cap=30.0,
    )


@pytest.fixture(scope="session")
def options():
    return TrainerOptions(steps=12, learning_rate=1e-2, warmup=3)


@pytest.fixture(scope="session")
def make_batch():
    """Packed rows [3 t] with padding, masked targets and several documents."""

    def make(seed=0, t=20, vocab=BYTE_VOCAB):
        rng = np.random.default_rng(seed)
        tokens = rng.integers(0, vocab, (3, t + 1)).astype(np.int32)
        positions = np.tile(np.arange(t, dtype=np.int32), (3, 1))
        positions[1, 9:] = np.arange(t - 9)
        positions[2, 15:] = -1
        targets = tokens[:, 1:].copy()
        targets[1, 8] = targets[0, 3] = targets[2, 14] = -1
        targets[positions < 0] = -1
        return {"tokens": tokens[:, :-1].copy(), "targets": targets, "positions": positions}

    return make


@pytest.fixture(scope="session")
def text_file(tmp_path_factory):
    """Twenty-odd documents of English-like text as JSONL."""
    words = ["the", "state", "of", "a", "layer", "does", "not", "grow", "with", "text,", "so", "it", "is", "small."]
    rng = np.random.default_rng(1)
    lines = [" ".join(rng.choice(words, int(n))) for n in rng.integers(3, 60, 24)]
    path = tmp_path_factory.mktemp("text") / "corpus.jsonl"
    path.write_text("".join(f'{{"text": "{line}"}}\n' for line in lines))
    return path


@pytest.fixture(scope="session")
def spec(tiny_config, options, text_file):
    return TrainSpec(
        name="tiny",
        config=tiny_config,
        options=options,
        text=(str(text_file),),
        batch=2,
        length=16,
        seed=3,
        checkpoint_every=4,
        backend="torch",
        threads=1,
    )


@pytest.fixture(scope="session")
def jax_spec(spec):
    """The same run on JAX, whose threads a process settles once."""
    pytest.importorskip("griffin_core_jax.trainer")
    return replace(spec, backend="jax", threads=None)


class Quiet:
    """A reporter that keeps what it is told."""

    def __init__(self):
        self.records, self.notes, self.began = [], [], []

    def begin(self, spec, parameters, step):
        self.began.append(step)

    def step(self, record):
        self.records.append(record)

    def note(self, text):
        self.notes.append(text)

    def end(self):
        self.notes.append("end")


@pytest.fixture
def reporter():
    return Quiet()


@pytest.fixture(scope="session")
def whole(spec, tmp_path_factory):
    """The directory of the run that ``spec`` describes, never interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    runs.start(out, spec, ByteTokenizer(), Quiet())
    return out


@pytest.fixture(scope="session")
def jax_whole(jax_spec, tmp_path_factory):
    """The directory of the run that ``jax_spec`` describes, never interrupted."""
    out = tmp_path_factory.mktemp("jax") / "run"
    runs.start(out, jax_spec, ByteTokenizer(), Quiet())
    return out


@pytest.fixture
def lively():
    def lively(config, seed=0):
        """Weights with every kind of parameter away from zero, as float64."""
        rng = np.random.default_rng(seed)
        params = {name: array.astype(np.float64) for name, array in init_params(config, seed).items()}
        return {
            name: array if name.endswith("recurrent_param") else array + 0.1 * rng.standard_normal(array.shape)
            for name, array in params.items()
        }

    return lively


@pytest.fixture
def gradients():
    import torch

    def gradients(trainer, batch):
        count = int((batch["targets"] >= 0).sum())
        loss = trainer._loss(batch, 1.0 / count)
        names = list(trainer._params)
        grads = torch.autograd.grad(loss, [trainer._params[name] for name in names])
        return loss.item(), {name: grad.double().numpy() for name, grad in zip(names, grads, strict=True)}

    return gradients
