"""TracIn on the last layer: how far a gradient step on a training row moves the explained output.

Pruthi, Liu, Sundararajan & Kale, 2020, Estimating Training Data Influence by Tracing Gradient Descent. For the head's
weights the inner product of two gradients has a closed form, (u · e)(h · h_i + 1), with the outputs' gradients u and e
and the features h. Where we differ: the tuned weights only, since checkpoints are not kept after a run.
"""

from __future__ import annotations

import numpy as np

from tunewell.explain.influence.index import Index, Query

name = "tracin"
title = "TracIn, last layer"
paper = "Pruthi et al., 2020"


def scores(index: Index, query: Query) -> np.ndarray:
    """(q, n) first-order change of the explained output by a step on each row."""
    return -(query.outputs(index.spec) @ index.errors.T) * (query.features @ index.features.T + 1)


def self_influence(index: Index) -> np.ndarray:
    """(n,) each row's influence on its own loss, ‖e‖² (‖h‖² + 1): high for rows that go against the grain."""
    return (index.errors**2).sum(axis=1) * ((index.features**2).sum(axis=1) + 1)
