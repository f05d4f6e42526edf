"""What a Keras model of the family does besides what Keras models do: presets, checkpoints, text, adapters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from griffin_core.errors import ConfigError
from griffin_core.layouts.keras import keras_places
from griffin_core.layouts.params import param_table


class Generating:
    """Methods of ``GriffinCausalLM`` that go through the library's services.

    Attributes:
        tokenizer: None when there is none; then prompts are token ids.
        trained: whether the weights were loaded or trained; generating from others warns once.
        adapted: whether ``enable_lora`` was called.
    """

    tokenizer: Any = None
    trained = False
    adapted = False

    @classmethod
    def from_preset(cls, name: str, seed: int = 0, **options: Any) -> Self:
        """A model with a preset's random weights (``griffin_core_keras.facades.from_preset``)."""
        from griffin_core_keras import facades

        return facades.from_preset(name, seed, **options)  # type: ignore[return-value]

    @classmethod
    def from_checkpoint(cls, path: str | Path, dtype: Any = None, verify: bool = True, **options: Any) -> Self:
        """A model with the weights of a checkpoint (``griffin_core_keras.facades.from_checkpoint``)."""
        from griffin_core_keras import facades

        return facades.from_checkpoint(path, dtype, verify, **options)  # type: ignore[return-value]

    def generate(
        self, prompt: Any, max_new_tokens: int | None = None, stop: str | Sequence[str] = (), **settings: Any
    ) -> str | list[str]:
        """Continue a prompt, or each of a list of prompts; as ``griffin_core.Model.generate``."""
        return self._view().generate(prompt, max_new_tokens, stop, **settings)

    def stream(
        self, prompt: Any, max_new_tokens: int | None = None, stop: str | Sequence[str] = (), **settings: Any
    ) -> Iterator[str]:
        """Continue one prompt piece by piece; as ``griffin_core.Model.stream``."""
        return self._view().stream(prompt, max_new_tokens, stop, **settings)

    def score(self, text: str) -> Any:
        """How well the model predicts a text; as ``griffin_core.Model.score``."""
        return self._view().score(text)

    def load_own_variables(self, store: Any) -> None:
        """Called by Keras where weights are loaded from a file."""
        super().load_own_variables(store)
        self.trained = True

    def save_assets(self, directory: str) -> None:
        """The tokenizer's files, into a ``.keras`` file."""
        files = {} if self.tokenizer is None else self.tokenizer.files()
        for name, content in files.items():
            (Path(directory) / name).write_bytes(content)

    def load_assets(self, directory: str) -> None:
        """The tokenizer, from a ``.keras`` file."""
        from griffin_core.text.tokenizer import from_files, read_files

        self.tokenizer = from_files(read_files(Path(directory)))

    def save_checkpoint(self, directory: str | Path, overwrite: bool = False, max_shard_size: Any = None) -> None:
        """Write a native checkpoint, adapters merged; as ``griffin_core.Model.save``."""
        self._view().save(directory, overwrite, max_shard_size)

    def enable_lora(self, rank: int, lora_alpha: float | None = None, targets: Sequence[str] | None = None) -> None:
        """Train low-rank adapters of dense layers and nothing else. Files hold them merged into their kernels.

        Args:
            rank: of the adapters.
            lora_alpha: their scale is ``lora_alpha / rank``; None is the rank.
            targets: names of dense layers ("q_proj", "linear_x", ...); None are all that the parameter table marks.

        Raises:
            ConfigError: a target does not exist.
        """
        paths = self._lora_paths(targets)
        from griffin_core_keras.variables import layer_at

        for variable in self.variables:
            variable.trainable = False
        for path in paths:
            layer_at(self, path).enable_lora(rank, lora_alpha=lora_alpha)
        self.adapted = True

    def _lora_paths(self, targets: Sequence[str] | None) -> list[str]:
        rows = {row.name for row in param_table(self.config) if row.lora}
        places = [place for place in keras_places(self.config) if place.canonical in rows]
        paths = [place.variable.rpartition("/")[0] for place in places]
        known = sorted({path.rpartition("/")[2] for path in paths})
        unknown = sorted(set(targets or ()) - set(known))
        if unknown:
            raise ConfigError(f"no dense layer is called {unknown[0]!r}; there are {', '.join(known)}")
        return [path for path in paths if targets is None or path.rpartition("/")[2] in targets]

    def _view(self) -> Any:
        from griffin_core_keras import facades

        return facades.of_keras(self)
