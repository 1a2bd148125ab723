"""The losses of train/losses.py in TensorFlow: one value a row.

Shapes: B rows, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import tensorflow as tf
from tunewell.train.losses import FITTING

if TYPE_CHECKING:
    import numpy as np

    from tunewell.tasks import TaskSpec


def loss_for(
    spec: TaskSpec,
    name: str,
    *,
    label_smoothing: float = 0.0,
    focal_gamma: float = 2.0,
    class_weights: np.ndarray | None = None,
) -> Callable[[Any, Any], Any]:
    """The loss of a task, see `tunewell.train.losses.loss_for`, which has refused what does not fit.

    Args:
        class_weights: (C,) float32.

    Returns:
        A function of logits (B, C) and labels (int32 (B,), or float32 (B, C) or (B,)) to losses (B,).
    """
    name = FITTING[spec.problem_type][0] if name == "auto" else name
    weights = None if class_weights is None else tf.constant(class_weights, tf.float32)

    def by_class(losses: Any, labels: Any) -> Any:
        return losses if weights is None else losses * tf.gather(weights, labels)

    def by_cell(losses: Any, labels: Any) -> Any:
        return losses if weights is None else losses * (labels * weights + 1 - labels)

    def cross_entropy(logits: Any, labels: Any) -> Any:
        likelihood = tf.nn.log_softmax(logits)
        given = tf.gather(likelihood, labels, axis=1, batch_dims=1)
        even = tf.reduce_mean(likelihood, axis=1)
        return by_class(-(1 - label_smoothing) * given - label_smoothing * even, labels)

    def focal(logits: Any, labels: Any) -> Any:
        if spec.multi_label:
            losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
            return tf.reduce_mean(by_cell((1 - tf.exp(-losses)) ** focal_gamma * losses, labels), axis=1)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return by_class((1 - tf.exp(-losses)) ** focal_gamma * losses, labels)

    def bce(logits: Any, labels: Any) -> Any:
        return tf.reduce_mean(by_cell(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits), labels), axis=1)

    def mse(logits: Any, labels: Any) -> Any:
        return tf.square(logits[:, 0] - labels)

    def mae(logits: Any, labels: Any) -> Any:
        return tf.abs(logits[:, 0] - labels)

    def huber(logits: Any, labels: Any) -> Any:
        off = tf.abs(logits[:, 0] - labels)
        return tf.where(off < 1, 0.5 * tf.square(off), off - 0.5)

    return {"cross_entropy": cross_entropy, "focal": focal, "bce": bce, "mse": mse, "mae": mae, "huber": huber}[name]
