"""Grammar: does a decoder find the right one of two sentences that differ in one place more likely?

The way of BLiMP (Warstadt et al., 2020, The Benchmark of Linguistic Minimal Pairs), on 96 pairs of our own over
twelve phenomena (data/minimal_pairs.tsv). Chance is a half.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tunewell.retention.measurement import items_hash
from tunewell.retention.probes.similarity import halve
from tunewell.retention.probes.speaker import Speaker, SpokenProbe, own_data

if TYPE_CHECKING:
    from tunewell.retention.suite import Half

NAME, TITLE = "grammar", "Grammar: the right one of two sentences"


def pairs() -> list[tuple[str, str, str]]:
    """(phenomenon, right, wrong) of every pair."""
    lines = own_data("minimal_pairs.tsv").splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return [(phenomenon, good, bad) for phenomenon, good, bad in rows]


def grammar(half: Half, seed: int) -> SpokenProbe:
    """One half of the pairs, with half of each phenomenon."""
    chosen: list[tuple[str, str, str]] = []
    whole = pairs()
    for phenomenon in dict.fromkeys(p for p, _, _ in whole):
        chosen += halve([row for row in whole if row[0] == phenomenon], half, seed)

    def arrays(speaker: Speaker) -> dict[str, np.ndarray]:
        # the line feed stands before the first word, so that this is predicted too
        nats = speaker(["\n" + text for _, good, bad in chosen for text in (good, bad)]).reshape(-1, 2)
        return {
            "right": (nats[:, 0] < nats[:, 1]).astype(np.float64),
            "truth": np.array([good for _, good, _ in chosen]),
            "answer": np.array([good if a < b else bad for (_, good, bad), (a, b) in zip(chosen, nats, strict=True)]),
        }

    texts = tuple(phenomenon for phenomenon, _, _ in chosen)
    return SpokenProbe(NAME, TITLE, "accuracy", "accuracy", texts, items_hash(NAME, chosen), arrays, chance=0.5)
