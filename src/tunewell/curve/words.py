"""A learning curve in sentences."""

from __future__ import annotations

from tunewell.curve.records import LearningCurve, More, Needed
from tunewell.report.verdict import duration


def points_of(value: float) -> str:
    """+1.8 points.

    >>> points_of(0.0183), points_of(-0.002)
    ('+1.8', '−0.2')
    """
    return f"{100 * value:+.1f}".replace("-", "−")


def sentences(curve: LearningCurve) -> list[str]:
    """What a reader should take away."""
    means = curve.means()
    n = max(means)
    half = max((size for size in means if size <= n / 2), default=min(means))
    out = [
        f"With {n:,} labels the mean {curve.metric} is {means[n]:.3f} on {curve.n_test:,} test rows; with {half:,} it "
        f"was {means[half]:.3f}."
    ]
    out += [more_sentence(m) for m in curve.more]
    if curve.needed is not None:
        out.append(needed_sentence(curve.needed, n))
    return out


def more_sentence(m: More) -> str:
    half = (m.high - m.low) / 2
    return (
        f"{m.labels:,} more labels bring about {points_of(m.gain)} ± {100 * half:.1f} points{_price(m.money, m.hours)}."
    )


def needed_sentence(needed: Needed, n: int) -> str:
    if needed.value is None:
        reached = f"{needed.share:.0%} of the forecasts reach it" if needed.share else "no forecast reaches it"
        return f"{needed.target:g} is not to be expected within {needed.most:,} labels ({reached})."
    low = f"{needed.low:,}" if needed.low is not None else "–"
    high = f"{needed.high:,}" if needed.high is not None else f"more than {needed.most:,}"
    if needed.value <= n:
        return f"{needed.target:g} needs about {needed.value:,} labels in all ({low} to {high}): you have {n:,}."
    return (
        f"{needed.target:g} needs about {needed.value:,} labels in all ({low} to {high}), {needed.value - n:,} more "
        f"than there are{_price(needed.money, needed.hours)}."
    )


def _price(money: float | None, hours: float | None) -> str:
    parts = []
    if money is not None:
        parts.append(f"{money:,.0f} in money")
    if hours is not None:
        parts.append(f"{duration(hours * 3600)} of labelling")
    return f" ({', '.join(parts)})" if parts else ""


def law_line(curve: LearningCurve) -> str:
    """Which laws the forecast rests on."""
    heavy = sorted(curve.laws.items(), key=lambda item: -item[1])
    return "laws: " + ", ".join(f"{name} {weight:.0%}" for name, weight in heavy if weight >= 0.005)
