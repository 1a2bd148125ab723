"""The page of meta-learning: one self-contained file, made from its record alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunewell.meta.records import MetaLearning
from tunewell.meta.words import points, sentences, use_words
from tunewell.report import charts
from tunewell.report.charts import Point
from tunewell.report.engine import engine, environment_of
from tunewell.report.verdict import interval
from tunewell.report.words import WORDS
from tunewell.results import Estimate, write_whole

META_WORDS = {
    "en": {
        "title": "An initialisation for many tasks",
        "uses": "Accuracy on tasks that took no part",
        "uses_note": "Mean over episodes with its 95 % interval. Each model's learning rate was chosen on other tasks.",
        "learned": "learned",
        "base": "base model",
        "use": "put to use with",
        "rate": "learning rate",
        "selection": "tasks that choose",
        "accuracy": "accuracy",
        "against": "The learned model against the base model",
        "against_note": "Difference in points on the same episodes.",
        "same": "used in the same way",
        "frozen": "prototypes on the frozen base model",
        "strongest": "each at its best: {mine} against {other}",
        "by_task": "Task by task",
        "history": "While it learned",
        "history_note": "Accuracy on the tasks that choose; the best point was taken (step {step}).",
        "step": "outer step",
        "family": "The tasks",
        "role": "role",
        "learn": "to learn from",
        "select": "to choose on",
        "report": "reported",
        "rows": "rows",
        "classes": "classes",
        "dropped": "left out",
        "probes": "What is kept of the base model",
        "probe": "probe",
        "before": "before",
        "after": "after",
        "retention": "retention",
        "again": "Again, and in use",
        "task": "task",
        "points": "points",
        "mean": "mean",
    },
    "zh": {
        "title": "面向多个任务的初始化",
        "uses": "没有参与学习的任务上的准确率",
        "uses_note": "各片段的平均及 95% 区间。每个模型的学习率都在另外的任务上选定。",
        "learned": "学到的模型",
        "base": "基础模型",
        "use": "使用方式",
        "rate": "学习率",
        "selection": "用于选择的任务",
        "accuracy": "准确率",
        "against": "学到的模型与基础模型相比",
        "against_note": "同样片段上的差（百分点）。",
        "same": "以同样方式使用",
        "frozen": "冻结的基础模型上的原型",
        "strongest": "各取最好的做法：{mine} 对 {other}",
        "by_task": "逐个任务",
        "history": "学习过程",
        "history_note": "用于选择的任务上的准确率；取最好的一点（第 {step} 步）。",
        "step": "外层步数",
        "family": "任务",
        "role": "角色",
        "learn": "用于学习",
        "select": "用于选择",
        "report": "用于报告",
        "rows": "行数",
        "classes": "类别数",
        "dropped": "舍去",
        "probes": "基础模型的能力保留了多少",
        "probe": "探针",
        "before": "之前",
        "after": "之后",
        "retention": "保留率",
        "again": "重复与使用",
        "task": "任务",
        "points": "百分点",
        "mean": "平均",
    },
}


def build(folder: str | Path, m: MetaLearning, lang: str = "en") -> Path:
    """Write meta.html into the folder of the record."""
    path = Path(folder) / "meta.html"
    write_whole(path, render(Path(folder), m, lang))
    return path


def render(folder: Path, m: MetaLearning, lang: str = "en") -> str:
    """The page as HTML. All text from data is escaped by the template."""
    from markupsafe import Markup

    w = {**WORDS[lang], **META_WORDS[lang]}
    gains = [
        (w["same"], m.gain),
        (w["frozen"], m.gain_prototypes),
        (
            w["strongest"].format(
                mine=use_words(m.meta_best, m.inner_steps, lang), other=use_words(m.base_best, m.inner_steps, lang)
            ),
            m.gain_best,
        ),
    ]
    reported = m.names("report")
    return (
        engine(points=points, use=lambda name: use_words(name, m.inner_steps, lang))
        .get_template("meta.html")
        .render(
            w=w,
            lang=lang,
            m=m,
            name=folder.resolve().name,
            verdict=sentences(m, lang),
            uses=Markup(_uses(m, w, lang)),
            gains=gains,
            reported=reported,
            history=Markup(_history(m, w)),
            history_note=w["history_note"].format(step=m.best_step),
            environment=environment_of(folder),
        )
    )


def _uses(m: MetaLearning, w: dict[str, str], lang: str) -> str:
    rows = []
    for u in m.uses:
        e: Estimate = u.accuracy
        label = f"{w['learned'] if u.body == 'meta' else w['base']}, {use_words(u.use, m.inner_steps, lang)}"
        if e.value is not None:
            tone = "good" if u.body == "meta" else "other"
            rows.append(Point(label, e.value, e.low, e.high, tone, f"{label}: {e.value:.4f} {interval(e, 4)}"))
    return charts.intervals(rows, title=w["uses"])


def _history(m: MetaLearning, w: dict[str, str]) -> str:
    seen: list[Any] = [(float(h.step), h.selection) for h in m.history]
    return charts.lines(
        [(w["selection"], "main", seen)],
        title=w["history"],
        x_label=w["step"],
        y_label="",  # the note above says what it is
        points_of=[(x, y, "good" if x == m.best_step else "main", f"{x:.0f}: {y:.4f}") for x, y in seen],
    )
