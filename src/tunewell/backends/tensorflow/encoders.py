"""BERT-like encoders: BERT, RoBERTa and ELECTRA, which share their layers, and DistilBERT.

What differs among the first three is told by the config: RoBERTa numbers positions from the padding id + 1 and leaves
padding out, ELECTRA may have narrow embeddings, and the heads are three.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tunewell.backends.tensorflow.bodies import Body, folded, unfolded
from tunewell.backends.tensorflow.fits import ROBERTA
from tunewell.backends.tensorflow.layers import Dropout, activate, attention, mask_bias

POSITIONS = "embeddings.position_embeddings.weight"


class Encoder(Body):
    """BERT, RoBERTa, ELECTRA."""

    words = "embeddings.word_embeddings.weight"

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.kind = "roberta" if self.config.model_type in ROBERTA else self.config.model_type
        chosen = getattr(self.config, "classifier_dropout", None)
        self.head_dropout = self.config.hidden_dropout_prob if chosen is None else chosen

    def positions(self, ids: Any) -> Any:
        if self.kind != "roberta":
            return super().positions(ids)
        padding = self.config.pad_token_id
        there = tf.cast(ids != padding, tf.int32)
        return tf.cumsum(there, axis=1) * there + padding

    def unlearned(self) -> dict[str, int]:
        found = super().unlearned()
        return {**found, POSITIONS: found[self.words]} if found and self.kind == "roberta" else found

    def hidden(self, ids: Any, mask: Any, types: Any, dropout: Dropout) -> Any:
        config, epsilon = self.config, self.config.layer_norm_eps
        embedded = self.lookup(ids) + tf.gather(self.weight("embeddings.token_type_embeddings.weight"), types)
        embedded += tf.gather(self.weight(POSITIONS), self.positions(ids))
        x = dropout(self.norm(folded(embedded), "embeddings.LayerNorm", epsilon), config.hidden_dropout_prob)
        if f"{self.prefix}embeddings_project.weight" in self.variables:
            x = self.dense(x, "embeddings_project")
        bias = mask_bias(mask)
        for i in range(config.num_hidden_layers):
            layer = f"encoder.layer.{i}"
            query, key, value = (self.dense(x, f"{layer}.attention.self.{n}") for n in ("query", "key", "value"))
            heads, rate = config.num_attention_heads, config.attention_probs_dropout_prob
            y = self.dense(attention(query, key, value, bias, heads, rate, dropout), f"{layer}.attention.output.dense")
            y = dropout(y, config.hidden_dropout_prob)
            x = self.norm(y + x, f"{layer}.attention.output.LayerNorm", epsilon)
            y = activate(config.hidden_act, self.dense(x, f"{layer}.intermediate.dense"))
            y = dropout(self.dense(y, f"{layer}.output.dense"), config.hidden_dropout_prob)
            x = self.norm(y + x, f"{layer}.output.LayerNorm", epsilon)
        return unfolded(x, ids)

    def head(self, hidden: Any, ids: Any, dropout: Dropout) -> Any:
        x = hidden[:, 0]
        if self.kind == "bert":
            x = tf.tanh(self.dense(x, "pooler.dense"))
            return self.head_dense(dropout(x, self.head_dropout), "classifier")
        x = self.head_dense(dropout(x, self.head_dropout), "classifier.dense")
        x = tf.tanh(x) if self.kind == "roberta" else activate("gelu", x)
        return self.head_dense(dropout(x, self.head_dropout), "classifier.out_proj")


class DistilBert(Body):
    """No token types, no pooler, and dropout in other places than BERT's."""

    words = "embeddings.word_embeddings.weight"
    epsilon = 1e-12

    def hidden(self, ids: Any, mask: Any, types: Any, dropout: Dropout) -> Any:
        config = self.config
        embedded = self.lookup(ids) + tf.gather(self.weight(POSITIONS), self.positions(ids))
        x = dropout(self.norm(folded(embedded), "embeddings.LayerNorm", self.epsilon), config.dropout)
        bias = mask_bias(mask)
        for i in range(config.n_layers):
            layer = f"transformer.layer.{i}"
            query, key, value = (self.dense(x, f"{layer}.attention.{n}_lin") for n in "qkv")
            y = attention(query, key, value, bias, config.n_heads, config.attention_dropout, dropout)
            x = self.norm(self.dense(y, f"{layer}.attention.out_lin") + x, f"{layer}.sa_layer_norm", self.epsilon)
            y = activate(config.activation, self.dense(x, f"{layer}.ffn.lin1"))
            y = dropout(self.dense(y, f"{layer}.ffn.lin2"), config.dropout)
            x = self.norm(y + x, f"{layer}.output_layer_norm", self.epsilon)
        return unfolded(x, ids)

    def head(self, hidden: Any, ids: Any, dropout: Dropout) -> Any:
        x = tf.nn.relu(self.head_dense(hidden[:, 0], "pre_classifier"))
        return self.head_dense(dropout(x, self.config.seq_classif_dropout), "classifier")
