"""Evaluation equals a direct computation, on every backend, and does not depend on how it is cut."""

import math

import numpy as np
import pytest

from griffin_core import registry
from griffin_core.errors import InputError
from griffin_core.layouts.initialise import init_params
from griffin_core.model import Model
from griffin_core.reference import model as reference
from griffin_core.shapes import UNIT_ROUNDOFF
from griffin_core.text.files import Document
from griffin_core.text.tokenizer import ByteTokenizer
from griffin_core.training import evaluate as evaluation

BOS, EOS = ByteTokenizer.bos_id, ByteTokenizer.eos_id
TEXTS = ["short", "a longer text é " * 9, "x", "the middle one of four " * 3]


@pytest.fixture
def model(tiny_config, backend_name):
    module = registry.load_backend(backend_name)
    params = module.load_params(tiny_config, init_params(tiny_config, 0), dtype="float32")
    return Model(config=tiny_config, params=params, backend=backend_name, dtype="float32", tokenizer=ByteTokenizer())


def direct(config, params, document):
    """float64 loss of every charged token, the whole document in one reference pass."""
    prompt, text = document.prompt.encode(), document.text.encode()
    row = np.array([[BOS, *prompt, *text, EOS]], np.int32)
    x, _ = reference.hidden(config, params, row[:, :-1], np.arange(row.shape[1] - 1, dtype=np.int32)[None])
    logits = reference.logits(config, params, x)[0]
    peak = logits.max(axis=-1)
    log_z = np.log(np.exp(logits - peak[:, None]).sum(axis=-1)) + peak
    return (log_z - logits[np.arange(len(logits)), row[0, 1:]])[len(prompt) :]


def test_figures_equal_a_direct_computation(model, tiny_config, monkeypatch):
    monkeypatch.setattr(evaluation, "ROWS", 3)
    monkeypatch.setattr(evaluation, "PIECE", 10)
    monkeypatch.setattr(evaluation, "LOGIT_BYTES", 4 * 264 * 3 * 4)
    documents = [Document(f"d{i}", text) for i, text in enumerate(TEXTS)]
    documents.append(Document("p", "the answer", prompt="the question?"))
    params = {name: array.astype(np.float64) for name, array in init_params(tiny_config, 0).items()}
    losses = [direct(tiny_config, params, document) for document in documents]
    found = evaluation.evaluate(model, documents)
    nats = sum(loss.sum() for loss in losses)
    near = 1000 * UNIT_ROUNDOFF["float32"]
    assert found.nats == pytest.approx(nats, rel=near)
    assert found.tokens == sum(map(len, losses)) == sum(len(d.text.encode()) + 1 for d in documents)
    assert found.text_bytes == sum(len(d.text.encode()) for d in documents)
    assert found.documents == 5
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / found.text_bytes, rel=near)
    assert found.perplexity == pytest.approx(math.exp(nats / found.tokens), rel=10 * near)
    spread = [
        (len(d.prompt.encode()) + j, value)
        for d, row in zip(documents, losses, strict=True)
        for j, value in enumerate(row)
    ]
    assert [(row.start, row.stop) for row in found.by_position] == [(0, 16), (16, 32), (32, 64), (64, 128), (128, 256)]
    for row in found.by_position:
        inside = [value for position, value in spread if row.start <= position < row.stop]
        assert row.tokens == len(inside)
        assert row.loss == pytest.approx(np.mean(inside), rel=near)


def test_the_state_is_carried_across_pieces(model, monkeypatch):
    documents = [Document("d", "abcdefgh" * 12)]
    whole = evaluation.evaluate(model, documents)
    monkeypatch.setattr(evaluation, "PIECE", 7)
    cut = evaluation.evaluate(model, documents)
    assert cut.nats == pytest.approx(whole.nats, rel=1000 * UNIT_ROUNDOFF["float32"])


def test_progress_counts_tokens(model):
    seen = []
    evaluation.evaluate(model, [Document("d", "abc")], lambda done, total: seen.append((done, total)))
    assert seen[-1] == (4, 4)


def test_a_model_without_tokenizer_or_with_too_few_ids_is_refused(tiny_config):
    small = tiny_config.replace(vocab_size=200)
    module = registry.load_backend("numpy")
    params = module.load_params(small, init_params(small, 0), dtype="float32")
    fields = {"config": small, "params": params, "backend": "numpy", "dtype": "float32"}
    with pytest.raises(InputError, match="no tokenizer"):
        evaluation.evaluate(Model(**fields), [Document("d", "abc")])
    with pytest.raises(InputError, match="vocabulary of 200"):
        evaluation.evaluate(Model(**fields, tokenizer=ByteTokenizer()), [Document("d", "abc")])
