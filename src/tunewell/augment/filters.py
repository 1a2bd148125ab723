"""Which copies still mean the same: near their originals in embedding, and of the same label to a quick probe.

Both work on frozen embeddings, so that they cost a pass over the copies and no tuning. Copies that a model's own
predictions must agree with are those of Xie et al. (2020) and of Anaby-Tavor et al. (2020, LAMBADA), there by a tuned
classifier.

Shapes: n rows, m copies, F features.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SAME = 1e-5  # a cosine nearer to 1 than this is that of the same input
UNLIKE, ALIKE = "too unlike its original", "the same to the model as its original"
OTHER_LABEL = "another label to the linear probe"


def near(originals: np.ndarray, copies: np.ndarray, least: float) -> tuple[np.ndarray, dict[str, int]]:
    """Which copies are like their originals and not the same.

    Args:
        originals, copies: (m, F) embeddings, beside one another. least: the lowest cosine; 0 lets all pass.

    Returns:
        (m,) booleans; reason -> copies that are not.

    >>> keep, why = near(np.array([[1.0, 0.0]] * 3), np.array([[1.0, 0.0], [1.0, 0.5], [0.0, 1.0]]), 0.5)
    >>> keep.tolist(), why
    ([False, True, False], {'too unlike its original': 1, 'the same to the model as its original': 1})
    """
    if least <= 0 or not len(copies):
        return np.ones(len(copies), dtype=bool), {}
    lengths = np.linalg.norm(originals, axis=1) * np.linalg.norm(copies, axis=1)
    cosine = np.sum(originals * copies, axis=1, dtype=np.float64) / np.maximum(lengths, 1e-12)
    unlike, same = cosine < least, cosine >= 1 - SAME
    counts = {UNLIKE: int(unlike.sum()), ALIKE: int(same.sum())}
    return ~unlike & ~same, {k: v for k, v in counts.items() if v}


def agreeing(
    x: np.ndarray,
    targets: np.ndarray,
    copies: np.ndarray,
    wanted: np.ndarray,
    *,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    classes: int,
    seed: int = 42,
) -> tuple[np.ndarray, dict[str, int]]:
    """Which copies get their row's label from a linear probe that was fitted to the rows.

    Args:
        x: (n, F) embeddings of the rows; targets: (n,) class ids or (n, C) of 0 and 1.
        copies: (m, F); wanted: (m,) or (m, C), the targets of their rows.
        validation: embeddings and targets on which the probe's regularisation is chosen; else by cross-validation.

    Returns:
        (m,) booleans; reason -> copies that are not.
    """
    from tunewell.evaluate.linear import fit_linear_probe

    if not len(copies):
        return np.ones(0, dtype=bool), {}
    val_x, val_y = validation if validation is not None else (x[:0], targets[:0])
    probe = fit_linear_probe(x, targets, val_x, val_y, seed=seed, n_classes=classes)
    found = probe.predict(copies)
    same = (found == wanted) if wanted.ndim == 1 else (found == (wanted > 0)).all(axis=1)
    lost = int((~same).sum())
    return np.asarray(same), {OTHER_LABEL: lost} if lost else {}


def add(left_out: dict[str, int], more: dict[str, int]) -> None:
    """Add counts to counts."""
    for reason, n in more.items():
        left_out[reason] = left_out.get(reason, 0) + n


def kept(copies: list[Any], keep: np.ndarray) -> list[Any]:
    """Those that are kept."""
    return [c for c, good in zip(copies, keep, strict=True) if good]
