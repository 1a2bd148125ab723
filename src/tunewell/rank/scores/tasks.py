"""How near two tasks are, by their embeddings: TextEmb (Vu et al., 2020) and Task2Vec (Achille et al., 2019).

TextEmb is the mean of a fixed encoder's pooled vectors of a task's texts; tasks are compared by the cosine. It knows
nothing of labels. Task2Vec is the diagonal of the Fisher information of the encoder's weights under a linear head for
the task's labels, one number a neuron: which neurons the task's answers hang on. Two tasks may differ in how sharp
their answers are, so the distance is taken of shares:

    d(a, b) = 1 − cos(a / (a + b), b / (a + b))

Shapes: n texts, H size of an embedding, D neurons.
"""

from __future__ import annotations

import numpy as np


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """−1 to 1; 0 where one of the two (H,) vectors is zero."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length > 0 else 0.0


def textemb(vectors: np.ndarray) -> np.ndarray:
    """(H,) the embedding of a task: the mean of the vectors (n, H) of its texts."""
    return np.asarray(vectors, np.float64).mean(axis=0)


def task_distance(a: np.ndarray, b: np.ndarray) -> float | None:
    """Task2Vec's symmetric distance: 0 (the same neurons, in the same proportion) to 1 (no neuron in common); None
    where a task needs no neuron at all, as one of a single class does.

    Neurons that neither task needs say nothing and are left out.

    Args:
        a, b: (D,) Fisher information of two tasks, ≥ 0.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if not a.any() or not b.any():
        return None
    total = a + b
    seen = total > 0
    return 1 - cosine(a[seen] / total[seen], b[seen] / total[seen])
