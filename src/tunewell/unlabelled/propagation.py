"""Labels spread from labelled texts to their neighbours (Zhou et al., 2004, Learning with local and global
consistency).

Texts are nodes of a graph, W their similarities, W_ii = 0. Scores are spread along S = D^(-1/2) W D^(-1/2), D the row
sums of W, with the labels Y (one-hot; 0 where there is none) put back at each step:

    F ← α S F + (1 − α) Y,   which ends at   F* = (1 − α) (I − α S)⁻¹ Y

α is how much neighbours say against a row's own label. The same as `sklearn.semi_supervised.LabelSpreading`, on a
sparse symmetric graph: the k nearest neighbours by the cosine of the base model's frozen embeddings.

Shapes: N nodes, H size of an embedding, C classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

NEIGHBOURS = 10
ALPHA = 0.8
SHARP = 0.1  # width of the kernel exp((cos − 1) / width)
ENOUGH, MOST = 1e-7, 1000  # change of a score at which it ends; steps
BLOCK = 1000


def graph(vectors: np.ndarray, neighbours: int = NEIGHBOURS) -> Any:
    """(N, N) sparse similarities exp((cos − 1) / 0.1) of each node and its nearest, made symmetric by the larger.

    Args:
        vectors: (N, H) embeddings, of any length.
    """
    from scipy.sparse import csr_matrix

    v = np.asarray(vectors, np.float32)
    v = v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12)
    n, k = len(v), min(neighbours, len(v) - 1)
    rows, columns, values = [], [], []
    for start in range(0, n, BLOCK):
        near = v[start : start + BLOCK] @ v.T
        own = np.arange(start, start + len(near))
        near[np.arange(len(near)), own] = -np.inf
        best = np.argpartition(-near, k - 1, axis=1)[:, :k] if k else np.empty((len(near), 0), int)
        rows.append(np.repeat(own, k))
        columns.append(best.ravel())
        values.append(np.take_along_axis(near, best, axis=1).ravel())
    weights = np.exp((np.concatenate(values).astype(np.float64) - 1) / SHARP)
    w = csr_matrix((weights, (np.concatenate(rows), np.concatenate(columns))), shape=(n, n))
    return w.maximum(w.T)


def spread(w: Any, labels: np.ndarray, classes: int, alpha: float = ALPHA) -> np.ndarray:
    """(N, C) shares of each class at each node; even shares at a node that no label reaches.

    Args:
        w: (N, N) symmetric similarities ≥ 0 without a diagonal, sparse or not. labels: (N,) class ids, −1 for none.
        alpha: above 0, below 1.
    """
    from scipy.sparse import csr_matrix, diags

    w = csr_matrix(w)
    degree = np.asarray(w.sum(axis=1)).ravel()
    scale = diags(1 / np.sqrt(np.where(degree > 0, degree, 1.0)))
    s = scale @ w @ scale
    known = np.flatnonzero(labels >= 0)
    y = np.zeros((w.shape[0], classes))
    y[known, labels[known]] = 1.0
    f = y.copy()
    for _ in range(MOST):
        before, f = f, alpha * (s @ f) + (1 - alpha) * y
        if np.abs(f - before).max() < ENOUGH * (1 - alpha):
            break
    total = f.sum(axis=1, keepdims=True)
    return np.where(total > 1e-12, f / np.where(total > 1e-12, total, 1.0), 1 / classes)
