"""Each layer alone: values, masks with holes, states, symbolic calls, files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import griffin_core_keras as backend
from griffin_core import registry
from griffin_core.config import GriffinConfig
from griffin_core.errors import ConfigError
from griffin_core.shapes import Array

B, T, M = 2, 9, 16
to_numpy = backend.to_numpy


def makers(config: GriffinConfig) -> dict[str, Callable[[], Any]]:
    return {
        "RMSNorm": lambda: backend.RMSNorm(),
        "CausalConv1D": lambda: backend.CausalConv1D(4, seed=3),
        "RGLRU": lambda: backend.RGLRU(4, seed=3),
        "RecurrentBlock": lambda: backend.RecurrentBlock(24, 4, seed=3),
        "LocalAttention": lambda: backend.LocalAttention(2, 8, 5, seed=3),
        "GatedMLP": lambda: backend.GatedMLP(32, seed=3),
        "ResidualBlock-recurrent": lambda: backend.ResidualBlock(config, "recurrent", seed=3),
        "ResidualBlock-attention": lambda: backend.ResidualBlock(config.to_dict(), "attention", seed=3),
    }


NAMES = list(makers(None))  # type: ignore[arg-type]
MIXING = [name for name in NAMES if name not in ("RMSNorm", "GatedMLP")]


@pytest.fixture
def x(rng: np.random.Generator) -> Array:
    return rng.normal(size=(B, T, M)).astype(np.float32)


def close(found: Any, expected: Any, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(to_numpy(found), to_numpy(expected), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", MIXING)
def test_a_mask_with_holes_gives_the_answer_of_none(
    name: str, config: GriffinConfig, x: Array, rng: np.random.Generator
) -> None:
    layer = makers(config)[name]()
    mask = rng.random((B, T)) < 0.6
    mask[0] = [False, True, False, True, True, False, True, False, True]
    y = to_numpy(layer(x, mask=mask))
    for row in range(B):
        alone = to_numpy(layer(x[row : row + 1, mask[row]]))
        np.testing.assert_allclose(y[row, mask[row]], alone[0], rtol=2e-5, atol=2e-5)
        assert not y[row, ~mask[row]].any()


@pytest.mark.parametrize("name", MIXING)
def test_a_state_continues_the_text(name: str, config: GriffinConfig, x: Array) -> None:
    layer = makers(config)[name]()
    whole = layer(x)
    first, state = layer(x[:, :4], state=layer.init_state(B))
    second, state = layer(x[:, 4:5], state=state)
    third, _ = layer(x[:, 5:], state=state, mask=np.ones((B, T - 5), bool))
    close(keras.ops.concatenate([first, second, third], axis=1), whole)


@pytest.mark.parametrize("name", MIXING)
def test_documents_do_not_see_each_other(name: str, config: GriffinConfig, x: Array) -> None:
    layer = makers(config)[name]()
    positions = np.array([[0, 1, 2, 3, 0, 1, 2, 3, 4], [-1, 0, 1, -1, 0, 1, 2, -1, 3]], np.int32)
    y = to_numpy(layer(x, positions=positions))
    np.testing.assert_allclose(y[0, 4:], to_numpy(layer(x[:1, 4:]))[0], rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(y[1, [4, 5, 6, 8]], to_numpy(layer(x[1:, [4, 5, 6, 8]]))[0], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_functional_api(name: str, config: GriffinConfig, x: Array, tmp_path: Path) -> None:
    inputs = keras.Input((None, M))
    layer = makers(config)[name]()
    model = keras.Model(inputs, layer(inputs))
    assert model.output_shape == (None, None, M)
    assert layer.compute_output_shape((None, 7, M)) == (None, 7, M)
    close(model(x), layer(x))
    path = tmp_path / "model.keras"
    model.save(path)
    again = keras.models.load_model(path)
    np.testing.assert_array_equal(to_numpy(again(x)), to_numpy(model(x)))
    assert type(again.layers[-1]).from_config(again.layers[-1].get_config()).get_config() == layer.get_config()


def test_states_are_symbolic_too(config: GriffinConfig) -> None:
    layer = backend.RecurrentBlock(24, 4)
    x, h, conv = keras.Input((None, M)), keras.Input((24,)), keras.Input((3, 24))
    position = keras.Input((), dtype="int32")
    y, state = layer(x, state={"h": h, "conv": conv, "position": position})
    model = keras.Model([x, h, conv, position], [y, state["h"], state["conv"]])
    assert [tuple(shape) for shape in model.output_shape] == [(None, None, M), (None, 24), (None, 3, 24)]


def test_masks_travel_from_keras_layers(x: Array) -> None:
    ids = np.array([[3, 0, 1, 2, 0, 1, 0, 0, 2], [1, 2, 3, 1, 0, 0, 0, 0, 0]])
    embed, block = keras.layers.Embedding(4, M, mask_zero=True), backend.RecurrentBlock(24, 4)
    y = to_numpy(block(embed(ids)))
    assert not y[ids == 0].any()
    alone = to_numpy(block(embed(ids)[1:, :4]))
    np.testing.assert_allclose(y[1, :4], alone[0], rtol=2e-5, atol=2e-5)


def test_values_are_those_of_the_reference(x: Array) -> None:
    layer = backend.RGLRU(4, seed=5)
    layer.build(x.shape)
    numpy = registry.load_backend("numpy")
    params = {name: to_numpy(value) for name, value in layer.params().items()}
    expected, _ = numpy.rg_lru(x, params)
    np.testing.assert_allclose(to_numpy(layer(x)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16", "float16"])
def test_policies(policy: str, x: Array) -> None:
    block = backend.RecurrentBlock(24, 4, dtype=policy)
    y, state = block(x, state=(block.build(x.shape), block.init_state(B))[1])
    narrow = "float16" if policy == "float16" else "bfloat16"
    assert backend.engine.dtype_name(y) == narrow
    assert backend.engine.dtype_name(state["h"]) == "float32"
    assert backend.engine.dtype_name(state["conv"]) == narrow
    assert keras.backend.standardize_dtype(block.rg_lru.recurrent_param.dtype) == "float32"
    kernel = keras.backend.standardize_dtype(block.linear_x._kernel.dtype)
    assert kernel == ("float32" if policy == "mixed_bfloat16" else narrow)
    wide = backend.RecurrentBlock(24, 4)
    wide.build(x.shape)
    for variable, value in zip(wide.variables, block.variables, strict=True):
        variable.assign(keras.ops.cast(value, variable.dtype))
    np.testing.assert_allclose(to_numpy(y).astype(np.float32), to_numpy(wide(x)), rtol=0.1, atol=0.05)


def test_wrong_use(config: GriffinConfig, x: Array) -> None:
    with pytest.raises(ConfigError, match="gate_blocks=5 does not divide the width 16"):
        backend.RGLRU(5)(x)
    with pytest.raises(ConfigError, match="kind='mlp'; expected 'recurrent' or 'attention'"):
        backend.ResidualBlock(config, "mlp")
    layer = backend.LocalAttention(2, 8)
    with pytest.raises(ConfigError, match="needs capacity=N"):
        layer.init_state(2)
