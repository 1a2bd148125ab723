"""Reading in bfloat16 and close calls again in fp32: the labels of fp32 in about half of its time.

Layers multiply in bfloat16 by autocast; norms and the sums that pass a layer by stay in fp32, and so do the weights.
What this does to a probability is largest where a model is unsure, and there a row is read a second time.

Shapes: n rows, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tunewell.tasks import TaskSpec

THRESHOLD = 0.5  # of multi-label probabilities
CLOSE = 0.1  # gap of two probabilities, or twice the distance from the threshold, below which bf16 does not decide
MARGIN = 4.0  # CLOSE is widened where it is less than so many times the largest difference that was seen
BF16, FP32 = "bf16, close calls in fp32", "fp32"


def close_calls(scores: np.ndarray, multi_label: bool, close: float = CLOSE) -> np.ndarray:
    """(n,) whether rounding could change the answer of a row of probabilities (n, C); so it is where they are NaN.

    >>> close_calls(np.array([[0.52, 0.48], [0.6, 0.4]]), False).tolist()
    [True, False]
    >>> close_calls(np.array([[0.9, 0.46], [0.9, 0.1]]), True).tolist()
    [True, False]
    """
    if multi_label:
        return ~np.asarray((np.abs(scores - THRESHOLD) >= close / 2).all(1))
    if scores.shape[1] < 2:
        return np.isnan(scores).any(1)
    two = np.partition(scores, scores.shape[1] - 2, axis=1)[:, -2:]
    return ~np.asarray(two[:, 1] - two[:, 0] >= close)


def settled(
    quick: np.ndarray, exact: Callable[[np.ndarray], np.ndarray], multi_label: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with those of close calls read again.

    What rounding does is seen on the rows that are read again. Where it does more than a quarter of `CLOSE`, more rows
    count as close, until it does not or all are read.

    Args:
        quick: (n, C) as rounded arithmetic gives them. exact: indices (k,) -> their probabilities (k, C) in fp32.

    Returns:
        Probabilities (n, C), and which rows were read again (n,).

    >>> quick = np.array([[0.51, 0.49], [0.8, 0.2]])
    >>> settled(quick, lambda index: np.array([[0.49, 0.51]]), False)[0].tolist()
    [[0.49, 0.51], [0.8, 0.2]]
    """
    out, again = quick.copy(), np.zeros(len(quick), dtype=bool)
    close = CLOSE
    while len(index := np.flatnonzero(close_calls(quick, multi_label, close) & ~again)):
        out[index] = exact(index)
        again[index] = True
        off = np.abs(out[again] - quick[again])
        worst = float(np.max(off, where=np.isfinite(off), initial=0.0))
        if MARGIN * worst <= close:
            break
        close = MARGIN * worst
    return out, again


def faster(model: Any) -> bool:
    """Whether a model is calculated faster in bfloat16 where it lies: weights in fp32, on a device that computes so."""
    import torch

    from tunewell.train.tune import use_bf16

    device, kind = getattr(model, "device", None), getattr(model, "dtype", None)
    return isinstance(device, torch.device) and kind == torch.float32 and use_bf16(None, device.type)


def read(
    model: Any, tokenizer: Any, spec: TaskSpec, encoded: Any, *, bf16: bool, batch_size: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of encoded texts before any map of them, or values for regression, which is always in fp32.

    Args:
        encoded: from `models.embed.encode`, input name -> n rows.
        bf16: whether to read in bfloat16 first; never for regression or for a model of another framework.

    Returns:
        Probabilities (n, C) or values (n,), and which rows were read again, since bfloat16 did not decide (n,).
    """
    from tunewell.models.embed import logits_of
    from tunewell.tasks.spec import scores_of

    def scores(rows: Any, quick: bool) -> np.ndarray:
        return scores_of(spec, logits_of(model, tokenizer, rows, batch_size=batch_size, bf16=quick))

    def exact(index: np.ndarray) -> np.ndarray:
        return scores({k: [encoded[k][i] for i in index] for k in encoded if k in tokenizer.model_input_names}, False)

    if not bf16 or spec.regression or hasattr(model, "answer"):
        return scores(encoded, False), np.zeros(len(encoded["input_ids"]), dtype=bool)
    return settled(scores(encoded, True), exact, spec.multi_label)
