"""The most faithful method for these texts, within a time budget."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tunewell.errors import ModelError
from tunewell.explain.faithfulness import Faithfulness, measure, rows_to_measure
from tunewell.explain.records import Tried
from tunewell.explain.segment import Item
from tunewell.explain.tokens import CANDIDATES, Attribution, method

if TYPE_CHECKING:
    from tunewell.explain.scorer import Scorer

SAMPLE = 16  # texts that methods are tried on
BACKWARD = 3  # a pass with gradients costs about three without
REMEMBERED = ("occlusion", "lime", "shapley")  # methods whose rows are kept, whatever target is asked for


def rows_of(name: str, words: float) -> float:
    """About how many rows a method sends through the model for a text of so many words."""
    known = {
        "gradient_x_input": BACKWARD,
        "attnlrp": BACKWARD,
        "rollout": 1,
        "integrated_gradients": 29 * BACKWARD,
        "smoothgrad": 16 * BACKWARD,
        "occlusion": words + 1,
        "lime": 151,
        "shapley": 2**words if words <= 7 else min(16 * (words + 1), 6000),
        "random": 0,
    }
    return float(known[name])


def choose(
    scorer: Scorer,
    items: Sequence[Item],
    targets: np.ndarray,
    *,
    budget: float,
    n_all: int,
    seed: int,
    again: int = 0,
    candidates: Sequence[str] = CANDIDATES,
) -> tuple[str, list[Tried], list[Attribution], list[Faithfulness]]:
    """Try methods on texts, cheapest first, and take the one with the highest comprehensiveness − sufficiency.

    Args:
        items, targets: the texts to try on.
        budget: seconds for trying, and for explaining and measuring all `n_all` texts afterwards; a method that would
            pass it is left out, except the first that works. How long a row takes is read off those so far, so the
            first is tried blindly.
        again: how many further targets of each text the method that is taken will be asked for, without measuring.

    Returns:
        Its name, what was tried, and its attributions and faithfulness of these texts.
    """
    words = float(np.mean([len(item.words) for item in items]))
    measuring = float(np.mean([rows_to_measure(len(item.words)) for item in items]))
    # random orders are the same for every method, and their rows are kept
    anew = float(np.mean([rows_to_measure(len(item.words), random_orders=0) for item in items]))

    def afterwards(name: str) -> float:
        more = 0.0 if name in REMEMBERED else again * len(items) * rows_of(name, words)
        return max(0, n_all - len(items)) * (rows_of(name, words) + measuring) + more

    started, before = time.perf_counter(), scorer.forwards
    tried: list[Tried] = []
    best: tuple[float, str, list[Attribution], list[Faithfulness]] | None = None
    for name in candidates:
        spent = time.perf_counter() - started
        if best is not None:
            rows = len(items) * (rows_of(name, words) + anew) + max(afterwards(name), afterwards(best[1]))
            needed = rows * spent / max(1, scorer.forwards - before)
            if spent + needed > budget:
                tried.append(Tried(name, note=f"left out: would take about {needed:.0f} s more"))
                continue
        try:
            found = method(name).attribute(scorer, items, targets, seed=seed)
        except ModelError as error:
            tried.append(Tried(name, note=f"not for this model: {error.what}"))
            continue
        faith = measure(scorer, items, targets, [a.scores for a in found], seed=seed)
        gap = float(np.mean([f.gap for f in faith]))
        tried.append(
            Tried(
                name,
                float(np.mean([f.comprehensiveness for f in faith])),
                float(np.mean([f.sufficiency for f in faith])),
                len(items),
            )
        )
        if best is None or gap > best[0]:
            best = gap, name, found, faith
    assert best is not None, "gradient × input works for every model with embeddings"
    return best[1], tried, best[2], best[3]
