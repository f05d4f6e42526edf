"""The native form: which layers are stacked, weights that survive the way there and back, views without copies."""

from __future__ import annotations

import gc

import jax
import numpy as np
import pytest

import griffin_core_jax as backend
from griffin_core import presets
from griffin_core.errors import BackendError, CheckpointMismatch, ConfigError, InputError
from griffin_core.layouts.params import param_table
from griffin_core_jax.decoding import views
from griffin_core_jax.layout import Segment, each_layer, find_place, layer_rows, segments, stacked_axes, tree

R, A = "recurrent", "attention"


@pytest.mark.parametrize(
    ("pattern", "layers", "expected"),
    [
        ((R, R, A), 26, (Segment((R, R, A), 0, 8), Segment((R,), 24, 2))),
        ((R, R, A), 38, (Segment((R, R, A), 0, 12), Segment((R,), 36, 2))),
        ((R, R, A), 2, (Segment((R,), 0, 2),)),
        ((R, A), 5, (Segment((R, A), 0, 2), Segment((R,), 4, 1))),
        ((R,), 12, (Segment((R,), 0, 12),)),
        ((R, A, R, A), 5, (Segment((R, A), 0, 2), Segment((R,), 4, 1))),
        ((A, R, R, A, A), 3, (Segment((A,), 0, 1), Segment((R,), 1, 2))),
    ],
)
def test_segments(pattern: tuple[str, ...], layers: int, expected: tuple[Segment, ...]) -> None:
    config = presets.preset("griffin-tiny").config.replace(block_pattern=list(pattern), num_layers=layers)
    found = segments(config)
    assert found == expected
    kinds = {layer: kind for s in found for place, kind in enumerate(s.kinds) for layer in s.layers(place)}
    assert tuple(kinds[layer] for layer in range(layers)) == config.layer_kinds


def test_every_parameter_has_its_place(config, params) -> None:
    axes = tree(config, lambda specs, row: stacked_axes(specs[0], row))
    assert jax.tree.structure(axes, is_leaf=lambda leaf: isinstance(leaf, tuple) and isinstance(leaf[0], str)) == (
        jax.tree.structure(params)
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == sum(row.size for row in param_table(config))
    for layer, kind in enumerate(config.layer_kinds):
        segment, place, number = find_place(params["segments"], layer)
        assert segments(config)[segment].kinds[place] == kind
        assert segments(config)[segment].layers(place)[number] == layer
    with pytest.raises(IndexError, match="layer 5"):
        find_place(params["segments"], 5)


def test_dense_weights_are_in_out(config, params, drawn) -> None:
    canonical, layers = drawn(config), each_layer(config, params["segments"])
    assert list(layers) == list(range(5))
    kernel = layers[4]["gate_proj.kernel"]
    assert kernel.shape == (config.width, config.mlp_width)
    assert (canonical["model.layers.4.mlp_block.gate_proj.weight"] == np.asarray(kernel).T).all()
    names = {row.name: row.transposed for row in layer_rows(config, 2)}
    assert names["q_proj.kernel"]
    assert not names["channel_norm"]


@pytest.mark.parametrize("dtype", [None, "bfloat16", "float16"])
def test_weights_return_as_they_came(config, drawn, dtype: str | None) -> None:
    canonical = drawn(config)
    found = backend.dump_params(config, backend.load_params(config, canonical, dtype))
    assert list(found) == [row.name for row in param_table(config)]
    for row in param_table(config):
        kept = np.float32 if row.float32 or dtype is None else found[row.name].dtype
        assert found[row.name].dtype.name == ("float32" if row.float32 else dtype or "float32")
        assert (found[row.name] == canonical[row.name].astype(kept)).all()


def test_refusals(config, params, drawn) -> None:
    with pytest.raises(CheckpointMismatch, match=r"missing: model\.final_norm\.weight"):
        backend.load_params(config, {n: v for n, v in drawn(config).items() if "final_norm" not in n})
    with pytest.raises(CheckpointMismatch, match="as load_params makes it"):
        backend.dump_params(config, {"embedding": params["embedding"]})
    with pytest.raises(ConfigError, match="jax_enable_x64"):
        backend.from_numpy(np.zeros(3))
    with pytest.raises(ConfigError, match="unknown dtype 'float99'"):
        backend.from_numpy(np.zeros(3, np.float32), "float99")
    with pytest.raises(InputError, match="do not fit into 32 bits"):
        backend.from_numpy(np.array([2**40]))
    with pytest.raises(BackendError, match="no device 'tpu:9'"):
        backend.from_numpy(np.zeros(3, np.float32), device="tpu:9")


def test_arrays_are_copies(rng) -> None:
    given = rng.normal(size=(64, 64)).astype(np.float32)
    native = backend.from_numpy(given)
    given[:] = 0.0
    assert np.asarray(native).any()
    out = backend.to_numpy(native)
    out[:] = 0.0
    assert np.asarray(native).any()
    assert backend.from_numpy(np.arange(3)).dtype == np.int32


def test_views_share_the_memory_and_go_with_the_weights(config, drawn) -> None:
    params = backend.load_params(config, drawn(config, seed=3))
    before = len(views._views)
    layers = views.layer_weights(config, params)
    assert views.layer_weights(config, params)[0]["conv_bias"] is layers[0]["conv_bias"]
    for layer, arrays in each_layer(config, params["segments"]).items():
        assert sorted(arrays) == sorted(layers[layer])
        assert all((np.asarray(arrays[name]) == np.asarray(layers[layer][name])).all() for name in arrays)
    stack = params["segments"][0][0]["gate_proj.kernel"]
    own = layers[0]["gate_proj.kernel"]
    assert own.unsafe_buffer_pointer() == stack.unsafe_buffer_pointer()
    kept = np.asarray(own).copy()
    del params, stack, arrays
    gc.collect()
    assert len(views._views) == before
    assert (np.asarray(own) == kept).all()


def test_states_return_as_they_came(config) -> None:
    rng = np.random.default_rng(0)
    state = backend.dump_state(config, backend.init_state(config, 3))
    filled = {n: rng.normal(size=v.shape).astype(v.dtype) for n, v in state.items()}
    filled["position"] = np.array([9, 7, 20], np.int32)
    native = backend.load_state(config, filled)
    found = backend.dump_state(config, native)
    assert list(found) == list(filled)
    assert all((found[name] == filled[name]).all() for name in filled)
    swapped = backend.dump_state(config, backend.put(native, [0, 2], backend.take(native, [2, 0])))
    assert all((swapped[name] == filled[name][[2, 1, 0]]).all() for name in filled)
