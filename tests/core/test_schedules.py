"""The learning-rate schedule at its corners, and what the trainer's options refuse."""

from __future__ import annotations

import pytest

from griffin_core.errors import ConfigError
from griffin_core.schedules import TrainerOptions, learning_rate

OPTIONS = TrainerOptions(steps=110, learning_rate=2.0, final_fraction=0.1, warmup=10)


def test_warm_up_is_linear_and_reaches_the_peak() -> None:
    assert learning_rate(0, OPTIONS) == pytest.approx(0.2)
    assert learning_rate(4, OPTIONS) == pytest.approx(1.0)
    assert learning_rate(9, OPTIONS) == 2.0
    assert learning_rate(10, OPTIONS) == 2.0


def test_cosine_middle_and_end() -> None:
    assert learning_rate(60, OPTIONS) == pytest.approx(2.0 * (0.1 + 0.9 / 2))
    assert learning_rate(110, OPTIONS) == pytest.approx(0.2)
    assert learning_rate(1000, OPTIONS) == pytest.approx(0.2)
    rates = [learning_rate(step, OPTIONS) for step in range(10, 111)]
    assert rates == sorted(rates, reverse=True)


def test_no_warm_up_and_warm_up_longer_than_the_run() -> None:
    assert learning_rate(0, TrainerOptions(steps=5, learning_rate=1.0, warmup=0)) == 1.0
    assert learning_rate(4, TrainerOptions(steps=5, learning_rate=1.0, warmup=10)) == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps=0; expected an integer of at least 1"),
        ({"steps": 1.5}, "steps=1.5; expected an integer"),
        ({"warmup": -1}, "warmup=-1; expected an integer of at least 0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0; expected a positive number"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"epsilon": "1"}, "epsilon='1'; expected a positive number"),
        ({"clip_norm": -1.0}, "clip_norm=-1.0; expected a number of at least 0"),
        ({"weight_decay": float("inf")}, "weight_decay=inf"),
        ({"beta2": 1.5}, r"beta2=1.5; expected a number in \[0, 1\]"),
        ({"beta1": True}, "beta1=True"),
        ({"compute_dtype": "float16"}, "compute_dtype='float16'; expected float32 or bfloat16"),
    ],
)
def test_illegal_options(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainerOptions(**{"steps": 5, **changes})
