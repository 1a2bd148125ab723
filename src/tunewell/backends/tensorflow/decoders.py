"""Decoders under a head that reads the last token: GPT-2, and the Llama family (Llama, Mistral, Qwen2).

Shapes: B rows, T tokens, H hidden size, A heads, D size of a head.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

import tensorflow as tf
from tunewell.backends.tensorflow.bodies import Body, folded, unfolded
from tunewell.backends.tensorflow.layers import Dropout, activate, attention, causal_bias, rms_norm


class Decoder(Body):
    """What the two kinds share: the head."""

    def head(self, hidden: Any, ids: Any, dropout: Dropout) -> Any:
        """Of the last token that is no padding, by its id as Transformers looks for it."""
        there = tf.cast(ids != self.config.pad_token_id, tf.int32)
        last = tf.argmax(tf.range(tf.shape(ids)[1])[None] * there, axis=1, output_type=tf.int32)
        return self.head_dense(tf.gather(hidden, last, axis=1, batch_dims=1), "score")


class Gpt2(Decoder):
    """GPT-2: norms before the layers, learned positions, matrices the other way round."""

    words = "wte.weight"

    def unlearned(self) -> dict[str, int]:
        return {}

    def across(self, x: Any, name: str) -> Any:
        """Like `dense`, of weights (in, out)."""
        return tf.nn.bias_add(tf.matmul(x, self.weight(f"{name}.weight")), self.weight(f"{name}.bias"))

    def hidden(self, ids: Any, mask: Any, types: Any, dropout: Dropout) -> Any:
        config, epsilon = self.config, self.config.layer_norm_epsilon
        x = folded(self.lookup(ids) + tf.gather(self.weight("wpe.weight"), self.positions(ids)))
        x, bias = dropout(x, config.embd_pdrop), causal_bias(mask)
        for i in range(config.n_layer):
            layer = f"h.{i}"
            mixed = self.across(self.norm(x, f"{layer}.ln_1", epsilon), f"{layer}.attn.c_attn")
            query, key, value = tf.split(mixed, 3, axis=-1)
            y = attention(query, key, value, bias, config.n_head, config.attn_pdrop, dropout)
            x += dropout(self.across(y, f"{layer}.attn.c_proj"), config.resid_pdrop)
            y = self.across(self.norm(x, f"{layer}.ln_2", epsilon), f"{layer}.mlp.c_fc")
            y = self.across(activate(config.activation_function, y), f"{layer}.mlp.c_proj")
            x += dropout(y, config.resid_pdrop)
        return unfolded(self.norm(x, "ln_f", epsilon), ids)


class Llama(Decoder):
    """Llama: root mean squares for norms, turned queries and keys for positions, a gate in the feed-forward layer."""

    words = "embed_tokens.weight"

    def rms(self, x: Any, name: str) -> Any:
        return rms_norm(x, self.weight(f"{name}.weight"), self.config.rms_norm_eps)

    def hidden(self, ids: Any, mask: Any, types: Any, dropout: Dropout) -> Any:
        config, rate = self.config, getattr(self.config, "attention_dropout", 0.0)
        x, bias, turns = folded(self.lookup(ids)), causal_bias(mask), self.turns(tf.shape(ids)[1])
        for i in range(config.num_hidden_layers):
            layer = f"layers.{i}"
            y = self.rms(x, f"{layer}.input_layernorm")
            query, key, value = (self.dense(y, f"{layer}.self_attn.{n}_proj") for n in "qkv")
            y = attention(query, key, value, bias, config.num_attention_heads, rate, dropout, turns)
            x += self.dense(y, f"{layer}.self_attn.o_proj")
            y = self.rms(x, f"{layer}.post_attention_layernorm")
            gate = activate(config.hidden_act, self.dense(y, f"{layer}.mlp.gate_proj"))
            x += self.dense(gate * self.dense(y, f"{layer}.mlp.up_proj"), f"{layer}.mlp.down_proj")
        return unfolded(self.rms(x, "norm"), ids)

    @property
    def width(self) -> int:
        """D."""
        return int(getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads)

    def turns(self, tokens: Any) -> tuple[Any, Any]:
        """(T, D) cosines and sines by which each token's queries and keys are turned."""
        frequencies, scale = self.frequencies
        angles = tf.cast(tf.range(tokens), tf.float32)[:, None] * tf.constant(frequencies)[None]
        angles = tf.concat([angles, angles], axis=1)
        return tf.cos(angles) * scale, tf.sin(angles) * scale

    @cached_property
    def frequencies(self) -> tuple[np.ndarray, float]:
        """(D / 2,) of the rotary embedding (Su et al., 2021, RoFormer), and what its cosines are multiplied by."""
        about = self.config.rope_parameters
        if about["rope_type"] == "default":
            steps = np.arange(0, self.width, 2, dtype=np.float32) / np.float32(self.width)
            return (1.0 / (np.float32(about["rope_theta"]) ** steps)).astype(np.float32), 1.0
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        found, scale = ROPE_INIT_FUNCTIONS[about["rope_type"]](self.config)
        return found.numpy().astype(np.float32), float(scale)
