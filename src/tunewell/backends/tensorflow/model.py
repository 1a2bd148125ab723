"""A classifier or regressor in TensorFlow over the weights of its PyTorch twin: variables, embeddings, answers.

Its layers are a `Body`, of encoders.py or decoders.py.

Shapes: B rows, T tokens, H hidden size, C outputs, V entries of the vocabulary, K of them that are learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

import tensorflow as tf
from tunewell.backends.tensorflow.bodies import Body
from tunewell.backends.tensorflow.decoders import Gpt2, Llama
from tunewell.backends.tensorflow.encoders import DistilBert, Encoder
from tunewell.backends.tensorflow.fits import refuse_model
from tunewell.backends.tensorflow.layers import Dropout
from tunewell.train.vocabulary import WORTH

INTS = tf.TensorSpec([None, None], tf.int32)


BODIES: dict[str, type[Body]] = {
    "distilbert": DistilBert,
    "gpt2": Gpt2,
    "llama": Llama,
    "mistral": Llama,
    "qwen2": Llama,
}


def body_of(config: Any) -> type[Body]:
    """The layers of a kind of model that `refuse_model` lets through."""
    return BODIES.get(config.model_type, Encoder)


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
        self.config, kind = config, body_of(config)
        self.words = next(name for name in weights if name.endswith(kind.words))
        words = weights[self.words]
        self.used = used if used is not None and len(used) <= WORTH * len(words) else None
        place = np.full(len(words), -1, dtype=np.int32)
        if self.used is not None:
            place[self.used] = np.arange(len(self.used), dtype=np.int32)
            self.place, self.others = tf.constant(place), tf.constant(words)
            weights = {**weights, self.words: words[self.used]}
        self.variables = {name: tf.Variable(value, name=name) for name, value in weights.items()}
        prefix = self.words.removesuffix(kind.words)
        self.body = kind(config, self.variables, self._words, prefix)
        # PyTorch's embeddings learn nothing for the padding id, wherever it stands
        self.unlearned = {prefix + name: row for name, row in self.body.unlearned().items()}
        if self.used is not None and self.words in self.unlearned:
            padding = int(place[self.unlearned.pop(self.words)])
            if padding >= 0:
                self.unlearned[self.words] = padding

    @classmethod
    def of(cls, model: Any, used: np.ndarray | None = None) -> Classifier:
        """The twin of a loaded PyTorch model, in fp32."""
        return cls(model.config, {n: p.detach().float().cpu().numpy() for n, p in model.named_parameters()}, used)

    def values(self) -> dict[str, np.ndarray]:
        """Name in PyTorch's state -> values, the embeddings that are not learned put back."""
        out = {name: variable.numpy() for name, variable in self.variables.items()}
        if self.used is not None:
            words = self.others.numpy().copy()
            words[self.used] = out[self.words]
            out[self.words] = words
        return out

    def load(self, values: Mapping[str, np.ndarray]) -> None:
        """Take values as `values` gives them."""
        for name, variable in self.variables.items():
            whole = self.used is None or name != self.words
            variable.assign(values[name] if whole else values[name][self.used])

    # ------------------------------------------------------------ forward

    def _words(self, ids: Any) -> Any:
        learned = self.variables[self.words]
        if self.used is None:
            return tf.gather(learned, ids)
        place = tf.gather(self.place, ids)
        found = tf.gather(learned, tf.maximum(place, 0))
        return tf.where((place < 0)[..., None], tf.gather(self.others, ids), found)

    def logits(self, ids: Any, mask: Any, types: Any, dropout: Dropout) -> Any:
        """The head's outputs (B, C)."""
        return self.body.head(self.body.hidden(ids, mask, types, dropout), ids, dropout)

    def embedding(self, ids: Any, mask: Any, types: Any, dropout: Dropout) -> Any:
        """The mean of the last hidden states over the tokens that `mask` keeps: (B, H)."""
        kept = tf.cast(mask, tf.float32)[..., None]
        return tf.reduce_sum(self.body.hidden(ids, mask, types, dropout) * kept, 1) / tf.reduce_sum(kept, 1)

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
