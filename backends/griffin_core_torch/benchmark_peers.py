"""Public PyTorch implementations of the family, run on the shapes of ``griffin bench`` where they are installed.

They keep their own random weights: only the time counts. Each runs as fast as its own options allow: no
gradient checkpointing, only the last token's logits where it can leave out the rest.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from griffin_core.config import ATTENTION, GriffinConfig

Call = Callable[[], object]
Maker = Callable[..., Call]


def installed(path: str, config: GriffinConfig, batch: int, tokens: int, context: int) -> list[tuple[str, Call]]:
    """(name, call) for each peer that is installed and can express the config."""
    if path not in ("prefill", "decode", "train") or not _expressible(config):
        return []
    found: list[tuple[str, Call]] = []
    if importlib.util.find_spec("transformers") is not None:
        found.append(("transformers", _TRANSFORMERS[path](_transformers_model(config), batch, tokens, context)))
    if importlib.util.find_spec("recurrentgemma") is not None:
        found.append(("official torch", _OFFICIAL[path](_official_model(config), batch, tokens, context)))
    return found


def _expressible(config: GriffinConfig) -> bool:
    """Whether both peers can build the model: one number of heads and gate blocks, a window, a cap, one width."""
    return (
        config.gate_blocks == config.num_heads
        and config.head_dim * config.num_heads == config.width == config.lru_width
        and config.attention_window is not None
        and config.logits_soft_cap is not None
        and config.embedding_scale is not None
        and config.tie_embeddings
    )


def _transformers_model(config: GriffinConfig) -> Any:
    from transformers import RecurrentGemmaConfig, RecurrentGemmaForCausalLM

    theirs = RecurrentGemmaConfig(
        num_hidden_layers=config.num_layers,
        vocab_size=config.vocab_size,
        hidden_size=config.width,
        intermediate_size=2 * config.mlp_width,
        num_attention_heads=config.num_heads,
        num_key_value_heads=1,
        lru_width=config.lru_width,
        attention_window_size=config.attention_window,
        logits_soft_cap=config.logits_soft_cap,
        block_types=list(config.block_pattern),
    )
    return RecurrentGemmaForCausalLM(theirs).eval()


def _transformers_prefill(model: Any, batch: int, tokens: int, context: int) -> Call:
    ids = _ids(model.config.vocab_size, batch, tokens)

    @torch.no_grad()
    def run() -> object:
        return model(input_ids=ids, use_cache=True, logits_to_keep=1).logits

    return run


def _transformers_decode(model: Any, batch: int, tokens: int, context: int) -> Call:
    from transformers import DynamicCache

    ids = _ids(model.config.vocab_size, batch, context + 1)
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(input_ids=ids[:, :context], use_cache=True, past_key_values=cache, logits_to_keep=1)
    seen = [context]

    @torch.no_grad()
    def run() -> None:
        token = ids[:, context:]
        for _ in range(tokens):
            place = torch.full((batch, 1), seen[0])
            logits = model(input_ids=token, position_ids=place, use_cache=True, past_key_values=cache).logits
            token = logits[:, -1].argmax(-1, keepdim=True)
            seen[0] += 1

    return run


def _transformers_train(model: Any, batch: int, tokens: int, context: int) -> Call:
    ids = _ids(model.config.vocab_size, batch, tokens + 1)
    model.train()

    def loss() -> torch.Tensor:
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        return functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    return _training_step(model, loss)


def _official_model(config: GriffinConfig) -> Any:
    from recurrentgemma import common
    from recurrentgemma.torch import Griffin

    kinds = common.TemporalBlockType
    theirs = common.GriffinConfig(
        vocab_size=config.vocab_size,
        width=config.width,
        mlp_expanded_width=config.mlp_width,
        num_heads=config.num_heads,
        block_types=tuple(kinds.ATTENTION if k == ATTENTION else kinds.RECURRENT for k in config.layer_kinds),
        embeddings_scale_by_sqrt_dim=True,
        attention_window_size=(config.attention_window or 0) - 1,
        logits_soft_cap=config.logits_soft_cap or 0.0,
        lru_width=config.lru_width,
    )
    model = Griffin(theirs, gradient_checkpointing=False, dtype=torch.float32)
    model.reset_parameters()
    return model.eval()


def _official_prefill(model: Any, batch: int, tokens: int, context: int) -> Call:
    ids, places = _ids(model.config.vocab_size, batch, tokens), _places(batch, tokens)

    @torch.no_grad()
    def run() -> object:
        return model(ids, places)  # it has no way to leave out logits

    return run


def _official_decode(model: Any, batch: int, tokens: int, context: int) -> Call:
    ids = _ids(model.config.vocab_size, batch, context + 1)
    with torch.no_grad():
        _, start = model(ids[:, :context], _places(batch, context))
    held = [start, context]

    @torch.no_grad()
    def run() -> None:
        token = ids[:, context:]
        for _ in range(tokens):
            logits, held[0] = model(token, torch.full((batch, 1), held[1]), held[0])
            token = logits[:, -1].argmax(-1, keepdim=True)
            held[1] += 1

    return run


def _official_train(model: Any, batch: int, tokens: int, context: int) -> Call:
    ids, places = _ids(model.config.vocab_size, batch, tokens + 1), _places(batch, tokens)
    model.train()

    def loss() -> torch.Tensor:
        logits, _ = model(ids[:, :-1], places)
        return functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    return _training_step(model, loss)


def _training_step(model: Any, loss: Callable[[], torch.Tensor]) -> Call:
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> float:
        optimiser.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        return value.item()

    return step


def _ids(vocabulary: int, batch: int, tokens: int) -> torch.Tensor:
    return torch.randint(3, vocabulary, (batch, tokens), generator=torch.Generator().manual_seed(0))


def _places(batch: int, tokens: int) -> torch.Tensor:
    return torch.arange(tokens).expand(batch, tokens).contiguous()


_TRANSFORMERS: dict[str, Maker] = {
    "prefill": _transformers_prefill,
    "decode": _transformers_decode,
    "train": _transformers_train,
}
_OFFICIAL: dict[str, Maker] = {"prefill": _official_prefill, "decode": _official_decode, "train": _official_train}
