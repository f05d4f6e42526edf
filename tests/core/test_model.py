"""The whole model's equations where they have a closed form, its hooks and its exchange of states."""

from __future__ import annotations

import numpy as np
import pytest

from griffin_core import reference
from griffin_core.config import GriffinConfig
from griffin_core.errors import StateMismatch
from griffin_core.layouts.initialise import init_params
from griffin_core.reference.numeric import gelu_tanh

CONFIG = GriffinConfig(
    width=8,
    lru_width=12,
    mlp_width=20,
    num_heads=2,
    head_dim=4,
    gate_blocks=3,
    block_pattern=("recurrent", "attention"),
    num_layers=2,
    attention_window=3,
    vocab_size=11,
)
TOKENS = np.array([[3, 1, 4, 1, 5, 9, 2, 6]])


def drawn(config: GriffinConfig, scale: float = 0.3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {name: value + scale * rng.standard_normal(value.shape) for name, value in init_params(config, 0).items()}


def silenced(config: GriffinConfig, *keep: str) -> dict[str, np.ndarray]:
    """Weights in which every block adds nothing, except those whose name holds a word of ``keep``."""
    params = drawn(config)
    outputs = ("linear_out", "o_proj", "down_proj")
    quiet = [n for n in params if any(word in n for word in outputs) and not any(word in n for word in keep)]
    return {n: np.zeros_like(v) if n in quiet else v for n, v in params.items()}


def norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * (1 + weight)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("cap", [None, 0.5])
def test_blocks_that_add_nothing_leave_embedding_norm_and_head(tied: bool, cap: float | None) -> None:
    config = CONFIG.replace(tie_embeddings=tied, logits_soft_cap=cap, embedding_scale="sqrt_width")
    params = silenced(config)
    table = params["model.embed_tokens.weight"]
    x = norm(table[TOKENS] * 2.828125, params["model.final_norm.weight"])  # sqrt(8) in bfloat16
    expected = x @ (table if tied else params["lm_head.weight"]).T
    expected = expected if cap is None else cap * np.tanh(expected / cap)
    np.testing.assert_allclose(reference.forward(config, params, TOKENS)[0], expected, rtol=1e-12)


def test_the_mlp_is_gelu_gated_and_residual() -> None:
    params = silenced(CONFIG, "layers.0.mlp_block")
    layer = {n.removeprefix("model.layers.0.mlp_block."): v for n, v in params.items()}
    x = params["model.embed_tokens.weight"][TOKENS]
    z = norm(x, params["model.layers.0.channel_pre_norm.weight"])
    gate, up = (z @ layer[f"{n}_proj.weight"].T + layer[f"{n}_proj.bias"] for n in ("gate", "up"))
    x = x + (gelu_tanh(gate) * up) @ layer["down_proj.weight"].T + layer["down_proj.bias"]
    found, _ = reference.hidden(CONFIG, params, TOKENS)
    np.testing.assert_allclose(found, norm(x, params["model.final_norm.weight"]), rtol=1e-11)


def test_the_recurrent_block_multiplies_its_branches() -> None:
    params = silenced(CONFIG, "linear_out")
    layer = {n.removeprefix("model.layers.0.temporal_block."): v for n, v in params.items() if ".layers.0." in n}
    x = params["model.embed_tokens.weight"][TOKENS]
    z = norm(x, params["model.layers.0.temporal_pre_norm.weight"])
    branch, other = (z @ layer[f"linear_{n}.weight"].T + layer[f"linear_{n}.bias"] for n in "xy")
    middle = {n.rpartition(".")[2]: v for n, v in layer.items() if "rg_lru" in n}
    middle |= {"conv_weight": layer["conv_1d.weight"], "conv_bias": layer["conv_1d.bias"]}
    y = reference.recurrent_middle(branch, middle)[0] * gelu_tanh(other)
    x = x + y @ layer["linear_out.weight"].T + layer["linear_out.bias"]
    found, _ = reference.hidden(CONFIG, params, TOKENS)
    np.testing.assert_allclose(found, norm(x, params["model.final_norm.weight"]), rtol=1e-11)


def test_the_attention_block() -> None:
    params = silenced(CONFIG, "o_proj")
    layer = {n.removeprefix("model.layers.1.temporal_block."): v for n, v in params.items() if ".layers.1." in n}
    x = params["model.embed_tokens.weight"][TOKENS]
    z = norm(x, params["model.layers.1.temporal_pre_norm.weight"])
    q, k, v = (z @ layer[f"{n}_proj.weight"].T for n in "qkv")
    y, _ = reference.local_attention(q.reshape(1, 8, 2, 4), k, v, None, None, 3)
    x = x + y.reshape(1, 8, 8) @ layer["o_proj.weight"].T + layer["o_proj.bias"]
    found, _ = reference.hidden(CONFIG, params, TOKENS)
    np.testing.assert_allclose(found, norm(x, params["model.final_norm.weight"]), rtol=1e-11)


def test_taps_see_every_named_activation_and_may_change_it() -> None:
    seen: dict[str, np.ndarray] = {}

    def record(name: str, value: np.ndarray) -> np.ndarray:
        assert name not in seen
        seen[name] = value
        return value

    params = drawn(CONFIG)
    plain, _ = reference.forward(CONFIG, params, TOKENS)
    tapped, _ = reference.forward(CONFIG, params, TOKENS, tap=record)
    np.testing.assert_array_equal(plain, tapped)
    recurrent = {"linear_x", "linear_y", "gelu", "conv", "gate_x", "gate_a", "recurrent_gate", "log_a", "a"}
    recurrent |= {"input_gate", "scan_input", "h", "mixed", "linear_out"}
    channel = {"temporal_pre_norm", "temporal_residual", "channel_pre_norm", "gate_proj", "mlp_gelu", "up_proj"}
    channel |= {"mlp", "down_proj", "residual"}
    attention = {"q_proj", "k_proj", "v_proj", "attention", "o_proj"}
    assert set(seen) == {"embedding", "final_norm", "logits"} | {
        f"layers.{n}.{name}" for n, own in enumerate((recurrent, attention)) for name in own | channel
    }
    for name, value in seen.items():
        assert value.shape[:2] == TOKENS.shape, name

        def nudge(other: str, x: np.ndarray, name: str = name) -> np.ndarray:
            return x * 1.01 if other == name else x

        assert not np.array_equal(reference.forward(CONFIG, params, TOKENS, tap=nudge)[0], plain), name


def test_log_decay_is_finite_at_resets_and_gates_are_gates() -> None:
    seen: dict[str, np.ndarray] = {}
    reference.hidden(CONFIG, drawn(CONFIG), TOKENS, tap=lambda name, x: seen.setdefault(name, x))
    log_a = seen["layers.0.log_a"]
    assert np.isfinite(log_a).all()
    assert (log_a < 0).all()
    assert (seen["layers.0.a"][:, 0] == 0).all()
    for gate in ("input_gate", "recurrent_gate"):
        assert ((seen[f"layers.0.{gate}"] > 0) & (seen[f"layers.0.{gate}"] < 1)).all()


def test_states_are_exchanged_in_canonical_form() -> None:
    params, state = drawn(CONFIG), reference.init_state(CONFIG, 2)
    _, state = reference.hidden(CONFIG, params, np.repeat(TOKENS[:, :2], 2, axis=0), state=state)
    dumped = reference.dump_state(CONFIG, state)
    again = reference.load_state(CONFIG, {name: value.astype(np.float32) for name, value in dumped.items()})
    assert [value.dtype.name for value in again.values()] == ["int32"] + ["float64"] * 4
    np.testing.assert_array_equal(again["layers.0.h"], state["layers.0.h"].astype(np.float32))
    dumped["layers.1.k"][:, 2] = 99.0  # slot 2 is not yet written
    assert not reference.load_state(CONFIG, dumped)["layers.1.k"][:, 2].any()
    assert reference.load_state(CONFIG, dumped)["layers.1.k"][:, :2].any()
    with pytest.raises(StateMismatch, match="state has position -1; expected at least 0"):
        reference.load_state(CONFIG, {**dumped, "position": np.array([-1, 2])})
    with pytest.raises(StateMismatch, match="it belongs to another config"):
        reference.load_state(CONFIG.replace(attention_window=4), dumped)
