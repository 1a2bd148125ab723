"""From scores to an order, and why. Which score leads was chosen by measurement, see docs/log.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tunewell.rank.records import Ranked

CLOSE = 0.01  # share of the score's range within which two candidates are told to be alike


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
        words.append(f"highest {model.by} of {1 + len(rivals)}" if rivals else "the only one that fits")
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
