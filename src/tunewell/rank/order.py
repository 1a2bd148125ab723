"""From scores to an order, and why.

For classes and scores the order goes by the mean of two ranks: of a probe's score on the mean of the layers (what the
body holds), and of LogME on what the head reads (what a tuning can start from). Either alone misses something: a body
cut after its first layers has good features and a first token that says nothing, and a short tuning of it fails. The
pair was chosen on two tasks that the benchmark does not report (`benchmarks/rank.py --choice`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tunewell.rank.records import Ranked

CLOSE = 0.01  # share of the score's range within which two candidates are told to be alike


HALVES = ("probe_mean", "logme_head")
BY = "ranks of probe and head"


def combined(models: Sequence[Ranked]) -> list[Ranked]:
    """The models with their scores: 1 for one that is best by both halves, 0 for the last by both.

    Written answers keep theirs, the negative bits a byte.
    """
    from scipy.stats import rankdata

    if len(models) < 2 or not all(half in m.scores for m in models for half in HALVES):
        return [replace(m, score=1.0) if all(half in m.scores for half in HALVES) else m for m in models]
    ranks = sum(rankdata([m.scores[half] for m in models]) - 1 for half in HALVES)
    return [replace(m, score=float(r) / (2 * (len(models) - 1))) for m, r in zip(models, ranks, strict=True)]


def ordered(models: Sequence[Ranked]) -> tuple[Ranked, ...]:
    """Best first: those that fit the task, by score, the smaller of equals; each with its reason."""
    rows = sorted(models, key=lambda m: (not m.fits, -m.score, m.parameters, m.name))
    return tuple(replace(m, why=_why(m, i, rows)) for i, m in enumerate(rows))


def _why(model: Ranked, place: int, rows: Sequence[Ranked]) -> str:
    best = rows[0]
    if not model.fits:
        return f"does not fit: {model.fit}"
    words = []
    if place == 0:
        rivals = [m for m in rows[1:] if m.fits]
        words.append(f"first of {1 + len(rivals)} by {model.by}" if rivals else "the only one that fits")
        spread = best.score - rivals[-1].score if rivals else 0.0
        like = [m for m in rivals if best.score - m.score <= CLOSE * spread and m.tuning_seconds < best.tuning_seconds]
        if like:
            cheap = min(like, key=lambda m: m.tuning_seconds)
            words.append(
                f"{cheap.name} scores about as high in {cheap.tuning_seconds / best.tuning_seconds:.0%} of the time"
            )
    else:
        words.append(f"{best.score - model.score:.3g} below the best")
        if best.tuning_seconds > 0 and model.tuning_seconds < 0.8 * best.tuning_seconds:
            words.append(f"{model.tuning_seconds / best.tuning_seconds:.0%} of its time to tune")
    if model.cut_share > 0.05:
        words.append(f"its window of {model.window:,} tokens cuts {model.cut_share:.0%} of the rows")
    if model.unknown_share > 0.01:
        words.append(f"its tokenizer does not know {model.unknown_share:.0%} of the text")
    return "; ".join(words)
