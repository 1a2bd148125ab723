"""What `augment` brought, in sentences: the run's echo and its report say the same."""

from __future__ import annotations

from tunewell.report.verdict import interval, number
from tunewell.report.words import WORDS
from tunewell.results import Augmentation

# reason of a copy that was left out -> its words
REASONS = {
    "unchanged, or made twice": "au_r_again",
    "a test text": "au_r_test",
    "too unlike its original": "au_r_unlike",
    "the same to the model as its original": "au_r_same",
    "another label to the linear probe": "au_r_label",
}


def sentences(record: Augmentation, lang: str = "en") -> list[str]:
    """What was made, what came of it, and what was done."""
    w = WORDS[lang]
    out = []
    if record.comparison is not None and record.augmented is not None:
        d = record.comparison.difference
        out.append(
            w["au_made"].format(
                kept=f"{record.kept:,}",
                rows=f"{record.rows:,}",
                operations=", ".join(record.operations),
                steps=f"{record.steps:,}",
            )
        )
        out.append(
            w["au_compared"].format(
                n=f"{d.n:,}",
                metric=record.comparison.metric,
                with_=number(record.augmented.value, 4),
                without=number(record.without.value, 4),
                difference="–" if d.value is None else f"{d.value:+.4f}".replace("-", "−"),
                interval=interval(d, 4),
            )
        )
    error = (record.comparison.difference.standard_error or 0.0) if record.comparison is not None else 0.0
    out.append(w[f"au_{record.why}"].format(error=f"{error:.4f}"))
    return [" ".join(s.split()).replace(" .", ".").replace(" 。", "。") for s in out]


def reasons(record: Augmentation, lang: str = "en") -> list[tuple[str, int]]:
    """Why copies were left out, and how many."""
    return [(WORDS[lang][REASONS[k]] if k in REASONS else k, n) for k, n in record.left_out.items()]
