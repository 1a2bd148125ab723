"""Meta-learning in sentences, English and Chinese."""

from __future__ import annotations

from tunewell.meta.records import MetaLearning
from tunewell.report.verdict import interval, number
from tunewell.results import Estimate

WORDS = {
    "en": {
        "result": "On {tasks} tasks that took no part ({names}), {shots} rows a class, the learned model answers "
        "{value} {interval} of the rows right when used with {use}; the base model in the same way {base}.",
        "better": "Each at its best, it is better than the base model by {points} points, {low} to {high} "
        "({mine}: {value}; base model, {best}: {other}).",
        "worse": "Each at its best, it is worse than the base model by {points} points, {low} to {high} "
        "({mine}: {value}; base model, {best}: {other}): start from the base model.",
        "unclear": "Each at its best, it differs from the base model by {points} points, {low} to {high} "
        "({mine}: {value}; base model, {best}: {other}): these episodes cannot tell them apart.",
        "none": "No point of the learning served the tasks that choose better than the base model, so that the "
        "model is the base model.",
        "alpha": "To keep {keep:g} of the base model's abilities, {alpha:.0%} of the way to what was learned was gone.",
        "kept": "Of the base model's abilities {mean} {interval} are kept; worst {worst} ({name}).",
        "missed": "`keep: {keep:g}` is not met: {mean} {interval} of the base model's abilities are kept.",
        "scope": "Intervals are over {n} episodes of these tasks: other tasks may differ more.",
        "prototypes": "prototypes",
        "head": "a tuned head",
        "whole": "{steps} steps of tuning",
    },
    "zh": {
        "result": "在 {tasks} 个没有参与学习的任务（{names}）上，每类 {shots} 行，学到的模型以“{use}”的方式答对 "
        "{value} {interval}；基础模型以同样方式为 {base}。",
        "better": "各取最好的做法，它优于基础模型，相差 {points} 个百分点，区间 {low} 到 {high}"
        "（{mine}：{value}；基础模型，{best}：{other}）。",
        "worse": "各取最好的做法，它不如基础模型，相差 {points} 个百分点，区间 {low} 到 {high}"
        "（{mine}：{value}；基础模型，{best}：{other}）：请从基础模型开始。",
        "unclear": "各取最好的做法，它与基础模型相差 {points} 个百分点，区间 {low} 到 {high}"
        "（{mine}：{value}；基础模型，{best}：{other}）：这些片段无法区分两者。",
        "none": "学习过程中没有任何一点在用于选择的任务上优于基础模型，因此得到的模型就是基础模型。",
        "alpha": "为保留基础模型能力的 {keep:g}，只走了通向所学权重的 {alpha:.0%}。",
        "kept": "基础模型的能力保留了 {mean} {interval}；最差 {worst}（{name}）。",
        "missed": "未达到 `keep: {keep:g}`：基础模型的能力保留了 {mean} {interval}。",
        "scope": "区间来自这些任务的 {n} 个片段：其他任务的差别可能更大。",
        "prototypes": "原型",
        "head": "微调任务头",
        "whole": "微调 {steps} 步",
    },
}


def use_words(use: str, steps: int, lang: str = "en") -> str:
    """A way of use in words."""
    return WORDS[lang][use].format(steps=steps)


def points(value: float | None) -> str:
    """A difference of accuracies in points, with its sign."""
    return "–" if value is None else f"{100 * value:+.1f}".replace("-", "−")


def judged(gain: Estimate) -> str:
    """better, worse or unclear, by the interval."""
    if gain.low is None or gain.high is None or gain.low <= 0 <= gain.high:
        return "unclear"
    return "better" if gain.low > 0 else "worse"


def sentences(m: MetaLearning, lang: str = "en") -> list[str]:
    """What a reader should take away."""
    w = WORDS[lang]
    out = [
        w["result"].format(
            tasks=len(m.names("report")), names=", ".join(m.names("report")), shots=m.shots,
            value=number(m.accuracy.value), interval=interval(m.accuracy), use=use_words(m.own, m.inner_steps, lang),
            base=number(m.base_accuracy.value),
        )
    ]  # fmt: skip
    if not m.best_step or not m.alpha:
        out.append(w["none"])
    else:
        g = m.gain_best
        out.append(
            w[judged(g)].format(
                points=points(g.value), mine=use_words(m.meta_best, m.inner_steps, lang),
                value=number(m.used("meta", m.meta_best).accuracy.value), low=points(g.low),
                high=points(g.high), best=use_words(m.base_best, m.inner_steps, lang),
                other=number(m.used("base", m.base_best).accuracy.value),
            )
        )  # fmt: skip
    if m.keep and m.alpha < 1:
        out.append(w["alpha"].format(keep=m.keep, alpha=m.alpha))
    if m.retention is not None and m.retention.mean.value is not None:
        r = m.retention
        title = next((p.title for p in r.probes if p.name == r.worst_probe), r.worst_probe)
        out.append(
            w["missed" if m.kept is False else "kept"].format(
                keep=m.keep or 0, mean=number(r.mean.value), interval=interval(r.mean), worst=number(r.worst.value),
                name=title,
            )
        )  # fmt: skip
    out.append(w["scope"].format(n=m.episodes))
    return [" ".join(line.split()) for line in out]
