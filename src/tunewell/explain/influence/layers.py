"""Influence with one curvature matrix a layer: the Gauss-Newton matrix of each layer's projected gradients.

Influence functions (Koh & Liang, 2017) over all layers, the Hessian replaced by the generalised Gauss-Newton matrix
and layers taken as independent, as in EK-FAC (George et al., 2018; Grosse et al., 2023, Studying Large Language Model
Generalization with Influence Functions) and LoGra (Choe et al., 2024). In the small projected space a layer's matrix
is inverted exactly, so that no Kronecker factors are needed.
"""

from __future__ import annotations

import numpy as np

from tunewell.explain.influence.index import Index, Query

name = "layers"
title = "influence functions, layer by layer"
paper = "Grosse et al., 2023; Choe et al., 2024"

DAMPING = 1.0  # share of a layer's mean diagonal that is added to it; by benchmarks/influence.py on sst2


def scores(index: Index, query: Query) -> np.ndarray:
    """(q, n) change of the explained output by a row's presence, up to a factor common to all rows."""
    from scipy.linalg import cho_solve

    phi = index.matrix()
    if "layers" not in index.kept:
        index.kept["layers"] = {name: _factor(phi[:, block]) for name, block in index.blocks.items()}
    solved = np.empty_like(query.gradients)
    for layer, block in index.blocks.items():
        solved[:, block] = cho_solve((index.kept["layers"][layer], True), query.gradients[:, block].T).T
    return (solved @ phi.T) * index.push


def _factor(phi: np.ndarray) -> np.ndarray:
    from tunewell.explain.influence.trak import factor

    return factor(phi, DAMPING)
