"""From the records of a run to one self-contained page: opens from disk, light or dark, English or Chinese."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from tunewell.errors import RecipeError
from tunewell.report import charts
from tunewell.report.augment import reasons, sentences
from tunewell.report.charts import Point
from tunewell.report.drift import drift_charts, legend
from tunewell.report.engine import engine
from tunewell.report.explanations import cells_of, pieces_of
from tunewell.report.records import Records, read, usage
from tunewell.report.saved import curve_command, made_more
from tunewell.report.sdft import page_of
from tunewell.report.trust import trust_charts
from tunewell.report.verdict import duration, interval, number, verdict
from tunewell.report.words import WORDS
from tunewell.results import (
    Augmentation,
    Candidate,
    Evaluation,
    GuardRecord,
    MonitorRecord,
    Seeds,
    Training,
    write_whole,
)
from tunewell.stages.rates import Rates

__all__ = ["build", "render", "verdict"]
MATRIX, CLASSES, CONFUSIONS = 20, 200, 25  # labels in a full matrix; rows of the class table; confusions listed


def build(run_dir: str | Path, lang: str = "en") -> Path:
    """Write report.html into a run folder.

    Raises:
        RunFolderError: not a run folder, or it cannot be written. RecipeError: an unknown language.
    """
    path = Path(run_dir) / "report.html"
    write_whole(path, render(read(run_dir), lang))
    return path


def render(records: Records, lang: str = "en") -> str:
    """The page as HTML. All text from data is escaped by the template."""

    if lang not in WORDS:
        raise RecipeError(f"`lang: {lang}`", where="lang", expected=" or ".join(WORDS))
    w = WORDS[lang]
    return (
        engine(pieces_of=pieces_of, cells_of=cells_of)
        .get_template("report.html")
        .render(
            w=w,
            lang=lang,
            r=records,
            verdict=verdict(records, lang),
            name=records.folder.resolve().name,
            charts=_charts(records, w),
            usage="\n".join(usage(records, f"{records.folder.resolve().name}/model")),
            confusions=_confusions(records.evaluation),
            matrix=MATRIX,
            classes=CLASSES,
            recipe=_recipe(records),
            augment=_augment(records, lang),
            curve=_curve(records),
            sdft=page_of(records.sdft, lang),
            facts=_facts(records.training, w),
            drift_legend=legend(records.drift) if records.drift is not None else [],
        )
    )


def _augment(records: Records, lang: str) -> dict[str, Any]:
    """Sentences and counts of `augment`; empty for a run without."""
    record = records.augment
    return {} if record is None else {"sentences": sentences(record, lang), "reasons": reasons(record, lang)}


def _curve(records: Records) -> str:
    """The command that says what texts without labels or copies saved in labels; empty where none were used."""
    if records.summary is None or not made_more(records.summary):
        return ""
    folder = records.folder if records.folder.name else records.folder.resolve()  # `.` is another one to the next
    return curve_command(records.recipe, str(folder))


def _recipe(records: Records) -> str:
    path = records.folder / "recipe.yaml"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def _confusions(evaluation: Evaluation | None) -> list[tuple[str, str, int]]:
    """The most frequent pairs of true and predicted label that differ."""
    if evaluation is None or not evaluation.confusion:
        return []
    labels = evaluation.labels
    cells = [
        (labels[i], labels[j], n)
        for i, row in enumerate(evaluation.confusion)
        for j, n in enumerate(row)
        if i != j and n
    ]
    return sorted(cells, key=lambda c: -c[2])[:CONFUSIONS]


def _facts(training: Training | None, w: dict[str, str]) -> list[tuple[str, str]]:
    """What tuning did, as (name, value)."""
    if training is None:
        return []
    watched = [(w["monitor"], _watched(training.monitor, w))] if training.monitor is not None else []
    if training.guard is not None and (training.guard.events or training.guard.signs):
        watched.append((w["guard"], _guarded(training.guard, w)))
    computed = []
    if training.accounting is not None and training.accounting.flops_per_second:
        a = training.accounting
        text = w["x_computed"].format(
            total=f"{a.flops / 1e12:,.3g}", rate=f"{a.flops_per_second / 1e9:,.0f}", share=f"{a.share_of_peak:.0%}",
            peak=f"{a.peak_flops_per_second / 1e9:,.0f}",
        )  # fmt: skip
        computed.append((w["computed"], text))
        if a.joules is not None:
            computed.append((w["energy"], w["x_energy"].format(wh=f"{a.joules / 3600:,.2f}")))
    return [
        (w["strategy"], " + ".join(training.strategy)),
        (w["steps"], f"{training.steps:,} ({training.epochs:g} ×)"),
        (w["best_step"], f"{training.best_step:,}" + (f" · {w['stopped']}" if training.stopped_early else "")),
        (w["rate"], f"{training.learning_rate:g}"),
        (w["precision_used"], training.precision + (" · TensorFlow" if training.framework == "tensorflow" else "")),
        (w["parameters"], f"{training.trainable_parameters:,} / {training.parameters:,}"),
        (w["speed"], f"{training.tokens / training.seconds:,.0f}" if training.seconds else "–"),
        (w["padding"], f"{training.padding_share:.1%}"),
        (w["memory"], f"{training.peak_memory_mb:,.0f} MB"),
        (w["time_tile"], _time(training, w)),
        *computed,
        *watched,
    ]


def _time(training: Training, w: dict[str, str]) -> str:
    """What tuning took, and what its first steps foretold."""
    took = duration(training.seconds)
    if training.forecast_seconds is None:
        return took
    return w["x_foretold"].format(took=took, told=duration(training.forecast_seconds))


def _guarded(guard: GuardRecord, w: dict[str, str]) -> str:
    """What the guard did, and what the loss says of the rate."""
    said = []
    for e in guard.events:
        key = "u_changed" if e.back_to is None else "u_back"
        rates = {"before": f"{e.rate_before:.2g}", "after": f"{e.rate_after:.2g}"}
        said.append(w[key].format(step=e.step, what=w[f"u_{e.what}"], back=e.back_to, **rates))
    said += [w[f"u_{sign}"] for sign in guard.signs if not guard.events]
    return " · ".join(said)


def _watched(monitor: MonitorRecord, w: dict[str, str]) -> str:
    """What the monitor did, in a few words."""
    text = w["monitor_fact"].format(mode=monitor.mode, n=monitor.readings, share=f"{monitor.share:.1%}")
    if monitor.ended_at is not None:
        text += " · " + w["monitor_ended"].format(step=monitor.ended_at, floor=f"{monitor.floor or 0:g}")
    if monitor.back_to is not None:
        text += " · " + w["monitor_back"].format(step=monitor.back_to)
    return text


def _charts(records: Records, w: dict[str, str]) -> dict[str, Any]:
    from markupsafe import Markup

    made: dict[str, str] = {}
    evaluation = records.evaluation
    if evaluation is not None:
        made |= _evaluation_charts(records, evaluation, w)
    if records.retention is not None and records.retention.probes:
        made["retention"] = _retention_chart(records, w)
    if records.choice is not None and any(_known(c) for c in records.choice.candidates):
        made["frontier"] = _frontier_chart(records, w)
    if records.calibration is not None:
        made |= trust_charts(records.calibration, w)
    if records.augment is not None and records.augment.comparison is not None:
        made["augment"] = _augment_chart(records.augment, w)
    if records.rates is not None:
        made["rates"] = _rates_chart(records.rates, w)
    if records.seeds is not None:
        made["seeds"] = _seeds_chart(records.seeds, w)
    if records.drift is not None:
        made |= drift_charts(records.drift, w)
    if records.training is not None:
        made |= _history_charts(records.training, evaluation.metric if evaluation else "", w)
    if records.check is not None and records.check.class_counts.get("train"):
        rows = list(records.check.class_counts["train"].items())[:30]
        made["classes"] = charts.bars([(label, n, f"{label}: {n:,}") for label, n in rows], title=w["class_balance"])
    # the page asks for every chart; one that there is no data for is empty
    return defaultdict(Markup, {name: Markup(svg) for name, svg in made.items()})


def _known(candidate: Candidate) -> bool:
    """Whether a candidate has a place in the frontier plot."""
    mean = candidate.retention_mean
    return mean is not None and mean.value is not None and candidate.score.value is not None


def _evaluation_charts(records: Records, evaluation: Evaluation, w: dict[str, str]) -> dict[str, str]:
    made = {}
    own = evaluation.headline
    points = (
        [Point(w["tuned"], own.value, own.low, own.high, "main", f"{w['tuned']}: {own.value:.4f} {interval(own, 4)}")]
        if own.value is not None
        else []
    )
    for b in records.baselines:
        e = b.evaluation.headline
        if e.value is not None:
            points.append(Point(b.title, e.value, e.low, e.high, "other", f"{b.title}: {e.value:.4f} {interval(e, 4)}"))
    if points:
        made["baselines"] = charts.intervals(points, title=f"{w['against_baselines']}: {evaluation.metric}")
    filled = [b for b in evaluation.calibration if b.n]
    if filled:
        dots = [
            (
                b.confidence,
                b.accuracy,
                "main",
                f"{w['confidence']} {b.confidence:.2f}, {w['accuracy']} {b.accuracy:.2f}, "
                f"{w['n_rows'].format(n=f'{b.n:,}')}",
            )
            for b in filled
        ]
        made["calibration"] = charts.scatter(
            dots, title=w["calibration"], x_label=w["confidence"], y_label=w["accuracy"], diagonal=True
        )
    if evaluation.scatter:
        dots = [(t, p, "main faint", f"{w['true']} {t:.3g}, {w['predicted']} {p:.3g}") for t, p in evaluation.scatter]
        made["scatter"] = charts.scatter(
            dots, title=w["scatter"], x_label=w["true"], y_label=w["predicted"], diagonal=True, radius=3
        )
    return made


def _retention_chart(records: Records, w: dict[str, str]) -> str:
    retention = records.retention
    assert retention is not None
    points = []
    for p in retention.probes:
        e = p.retention
        if e.value is not None:
            change = f"{number(p.before.value, 4)} → {number(p.after.value, 4)}"
            tip = f"{p.title}: {change}, {w['retention']} {e.value:.4f} {interval(e, 4)}"
            points.append(Point(p.title, e.value, e.low, e.high, "main" if p.counted else "quiet", tip))
    if retention.mean.value is not None:
        m = retention.mean
        points.append(
            Point(w["mean"], m.value or 0.0, m.low, m.high, "good", f"{w['mean']}: {m.value:.4f} {interval(m, 4)}")
        )
    if not points:
        return ""
    keep = records.summary.keep if records.summary else None
    return charts.intervals(
        points, title=w["probes"], line=keep or 1.0, line_label=f"keep {keep:g}" if keep else "1", left=230
    )


def _frontier_chart(records: Records, w: dict[str, str]) -> str:
    choice = records.choice
    assert choice is not None
    dots, bars = [], []
    for c in choice.candidates:
        if c.retention_mean is None or c.retention_mean.value is None or c.score.value is None:
            continue
        tone = "good" if c.chosen else "main" if c.meets is not False else "bad"
        tip = f"{c.name}: {w['validation']} {c.score.value:.4f}, {w['retention']} {c.retention_mean.value:.4f}"
        dots.append((c.retention_mean.value, c.score.value, tone, tip + (f" ({w['chosen']})" if c.chosen else "")))
        bars.append(
            (
                c.retention_mean.value,
                c.score.value,
                c.retention_mean.low,
                c.retention_mean.high,
                c.score.low,
                c.score.high,
                tone,
            )
        )
    if not dots:
        return ""
    return charts.scatter(
        dots,
        bars=bars,
        title=w["frontier"],
        x_label=w["retention"],
        y_label=w["validation"],
        floor=choice.keep,
        floor_label=f"keep {choice.keep:g}" if choice.keep else "",
        radius=6,
    )


def _augment_chart(record: Augmentation, w: dict[str, str]) -> str:
    """Both validation scores with their intervals."""
    sides = ((w["au_without"], record.without, not record.helps), (w["au_with"], record.augmented, record.helps))
    points = [
        Point(name, e.value, e.low, e.high, "good" if chosen else "other", f"{name}: {e.value:.4f} {interval(e, 4)}")
        for name, e, chosen in sides
        if e is not None and e.value is not None
    ]
    return charts.intervals(points, title=w["au_title"]) if points else ""


def _rates_chart(record: Rates, w: dict[str, str]) -> str:
    """The validation score at each rate, from low to high."""
    points = [
        Point(f"{t.rate:g}", e.value, e.low, e.high, "good" if t.rate == record.chosen else "other",
              f"{t.rate:g}: {e.value:.4f} {interval(e, 4)}")
        for t in sorted(record.trials, key=lambda t: t.rate)
        if (e := t.score).value is not None
    ]  # fmt: skip
    return charts.intervals(points, title=w["lr_title"])


def _seeds_chart(seeds: Seeds, w: dict[str, str]) -> str:
    points = [
        Point(str(x.seed), x.test.value, x.test.low, x.test.high, "bad" if x.failed else "main",
              f"{w['seeds_seed']} {x.seed}: {x.test.value:.4f} {interval(x.test, 4)}")
        for x in seeds.results if x.test.value is not None
    ]  # fmt: skip
    mean = seeds.test
    if mean.value is not None:
        tip = f"{w['seeds_mean']}: {mean.value:.4f} {interval(mean, 4)}"
        points.append(Point(w["seeds_mean"], mean.value, mean.low, mean.high, "good", tip))
    return charts.intervals(points, title=w["seeds_title"]) if points else ""


def _history_charts(training: Training, metric: str, w: dict[str, str]) -> dict[str, str]:
    def series(key: str) -> list[tuple[float, float]]:
        return [
            (float(e["step"]), float(e[key]))
            for e in training.history
            if isinstance(e.get(key), (int, float)) and isinstance(e.get("step"), (int, float))
        ]

    made = {}
    marks = [(float(s), w["skipped"].format(step=s)) for s in training.nonfinite_steps[:50]]
    if training.guard is not None:
        marks += [(float(e.step), f"{w['u_' + e.what]}: {e.step}") for e in training.guard.events]
    if len(loss := series("loss")) > 1:
        made["loss"] = charts.lines(
            [(w["loss"], "main", loss)], title=w["training_loss"], x_label=w["step"], y_label=w["loss"], marks=marks
        )
    if len(rate := series("learning_rate")) > 1:
        made["rate"] = charts.lines(
            [(w["rate"], "other", rate)], title=w["rate"], x_label=w["step"], y_label=w["rate"], height=170
        )
    if kept := series("kept_estimate"):
        monitor = training.monitor
        held = monitor.floor if monitor is not None else None
        floor = [(w["monitor_floor"], "bad", [(kept[0][0], held), (kept[-1][0], held)])] if held else []
        made["monitor"] = charts.lines(
            [(w["monitor_estimate"], "main", kept), *floor],
            title=w["monitor"],
            x_label=w["step"],
            y_label=w["retention"],
            dots=True,
            height=220,
        )
    if score := series(f"eval_{metric}"):
        made["score"] = charts.lines(
            [(metric, "good", score)],
            title=w["validation_score"],
            x_label=w["step"],
            y_label=metric,
            dots=True,
            height=220,
        )
    return made
