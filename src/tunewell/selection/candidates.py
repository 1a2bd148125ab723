"""What methods choose from: one record of arrays, whatever model they came from."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Candidates:
    """A pool of m rows and what is known of the l labelled ones; H features, C classes, T dropout passes.

    Attributes:
        vectors: (m, H) embeddings. labelled: (l, H) those of the labelled rows; l may be 0.
        probabilities: (m, C) of a model that learned from the labelled rows; None before there is one.
        labelled_probabilities: (l, C). passes: (T, m, C) probabilities with dropout left on, where a model has it.
        counts: (C,) labelled rows of each class.
    """

    vectors: np.ndarray
    labelled: np.ndarray
    probabilities: np.ndarray | None = None
    labelled_probabilities: np.ndarray | None = None
    passes: np.ndarray | None = None
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.vectors)


def unit(x: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, so that Euclidean distance ranks as cosine similarity does."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, k) squared Euclidean distances of rows (n, H) and (k, H)."""
    square = (a * a).sum(1)[:, None] + (b * b).sum(1)[None, :] - 2 * a @ b.T
    return np.maximum(square, 0)
