"""Influence functions of the head: what the output would be had a row not been there, the encoder held fixed.

Koh & Liang, 2017, Understanding Black-box Predictions via Influence Functions. For a linear head under cross-entropy,
binary cross-entropy or squared error the Hessian is known exactly: with features h̃ = [h, 1] it is the mean of
A ⊗ h̃ h̃ᵀ, where A is diag(p) − p pᵀ, diag(p (1 − p)) or 1. Small systems are solved by Cholesky, large ones (many
classes) by conjugate gradients on products with the Hessian.

Shapes: n rows, q queries, F = H + 1 features with the constant, C outputs.
"""

from __future__ import annotations

import numpy as np

from tunewell.explain.influence.index import Index, Query

name = "head"
title = "influence functions of the head"
paper = "Koh & Liang, 2017"

DAMPING = 1.0  # share of the Hessian's mean diagonal that is added to it; by benchmarks/influence.py on sst2
LARGEST = 4000  # unknowns solved directly
TOLERANCE, MAX_ITER = 1e-4, 100


def scores(index: Index, query: Query) -> np.ndarray:
    """(q, n) change of the explained output by a row's presence, first order, times n."""
    h = _with_one(index.features)
    gradient = query.outputs(index.spec)[:, :, None] * _with_one(query.features)[:, None, :]  # (q, C, F)
    if "head" not in index.kept:
        index.kept["head"] = Hessian(h, index.probabilities, index.spec.problem_type, damping=DAMPING)
    solved = index.kept["head"].solve(gradient)
    return -np.einsum("qcn,nc->qn", np.einsum("qcf,nf->qcn", solved, h), index.errors)


def _with_one(features: np.ndarray) -> np.ndarray:
    return np.concatenate([features, np.ones((len(features), 1), dtype=features.dtype)], axis=1).astype(np.float64)


class Hessian:
    """The damped Hessian of the mean loss by a linear head's weights (C, F).

    Args:
        h: (n, F). p: (n, C) probabilities. problem: `problem_type` of the task.
        damping: relative to the mean of the diagonal; `absolute` is added as it is (an L2 penalty's λ).
    """

    def __init__(self, h: np.ndarray, p: np.ndarray, problem: str, *, damping: float, absolute: float = 0.0) -> None:
        self.h, self.p, self.problem = h, np.asarray(p, dtype=np.float64), problem
        n, self.outputs = self.p.shape
        self.softmax = problem == "single_label_classification"
        weights = np.ones_like(self.p) if problem == "regression" else self.p * (1 - self.p)
        diagonal = weights.T @ (h**2) / n  # (C, F)
        self.damping = damping * float(diagonal.mean()) + absolute
        self.diagonal = diagonal + self.damping
        self._factors: list[np.ndarray] | None = None
        unknowns = diagonal.size if self.softmax else h.shape[1]
        if unknowns <= LARGEST:
            self._factors = self._cholesky(weights)

    def _cholesky(self, weights: np.ndarray) -> list[np.ndarray]:
        """Lower factors: one of the whole, or one an output where outputs are independent."""
        n, f = self.h.shape
        damped = self.damping * np.eye(f)
        if not self.softmax:
            return [np.linalg.cholesky((self.h.T * weights[:, c]) @ self.h / n + damped) for c in range(self.outputs)]
        whole = np.empty((self.outputs, f, self.outputs, f))
        for a in range(self.outputs):
            for b in range(a, self.outputs):
                between = self.p[:, a] * ((a == b) - self.p[:, b])
                whole[a, :, b] = whole[b, :, a] = (self.h.T * between) @ self.h / n
            whole[a, :, a] += damped
        return [np.linalg.cholesky(whole.reshape(self.outputs * f, -1))]

    def times(self, v: np.ndarray) -> np.ndarray:
        """Hessian times v (C, F)."""
        z = self.h @ v.T  # (n, C)
        if self.softmax:
            z = self.p * (z - (self.p * z).sum(axis=1, keepdims=True))
        elif self.problem != "regression":
            z = self.p * (1 - self.p) * z
        return z.T @ self.h / len(self.h) + self.damping * v

    def solve(self, gradients: np.ndarray) -> np.ndarray:
        """Inverse Hessian times each of (q, C, F)."""
        from scipy.linalg import cho_solve

        if self._factors is None:
            return np.stack([self._conjugate(g) for g in gradients])
        if self.softmax:
            flat = gradients.reshape(len(gradients), -1)
            return cho_solve((self._factors[0], True), flat.T).T.reshape(gradients.shape)
        return np.stack(
            [cho_solve((factor, True), gradients[:, c].T).T for c, factor in enumerate(self._factors)], axis=1
        )

    def _conjugate(self, b: np.ndarray) -> np.ndarray:
        """Conjugate gradients, preconditioned by the diagonal."""
        x = np.zeros_like(b)
        r = b.copy()
        z = r / self.diagonal
        d = z.copy()
        rz, target = float((r * z).sum()), TOLERANCE * float(np.linalg.norm(b))
        for _ in range(MAX_ITER):
            if np.linalg.norm(r) <= target:
                break
            hd = self.times(d)
            step = rz / float((d * hd).sum())
            x += step * d
            r -= step * hd
            z = r / self.diagonal
            rz, before = float((r * z).sum()), rz
            d = z + (rz / before) * d
        return x
