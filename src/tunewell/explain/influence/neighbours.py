"""Nearest neighbours: training rows whose representation is like the query's; the cheap method.

Cosine similarity of what the head sees, positive for rows whose label supports the explained output and negative for
the others. It says what is similar, not what learning did with it.
"""

from __future__ import annotations

import numpy as np

from tunewell.explain.influence.index import Index, Query

name = "neighbours"
title = "similar rows"
paper = ""


def scores(index: Index, query: Query) -> np.ndarray:
    """(q, n) signed cosine similarity, from −1 to 1."""
    return similarity(index.features, query.features) * _support(index, query)


def similarity(train: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """(q, n) cosine similarity of rows."""
    return _unit(queries) @ _unit(train).T


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _support(index: Index, query: Query) -> np.ndarray:
    """(q, n) 1 where a row's label speaks for the explained output, −1 where it speaks against it."""
    if index.spec.regression:  # labels above the prediction pull it up
        return np.sign(index.targets[None, :] - query.logits[:, :1])
    if index.spec.multi_label:
        return 2 * index.targets.T[query.which] - 1
    return np.where(index.targets[None, :] == query.which[:, None], 1.0, -1.0)
