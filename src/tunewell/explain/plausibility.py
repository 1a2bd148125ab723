"""Do people agree? Explanations beside the words that people highlighted, over many texts.

Agreement is not truth: a model can be right for other reasons than a reader's. Faithfulness asks whether an
explanation is true of the model, plausibility whether a reader would have given it (DeYoung et al., 2020, ERASER).

Shapes: W words of an explanation, P words as people saw them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import DataError
from tunewell.evaluate.statistics import mean_interval
from tunewell.explain.faithfulness import plausibility
from tunewell.results import Estimate

if TYPE_CHECKING:
    from tunewell.explain.records import Explanation

DRAWS = 20  # random orders of a text's words


@dataclass(frozen=True)
class Agreement:
    """Means over texts, with 95 % t intervals.

    Attributes:
        auprc: area under the precision-recall curve of the scores. token_f1: F1 of the top words, as many as were
            highlighted. random_auprc, random_token_f1: of the same scores on words drawn by chance.
        auprc_gain, token_f1_gain: own − random, paired by text.
        texts: how many were compared. left_out: texts in which no word, or every word, is highlighted.
    """

    auprc: Estimate
    token_f1: Estimate
    random_auprc: Estimate
    random_token_f1: Estimate
    auprc_gain: Estimate
    token_f1_gain: Estimate
    texts: int
    left_out: int


def agreement(explanations: Sequence[Explanation], highlights: Sequence[Any], *, seed: int = 42) -> Agreement:
    """Compare explanations of n texts with their highlights.

    Args:
        highlights: for each text 0 or 1 a word, words being what stands between spaces; a list, or as text: JSON,
            "0 1 0", "0,1,0" or "010". Empty cells are left out.

    Raises:
        DataError: not as many as words, other values than 0 and 1, or no text to compare.
    """
    own: list[tuple[float, float]] = []
    chance: list[tuple[float, float]] = []
    left_out = 0
    for i, (e, cell) in enumerate(zip(explanations, highlights, strict=True)):
        marked = marks(cell, f"row {i + 1}")
        if marked is None:
            left_out += 1
            continue
        scores, seen = human_scores(e)
        if len(marked) != len(scores):
            raise DataError(
                f"{len(marked)} highlights for {len(scores)} words",
                where=f"row {i + 1}",
                expected="0 or 1 for each word between spaces",
            )
        found = plausibility(scores[seen], marked[seen])
        if found is None:
            left_out += 1
            continue
        own.append((found.auprc, found.token_f1))
        rng = np.random.default_rng([seed, i])
        drawn = [plausibility(rng.permutation(scores[seen]), marked[seen]) for _ in range(DRAWS)]
        chance.append((float(np.mean([d.auprc for d in drawn if d])), float(np.mean([d.token_f1 for d in drawn if d]))))
    if not own:
        raise DataError("no text has some words highlighted and others not", where="highlights")
    a, b = np.asarray(own), np.asarray(chance)
    of = mean_interval
    gain = a - b
    figures = of(a[:, 0]), of(a[:, 1]), of(b[:, 0]), of(b[:, 1]), of(gain[:, 0]), of(gain[:, 1])
    return Agreement(*figures, len(own), left_out)


def human_scores(e: Explanation) -> tuple[np.ndarray, np.ndarray]:
    """Scores (P,) of the words between spaces, sums of the explanation's own words in them; (P,) which were seen.

    >>> from types import SimpleNamespace
    >>> spans = ((0, 4), (4, 5), (6, 9))
    >>> e = SimpleNamespace(text="good, not bad", spans=spans, scores=(1.0, 0.5, -1.0), part=(0, 0, 0))
    >>> [x.tolist() for x in human_scores(e)]
    [[1.5, -1.0, 0.0], [True, True, False]]
    """
    spans, at = [], 0
    for word in e.text.split():
        start = e.text.index(word, at)
        at = start + len(word)
        spans.append((start, at))
    scores = np.zeros(len(spans))
    starts = [a for a, _ in spans]
    last = 0
    for (start, end), score, part in zip(e.spans, e.scores, e.part, strict=True):
        if part == 0:
            scores[int(np.searchsorted(starts, start, side="right")) - 1] += score
            last = max(last, end)
    return scores, np.array([start < last for start in starts], dtype=bool)


def marks(cell: Any, where: str) -> np.ndarray | None:
    """Highlights (P,) of a cell; None for an empty one.

    >>> marks("[0, 1]", "").tolist(), marks("0 1 1", "").tolist(), marks("010", "").tolist(), marks("", "")
    ([0, 1], [0, 1, 1], [0, 1, 0], None)

    Raises:
        DataError: other values than 0 and 1.
    """
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    values = cell
    if isinstance(cell, str):
        text = cell.strip()
        try:
            values = json.loads(text) if text.startswith("[") else text.replace(",", " ").split()
        except ValueError:
            values = [text]
        if len(values) == 1 and isinstance(values[0], str):
            values = list(values[0])
    elif isinstance(cell, int | float):
        values = [cell]
    try:
        found = np.asarray([int(v) for v in values], dtype=np.int64)
    except (TypeError, ValueError):
        found = np.array([-1])
    if not np.isin(found, (0, 1)).all():
        raise DataError(f"highlights `{str(cell)[:40]}`", where=where, expected="0 or 1 for each word between spaces")
    return found


def said(found: Agreement) -> str:
    """The agreement in plain words."""
    from tunewell.cli.show import interval, number

    lines = [f"agreement with people on {found.texts:,} texts"]
    if found.left_out:
        lines[0] += f" ({found.left_out:,} left out: none or all of their words are highlighted)"
    for name, own, chance, gain in (
        ("AUPRC", found.auprc, found.random_auprc, found.auprc_gain),
        ("token F1", found.token_f1, found.random_token_f1, found.token_f1_gain),
    ):
        lines.append(
            f"  {name} {number(own.value)} ({interval(own)}), random words {number(chance.value)}; "
            f"difference {number(gain.value)} ({interval(gain)})"
        )
    return "\n".join(lines)
