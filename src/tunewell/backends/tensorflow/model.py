"""A BERT-like classifier or regressor in TensorFlow over the weights of its PyTorch twin.

BERT, RoBERTa and ELECTRA share their layers. What differs is told by the config: RoBERTa numbers positions from the
padding id + 1 and leaves padding out, ELECTRA may have narrow embeddings, and the heads are three.

Shapes: B rows, T tokens, H hidden size, C outputs, V entries of the vocabulary, K of them that are learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

import tensorflow as tf
from tunewell.backends.tensorflow.fits import ROBERTA, refuse_model
from tunewell.backends.tensorflow.layers import Dropout, activate, attention, dense, layer_norm, mask_bias
from tunewell.train.vocabulary import WORTH

INTS = tf.TensorSpec([None, None], tf.int32)
WORDS = "embeddings.word_embeddings.weight"


class Classifier:
    """The twin of a PyTorch model.

    Args:
        config: of the PyTorch model.
        weights: name in PyTorch's state -> values.
        used: (K,) token ids, ascending, whose embeddings are learned; the others stay as they are (see
            train/vocabulary.py). None for all.

    Attributes:
        variables: name -> tf.Variable, all that is learned, in the order of `weights`.
    """

    def __init__(self, config: Any, weights: Mapping[str, np.ndarray], used: np.ndarray | None = None) -> None:
        refuse_model(config)
        self.config, self.kind = config, "roberta" if config.model_type in ROBERTA else config.model_type
        self.prefix = next(name for name in weights if name.endswith(WORDS)).removesuffix(WORDS)
        words = weights[self.prefix + WORDS]
        self.used = used if used is not None and len(used) <= WORTH * len(words) else None
        place = np.full(len(words), -1, dtype=np.int32)
        if self.used is not None:
            place[self.used] = np.arange(len(self.used), dtype=np.int32)
            self.place, self.others = tf.constant(place), tf.constant(words)
            weights = {**weights, self.prefix + WORDS: words[self.used]}
        self.variables = {name: tf.Variable(value, name=name) for name, value in weights.items()}
        chosen = getattr(config, "classifier_dropout", None)
        self.head_dropout = config.hidden_dropout_prob if chosen is None else chosen
        # PyTorch's embeddings learn nothing for the padding id, wherever it stands
        self.unlearned: dict[str, int] = {}
        padding = config.pad_token_id
        if padding is not None and (self.used is None or place[padding] >= 0):
            self.unlearned[self.prefix + WORDS] = int(padding if self.used is None else place[padding])
        if padding is not None and self.kind == "roberta":
            self.unlearned[self.prefix + "embeddings.position_embeddings.weight"] = int(padding)

    @classmethod
    def of(cls, model: Any, used: np.ndarray | None = None) -> Classifier:
        """The twin of a loaded PyTorch model, in fp32."""
        return cls(model.config, {n: p.detach().float().cpu().numpy() for n, p in model.named_parameters()}, used)

    def values(self) -> dict[str, np.ndarray]:
        """Name in PyTorch's state -> values, the embeddings that are not learned put back."""
        out = {name: variable.numpy() for name, variable in self.variables.items()}
        if self.used is not None:
            words = self.others.numpy().copy()
            words[self.used] = out[self.prefix + WORDS]
            out[self.prefix + WORDS] = words
        return out

    def load(self, values: Mapping[str, np.ndarray]) -> None:
        """Take values as `values` gives them."""
        for name, variable in self.variables.items():
            whole = self.used is None or name != self.prefix + WORDS
            variable.assign(values[name] if whole else values[name][self.used])

    # ------------------------------------------------------------ forward

    def _dense(self, x: Any, name: str) -> Any:
        return dense(x, self.variables[f"{name}.weight"], self.variables[f"{name}.bias"])

    def _norm(self, x: Any, name: str) -> Any:
        weight, bias = self.variables[f"{name}.weight"], self.variables[f"{name}.bias"]
        return layer_norm(x, weight, bias, self.config.layer_norm_eps)

    def _words(self, ids: Any) -> Any:
        learned = self.variables[self.prefix + WORDS]
        if self.used is None:
            return tf.gather(learned, ids)
        place = tf.gather(self.place, ids)
        found = tf.gather(learned, tf.maximum(place, 0))
        return tf.where((place < 0)[..., None], tf.gather(self.others, ids), found)

    def _positions(self, ids: Any) -> Any:
        """(B, T) or (1, T) places in the position embeddings."""
        if self.kind != "roberta":
            return tf.range(tf.shape(ids)[1])[None]
        padding = self.config.pad_token_id
        there = tf.cast(ids != padding, tf.int32)
        return tf.cumsum(there, axis=1) * there + padding

    def hidden(self, ids: Any, mask: Any, types: Any, dropout: Dropout) -> Any:
        """The last hidden states (B, T, H) of int32 (B, T) ids, mask and token types."""
        config, p = self.config, self.prefix
        embedded = self._words(ids) + tf.gather(self.variables[f"{p}embeddings.token_type_embeddings.weight"], types)
        embedded += tf.gather(self.variables[f"{p}embeddings.position_embeddings.weight"], self._positions(ids))
        x = tf.reshape(embedded, [-1, embedded.shape[-1]])  # rows and tokens as one axis: plain matrix products
        x = dropout(self._norm(x, f"{p}embeddings.LayerNorm"), config.hidden_dropout_prob)
        if f"{p}embeddings_project.weight" in self.variables:
            x = self._dense(x, f"{p}embeddings_project")
        bias = mask_bias(mask)
        for i in range(config.num_hidden_layers):
            layer = f"{p}encoder.layer.{i}"
            query, key, value = (self._dense(x, f"{layer}.attention.self.{n}") for n in ("query", "key", "value"))
            heads, rate = config.num_attention_heads, config.attention_probs_dropout_prob
            y = self._dense(attention(query, key, value, bias, heads, rate, dropout), f"{layer}.attention.output.dense")
            y = dropout(y, config.hidden_dropout_prob)
            x = self._norm(y + x, f"{layer}.attention.output.LayerNorm")
            y = activate(config.hidden_act, self._dense(x, f"{layer}.intermediate.dense"))
            y = dropout(self._dense(y, f"{layer}.output.dense"), config.hidden_dropout_prob)
            x = self._norm(y + x, f"{layer}.output.LayerNorm")
        return tf.reshape(x, [tf.shape(ids)[0], -1, config.hidden_size])

    def logits(self, ids: Any, mask: Any, types: Any, dropout: Dropout) -> Any:
        """The head's outputs (B, C)."""
        x = self.hidden(ids, mask, types, dropout)[:, 0]
        if self.kind == "bert":
            x = tf.tanh(self._dense(x, f"{self.prefix}pooler.dense"))
            return self._dense(dropout(x, self.head_dropout), "classifier")
        x = self._dense(dropout(x, self.head_dropout), "classifier.dense")
        x = tf.tanh(x) if self.kind == "roberta" else activate("gelu", x)
        return self._dense(dropout(x, self.head_dropout), "classifier.out_proj")

    def embedding(self, ids: Any, mask: Any, types: Any, dropout: Dropout) -> Any:
        """The mean of the last hidden states over the tokens that `mask` keeps: (B, H)."""
        kept = tf.cast(mask, tf.float32)[..., None]
        return tf.reduce_sum(self.hidden(ids, mask, types, dropout) * kept, 1) / tf.reduce_sum(kept, 1)

    # ------------------------------------------------------------ answers

    def answer(self, tokenizer: Any, encoded: Any, batch_size: int = 64) -> np.ndarray:
        """Logits (n, C) float32 of texts that `models.embed.encode` has encoded, in their order."""
        from tunewell.models.embed import like_length

        n = len(encoded["input_ids"])
        lengths = np.fromiter((len(ids) for ids in encoded["input_ids"]), dtype=np.int64, count=n)
        out = np.empty((n, self.config.num_labels), dtype=np.float32)
        for index in like_length(lengths, batch_size):
            rows = {k: [encoded[k][i] for i in index] for k in encoded if k in tokenizer.model_input_names}
            batch = tokenizer.pad(rows, return_tensors="np")
            out[index] = self.compiled(*inputs(batch)).numpy()
        return out

    @cached_property
    def compiled(self) -> Any:
        """Logits of int32 (B, T) ids, mask and token types, without dropout; one graph for all shapes."""

        def answer(ids: Any, mask: Any, types: Any) -> Any:
            return self.logits(ids, mask, types, Dropout(None))

        return tf.function(answer, input_signature=[INTS] * 3, autograph=False)


def inputs(batch: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """Ids, mask and token types of a padded batch as int32 (B, T); types are 0 where the tokenizer gives none."""
    ids, mask = (np.asarray(batch[k], dtype=np.int32) for k in ("input_ids", "attention_mask"))
    types = np.asarray(batch["token_type_ids"], dtype=np.int32) if "token_type_ids" in batch else np.zeros_like(ids)
    return tf.constant(ids), tf.constant(mask), tf.constant(types)
