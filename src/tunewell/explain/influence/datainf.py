"""DataInf: influence with a Hessian whose inverse is taken row by row.

Kwon, Wu, Wu & Zou, 2024, DataInf: Efficiently Estimating Data Influence in LoRA-tuned LLMs and Diffusion Models. For
each layer the inverse of the mean of g gᵀ + λ I is replaced by the mean of the inverses, which are known in closed
form: (1/λ)(v − mean of g (g · v) / (λ + ‖g‖²)). λ is 0.1 times the mean squared gradient of the layer, as in the
paper. Where we differ: the gradients are projected (gradients.py).
"""

from __future__ import annotations

import numpy as np

from tunewell.explain.influence.index import Index, Query

name = "datainf"
title = "DataInf"
paper = "Kwon et al., 2024"

DAMPING = 0.1


def scores(index: Index, query: Query) -> np.ndarray:
    """(q, n) change of the explained output by a row's presence, up to a factor common to all rows."""
    phi, push = index.matrix(), index.push
    total = np.zeros((len(query.gradients), len(index)), dtype=np.float32)
    for block in index.blocks.values():
        pull = phi[:, block] * push[:, None]  # −∇loss, (n, K)
        total += inverse(pull, query.gradients[:, block]) @ pull.T
    return total


def inverse(g: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(q, K) the averaged inverse of g gᵀ + λ I times each row of v, for gradients g (n, K)."""
    squared = (g**2).sum(axis=1)
    damping = DAMPING * float(squared.mean()) / g.shape[1] + 1e-20
    return (v - ((v @ g.T) / (damping + squared)) @ g / len(g)) / damping
