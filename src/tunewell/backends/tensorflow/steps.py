"""A step of tuning in TensorFlow: gradients of a batch, clipping, AdamW; each computed as PyTorch does.

Shapes: B rows, T tokens, H hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

import tensorflow as tf
from tunewell.backends.tensorflow.layers import Dropout
from tunewell.backends.tensorflow.model import INTS, Classifier, inputs

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
VECTORS = tf.TensorSpec([None, None], tf.float32)
SEED = tf.TensorSpec([2], tf.int64)


class Steps:
    """The optimiser of a model, and the gradients that it takes.

    Args:
        loss: logits, labels -> one value a row. labels: their tf.TensorSpec.
        decayed: names of the variables with weight decay.
        factors: of the learning rate by name; 1 where nothing is said.
        max_norm: gradients are clipped to it; 0 for no clipping.

    Attributes:
        first, second: name -> running means of the gradient and of its square.
        updates: steps made.
    """

    def __init__(
        self,
        model: Classifier,
        loss: Callable[[Any, Any], Any],
        labels: Any,
        *,
        decayed: Collection[str],
        weight_decay: float,
        factors: Mapping[str, float],
        max_norm: float,
    ) -> None:
        self.model, self.max_norm, self.updates = model, max_norm, 0
        self.names = list(model.variables)
        variables = [model.variables[n] for n in self.names]
        self.first = {n: tf.Variable(tf.zeros_like(v)) for n, v in model.variables.items()}
        self.second = {n: tf.Variable(tf.zeros_like(v)) for n, v in model.variables.items()}
        learned = {name: _all_but(model, name) for name in model.unlearned}

        def taken(tape: Any, value: Any) -> list[Any]:
            """Dense gradients: summed over the places where a row of a matrix was looked up."""
            found = tape.gradient(value, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            dense = [tf.convert_to_tensor(g) for g in found]
            return [g * learned[n] if n in learned else g for n, g in zip(self.names, dense, strict=True)]

        # one graph for all shapes: another one for the first batch would round in another way
        @tf.function(input_signature=[INTS, INTS, INTS, labels, SEED, tf.TensorSpec([])], autograph=False)
        def of_rows(ids: Any, mask: Any, types: Any, wanted: Any, seed: Any, rows: Any) -> Any:
            with tf.GradientTape() as tape:
                logits = model.logits(ids, mask, types, Dropout(seed))
                value = tf.reduce_sum(loss(logits, wanted)) / rows
            return value, logits, taken(tape, value)

        @tf.function(input_signature=[INTS, INTS, INTS, VECTORS, SEED, tf.TensorSpec([])], autograph=False)
        def of_embeddings(ids: Any, mask: Any, types: Any, teacher: Any, seed: Any, weight: Any) -> Any:
            with tf.GradientTape() as tape:
                own = model.embedding(ids, mask, types, Dropout(seed))
                far = tf.reduce_sum(tf.square(own - teacher), 1)
                value = weight * tf.reduce_mean(far / tf.maximum(tf.reduce_sum(tf.square(teacher), 1), 1e-12))
            return value, taken(tape, value)

        @tf.function(autograph=False)
        def move(gradients: Sequence[Any], scale: Any, rate: Any, power1: Any, power2: Any) -> None:
            # PyTorch adds epsilon to the root of the second moment after its correction, this operation before
            epsilon = EPSILON * tf.sqrt(1 - power2)
            for name, gradient in zip(self.names, gradients, strict=True):
                variable, own = model.variables[name], rate * factors.get(name, 1.0)
                if weight_decay and name in decayed:
                    variable.assign(variable * (1 - own * weight_decay))
                tf.raw_ops.ResourceApplyAdam(
                    var=variable.handle, m=self.first[name].handle, v=self.second[name].handle, beta1_power=power1,
                    beta2_power=power2, lr=own, beta1=BETA1, beta2=BETA2, epsilon=epsilon, grad=gradient * scale,
                )  # fmt: skip

        self._of_rows, self._of_embeddings, self._move = of_rows, of_embeddings, move
        self._norm = tf.function(_norm, autograph=False)

    def gradient(
        self, batch: Mapping[str, np.ndarray], labels: np.ndarray, seed: tuple[int, int], rows: int
    ) -> tuple[float, np.ndarray, list[Any]]:
        """Of the loss of a batch over `rows`, the planned rows of a step.

        Returns:
            The loss, the logits (B, C) that it came from, and the gradients by the order of `names`.
        """
        value, logits, found = self._of_rows(
            *inputs(batch), tf.constant(labels), tf.constant(seed, tf.int64), tf.constant(rows, tf.float32)
        )
        return float(value), logits.numpy(), found

    def towards(
        self, batch: Mapping[str, np.ndarray], teacher: np.ndarray, weight: float, seed: tuple[int, int]
    ) -> tuple[float, list[Any]]:
        """Of `weight` times the mean relative squared distance of embeddings to those of a teacher (B, H)."""
        value, found = self._of_embeddings(
            *inputs(batch), tf.constant(teacher), tf.constant(seed, tf.int64), tf.constant(weight, tf.float32)
        )
        return float(value), found

    def norm(self, gradients: list[Any]) -> float:
        """Of all gradients together."""
        return float(self._norm(gradients))

    def update(self, gradients: list[Any], norm: float, rate: float) -> None:
        """Clip by `norm`, decay and move."""
        self.updates += 1
        scale = min(1.0, self.max_norm / (norm + 1e-6)) if self.max_norm else 1.0
        powers = (math.pow(BETA1, self.updates), math.pow(BETA2, self.updates))
        self._move(gradients, *(tf.constant(x, tf.float32) for x in (scale, rate, *powers)))


def _norm(gradients: Sequence[Any]) -> Any:
    """Of all together; summed by rows and then in float64, so that the order of the sums does not show."""
    squares = [tf.reduce_sum(tf.square(g), axis=-1) for g in gradients]
    return tf.sqrt(tf.add_n([tf.reduce_sum(tf.cast(s, tf.float64)) for s in squares]))


def _all_but(model: Classifier, name: str) -> Any:
    """(rows, 1) of 1, and 0 at the row that is not learned."""
    keep = np.ones((model.variables[name].shape[0], 1), dtype=np.float32)
    keep[model.unlearned[name]] = 0
    return tf.constant(keep)
