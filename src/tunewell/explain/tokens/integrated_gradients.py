"""Integrated gradients on word embeddings: the gradient summed up along the way from a text without words.

The way leads straight from the embeddings of the baseline to those of the text; special tokens stay as they are.
Scores add up to the score of the text minus that of the baseline (completeness).

Steps are chosen where the way bends: most texts are decided in its first half, so it begins as three panels,
(0, ¼), (¼, ½) and (½, 1). A panel is integrated by Gauss-Lobatto quadrature of seven points, whose end points also
give the score there; what the panel should add up to is therefore known, and a panel that misses it by more than its
share of the tolerance is cut in two (its middle and ends are used again), as is the worst one while all together
miss it. Panels of all texts go through the model together, in batches of like length, and of each pass only the
slopes (T,) leave the batch. The paper takes equal steps; the integral is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tunewell.errors import RecipeError
from tunewell.explain.segment import Item
from tunewell.explain.tokens import Attribution

if TYPE_CHECKING:
    from tunewell.explain.scorer import Scorer

title = "Integrated gradients"
paper = "Sundararajan et al., 2017, Axiomatic Attribution for Deep Networks"
unit = "log-odds of the target (units of the label in regression)"

TOLERANCE = 0.01  # of the score's difference from the baseline's
FLOOR = 5e-4  # absolute: below it, rounding decides
DEEPEST = 10  # halvings of a panel at the most
START = ((0.0, 0.25), (0.25, 0.5), (0.5, 1.0))
_INNER, _OUTER = (np.sqrt((5 - 2 * np.sqrt(5 / 3)) / 11), np.sqrt((5 + 2 * np.sqrt(5 / 3)) / 11))
NODES = (np.array([-1, -_OUTER, -_INNER, 0, _INNER, _OUTER, 1]) + 1) / 2
_W = [1 / 21, (124 - 7 * np.sqrt(15)) / 350, (124 + 7 * np.sqrt(15)) / 350]
WEIGHTS = np.array([*_W, 256 / 525, *_W[::-1]]) / 2
BASELINES = ("mask", "pad", "zero")


@dataclass
class _Path:
    """What is known along the way of one text: at each place, gradient · (text − baseline) by token and the score."""

    slopes: dict[float, np.ndarray] = field(default_factory=dict)  # place -> (T,)
    scores: dict[float, float] = field(default_factory=dict)
    done: list[tuple[float, float]] = field(default_factory=list)
    open: list[tuple[float, float]] = field(default_factory=lambda: list(START))

    def missing(self) -> list[float]:
        return sorted({x for panel in self.open for x in places(*panel)} - self.scores.keys())

    def sum_of(self, a: float, b: float) -> np.ndarray:
        return (b - a) * sum(w * self.slopes[x] for w, x in zip(WEIGHTS, places(a, b), strict=True))

    def off(self, a: float, b: float) -> float:
        """By how much a panel misses the sum that the scores at its ends ask for."""
        return float(self.sum_of(a, b).sum()) - (self.scores[b] - self.scores[a])

    def split(self, tolerance: float) -> None:
        """Accept the panels that add up to what they should; cut the others in two."""
        allowed = max(FLOOR, tolerance * abs(self.scores[1.0] - self.scores[0.0]))
        # errors of panels have either sign: each may miss by the share √width, all together by the whole
        bad = [(a, b) for a, b in self.open if abs(self.off(a, b)) > allowed * (b - a) ** 0.5]
        self.done += [panel for panel in self.open if panel not in bad]
        if not bad and abs(sum(self.off(a, b) for a, b in self.done)) > allowed:
            bad = [max(self.done, key=lambda panel: abs(self.off(*panel)))]
            self.done.remove(bad[0])
        final = [(a, b) for a, b in bad if b - a <= 0.5**DEEPEST]
        self.done += final
        self.open = [half for a, b in bad if (a, b) not in final for half in ((a, (a + b) / 2), ((a + b) / 2, b))]


def places(a: float, b: float) -> list[float]:
    """The points of a panel; its middle and ends are exact, so that they are found again."""
    inner = a + (b - a) * NODES
    return [a, *map(float, inner[1:3]), (a + b) / 2, *map(float, inner[4:6]), b]


def attribute(
    scorer: Scorer,
    items: Sequence[Item],
    targets: np.ndarray,
    *,
    seed: int = 42,
    baseline: str = "mask",
    tolerance: float = TOLERANCE,
) -> list[Attribution]:
    """Scores of words.

    Args:
        targets: (n,) outputs. baseline: what each word is replaced by at the start of the way: the mask token's
            embedding ("mask"; the padding token's where there is none), the padding token's, or zeros.
        tolerance: convergence delta allowed, relative to the score's difference from the baseline's.

    Returns:
        One attribution an item with its convergence delta |sum of scores − (score − baseline's score)|.
    """
    nothing = baseline_embedding(scorer, baseline)
    paths = [_Path() for _ in items]
    while jobs := [(i, x) for i, path in enumerate(paths) for x in path.missing()]:
        for job, slopes, score in scorer.along(items, targets, jobs, nothing):
            i, x = jobs[job]
            paths[i].slopes[x] = slopes
            paths[i].scores[x] = score
        for path in paths:
            path.split(tolerance)
    return [_result(item, path) for item, path in zip(items, paths, strict=True)]


def _result(item: Item, path: _Path) -> Attribution:
    by_token = sum((path.sum_of(a, b) for a, b in path.done), start=np.zeros(len(item.ids)))
    scores = item.to_words(by_token)
    total = path.scores[1.0] - path.scores[0.0]
    return Attribution(scores, abs(float(scores.sum()) - total), total, passes=len(path.scores))


def baseline_embedding(scorer: Scorer, baseline: str) -> np.ndarray:
    """The embedding (H,) that stands for no word.

    Raises:
        RecipeError: no such baseline.
    """
    if baseline not in BASELINES:
        raise RecipeError(f"no baseline `{baseline}`", where="baseline", expected=", ".join(BASELINES))
    tokenizer = scorer.tokenizer
    token = tokenizer.mask_token_id if baseline == "mask" else tokenizer.pad_token_id
    if token is None:
        token = tokenizer.pad_token_id
    empty = scorer.embeddings(np.array([token]))[0]
    return np.zeros_like(empty) if baseline == "zero" else empty
