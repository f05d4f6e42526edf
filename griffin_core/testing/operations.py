"""The operations that the kit judges: their arguments, which of them run over time or carry a state, and the truth.

Arguments are kept under flat names; ``arrange`` groups them into the call's own (a dict of parameters, a cache).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from griffin_core import reference
from griffin_core.arguments import GATE_PARAMS, MIDDLE_PARAMS
from griffin_core.errors import InputError
from griffin_core.reference import gradients
from griffin_core.shapes import Array
from griffin_core.testing import attention_bounds, bounds, gradient_bounds, making
from griffin_core.testing.cases import Case
from griffin_core.testing.inputs import Inputs


@dataclass(frozen=True)
class Group:
    """Several arrays that are one argument or output: a dict with ``keys``, kept under the flat ``names``."""

    name: str
    keys: tuple[str, ...]
    names: tuple[str, ...]


Slot = str | Group


@dataclass(frozen=True)
class Gradient:
    """How the gradient of an operation is judged.

    Attributes:
        truth: the hand-written gradients in float64, in the order of the differentiable arguments.
        bounds: largest errors by flat name, from the inputs and the cotangents.
    """

    truth: Callable[..., tuple[Any, ...]]
    bounds: Callable[[Inputs, Inputs], dict[str, Array]]


@dataclass(frozen=True)
class Operation:
    """One operation of the protocol, as the properties see it.

    Attributes:
        name: as in ``protocol.KERNEL_OPS``, or "local_attention".
        slots: positional arguments, in order.
        outputs: results, in order.
        timed: flat names of arguments [b t ...] that hold numbers.
        carries: (argument, output) pairs: what goes in as an output came out.
        marks: "reset" or "positions".
        make: the arrays of a case.
        truth: outputs in float64.
        bounds: largest errors of the outputs.
        gradient: how its gradient is judged; None: the spec has none of it alone.
    """

    name: str
    slots: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    timed: tuple[str, ...]
    carries: tuple[tuple[str, str], ...]
    marks: str
    make: Callable[[Case], Inputs]
    truth: Callable[..., tuple[Any, ...]]
    bounds: Callable[[Inputs], dict[str, Array]]
    gradient: Gradient | None = None

    @property
    def elementwise(self) -> bool:
        """Whether channels never meet."""
        return self.name in ("linear_scan", "gated_scan", "conv1d")

    @property
    def scans(self) -> bool:
        """Whether it carries a recurrent state h."""
        return ("h0", "h") in self.carries

    def arrange(self, inputs: Mapping[str, Any]) -> list[Any]:
        """The call's positional arguments."""
        return [arranged(slot, inputs) for slot in self.slots]

    def name_outputs(self, outputs: Sequence[Any]) -> dict[str, Any]:
        """Flat outputs by name (an absent cache is left out)."""
        return named(self.outputs, outputs)

    def output_shapes(self, inputs: Inputs) -> dict[str, tuple[int, ...]]:
        """Shapes of the outputs that these inputs give, by flat name."""
        rows = inputs[self.timed[0]].shape[0]
        shapes: dict[str, tuple[int, ...]] = {"y": inputs[self.timed[0]].shape}
        width = inputs[self.timed[0]].shape[-1]
        taps = next((inputs[name].shape[-1] for name in ("weight", "conv_weight") if name in inputs), 1)
        states = {"h": (rows, width), "state": (rows, taps - 1, width), "conv_state": (rows, taps - 1, width)}
        for argument, output in self.carries:
            if argument in inputs and inputs[argument] is not None:
                shapes[output] = inputs[argument].shape
            elif output in states:
                shapes[output] = states[output]
        return shapes

    def reference(self, inputs: Inputs) -> dict[str, Array]:
        """The truth: float64 outputs by flat name."""
        return self.name_outputs(self.truth(*self.arrange(inputs)))

    def reference_gradient(self, inputs: Inputs, cotangents: Inputs) -> dict[str, Array]:
        """The truth: float64 gradients by flat name.

        Raises:
            InputError: the spec has no gradient of this operation alone.
        """
        truth = self._known_gradient().truth
        found = truth(*self.arrange(inputs), *(cotangents[str(output)] for output in self.outputs))
        differentiable = [slot for slot in self.slots if slot not in ("reset", "positions")]
        return {name: value for name, value in named(differentiable, found).items() if value is not None}

    def gradient_bounds(self, inputs: Inputs, cotangents: Inputs) -> dict[str, Array]:
        """Largest errors of the gradients by flat name.

        Raises:
            InputError: the spec has no gradient of this operation alone.
        """
        return self._known_gradient().bounds(inputs, cotangents)

    def _known_gradient(self) -> Gradient:
        if self.gradient is None:
            raise InputError(f"{self.name} has no gradient in the reference; judge the whole model's, which covers it")
        return self.gradient


