"""What the public programs do with a checkpoint beside computing logits: tokenizers, generation, dtypes, configs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import golden_files as files
import golden_mlx
import golden_official
import golden_transformers
import ml_dtypes
import numpy as np
import pytest
from golden_cases import CONFIG, make_weights

from griffin_core import reference
from griffin_core.checkpoints import native
from griffin_core.config import GriffinConfig
from griffin_core.shapes import Array
from griffin_core.text.tokenizer import ByteTokenizer

pytestmark = [
    pytest.mark.peers,
    # Peers warn about their own dependencies; that is theirs to mend.
    pytest.mark.filterwarnings("ignore"),
]
Need = Callable[[str], None]
TEXT = CONFIG.replace(vocab_size=264, attention_window=64)
"""For bytes, with a window longer than the text: beyond it transformers 4 is wrong."""
PROMPT = "The quick brown föx"
LENGTH = 12
GENERATE: dict[str, Callable[[Path, str, int], list[int]]] = {
    "transformers": golden_transformers.generate,
    "transformers-4": golden_transformers.generate,
    "mlx": golden_mlx.generate,
}
NOT_IN_WEIGHTS: dict[str, Any] = {
    "embeddings_scale_by_sqrt_dim": True,
    "attention_window_size": CONFIG.attention_window - 1,
    "logits_soft_cap": CONFIG.logits_soft_cap,
}
"""What the official code cannot read off a checkpoint and has to be told."""
BFLOAT16_UNIT = 2.0**-5
"""Between two bfloat16 logits of 4 to 8."""


def _log_probabilities(config: GriffinConfig, weights: dict[str, Array], ids: list[int]) -> Array:
    scores = reference.forward(config, weights, np.array([ids], np.int32))[0][0, -1]
    return scores - np.logaddexp.reduce(scores)


def _greedy(config: GriffinConfig, weights: dict[str, Array], ids: list[int], length: int) -> list[int]:
    for _ in range(length):
        scores = reference.forward(config, weights, np.array([ids], np.int32))[0][0, -1]
        first, second = np.sort(scores)[:-3:-1]
        assert first - second > files.DIFFERS  # so that no rounding decides
        ids = [*ids, int(scores.argmax())]
    return ids


@pytest.mark.parametrize("peer", GENERATE)
def test_generation_with_the_directory_s_tokenizer(need: Need, tmp_path: Path, peer: str) -> None:
    need(peer)
    weights, tokenizer = make_weights(TEXT), ByteTokenizer()
    native.save(tmp_path / "export", TEXT, weights, tokenizer.files())
    wanted = _greedy(TEXT, weights, tokenizer.encode(PROMPT), LENGTH)
    assert GENERATE[peer](tmp_path / "export", PROMPT, LENGTH) == wanted


@pytest.mark.parametrize("peer", ["transformers", "transformers-4"])
def test_transformers_casts_the_recurrent_parameter_unless_told(need: Need, tmp_path: Path, peer: str) -> None:
    """dtype "auto" is what the config says, for every tensor, whatever its own dtype in the file."""
    need(peer)
    import torch
    from transformers import AutoModelForCausalLM

    native.save(tmp_path / "export", CONFIG, files.weights(), dtype="bfloat16")
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "export", dtype="auto")
    assert {value.dtype for value in made.parameters()} == {torch.bfloat16}


def test_mlx_wants_the_recurrent_parameter_in_the_dtype_of_the_rest(need: Need, tmp_path: Path) -> None:
    """Ours is float32 in a bfloat16 checkpoint; mlx-lm's scan refuses two dtypes, unless the model is cast."""
    need("mlx")
    import mlx.core as mx

    case = files.case("full")
    native.save(tmp_path / "mixed", CONFIG, files.weights(), dtype="bfloat16")
    mixed = golden_mlx.load(tmp_path / "mixed")
    with pytest.raises(AssertionError):
        golden_mlx.logits(mixed, case)
    mixed.set_dtype(mx.bfloat16)
    narrow = {name: value.astype(ml_dtypes.bfloat16) for name, value in files.weights().items()}
    native.save(tmp_path / "narrow", CONFIG, narrow)
    logits = golden_mlx.logits(golden_mlx.load(tmp_path / "narrow"), case)
    np.testing.assert_array_equal(logits, golden_mlx.logits(mixed, case))
    assert np.abs(logits - files.truth("full")).max() <= 4 * BFLOAT16_UNIT


def test_mlx_pads_shorter_prompts_of_a_batch_into_their_states(need: Need, tmp_path: Path) -> None:
    """Its conv and recurrence read the padding. Prompts of one length come out right, as does each alone."""
    need("mlx")
    weights, tokenizer = make_weights(TEXT), ByteTokenizer()
    native.save(tmp_path / "export", TEXT, weights, tokenizer.files())
    prompts = [tokenizer.encode(text) for text in ("The quick brown fox.", "jumped over", "it")]

    def errors(batch: list[list[int]]) -> list[float]:
        found = golden_mlx.first_of_batch(tmp_path / "export", batch)
        return [
            abs(score - _log_probabilities(TEXT, weights, ids)[token])
            for ids, (token, score) in zip(batch, found, strict=True)
        ]

    longest, *shorter = errors(prompts)
    assert longest <= files.DIFFERS < min(shorter)
    assert max(errors([ids[:2] for ids in prompts])) <= files.DIFFERS
    assert max(error for ids in prompts for error in errors([ids])) <= files.DIFFERS


@pytest.mark.parametrize(("layers", "heads"), [(5, CONFIG.num_heads), (6, 1)])
def test_the_official_torch_code_reads_the_config(need: Need, layers: int, heads: int) -> None:
    """All of it, but for the number of heads when the last layer is attention: then it says 1."""
    need("official-torch")
    import torch
    from recurrentgemma.common import GriffinConfig as Official

    named = golden_official.torch_weights(_first(layers))
    read = Official.from_torch_params({n: torch.from_numpy(v) for n, v in named.items()}, **NOT_IN_WEIGHTS)
    wanted = golden_official.official_config(CONFIG.replace(num_layers=layers))
    assert read == wanted._replace(num_heads=heads, scan_type=read.scan_type)


def test_the_official_flax_code_reads_the_config_but_not_the_directory(need: Need, tmp_path: Path) -> None:
    """Its ``load_parameters`` fails on its own ``save_parameters`` with this orbax; a plain restore works."""
    need("official-jax")
    from recurrentgemma.common import GriffinConfig as Official
    from recurrentgemma.jax import utils

    utils.save_parameters(str(tmp_path / "saved"), golden_official.flax_weights(files.weights()))
    variables = golden_official.restore(tmp_path / "saved")
    read = Official.from_flax_params_or_variables(variables, **NOT_IN_WEIGHTS)
    assert read == golden_official.official_config(CONFIG)
    with pytest.raises(ValueError, match="pytree structure"):
        utils.load_parameters(str(tmp_path / "saved"), "single_device")


def _first(layers: int) -> dict[str, Array]:
    kept = tuple(f"model.layers.{layer}." for layer in range(layers))
    return {n: v for n, v in files.weights().items() if not n.startswith("model.layers.") or n.startswith(kept)}
