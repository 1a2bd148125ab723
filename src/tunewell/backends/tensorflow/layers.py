"""The layers of transformers, as functions of tensors and weights.

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
    """(N, in) -> (N, out); bias may be None."""
    product = tf.matmul(x, weight, transpose_b=True)
    return product if bias is None else tf.nn.bias_add(product, bias)


def layer_norm(x: Any, weight: Any, bias: Any, epsilon: float) -> Any:
    """Over the last axis, with the biased variance."""
    centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
    return centred * tf.math.rsqrt(variance + epsilon) * weight + bias


def rms_norm(x: Any, weight: Any, epsilon: float) -> Any:
    """Over the last axis, by the root of the mean square (Zhang & Sennrich, 2019)."""
    return x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), axis=-1, keepdims=True) + epsilon) * weight


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


def causal_bias(mask: Any) -> Any:
    """(B, T) of 1 and 0 -> (B, 1, T, T) to add to attention scores: no token sees a later one, or padding."""
    tokens = tf.range(tf.shape(mask)[1])
    allowed = (tokens[:, None] >= tokens[None])[None] & (mask > 0)[:, None, :]
    return tf.where(allowed, 0.0, tf.float32.min)[:, None]


def turned(x: Any, turns: tuple[Any, Any]) -> Any:
    """(B, A, T, D) queries or keys, turned by their places."""
    cosines, sines = turns
    left, right = tf.split(x, 2, axis=-1)
    return x * cosines + tf.concat([-right, left], axis=-1) * sines


def attention(
    query: Any,
    key: Any,
    value: Any,
    bias: Any,
    heads: int,
    rate: float,
    dropout: Dropout,
    turns: tuple[Any, Any] | None = None,
) -> Any:
    """Scaled dot-product attention of every token to all that `bias` (B, 1, 1 or T, T) leaves.

    Args:
        query: (N, A · D). key, value: (N, A · D), or fewer heads, each of which serves as many queries.
        rate: dropout of the attention weights. turns: of queries and keys by their places.

    Returns:
        (N, A · D).
    """
    rows, width = tf.shape(bias)[0], query.shape[-1] // heads

    def split(x: Any) -> Any:
        return tf.transpose(tf.reshape(x, [rows, -1, x.shape[-1] // width, width]), [0, 2, 1, 3])

    query, key, value = split(query), split(key), split(value)
    if turns is not None:
        query, key = turned(query, turns), turned(key, turns)
    if (shared := heads // key.shape[1]) > 1:
        key, value = tf.repeat(key, shared, axis=1), tf.repeat(value, shared, axis=1)
    scores = tf.matmul(query, key, transpose_b=True) * width**-0.5
    weights = dropout(tf.nn.softmax(scores + bias), rate)
    return tf.reshape(tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3]), [-1, heads * width])
