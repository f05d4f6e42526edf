"""The table of decode states, and what is refused."""

from __future__ import annotations

import pytest

from griffin_core.errors import ConfigError, StateMismatch
from griffin_core.layouts.states import check_state, state_bytes, state_capacity, state_table
from griffin_core.presets import PRESETS

GRIFFIN = PRESETS["griffin-tiny"].config
MQA = PRESETS["mqa-tiny"].config


def shapes(config, batch: int, capacity: int | None = None) -> dict[str, tuple[int, ...]]:
    return {row.name: row.shape for row in state_table(config, batch, capacity)}


def test_names_shapes_and_dtypes() -> None:
    found = shapes(GRIFFIN, 3)
    assert found == {
        "position": (3,),
        **{f"layers.{n}.h": (3, 192) for n in (0, 1, 3, 4)},
        **{f"layers.{n}.conv": (3, 3, 192) for n in (0, 1, 3, 4)},
        **{f"layers.{n}.{kv}": (3, 128, 32) for n in (2, 5) for kv in "kv"},
    }
    dtypes = {row.name.rpartition(".")[2]: row.dtype for row in state_table(GRIFFIN, 3)}
    assert dtypes == {"position": "int32", "h": "float32", "conv": None, "k": None, "v": None}


def test_global_layers_need_a_capacity() -> None:
    assert shapes(MQA, 2, 50)["layers.0.k"] == (2, 50, 32)
    with pytest.raises(ConfigError, match="attends globally; its state needs capacity=N"):
        state_table(MQA, 2)
    for capacity in (0, -1, 2.0, True):
        with pytest.raises(ConfigError, match=r"capacity=.*; expected a positive integer"):
            state_table(MQA, 2, capacity)
    assert state_capacity(MQA, shapes(MQA, 2, 50)) == 50
    assert state_capacity(GRIFFIN, shapes(GRIFFIN, 2)) is None
    assert shapes(GRIFFIN, 2, 50) == shapes(GRIFFIN, 2)


@pytest.mark.parametrize("batch", [0, -1, 1.0, True])
def test_batch_must_be_positive(batch: object) -> None:
    with pytest.raises(ConfigError, match="expected a positive integer"):
        state_table(GRIFFIN, batch)


def test_bytes_agree_with_the_published_state_size() -> None:
    # float32 recurrence, bfloat16 conv and cache, window 2048: 17.24 MB and 26.23 MB a sequence.
    for name, megabytes in (("recurrentgemma-2b", 17.24), ("recurrentgemma-9b", 26.23)):
        config = PRESETS[name].config.replace(attention_window=2048)
        assert round((state_bytes(config, 1, itemsize=2) - 4) / 1e6, 2) == megabytes
    assert state_bytes(GRIFFIN, 4) == 4 * state_bytes(GRIFFIN, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"position": None}, "state has no 'position'"),
        ({"layers.0.h": None}, "state lacks 'layers.0.h'; it belongs to another config"),
        ({"layers.9.h": (2, 192)}, "state has an unknown 'layers.9.h'"),
        ({"layers.0.h": (2, 191)}, r"state 'layers.0.h' is \(2, 191\), expected \(2, 192\)"),
        ({"position": ()}, "without a batch or a cache axis"),
        ({"position": (0,)}, "without a batch or a cache axis"),
    ],
)
def test_check_state_names_the_difference(change: dict, message: str) -> None:
    found = {**shapes(GRIFFIN, 2), **change}
    with pytest.raises(StateMismatch, match=message):
        check_state(GRIFFIN, {name: shape for name, shape in found.items() if shape is not None})


def test_check_state_of_a_global_model() -> None:
    found = shapes(MQA, 2, 50)
    check_state(MQA, found)
    with pytest.raises(StateMismatch, match=r"state 'layers.3.v' is \(2, 49, 32\), expected \(2, 50, 32\)"):
        check_state(MQA, {**found, "layers.3.v": (2, 49, 32)})
    with pytest.raises(StateMismatch, match="without a batch or a cache axis"):
        check_state(MQA, {**found, "layers.0.k": (2,)})
    del found["layers.0.k"]
    with pytest.raises(StateMismatch, match=r"state lacks 'layers\.0\.k'"):
        check_state(MQA, found)
