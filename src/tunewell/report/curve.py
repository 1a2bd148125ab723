"""The page of a learning curve: one self-contained file, made from its record alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunewell.curve.records import LearningCurve
from tunewell.curve.words import law_line, points_of, sentences
from tunewell.report import charts
from tunewell.report.engine import engine, environment_of
from tunewell.report.words import WORDS
from tunewell.results import write_whole

CURVE_WORDS = {
    "en": {
        "title": "How many labels are enough",
        "plot": "The score as labels grow",
        "plot_note": "Points: one model each, on the same test rows. Line and band: what the laws say, with the 90 % "
        "interval of the mean score; dashed, your target. Right of the last points it is a forecast.",
        "labels": "labels",
        "more": "What more labels would bring",
        "more_labels": "more labels",
        "gain": "gain, points",
        "interval_90": "90 % interval",
        "money": "money",
        "time": "labelling",
        "points": "Measured points",
        "mean": "mean",
        "scores": "scores",
        "seconds": "time",
        "laws_note": "A forecast mixes laws by how well, fitted on the smaller sizes, they foresaw the larger ones.",
        "again": "Again",
    },
    "zh": {
        "title": "多少标注才够",
        "plot": "得分随标注数量的变化",
        "plot_note": "点：每个点是一个模型，都在同一测试集上测量。线与带：定律的拟合及平均得分的 90% 区间；虚线是目标。"
        "最后的点以右是预测。",
        "labels": "标注数",
        "more": "更多标注能带来什么",
        "more_labels": "新增标注",
        "gain": "提升（百分点）",
        "interval_90": "90% 区间",
        "money": "费用",
        "time": "标注时间",
        "points": "测量点",
        "mean": "平均",
        "scores": "得分",
        "seconds": "用时",
        "laws_note": "预测按各定律（在较小规模上拟合）对较大规模的预见准确程度加权。",
        "again": "重复",
    },
}


def build(folder: str | Path, curve: LearningCurve, lang: str = "en") -> Path:
    """Write report.html into the folder of a learning curve."""
    path = Path(folder) / "report.html"
    write_whole(path, render(Path(folder), curve, lang))
    return path


def render(folder: Path, curve: LearningCurve, lang: str = "en") -> str:
    """The page as HTML. All text from data is escaped by the template."""
    from markupsafe import Markup

    w = {**WORDS[lang], **CURVE_WORDS[lang]}
    recipe = folder / "recipe.yaml"
    rows: list[dict[str, Any]] = []
    for size, mean in curve.means().items():
        found = [p for p in curve.points if p.size == size]
        rows.append(
            {"size": size, "mean": mean, "scores": [p.score for p in found], "seconds": sum(p.seconds for p in found)}
        )
    return (
        engine(points=points_of)
        .get_template("curve.html")
        .render(
            w=w,
            lang=lang,
            c=curve,
            name=folder.resolve().name,
            verdict=sentences(curve, lang),
            laws=law_line(curve, lang),
            chart=Markup(_chart(curve, w)),
            rows=rows,
            recipe=recipe.read_text(encoding="utf-8").strip() if recipe.is_file() else "",
            environment=environment_of(folder),
        )
    )


def _chart(curve: LearningCurve, w: dict[str, str]) -> str:
    sizes = [*curve.means(), 2 * curve.n_train, 4 * curve.n_train]
    seen = [(float(f.size), f.value) for f in curve.curve if f.measured]
    ahead = [(float(f.size), f.value) for f in curve.curve if not f.measured]
    return charts.lines(
        [(curve.metric, "main", seen), (curve.metric, "other", seen[-1:] + ahead)],
        title=w["plot"],
        x_label=w["labels"],
        y_label=curve.metric,
        band=[(float(f.size), f.low, f.high) for f in curve.curve],
        points_of=[
            (float(p.size), p.score, "good", f"{p.size:,}: {p.score:.4f} ({p.repeat + 1})") for p in curve.points
        ],
        level=curve.needed.target if curve.needed is not None else None,
        log=[float(s) for s in sizes],
        height=340,
    )
