"""Decoding on the device's own step, its kernels interpreted: the same tokens and states as on the eager step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import griffin_core_torch as backend
from griffin_core.config import GriffinConfig
from griffin_core.errors import KernelNotSupported
from griffin_core.layouts.states import POSITION
from griffin_core.sampling import Sampling, SamplingRows
from griffin_core_torch.decoding import kept
from griffin_core_torch.decoding.device_step import DeviceStep
from griffin_core_torch.triton import loading

Draw = Callable[..., dict[str, Tensor]]

CONFIG = GriffinConfig(
    vocab_size=40,
    width=16,
    lru_width=16,
    mlp_width=24,
    num_layers=3,
    num_heads=2,
    head_dim=8,
    gate_blocks=2,
    attention_window=5,
    block_pattern=("recurrent", "recurrent", "attention"),
)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[DeviceStep]:
    """The device steps that are made."""
    made: list[DeviceStep] = []

    class Counted(DeviceStep):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            made.append(self)

    monkeypatch.setattr(kept, "DeviceStep", Counted)
    monkeypatch.setattr(kept, "_kept", {})
    return made


def state(params: dict[str, Tensor], lengths: list[int]) -> dict[str, Tensor]:
    """Rows that have seen texts of these lengths."""
    longest = max(lengths)
    tokens = torch.arange(len(lengths) * longest).view(len(lengths), longest) % CONFIG.vocab_size
    steps = torch.arange(longest)[None]
    positions = torch.where(steps < torch.tensor(lengths)[:, None], steps, -1).to(torch.int32)
    fresh = backend.init_state(CONFIG, len(lengths), "float32")
    found = backend.forward(CONFIG, params, tokens, positions, fresh, kernel="eager")[1]
    assert found is not None
    return found


def decode(params: dict[str, Tensor], before: dict[str, Tensor], n: int, device: bool, **more: object) -> tuple:
    batch = len(before[POSITION])
    rows = SamplingRows.start(Sampling(temperature=0.8), [[1]] * batch)
    token = torch.arange(1, batch + 1)
    if not device:
        return backend.decode(CONFIG, params, before, token, n, rows, kernel="eager", **more)
    with loading.interpreting():
        return backend.decode(CONFIG, params, before, token, n, rows, kernel="triton", **more)


@pytest.mark.parametrize("lengths", [[3], [1, 7, 12]], ids=["one row", "rows of several lengths"])
def test_tokens_and_states_are_those_of_the_eager_step(steps: list[DeviceStep], draw: Draw, lengths: list[int]) -> None:
    params = draw(CONFIG)
    before = state(params, lengths)
    copies = {name: value.clone() for name, value in before.items()}
    got, expected = decode(params, before, 5, device=True), decode(params, before, 5, device=False)
    assert len(steps) == 1
    assert torch.equal(got[0], expected[0])
    torch.testing.assert_close(got[1], expected[1], rtol=1e-4, atol=1e-5)
    assert got[2].keys() == expected[2].keys()
    for name, value in expected[2].items():
        assert got[2][name].dtype == value.dtype
        torch.testing.assert_close(got[2][name], value, rtol=1e-4, atol=1e-5)
        assert torch.equal(before[name], copies[name]), f"{name} of the caller was written"


def test_rows_that_are_not_active_stand_still(steps: list[DeviceStep], draw: Draw) -> None:
    params = draw(CONFIG)
    before = state(params, [4, 6, 2])
    active = torch.tensor([True, False, True])
    got, expected = (decode(params, before, 3, device=way, active=active) for way in (True, False))
    assert torch.equal(got[0], expected[0])
    for name, value in before.items():
        assert torch.equal(got[2][name][1], value[1])
        torch.testing.assert_close(got[2][name], expected[2][name], rtol=1e-4, atol=1e-5)


def test_a_fresh_state_starts_at_position_zero(steps: list[DeviceStep], draw: Draw) -> None:
    params = draw(CONFIG)
    before = backend.init_state(CONFIG, 2, "float32")
    got, expected = (decode(params, before, 4, device=way) for way in (True, False))
    assert len(steps) == 1
    assert torch.equal(got[0], expected[0])


def test_a_step_is_used_again_for_the_same_weights_alone(steps: list[DeviceStep], draw: Draw) -> None:
    params = draw(CONFIG)
    first = decode(params, state(params, [4]), 2, device=True)
    whole = decode(params, state(params, [4]), 2, device=True)
    assert len(steps) == 1
    assert torch.equal(first[0], whole[0])
    other = draw(CONFIG, seed=1)
    decode(other, state(other, [4]), 2, device=True)
    assert len(steps) == 2
    decode(params, state(params, [4, 2]), 2, device=True)
    assert len(steps) == 3
    assert all(step.params == {} for step in steps), "a step that is kept keeps weights alive"


def test_sixteen_bits(steps: list[DeviceStep], draw: Draw) -> None:
    params = {n: v if n.endswith("recurrent_param") else v.bfloat16() for n, v in draw(CONFIG).items()}
    before = {
        n: v if n in (POSITION,) or n.endswith(".h") else v.bfloat16() for n, v in state(draw(CONFIG), [4, 6]).items()
    }
    got, expected = (decode(params, before, 2, device=way) for way in (True, False))
    for name, value in expected[2].items():
        assert got[2][name].dtype == value.dtype
        torch.testing.assert_close(got[2][name].float(), value.float(), rtol=0.1, atol=0.1)


def test_a_named_kernel_is_not_replaced(draw: Draw) -> None:
    params = draw(CONFIG)
    before = state(params, [3])
    rows = SamplingRows.start(Sampling(temperature=0.0), [[1]])
    with pytest.raises(KernelNotSupported, match="it needs a GPU, and the arrays are on cpu"):
        backend.decode(CONFIG, params, before, torch.tensor([1]), 2, rows, kernel="triton")
