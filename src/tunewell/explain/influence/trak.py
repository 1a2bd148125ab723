"""TRAK: the model as a linear one in its projected gradients, whose influence is known.

Park, Georgiev, Ilyas, Leclerc & Madry, 2023, TRAK: Attributing Model Behavior at Scale. φ(z)ᵀ (Φᵀ Φ)⁻¹ φ_i (1 − p_i),
with φ the gradient of the log odds. Where we differ: gradients are projected layer by layer (gradients.py), one model
instead of several, and a ridge, without which one model's scores are mostly noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tunewell.explain.influence.index import Index, Query

name = "trak"
title = "TRAK"
paper = "Park et al., 2023"

RIDGE = 10.0  # share of the kernel's mean diagonal that is added to it; by benchmarks/influence.py on sst2


def scores(index: Index, query: Query) -> np.ndarray:
    """(q, n) TRAK scores of one model."""
    from scipy.linalg import cho_solve

    phi = index.matrix()
    if "trak" not in index.kept:
        index.kept["trak"] = factor(phi, RIDGE)
    solved = cho_solve((index.kept["trak"], True), query.gradients.T.astype(np.float32)).T
    return (solved @ phi.T) * index.push


def factor(phi: np.ndarray, ridge: float) -> Any:
    """Lower Cholesky factor of ΦᵀΦ/n + ridge · mean diagonal · I."""
    kernel = phi.T @ phi / len(phi)
    kernel[np.diag_indices_from(kernel)] += ridge * float(np.trace(kernel)) / len(kernel) + 1e-12
    return np.linalg.cholesky(kernel)