def arranged(slot: Slot, inputs: Mapping[str, Any]) -> Any:
    """One argument: the array itself, or the dict of a group (None when all of it is absent)."""
    if isinstance(slot, str):
        return inputs[slot]
    values = {key: inputs[name] for key, name in zip(slot.keys, slot.names, strict=True)}
    return None if all(value is None for value in values.values()) else values


def named(slots: Sequence[Slot], values: Sequence[Any]) -> dict[str, Any]:
    """The inverse of arranging: flat names of positional values."""
    found: dict[str, Any] = {}
    for slot, value in zip(slots, values, strict=True):
        if isinstance(slot, str):
            found[slot] = value
        elif value is not None:
            found |= {name: value.get(key) for key, name in zip(slot.keys, slot.names, strict=True)}
    return found


def _bounds(terms: Callable[[Inputs], Any]) -> Callable[[Inputs], dict[str, Array]]:
    return lambda inputs: bounds.states(terms(inputs))


_PARAMS = Group("params", GATE_PARAMS, GATE_PARAMS)
_MIDDLE = Group("params", MIDDLE_PARAMS, MIDDLE_PARAMS)
_CACHE = Group("cache", ("k", "v", "position"), ("cache_k", "cache_v", "cache_position"))
_STATE = (("h0", "h"),)

_RECORDS = (
    Operation(
        name="linear_scan",
        slots=("x", "log_a", "h0", "reset"),
        outputs=("y", "h"),
        timed=("x", "log_a"),
        carries=_STATE,
        marks="reset",
        make=making.linear_scan,
        truth=reference.linear_scan,
        bounds=_bounds(bounds.linear_scan),
        gradient=Gradient(gradients.linear_scan_vjp, gradient_bounds.linear_scan),
    ),
    Operation(
        name="gated_scan",
        slots=("x", "gate_x", "gate_a", "recurrent_param", "h0", "positions"),
        outputs=("y", "h"),
        timed=("x", "gate_x", "gate_a"),
        carries=_STATE,
        marks="positions",
        make=making.gated_scan,
        truth=reference.gated_scan,
        bounds=_bounds(lambda inputs: bounds.given_gates(inputs).scanned),
        gradient=Gradient(gradients.gated_scan_vjp, gradient_bounds.gated_scan),
    ),
    Operation(
        name="rg_lru",
        slots=("x", _PARAMS, "h0", "positions"),
        outputs=("y", "h"),
        timed=("x",),
        carries=_STATE,
        marks="positions",
        make=making.rg_lru,
        truth=reference.rg_lru,
        bounds=_bounds(lambda inputs: bounds.rg_lru(inputs).scanned),
        gradient=Gradient(gradients.rg_lru_vjp, gradient_bounds.rg_lru),
    ),
    Operation(
        name="recurrent_middle",
        slots=("x", _MIDDLE, "h0", "conv_state", "positions"),
        outputs=("y", "h", "conv_state"),
        timed=("x",),
        carries=(*_STATE, ("conv_state", "conv_state")),
        marks="positions",
        make=making.recurrent_middle,
        truth=reference.recurrent_middle,
        bounds=bounds.middle_states,
        gradient=Gradient(gradients.recurrent_middle_vjp, gradient_bounds.recurrent_middle),
    ),
    Operation(
        name="conv1d",
        slots=("x", "weight", "bias", "state", "positions"),
        outputs=("y", "state"),
        timed=("x",),
        carries=(("state", "state"),),
        marks="positions",
        make=making.conv1d,
        truth=reference.conv1d,
        bounds=bounds.conv_states,
        gradient=Gradient(gradients.conv1d_vjp, gradient_bounds.conv1d),
    ),
    Operation(
        name="local_attention",
        slots=("q", "k", "v", "positions", _CACHE, "window"),
        outputs=("y", _CACHE),
        timed=("q", "k", "v"),
        carries=tuple((name, name) for name in _CACHE.names),
        marks="positions",
        make=making.local_attention,
        truth=reference.local_attention,
        bounds=attention_bounds.local_attention,
    ),
)
OPERATIONS: dict[str, Operation] = {record.name: record for record in _RECORDS}
