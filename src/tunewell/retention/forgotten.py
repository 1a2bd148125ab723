"""What was forgotten, item by item: topics that the base model had right, pairs that it ranked better.

Retention says how much of an ability is left; this says on which items it was lost. For a topic probe
these are the documents that the base model's linear probe put right and the tuned model's puts wrong.
For a similarity probe they are the pairs that have moved furthest away from where people rank them: with
ranks as shares of all pairs, |rank by the model − rank by people| after, less the same before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tunewell.results import Forgotten, ForgottenItem
from tunewell.retention.measurement import Measurement
from tunewell.shown import cut

if TYPE_CHECKING:
    from tunewell.retention.probes import Probe

SHOWN = 10  # items a probe
LONGEST = 200  # characters of a text


def forgotten(
    probes: Sequence[Probe], before: Mapping[str, Measurement], after: Mapping[str, Measurement], shown: int = SHOWN
) -> tuple[Forgotten, ...]:
    """What each probe of a suite shows to be lost; probes that compare vectors only show no items.

    Args:
        probes: of the suite that both measurements are of.
        shown: items listed a probe at most; the counts are of all items.
    """
    out = []
    for probe in probes:
        b, a = before.get(probe.name), after.get(probe.name)
        if b is None or a is None:
            continue
        if probe.kind == "accuracy":
            out.append(_wrong_now(probe, b, a, shown))
        elif probe.kind == "spearman":
            out.append(_moved_away(probe, b, a, shown))
    return tuple(out)


def _wrong_now(probe: Probe, before: Measurement, after: Measurement, shown: int) -> Forgotten:
    first, second = before.arrays["right"] > 0, after.arrays["right"] > 0
    texts = probe.texts[len(probe.texts) - before.n :]  # those the linear probe learns from come first
    lost = np.flatnonzero(first & ~second)
    answers, truths = after.arrays.get("answer"), after.arrays.get("truth")
    items = tuple(
        ForgottenItem(
            text=cut(texts[i], LONGEST),
            truth="" if truths is None else str(truths[i]),
            answer="" if answers is None else str(answers[i]),
        )
        for i in lost[:shown]
    )
    return Forgotten(
        name=probe.name,
        title=probe.title,
        kind=probe.kind,
        n=before.n,
        lost=len(lost),
        gained=int((~first & second).sum()),
        items=items,
    )


def _moved_away(probe: Probe, before: Measurement, after: Measurement, shown: int) -> Forgotten:
    gold, first, second = (shares(x) for x in (before.arrays["gold"], before.arrays["cosine"], after.arrays["cosine"]))
    worse = np.abs(second - gold) - np.abs(first - gold)
    n = before.n
    order = np.argsort(-worse, kind="stable")
    items = tuple(
        ForgottenItem(
            text=cut(probe.texts[i], LONGEST),
            text_pair=cut(probe.texts[n + i], LONGEST),
            truth=f"{gold[i]:.2f}",
            before=round(float(first[i]), 4),
            after=round(float(second[i]), 4),
        )
        for i in order[:shown]
        if worse[i] > 0
    )
    return Forgotten(
        name=probe.name,
        title=probe.title,
        kind=probe.kind,
        n=n,
        lost=int((worse > 0.1).sum()),
        gained=int((worse < -0.1).sum()),
        items=items,
    )


def shares(values: np.ndarray) -> np.ndarray:
    """Ranks as shares of all: 0 for the lowest, 1 for the highest, ties in the middle.

    >>> shares(np.array([3.0, 1.0, 1.0, 9.0])).round(3).tolist()
    [0.667, 0.167, 0.167, 1.0]
    """
    from scipy.stats import rankdata

    return (rankdata(values) - 1) / max(len(values) - 1, 1)
