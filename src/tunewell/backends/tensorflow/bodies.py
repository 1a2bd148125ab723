"""What the bodies of all kinds of models have in common: where their weights are, and what is not learned."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import tensorflow as tf
from tunewell.backends.tensorflow.layers import Dropout, dense, layer_norm


class Body(ABC):
    """The layers of a model, and its head, over variables that are named as in PyTorch's state.

    Args:
        config: of the PyTorch model. variables: by name, asked at every call. lookup: (B, T) ids -> embeddings.
        prefix: of the names below the model's base, `bert.` for example.

    Attributes:
        words: the name of the token embeddings, without the prefix.
    """

    words: ClassVar[str]

    def __init__(self, config: Any, variables: Mapping[str, Any], lookup: Callable[[Any], Any], prefix: str) -> None:
        self.config, self.variables, self.lookup, self.prefix = config, variables, lookup, prefix

    def weight(self, name: str) -> Any:
        return self.variables[self.prefix + name]

    def dense(self, x: Any, name: str) -> Any:
        """(N, in) -> (N, out) of a layer of the base."""
        return self.head_dense(x, self.prefix + name)

    def head_dense(self, x: Any, name: str) -> Any:
        """The same by a whole name."""
        return dense(x, self.variables[f"{name}.weight"], self.variables.get(f"{name}.bias"))

    def norm(self, x: Any, name: str, epsilon: float) -> Any:
        return layer_norm(x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"), epsilon)

    def positions(self, ids: Any) -> Any:
        """(B, T) or (1, T) places in the position embeddings."""
        return tf.range(tf.shape(ids)[1])[None]

    def unlearned(self) -> dict[str, int]:
        """Name below the base -> the row of an embedding matrix for which PyTorch learns nothing: the padding id's."""
        padding = self.config.pad_token_id
        return {} if padding is None else {self.words: int(padding)}

    @abstractmethod
    def hidden(self, ids: Any, mask: Any, types: Any, dropout: Dropout) -> Any:
        """The last hidden states (B, T, H) of int32 (B, T) ids, mask and token types."""

    @abstractmethod
    def head(self, hidden: Any, ids: Any, dropout: Dropout) -> Any:
        """(B, C) of the last hidden states."""


def folded(x: Any) -> Any:
    """(B, T, H) -> (B · T, H): rows and tokens as one axis, so that products are of plain matrices."""
    return tf.reshape(x, [-1, x.shape[-1]])


def unfolded(x: Any, ids: Any) -> Any:
    """(B · T, H) -> (B, T, H)."""
    return tf.reshape(x, [tf.shape(ids)[0], -1, x.shape[-1]])
