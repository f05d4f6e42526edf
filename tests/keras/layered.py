"""The backend with its model run through the Keras layers: what the laws of whole models judge beside the functions."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import griffin_core_keras as backend
from griffin_core.config import GriffinConfig
from griffin_core_keras import variables
from griffin_core_keras.model import logits
from griffin_core_keras.native import dump_params

_models: list[tuple[Any, Any]] = []


def model_of(config: GriffinConfig, params: Any) -> Any:
    """A GriffinCausalLM with these native parameters; the last one is kept."""
    if not (_models and _models[0][0] is params):
        dtype = backend.engine.dtype_name(params["model.embed_tokens.weight"])
        model = backend.GriffinCausalLM(config, init=None, dtype=dtype)
        variables.assign(model, dump_params(config, params).items())
        _models[:] = [(params, model)]
    return _models[0][1]


def hidden(
    config: GriffinConfig,
    params: Any,
    tokens: Any,
    positions: Any = None,
    state: Any = None,
    padding: str = "any",
    kernel: str | None = None,
    compute_dtype: str | None = None,
    capture: Any = None,
) -> Any:
    """``hidden`` by a call of the layers; capturing is the functions' alone."""
    assert compute_dtype is None, "the layers compute in their policy"
    assert capture is None, "the layers record nothing"
    model = model_of(config, params)
    model.kernel, model.padding, model.scores = kernel, padding, True
    inputs = tokens if positions is None else {"tokens": tokens, "positions": positions}
    found = model(inputs, state=state)
    return (found, None) if state is None else found


def forward(*args: Any, **options: Any) -> Any:
    """``logits`` of ``hidden``."""
    x, state = hidden(*args, **options)
    return logits(args[0], args[1], x), state


def layered() -> ModuleType:
    """The backend as a module in which these two stand in place of its own."""
    module = ModuleType("griffin_core_keras_layers")
    module.__dict__.update({name: getattr(backend, name) for name in backend.__all__})
    module.hidden, module.forward = hidden, forward  # type: ignore[attr-defined]
    return module
