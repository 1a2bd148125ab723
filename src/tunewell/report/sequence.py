"""The page of a sequence of tasks: one self-contained file, made from its records alone."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewell.report import charts
from tunewell.report.charts import Point
from tunewell.report.engine import engine, environment_of
from tunewell.report.verdict import duration, interval, number
from tunewell.report.words import WORDS
from tunewell.results import Estimate, write_whole

if TYPE_CHECKING:
    from tunewell.sequence.records import SequenceSummary

TONES = ("main", "other", "good", "bad", "quiet")
FIGURES = ("average_accuracy", "backward_transfer", "forward_transfer", "forgetting")
SEQUENCE_WORDS = {
    "en": {
        "title": "Many tasks in a row",
        "matrix": "Accuracy matrix",
        "matrix_note": "Row: after this task. Column: on the test rows of that task. Above the diagonal, in italics: "
        "a linear probe on the frozen body, since the head does not exist yet.",
        "one_row": "All tasks, test rows of each.",
        "curves": "Each task from when it was learned",
        "after_task": "after task",
        "accuracy": "accuracy",
        "average_accuracy": "average accuracy",
        "backward_transfer": "backward transfer",
        "forward_transfer": "forward transfer",
        "forgetting": "forgetting",
        "average_accuracy_note": "mean over tasks at the end",
        "backward_transfer_note": "end minus right after learning; below 0 is loss",
        "forward_transfer_note": "probe before learning minus probe on the base model",
        "forgetting_note": "best before the end minus end",
        "retention": "What the body keeps of the base model's abilities",
        "retention_note": "Mean retention of the report halves, 1 is nothing lost.",
        "table": "Task by task",
        "task": "task",
        "rows": "training rows",
        "stored": "rows stored",
        "learned": "when learned",
        "end": "at the end",
        "base": "probe on base",
        "seconds": "tuning",
        "kept": "kept",
        "mean_kept": "mean",
        "worst": "worst probe",
        "alpha": "α",
        "verdict_1": "After {n} tasks the model answers {mean} {interval} of test rows right on average.",
        "verdict_lost": "Earlier tasks lost {points:.1f} points on average since they were learned {interval}.",
        "verdict_held": "Earlier tasks did not lose on average ({points:+.1f} points since learned {interval}).",
        "verdict_memory": "{rows} rows of earlier tasks are stored; tuning took {time}.",
        "again": "Again, and in use",
        "recipe": "Sequence",
        "environment": "Environment",
    },
    "zh": {
        "title": "连续学习多个任务",
        "matrix": "准确率矩阵",
        "matrix_note": "行：学完该任务之后。列：在该任务的测试集上。对角线以上（斜体）：任务头尚不存在，"
        "因此是冻结主体上的线性探针。",
        "one_row": "所有任务，各自的测试集。",
        "curves": "每个任务学完以后的准确率",
        "after_task": "学完任务",
        "accuracy": "准确率",
        "average_accuracy": "平均准确率",
        "backward_transfer": "后向迁移",
        "forward_transfer": "前向迁移",
        "forgetting": "遗忘",
        "average_accuracy_note": "最后各任务的平均",
        "backward_transfer_note": "最后减去刚学完时；小于 0 表示损失",
        "forward_transfer_note": "学习前的探针减去基础模型上的探针",
        "forgetting_note": "之前最好减去最后",
        "retention": "主体保留了多少基础模型的能力",
        "retention_note": "报告半区上的平均保留率，1 表示没有损失。",
        "table": "逐个任务",
        "task": "任务",
        "rows": "训练行数",
        "stored": "存储行数",
        "learned": "刚学完时",
        "end": "最后",
        "base": "基础模型探针",
        "seconds": "训练时间",
        "kept": "保留",
        "mean_kept": "平均",
        "worst": "最差探针",
        "alpha": "α",
        "verdict_1": "学完 {n} 个任务后，模型在测试集上平均答对 {mean} {interval}。",
        "verdict_lost": "先前的任务自学完以来平均损失 {points:.1f} 个百分点 {interval}。",
        "verdict_held": "先前的任务平均没有损失（自学完以来 {points:+.1f} 个百分点 {interval}）。",
        "verdict_memory": "存储了先前任务的 {rows} 行；训练用时 {time}。",
        "again": "重复与使用",
        "recipe": "序列",
        "environment": "环境",
    },
}


def build(folder: str | Path, summary: SequenceSummary, lang: str = "en") -> Path:
    """Write report.html into a sequence folder."""
    path = Path(folder) / "report.html"
    write_whole(path, render(Path(folder), summary, lang))
    return path


def render(folder: Path, summary: SequenceSummary, lang: str = "en") -> str:
    """The page as HTML. All text from data is escaped by the template."""
    from markupsafe import Markup

    w = {**WORDS[lang], **SEQUENCE_WORDS[lang]}
    recipe = folder / "sequence.yaml"
    return (
        engine()
        .get_template("sequence.html")
        .render(
            w=w,
            lang=lang,
            s=summary,
            name=folder.resolve().name,
            verdict=verdict(summary, w),
            tiles=[(name, _figure(summary, name)) for name in FIGURES],
            charts=defaultdict(Markup, {k: Markup(v) for k, v in _charts(summary, w).items()}),
            table=_table(summary),
            legend=[(task, TONES[j % len(TONES)]) for j, task in enumerate(summary.tasks)],
            recipe=recipe.read_text(encoding="utf-8").strip() if recipe.is_file() else "",
            environment=environment_of(folder),
            square=len(summary.matrix) == len(summary.tasks) > 1,
        )
    )


def verdict(summary: SequenceSummary, w: dict[str, str]) -> list[str]:
    """What a reader should take away, in two or three sentences."""
    average, back = _figure(summary, "average_accuracy"), _figure(summary, "backward_transfer")
    out = [w["verdict_1"].format(n=len(summary.tasks), mean=number(average.value), interval=interval(average))]
    if back.value is not None:
        sign = -100 if back.value < 0 else 100
        ends = sorted(sign * v for v in (back.low, back.high) if v is not None)
        points = Estimate(value=sign * back.value, low=ends[0] if ends else None, high=ends[-1] if ends else None)
        key = "verdict_lost" if back.value < 0 else "verdict_held"
        out.append(w[key].format(points=points.value, interval=interval(points, 1)))
    rows = f"{summary.memory['rows']:,}"
    out.append(w["verdict_memory"].format(rows=rows, time=duration(summary.seconds["train"])))
    return out


def _figure(summary: SequenceSummary, name: str) -> Estimate:
    low, high = summary.intervals.get(name, (None, None))
    return Estimate(value=getattr(summary, name), low=low, high=high)


def _table(summary: SequenceSummary) -> list[dict[str, Any]]:
    square = len(summary.matrix) == len(summary.tasks)
    rows = {r.task: r for r in summary.rows}
    return [
        {
            "task": task,
            "row": rows.get(task),
            "learned": summary.matrix[j][j] if square else None,
            "end": summary.matrix[-1][j],
            "interval": Estimate(
                value=0, low=summary.matrix_intervals[-1][j][0], high=summary.matrix_intervals[-1][j][1]
            ),
            "base": summary.base[j],
            "n_test": summary.n_test[j],
        }
        for j, task in enumerate(summary.tasks)
    ]


def _charts(summary: SequenceSummary, w: dict[str, str]) -> dict[str, str]:
    made, tasks = {}, summary.tasks
    if len(summary.matrix) == len(tasks) > 1:
        series = [
            (
                task,
                TONES[j % len(TONES)],
                [(i + 1.0, v) for i, row in enumerate(summary.matrix) if i >= j and (v := row[j]) is not None],
            )
            for j, task in enumerate(tasks)
        ]
        made["curves"] = charts.lines(
            [s for s in series if s[2]], title=w["curves"], x_label=w["after_task"], y_label=w["accuracy"], dots=True
        )
    points = []
    for j, task in enumerate(tasks):
        value = summary.matrix[-1][j]
        if value is not None:
            low, high = summary.matrix_intervals[-1][j]
            points.append(Point(task, value, low, high, "main", f"{task}: {value:.4f}"))
    if points:
        made["final"] = charts.intervals(points, title=w["end"])
    kept = [(i + 1.0, m.value) for i, r in enumerate(summary.rows) if (m := r.retention_mean) and m.value is not None]
    worst = [(i + 1.0, m.value) for i, r in enumerate(summary.rows) if (m := r.retention_worst) and m.value is not None]
    if kept and len(summary.matrix) == len(tasks):
        start = [(0.0, 1.0)]
        made["retention"] = charts.lines(
            [(w["mean_kept"], "good", start + kept), (w["worst"], "bad", start + worst)],
            title=w["retention"],
            x_label=w["after_task"],
            y_label=w["kept"],
            dots=True,
        )
    return made
