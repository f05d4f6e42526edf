"""What the layers share: names of variables in files, initial values of the spec."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from griffin_core.layouts.initialise import init_param
from griffin_core.layouts.params import Init, ParamSpec

PACKAGE = "griffin_core_keras"
"""Under which the classes are registered with Keras."""

register = keras.saving.register_keras_serializable(PACKAGE)


@register
class SpecInitializer(keras.initializers.Initializer):
    """Draws of the spec: keyed by (seed, name), equal on every engine and backend.

    Args:
        name: of the parameter; equal names and seeds give equal values.
        rule, std: as in ``griffin_core.layouts.params.Init``.
        seed: any non-negative integer.
        init: "paper" or "released"; they differ for the decay parameter.
        transposed: the values are drawn for [out in] and wanted as [in out].
    """

    def __init__(
        self,
        name: str,
        rule: str = "normal",
        std: float = 0.0,
        seed: int = 0,
        init: str = "paper",
        transposed: bool = False,
    ) -> None:
        self.name, self.rule, self.std, self.seed, self.init = name, rule, std, seed, init
        self.transposed = transposed

    def __call__(self, shape: tuple[int, ...], dtype: Any = None, **_: Any) -> Any:
        """A tensor of that shape."""
        rule = Init(self.rule, self.std)
        shape = tuple(shape)
        axes = shape[::-1] if self.transposed else shape
        value = init_param(ParamSpec(self.name, axes, ("",) * len(shape), rule, rule), self.seed, self.init)
        return ops.convert_to_tensor(np.ascontiguousarray(value.T if self.transposed else value), dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        """Every argument."""
        fields = ("name", "rule", "std", "seed", "init", "transposed")
        return {name: getattr(self, name) for name in fields}


def draws(name: str, seed: int | None, **rule: Any) -> Any:
    """The initialiser of a parameter; without a seed zeros, for who assigns the values afterwards."""
    return "zeros" if seed is None else SpecInitializer(name, seed=seed, **rule)


class Layer(keras.layers.Layer):
    """A layer whose variables stand in files under their own names, not under numbers in order of creation."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def compute_output_shape(self, input_shape: Any, *_: Any, **__: Any) -> tuple[Any, ...]:
        """That of the input; a state's form is in ``compute_output_spec``."""
        return tuple(input_shape)

    def quantize(self, mode: Any = None, type_check: bool = True, config: Any = None) -> None:
        """Nothing: the parameter table lets dense kernels alone be quantised."""

    def save_own_variables(self, store: Any) -> None:
        """Write each variable under its name."""
        for variable in self._own_variables():
            store[variable.name] = variable

    def load_own_variables(self, store: Any) -> None:
        """Read each variable by its name.

        Raises:
            ValueError: names differ; Keras collects and reports it.
        """
        own = {variable.name: variable for variable in self._own_variables()}
        if set(store.keys()) != set(own):
            raise ValueError(
                f"layer {self.path!r} has variables {sorted(own)}, the file has {sorted(store.keys())}; "
                "it was written by another layer"
            )
        for name, variable in own.items():
            variable.assign(store[name])

    def _own_variables(self) -> list[Any]:
        return [*self._trainable_variables, *self._non_trainable_variables]
