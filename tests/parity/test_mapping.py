"""Values at official names, of the golden weights: what the official programs are given."""

from __future__ import annotations

import golden_files as files
import numpy as np
from golden_cases import CONFIG
from golden_official import flax_weights, torch_weights

_LAYER = "model.layers.0."
_ATTENTION = "model.layers.2."


def test_official_torch_values() -> None:
    weights = files.weights()
    official = torch_weights(weights)
    assert len(official) == len(weights) - 2 * CONFIG.num_layers
    assert official["blocks.0.mlp_block.ffw_up.w"].shape == (2, CONFIG.width, CONFIG.mlp_width)
    assert official["blocks.0.mlp_block.ffw_up.b"].shape == (2, 1, 1, CONFIG.mlp_width)
    np.testing.assert_array_equal(
        official["blocks.0.mlp_block.ffw_up.w"][1], weights[_LAYER + "mlp_block.up_proj.weight"].T
    )
    np.testing.assert_array_equal(
        official["blocks.0.recurrent_block.conv_1d.w"][3],
        weights[_LAYER + "temporal_block.conv_1d.weight"][:, 0, 3],
    )
    np.testing.assert_array_equal(
        official["blocks.2.attention_block.proj_k.weight"], weights[_ATTENTION + "temporal_block.k_proj.weight"]
    )


def test_official_flax_values() -> None:
    weights = files.weights()
    tree = flax_weights(weights)
    assert set(tree) == {"embedder", "final_norm", *(f"blocks.{layer}" for layer in range(CONFIG.num_layers))}
    kernel = tree["blocks.2"]["attention_block"]["proj_k"]["kernel"]
    assert kernel.shape == (CONFIG.width, CONFIG.head_dim)
    np.testing.assert_array_equal(kernel.T, weights[_ATTENTION + "temporal_block.k_proj.weight"])
    gate = tree["blocks.0"]["recurrent_block"]["rg_lru"]["a_gate"]["w"]
    np.testing.assert_array_equal(gate, weights[_LAYER + "temporal_block.rg_lru.recurrent_gate_weight"])
    assert sum(np.size(leaf) for leaf in _leaves(tree)) == sum(value.size for value in weights.values())


def _leaves(tree: dict) -> list:
    return [leaf for value in tree.values() for leaf in (_leaves(value) if isinstance(value, dict) else [value])]
