"""A learning curve in sentences, English and Chinese."""

from __future__ import annotations

from tunewell.curve.records import LearningCurve, More, Needed, Worth
from tunewell.report.verdict import duration

WORDS = {
    "en": {
        "now": "With {n:,} labels the mean {metric} is {score:.3f} on {rows:,} test rows; with {half:,} it was "
        "{then:.3f}.",
        "more": "{labels:,} more labels bring about {gain} ± {half:.1f} points{price}.",
        "never": "{target:g} is not to be expected within {most:,} labels ({share}).",
        "share": "{share:.0%} of the forecasts reach it",
        "none": "no forecast reaches it",
        "needed": "{target:g} needs about {value:,} labels in all ({low} to {high}), {more:,} more than there are"
        "{price}.",
        "reached": "{target:g} needs about {value:,} labels in all ({low} to {high}): you have {n:,}.",
        "worth": "{run} ({strategy}): {metric} {score:.3f} from {labels:,} labels, as much as {value} labels bring "
        "on the curve{ends}.",
        "ends": " ({low} to {high})",
        "beyond": "more than {most:,}",
        "money": "{money:,.0f} in money",
        "hours": "{time} of labelling",
        "laws": "laws: ",
    },
    "zh": {
        "now": "{n:,} 条标注时，{rows:,} 行测试集上的平均 {metric} 为 {score:.3f}；{half:,} 条时为 {then:.3f}。",
        "more": "再标注 {labels:,} 条，大约提升 {gain} ± {half:.1f} 个百分点{price}。",
        "never": "{most:,} 条标注以内，预计达不到 {target:g}（{share}）。",
        "share": "{share:.0%} 的预测能达到",
        "none": "没有预测能达到",
        "needed": "要达到 {target:g}，总共大约需要 {value:,} 条标注（{low} 到 {high}），比现有多 {more:,} 条{price}。",
        "reached": "要达到 {target:g}，总共大约需要 {value:,} 条标注（{low} 到 {high}）：现有 {n:,} 条。",
        "worth": "{run}（{strategy}）：{labels:,} 条标注得到 {metric} {score:.3f}，相当于曲线上 {value} 条标注{ends}。",
        "ends": "（{low} 到 {high}）",
        "beyond": "多于 {most:,}",
        "money": "费用 {money:,.0f}",
        "hours": "标注时间 {time}",
        "laws": "定律：",
    },
}


def points_of(value: float) -> str:
    """A difference of scores in points, with its sign.

    >>> points_of(0.0183), points_of(-0.002)
    ('+1.8', '−0.2')
    """
    return f"{100 * value:+.1f}".replace("-", "−")


def sentences(curve: LearningCurve, lang: str = "en") -> list[str]:
    """What a reader should take away."""
    means = curve.means()
    n = max(means)
    half = max((size for size in means if size <= n / 2), default=min(means))
    out = [
        WORDS[lang]["now"].format(
            n=n, metric=curve.metric, score=means[n], rows=curve.n_test, half=half, then=means[half]
        )
    ]
    out += [more_sentence(m, lang) for m in curve.more]
    if curve.needed is not None:
        out.append(needed_sentence(curve.needed, n, lang))
    return out + [worth_sentence(found, curve.metric, lang) for found in curve.worth]


def worth_sentence(found: Worth, metric: str, lang: str = "en") -> str:
    """How many labels of the curve a run's score is worth."""
    w, needed = WORDS[lang], found.needed
    beyond = w["beyond"].format(most=needed.most)
    low, value, high = (f"{v:,}" if v is not None else beyond for v in (needed.low, needed.value, needed.high))
    return w["worth"].format(
        run=found.run, strategy=" + ".join(found.strategy), metric=metric, score=found.score, labels=found.labels,
        value=value, ends=w["ends"].format(low=low, high=high) if needed.low is not None else "",
    )  # fmt: skip


def more_sentence(m: More, lang: str = "en") -> str:
    """What more labels bring."""
    return WORDS[lang]["more"].format(
        labels=m.labels, gain=points_of(m.gain), half=50 * (m.high - m.low), price=_price(m.money, m.hours, lang)
    )


def needed_sentence(needed: Needed, n: int, lang: str = "en") -> str:
    """How many labels a target needs, where n are there."""
    w, figures = WORDS[lang], needed.model_dump(include={"target", "most", "value"})
    if needed.value is None:
        return w["never"].format(share=w["share"].format(share=needed.share) if needed.share else w["none"], **figures)
    ends = {
        "low": f"{needed.low:,}" if needed.low is not None else "–",
        "high": f"{needed.high:,}" if needed.high is not None else w["beyond"].format(most=needed.most),
    }
    key = "reached" if needed.value <= n else "needed"
    price = _price(needed.money, needed.hours, lang)
    return w[key].format(n=n, more=needed.value - n, price=price, **ends, **figures)


def _price(money: float | None, hours: float | None, lang: str) -> str:
    parts = [WORDS[lang]["money"].format(money=money)] if money is not None else []
    if hours is not None:
        parts.append(WORDS[lang]["hours"].format(time=duration(hours * 3600)))
    if not parts:
        return ""
    return f" ({', '.join(parts)})" if lang == "en" else f"（{'，'.join(parts)}）"


def law_line(curve: LearningCurve, lang: str = "en") -> str:
    """Which laws the forecast rests on."""
    heavy = sorted(curve.laws.items(), key=lambda item: -item[1])
    return WORDS[lang]["laws"] + ", ".join(f"{name} {weight:.0%}" for name, weight in heavy if weight >= 0.005)
