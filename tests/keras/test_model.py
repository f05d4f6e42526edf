"""The model as Keras users own it: calls, fit, files, adapters, quantisation."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import griffin_core as griffin
import griffin_core_keras as backend
from griffin_core import env
from griffin_core.checkpoints import native
from griffin_core.checkpoints.opening import open_checkpoint
from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointMismatch, ConfigError, InputError, RandomWeightsWarning
from griffin_core.layouts.initialise import init_params
from griffin_core.shapes import DTYPES, Array
from griffin_core_keras import variables

to_numpy = backend.to_numpy


def values(x: Any) -> Array:
    return x if isinstance(x, np.ndarray) else to_numpy(x)


def close(found: Any, expected: Any, tolerance: float = 3e-5) -> None:
    np.testing.assert_allclose(values(found), values(expected), rtol=tolerance, atol=tolerance)


def test_a_call_is_the_backends_forward(model: Any, tokens: Array) -> None:
    params = variables.tensors(model)
    expected, _ = backend.forward(model.config, params, backend.from_numpy(tokens))
    close(model(tokens), expected)
    inputs = keras.Input((None,), dtype="int32")
    functional = keras.Model(inputs, model(inputs))
    assert functional.output_shape == (None, None, model.config.vocab_size)
    np.testing.assert_allclose(functional.predict(tokens, verbose=0), to_numpy(expected), rtol=3e-5, atol=3e-5)


def test_masks_positions_and_states(model: Any, tokens: Array, rng: np.random.Generator) -> None:
    mask = rng.random(tokens.shape) < 0.6
    y = to_numpy(model(tokens, mask=mask))
    for row in range(len(tokens)):
        close(y[row, mask[row]], model(tokens[row : row + 1, mask[row]])[0])
    positions = np.where(mask, np.cumsum(mask, axis=1) - 1, -1).astype(np.int32)
    np.testing.assert_array_equal(to_numpy(model({"tokens": tokens, "positions": positions})), y)
    np.testing.assert_array_equal(to_numpy(model({"tokens": tokens}, mask=mask)), y)
    np.testing.assert_array_equal(to_numpy(model({"tokens": tokens, "positions": positions}, mask=mask)), y)
    first, state = model(tokens[:, :4], state=model.init_state(len(tokens)))
    second, state = model(tokens[:, 4:], state=state)
    close(keras.ops.concatenate([first, second], axis=1), model(tokens))
    assert to_numpy(state["position"]).tolist() == [tokens.shape[1]] * len(tokens)


def test_initial_weights_are_those_of_every_backend(config: GriffinConfig) -> None:
    found = variables.dump(backend.GriffinCausalLM(config, seed=3, init="released"))
    expected = init_params(config, 3, "released")
    assert all((found[name] == expected[name]).all() for name in expected)
    names = [variable.path for variable in backend.GriffinCausalLM(config).trainable_variables]
    assert "layer_0/temporal_block/linear_x/kernel" in names


def test_fit_and_evaluate(model: Any, tokens: Array) -> None:
    targets = np.roll(tokens, -1, axis=1)
    targets[:, -1] = -1
    model.compile(backend.AdamW(1e-2))
    before = model.evaluate(tokens, targets, verbose=0, batch_size=3)
    logits = to_numpy(model(tokens))[:, :-1].astype(np.float64)
    each = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, targets[:, :-1, None], -1)[..., 0]
    assert before == pytest.approx(each.mean(), rel=1e-5)
    history = model.fit(tokens, targets, epochs=8, batch_size=3, verbose=0).history["loss"]
    assert history[0] == pytest.approx(before, rel=1e-5)
    assert history[-1] < 0.7 * history[0]


def test_weights_of_samples_and_losses_and_metrics_of_the_user(model: Any, tokens: Array) -> None:
    targets = np.roll(tokens, -1, axis=1)
    weight = np.array([1.0, 0.0, 0.5], np.float32)
    model.compile(backend.AdamW(1e-3))
    first, third = (model.evaluate(tokens[[r]], targets[[r]], verbose=0) for r in (0, 2))
    found = model.evaluate(tokens, targets, sample_weight=weight, verbose=0, batch_size=3)
    assert found == pytest.approx((first + 0.5 * third) / 1.5, rel=1e-5)
    plain = model.evaluate(tokens, targets, verbose=0, batch_size=3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(backend.AdamW(1e-3), loss=loss, metrics=["sparse_categorical_accuracy"])
    assert model.evaluate(tokens, targets, verbose=0, batch_size=3)[0] == pytest.approx(plain, rel=1e-5)
    model.compile(backend.AdamW(1e-3), metrics=["sparse_categorical_accuracy"])
    assert model.evaluate(tokens, targets, verbose=0, batch_size=3)[0] == pytest.approx(plain, rel=1e-5)


def test_remat_changes_memory_only(config: GriffinConfig, weights: Callable[..., Any], tokens: Array) -> None:
    losses = []
    for remat in (False, True):
        model = backend.GriffinCausalLM(config, init=None, remat=remat)
        variables.assign(model, weights(config).items())
        model.compile(backend.AdamW(1e-2))
        losses.append(model.fit(tokens, tokens, epochs=2, batch_size=3, verbose=0).history["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_files(name: str, model: Any, tokens: Array, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith(".keras"):
        model.compile(backend.AdamW(1e-2))
        model.fit(tokens, tokens, epochs=1, batch_size=3, verbose=0)
        model.save(path)
        again = keras.models.load_model(path)
        assert again.trained
        assert again.optimizer.get_config() == model.optimizer.get_config()
        for one, other in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
            np.testing.assert_array_equal(to_numpy(one.value), to_numpy(other.value))
    else:
        model.save_weights(path)
        again = backend.GriffinCausalLM(model.config, init=None)
        again.load_weights(path)
    one, other = variables.dump(again), variables.dump(model)
    assert all((one[name] == other[name]).all() for name in other)


@pytest.mark.parametrize("narrow", [False, True], ids=["as it is", "decays in bfloat16"])
def test_there_and_back_through_a_new_process(narrow: bool, tmp_path: Path) -> None:
    source, saved, back = griffin.packaged_checkpoint(), tmp_path / "m.keras", tmp_path / "back"
    if narrow:  # as the released checkpoints of Hugging Face have them
        read, source = open_checkpoint(source), tmp_path / "source"
        params = {name: np.asarray(value, DTYPES["bfloat16"]) for name, value in read.params.items()}
        native.save(source, read.config, params, read.tokenizer_files)
    backend.GriffinCausalLM.from_checkpoint(source).save(saved)
    code = (
        "import sys, griffin_core_keras, keras\n"
        "model = keras.models.load_model(sys.argv[1])\n"
        "assert model.tokenizer is not None\n"
        "model.save_checkpoint(sys.argv[2])\n"
    )
    extra = env.child_environment({"KERAS_BACKEND": backend.ENGINE})
    subprocess.run([sys.executable, "-c", code, str(saved), str(back)], check=True, env=extra, timeout=300)
    names = [path.name for path in source.iterdir() if path.suffix == ".safetensors"]
    assert names
    for name in names:
        assert (back / name).read_bytes() == (source / name).read_bytes()
    assert griffin.load(back, backend="numpy").digest == griffin.load(source, backend="numpy").digest


def test_lora_trains_adapters_alone(model: Any, tokens: Array, tmp_path: Path) -> None:
    before = variables.dump(model)
    model.enable_lora(2, targets=["linear_x", "q_proj"])
    names = {variable.name for variable in model.trainable_variables}
    assert names == {"lora_kernel_a", "lora_kernel_b"}
    model.compile(backend.AdamW(1e-1, weight_decay=0.0))
    losses = model.fit(tokens, tokens, epochs=5, batch_size=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    after = variables.dump(model)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {name for name in before if name.endswith(("linear_x.weight", "q_proj.weight"))}
    model.save(tmp_path / "m.keras")
    close(keras.models.load_model(tmp_path / "m.keras")(tokens), model(tokens))
    with pytest.raises(ConfigError, match="no dense layer is called 'linear_z'"):
        model.enable_lora(2, targets=["linear_z"])
    with pytest.raises(CheckpointMismatch, match="it is adapted; do it on a model made anew"):
        variables.assign(model, before.items())


def test_int8(model: Any, tokens: Array, tmp_path: Path) -> None:
    expected = to_numpy(model(tokens))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.quantize("int8")
    kernel = model.layer_0.temporal_block.linear_x._kernel
    assert keras.backend.standardize_dtype(kernel.dtype) == "int8"
    found = to_numpy(model(tokens))
    assert 0 < np.abs(found - expected).max() < 0.15 * np.abs(expected).max()
    model.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(to_numpy(keras.models.load_model(tmp_path / "m.keras")(tokens)), found)
    params = variables.tensors(model)
    widened = to_numpy(backend.forward(model.config, params, backend.from_numpy(tokens))[0])
    assert np.abs(widened - expected).max() < 0.15 * np.abs(expected).max()


def test_adapters_beside_int8_kernels_are_heard(model: Any, tokens: Array) -> None:
    model.quantize("int8")
    model.enable_lora(2, targets=["linear_x"])
    before = variables.tensors(model)["model.layers.0.temporal_block.linear_x.weight"]
    layer = model.layer_0.temporal_block.linear_x
    layer.lora_kernel_b.assign(keras.ops.ones(layer.lora_kernel_b.shape))
    after = variables.tensors(model)["model.layers.0.temporal_block.linear_x.weight"]
    factors = to_numpy(layer.lora_kernel_a.value), to_numpy(layer.lora_kernel_b.value)
    close(to_numpy(after) - to_numpy(before), factors[0] @ factors[1])


def test_wrong_weights_are_named(model: Any, config: GriffinConfig, weights: Callable[..., Any]) -> None:
    given = weights(config)
    given["model.final_norm.weight"] = given["model.final_norm.weight"][:-1]
    with pytest.raises(CheckpointMismatch, match=r"wrong shape: model\.final_norm\.weight is \(15,\)") as caught:
        variables.assign(model, given.items())
    assert "missing" not in str(caught.value)


def test_load_gives_a_keras_model(tmp_path: Path, tokens: Array) -> None:
    model = griffin.load(griffin.packaged_checkpoint(), backend="keras", dtype="float32")
    text = model.generate("The ", max_new_tokens=12, temperature=0.0)
    assert griffin.load(griffin.packaged_checkpoint(), backend="numpy", dtype="float32").generate(
        "The ", max_new_tokens=12, temperature=0.0
    ) == text  # fmt: skip
    model.compile(backend.AdamW(1e-3))
    ids = tokens[:, :8]
    model.fit(ids, ids, batch_size=3, verbose=0)
    assert isinstance(model.keras, backend.GriffinCausalLM)
    logits, _ = model.forward(ids)
    close(logits, model.keras(ids))
    model.save(tmp_path / "m.keras")
    close(keras.models.load_model(tmp_path / "m.keras")(ids), logits)
    model.save(tmp_path / "native")
    again = griffin.load(tmp_path / "native", backend="keras")
    np.testing.assert_array_equal(again.forward(ids)[0], logits)
    assert again.digest == griffin.load(tmp_path / "native", backend="numpy").digest


def test_random_weights_warn(tokens: Array) -> None:
    model = backend.GriffinCausalLM.from_preset("griffin-tiny")
    with pytest.warns(RandomWeightsWarning):
        model.generate("a", max_new_tokens=2)


def test_wrong_use(config: GriffinConfig, model: Any, tokens: Array) -> None:
    with pytest.raises(ConfigError, match="unknown preset 'griffin-tiney'"):
        backend.GriffinCausalLM.from_preset("griffin-tiney")
    with pytest.raises(ConfigError, match="init='xavier'"):
        backend.GriffinCausalLM(config, init="xavier")
    with pytest.raises(ConfigError, match="padding='left'"):
        backend.GriffinCausalLM(config, padding="left")
    with pytest.raises(InputError, match="expected 'tokens', and 'positions'"):
        model({"ids": tokens})
    with pytest.raises(CheckpointMismatch, match="missing"):
        variables.assign(model, {}.items())
