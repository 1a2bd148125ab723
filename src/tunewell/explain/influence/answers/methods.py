"""How the rows behind an answer are scored; positive rows push its likelihood up.

Shapes: n training rows, q queries.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tunewell.explain.influence.answers.gradients import unit
from tunewell.explain.influence.answers.index import AnswerIndex, AnswerQuery

BLOCK_ROWS = 4096  # rows of the index in memory at a time


def less(index: AnswerIndex, query: AnswerQuery) -> np.ndarray:
    """(q, n) cosine of the answer's gradient with the step that Adam would make on a row, −1 to 1.

    Xia et al., 2024, LESS, definition 3.1, at one checkpoint: the tuned weights. Without Adam's moments the row's own
    gradient stands for the step, as in TracIn (Pruthi et al., 2020), of length 1.
    """
    rows = index.plain if index.adam is None else index.adam
    return cosines(rows, unit(query.gradients)).T


def cosines(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n, q) inner products of rows (n, k), which may be on disk, with others (q, k)."""
    parts = [
        np.asarray(rows[at : at + BLOCK_ROWS], dtype=np.float32) @ others.T for at in range(0, len(rows), BLOCK_ROWS)
    ]
    return np.concatenate(parts) if parts else np.empty((0, len(others)), dtype=np.float32)


def trak(index: AnswerIndex, query: AnswerQuery) -> np.ndarray:
    """(q, n) TRAK (Park et al., 2023) with the mean log likelihood of an answer as the output; see `influence.trak`.

    The ridge is the one found for classes and has not been chosen anew for answers. With fewer rows than numbers the
    same system is solved among the rows: (ΦᵀΦ + λI)⁻¹ Φᵀ = Φᵀ (ΦΦᵀ + λI)⁻¹.
    """
    from scipy.linalg import cho_solve

    from tunewell.explain.influence import trak as of_classes

    phi = index.matrix()
    n, k = phi.shape
    if n >= k:
        return np.asarray(of_classes.scores(index, query))  # type: ignore[arg-type]
    if "trak" not in index.kept:
        kernel = phi @ phi.T / n
        # the ridge is a share of the mean diagonal of the other matrix, which has the same trace
        kernel[np.diag_indices_from(kernel)] += of_classes.RIDGE * float(np.trace(kernel)) / k + 1e-12
        index.kept["trak"] = np.linalg.cholesky(kernel)
    products = query.gradients.astype(np.float32) @ phi.T
    return np.asarray(cho_solve((index.kept["trak"], True), products.T).T)


def neighbours(index: AnswerIndex, query: AnswerQuery) -> np.ndarray:
    """(q, n) cosine of the mean hidden states that the answers are read from: what is alike, not what it did."""
    return unit(query.features) @ unit(index.features).T


METHODS: dict[str, Callable[[AnswerIndex, AnswerQuery], np.ndarray]] = {
    "less": less, "trak": trak, "neighbours": neighbours,
}  # fmt: skip
DEFAULT = "less"
