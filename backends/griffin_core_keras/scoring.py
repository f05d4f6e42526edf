"""The loss of language models in ``fit`` and ``evaluate``: mean cross-entropy of the next token, in pieces.

With a loss or metrics of the user's own a call gives logits, as everywhere in Keras. Without, the training step has
no use for all logits at once: it takes hidden states and computes the loss from them piece by piece.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from griffin_core_keras.engine import engine
from griffin_core_keras.optimizer import AdamW


class Scoring:
    """What ``GriffinCausalLM`` does to Keras's training loop.

    Targets are integers [b t]; negative ones carry no loss. A ``sample_weight`` [b] or [b t] weighs positions, and
    the loss is then the weighted mean.
    """

    scores = False
    """Whether a call gives hidden states: inside a training or test step without a loss of the user's own."""
    _own_loss = True

    def compile(
        self,
        optimizer: Any = None,
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **options: Any,
    ) -> None:
        """As ``keras.Model.compile``; the optimiser is ``AdamW``, the loss the mean cross-entropy of targets >= 0."""
        optimizer = AdamW() if optimizer is None else optimizer
        super().compile(optimizer, loss, loss_weights, metrics, weighted_metrics, **options)
        self._own_loss = loss is None and not metrics and not weighted_metrics

    def get_compile_config(self) -> Any:
        """How the model was compiled, for a file; nothing where adapters are trained, as files hold them merged."""
        return None if self.adapted else super().get_compile_config()

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as the model was that a file was saved from; Keras leaves that to models with a ``compile``."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    def train_step(self, *args: Any) -> Any:
        """One step; the engine's arguments and results."""
        self.trained = True
        with self._scoring():
            return super().train_step(*args)

    def test_step(self, *args: Any) -> Any:
        """One step of ``evaluate``; the engine's arguments and results."""
        with self._scoring():
            return super().test_step(*args)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The loss of a batch: Keras's where one was given to ``compile``, else the mean cross-entropy."""
        if getattr(self, "_compile_loss", None) is not None:
            return super().compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
        y = ops.cast(y, "int32")
        if self.scores and sample_weight is None:
            loss = engine.mean_cross_entropy(y_pred, self.output_matrix(), y, self.config.logits_soft_cap)
        else:
            loss = _mean_loss(self.logits(y_pred) if self.scores else y_pred, y, sample_weight)
        return loss + sum(self.losses) if self.losses else loss

    def output_matrix(self) -> Any:
        """The output projection [v m], in floating point."""
        layer = self.embedding if self.config.tie_embeddings else self.head
        return layer.matrix()

    @contextlib.contextmanager
    def _scoring(self) -> Iterator[None]:
        before, self.scores = self.scores, self._own_loss
        try:
            yield
        finally:
            self.scores = before


def _mean_loss(logits: Any, targets: Any, sample_weight: Any | None) -> Any:
    """Weighted mean of the cross-entropy of float32 logits [b t v] over the targets that are not negative."""
    weight = ops.cast(targets >= 0, "float32")
    if sample_weight is not None:
        given = ops.cast(sample_weight, "float32")
        weight = weight * (given if len(given.shape) == 2 else given[:, None])
    picked = ops.take_along_axis(logits, ops.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    each = ops.logsumexp(logits, axis=-1) - picked
    return ops.sum(ops.where(weight > 0, each * weight, 0.0)) / ops.maximum(ops.sum(weight), 1e-9)
