"""State files: continued exactly, constant in size, and refused when anything about them is wrong."""

from __future__ import annotations

import hashlib
import os
import stat

import numpy as np
import pytest

from griffin_core.errors import CheckpointError, StateMismatch
from griffin_core.generation import state_file
from griffin_core.generation.service import begin, generate
from griffin_core.generation.state_file import load_state, save_state
from griffin_core.generation.tensor_bytes import pack
from griffin_core.sampling import Sampling

SAMPLING = Sampling(temperature=0.9, repetition_penalty=1.3, repetition_window=8, seed=11)


@pytest.fixture
def saved(tiny, tmp_path):
    """A model, its session after a text, and the file it was saved to."""
    model = tiny()
    session = begin(model, "saved", max_new_tokens=6, sampling=SAMPLING, stop_ids=()).finish().session
    path = tmp_path / "a.state"
    save_state(path, session, SAMPLING, model.digest)
    return model, session, path


def test_a_restored_session_continues_as_if_never_interrupted(tiny, backend_name, tmp_path):
    model = tiny(backend_name)
    options = {"sampling": SAMPLING, "stop_ids": ()}
    prompts = ["the first", "and a longer second"]
    whole = generate(model, prompts, max_new_tokens=20, **options)
    run = begin(model, prompts, max_new_tokens=7, **options).finish()
    save_state(tmp_path / "s", run.session, SAMPLING, model.digest)
    restored = load_state(tmp_path / "s")
    assert restored.sampling == SAMPLING
    session = restored.session(model.engine(), model.digest)
    rest = generate(model, None, session=session, max_new_tokens=13, **options)
    for row, record in enumerate(run.results):
        assert record.tokens + rest[row].tokens == whole[row].tokens
        assert record.text + rest[row].text == whole[row].text
    states = [model.module.dump_state(model.config, r.session.state) for r in (rest[0], whole[0])]
    for name, value in states[0].items():
        np.testing.assert_array_equal(value, states[1][name], err_msg=name)


def test_a_state_moves_between_backends(tiny, backend_name, tmp_path):
    for source, target in (("numpy", backend_name), (backend_name, "numpy")):
        model, other = tiny(source), tiny(target)
        session = begin(model, "between", max_new_tokens=4, sampling=SAMPLING, stop_ids=()).finish().session
        save_state(tmp_path / "s", session, SAMPLING, model.digest)
        moved = load_state(tmp_path / "s").session(other.engine(), other.digest)
        assert (moved.histories, moved.positions) == (session.histories, session.positions)
        before = model.module.dump_state(model.config, session.state)
        after = other.module.dump_state(other.config, moved.state)
        for name, value in before.items():
            np.testing.assert_array_equal(after[name], value, err_msg=name)


def test_bfloat16_states_are_kept_to_the_bit(tiny, tmp_path):
    model = tiny(dtype="bfloat16")
    session = begin(model, "half", max_new_tokens=3, stop_ids=()).finish().session
    save_state(tmp_path / "s", session, SAMPLING, model.digest)
    arrays = load_state(tmp_path / "s").arrays
    assert {str(a.dtype) for a in arrays.values()} == {"int32", "float32", "bfloat16"}
    for name, value in model.module.dump_state(model.config, session.state).items():
        assert value.tobytes() == arrays[name].tobytes(), name


def test_size_does_not_depend_on_the_history(tiny, tmp_path):
    sizes = set()
    for length in (1, 5, 70, 1500):
        session = begin(tiny(), [length % 200] * length, max_new_tokens=0).session
        sizes.add(save_state(tmp_path / "s", session, SAMPLING, tiny().digest))
    assert len(sizes) == 1
    assert sizes.pop() == (tmp_path / "s").stat().st_size < 4096


def test_equal_sessions_give_equal_bytes(saved, tmp_path):
    model, session, path = saved
    save_state(tmp_path / "b.state", session, SAMPLING, model.digest)
    assert (tmp_path / "b.state").read_bytes() == path.read_bytes()


def test_the_file_follows_the_umask_and_leaves_nothing_beside_it(saved):
    model, session, path = saved
    old = os.umask(0o027)
    try:
        save_state(path.with_name("c.state"), session, SAMPLING, model.digest)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.with_name("c.state").stat().st_mode) == 0o640
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.state", "c.state"]


