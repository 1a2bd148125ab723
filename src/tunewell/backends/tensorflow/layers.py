"""The layers of a BERT-like encoder, as functions of tensors and weights.

Shapes: B rows, T tokens, N = B · T, H hidden size, A heads, D = H / A. Weights of dense layers are (out, in), as
PyTorch keeps them.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def activate(name: str, x: Any) -> Any:
    """An activation by the name that a config gives it (fits.ACTIVATIONS); plain `gelu` is the exact one."""
    if name == "gelu":
        return tf.nn.gelu(x, approximate=False)
    if name in ("gelu_new", "gelu_pytorch_tanh"):
        return tf.nn.gelu(x, approximate=True)
    return {"relu": tf.nn.relu, "silu": tf.nn.silu, "swish": tf.nn.silu, "tanh": tf.nn.tanh}[name](x)


def dense(x: Any, weight: Any, bias: Any) -> Any:
    """(N, in) -> (N, out)."""
    return tf.nn.bias_add(tf.matmul(x, weight, transpose_b=True), bias)


def layer_norm(x: Any, weight: Any, bias: Any, epsilon: float) -> Any:
    """Over the last axis, with the biased variance."""
    centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
    return centred * tf.math.rsqrt(variance + epsilon) * weight + bias


class Dropout:
    """Dropout whose masks follow from a seed and the place of the call, so that a resumed tuning draws the same.

    Args:
        seed: (2,) int32 tensor, another one for each forward pass; None for no dropout.
    """

    def __init__(self, seed: Any | None) -> None:
        self.seed, self.calls = seed, 0

    def __call__(self, x: Any, rate: float) -> Any:
        self.calls += 1
        if self.seed is None or not rate:
            return x
        seed = tf.random.experimental.stateless_fold_in(self.seed, self.calls)
        return tf.nn.experimental.stateless_dropout(x, rate, seed)


def mask_bias(mask: Any) -> Any:
    """(B, T) of 1 and 0 -> (B, 1, 1, T) to add to attention scores: 0, or so low that the weight is 0."""
    return tf.where(mask > 0, 0.0, tf.float32.min)[:, None, None, :]


def attention(query: Any, key: Any, value: Any, bias: Any, heads: int, rate: float, dropout: Dropout) -> Any:
    """Scaled dot-product attention of every token to all that `bias` (B, 1, 1, T) leaves.

    Args:
        query, key, value: (N, H) each. rate: dropout of the attention weights.

    Returns:
        (N, H).
    """
    rows, width = tf.shape(bias)[0], query.shape[-1]

    def split(x: Any) -> Any:
        return tf.transpose(tf.reshape(x, [rows, -1, heads, width // heads]), [0, 2, 1, 3])

    scores = tf.matmul(split(query), split(key), transpose_b=True) * (width // heads) ** -0.5
    weights = dropout(tf.nn.softmax(scores + bias), rate)
    return tf.reshape(tf.transpose(tf.matmul(weights, split(value)), [0, 2, 1, 3]), [-1, width])