def test_a_failed_write_keeps_the_older_file(saved, monkeypatch):
    model, session, path = saved
    before = path.read_bytes()

    def full(target, data):
        target.write_bytes(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state_file, "write_file", full)
    with pytest.raises(CheckpointError, match="no space left"):
        save_state(path, session.feed([[1, 2]]), SAMPLING, model.digest)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["a.state"]


def test_another_config_or_other_weights_are_refused(saved, tiny):
    model, _, path = saved
    other = tiny(logits_soft_cap=30.0)
    assert other.digest == model.digest
    with pytest.raises(StateMismatch, match="another config"):
        load_state(path).session(other.engine(), other.digest)
    other = tiny(seed=1)
    with pytest.raises(StateMismatch, match="other weights"):
        load_state(path).session(other.engine(), other.digest)
    assert load_state(path).session(model.engine(), model.digest).positions == (11,)


def test_every_flipped_bit_is_noticed(saved):
    _, _, path = saved
    data = path.read_bytes()
    places = [*range(0, 1100, 2), *range(1100, len(data), 29)]
    for place in places:
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        with pytest.raises(StateMismatch) as caught:
            load_state(path)
        assert "\n" not in str(caught.value)


def test_every_truncation_and_extension_is_noticed(saved):
    _, _, path = saved
    data = path.read_bytes()
    for damaged in (*(data[:length] for length in range(0, len(data), 13)), data[:-1], data + b"\0", data + data):
        path.write_bytes(damaged)
        with pytest.raises(StateMismatch):
            load_state(path)


def test_foreign_files_are_refused(saved, tmp_path):
    _, _, path = saved
    header = b'{"__metadata__":{"format":"griffin-core decode state","sha256":"' + b"0" * 64 + b'"}}'
    for foreign in (
        b"",
        b"{}",
        b"hello, world",
        bytes(200),
        os.urandom(5000),
        len(header).to_bytes(8, "little") + header,
    ):
        path.write_bytes(foreign)
        with pytest.raises(StateMismatch):
            load_state(path)
    path.write_bytes(pack({"x": np.zeros(3, np.float32)}, {"format": "pt"}))
    with pytest.raises(StateMismatch, match="not a griffin state file"):
        load_state(path)
    with pytest.raises(CheckpointError, match="no such file"):
        load_state(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="is a directory"):
        load_state(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "changes", "message"),
    [
        ({}, {"version": "2"}, "upgrade"),
        ({"tail": None}, {}, "understood"),
        ({"tail": np.ones(3, np.int32)}, {}, "3 rows"),
        ({"tail": np.ones((2, 3), np.int32)}, {}, "2 rows"),
        ({"tail": np.full((1, 3), -1, np.int32)}, {}, "no last token"),
        ({"tail": np.full((1, 3), 999, np.int32)}, {}, "999"),
        ({}, {"sampling": '{"temperature": -1}'}, "temperature"),
        ({}, {"sampling": '{"heat": 1}'}, "understood"),
        ({"layers.0.h": None}, {}, "lacks"),
        ({"position": None}, {}, "no 'position'"),
    ],
)
def test_a_whole_file_with_wrong_content_is_refused(saved, arrays, changes, message):
    model, _, path = saved
    good = load_state(path)
    metadata = {
        "format": state_file.FORMAT,
        "version": state_file.VERSION,
        "config": good.config,
        "weights": good.weights,
        "sampling": "{}",
        "sha256": "0" * 64,
        **changes,
    }
    content = {**good.arrays, "tail": np.ones((1, 3), np.int32), **arrays}
    data = pack({name: value for name, value in content.items() if value is not None}, metadata)
    path.write_bytes(data.replace(b"0" * 64, hashlib.sha256(data).hexdigest().encode(), 1))
    with pytest.raises(StateMismatch, match=message):
        load_state(path).session(model.engine(), model.digest)


def test_targets_that_cannot_be_written_are_refused_early(tmp_path):
    with pytest.raises(CheckpointError, match="is a directory"):
        state_file.check_writable(tmp_path)
    with pytest.raises(CheckpointError, match="no directory"):
        state_file.check_writable(tmp_path / "absent" / "a.state")
    state_file.check_writable(tmp_path / "a.state")
    assert list(tmp_path.iterdir()) == []
