"""Results as text for a terminal: plain tables that also read well in a log."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunewell.results import Comparison, Estimate, Evaluation, ProbeResult, Retention
    from tunewell.run import Run

DASH = "–"
WIDTH = 110


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), indent: int = 2) -> str:
    """Rows in aligned columns; wide (East Asian) characters count as two.

    Args:
        right: numbers of the columns that are aligned to the right.
    """
    safe = [[printable(cell) for cell in row] for row in rows]
    widths = [max(_width(row[i]) for row in safe if i < len(row)) for i in range(max(map(len, safe)))]
    lines = []
    for row in safe:
        cells = []
        for i, cell in enumerate(row):
            gap = " " * (widths[i] - _width(cell))
            cells.append(gap + cell if i in right else cell + gap)
        lines.append((" " * indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def printable(text: str) -> str:
    """Text from data without characters that steer a terminal."""
    return "".join(
        c if c.isprintable() else "�" if unicodedata.category(c) == "Cc" and c not in "\n\t" else " " for c in text
    )


def _width(text: str) -> int:
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def number(value: float | None, digits: int = 3) -> str:
    """
    >>> number(0.98765), number(None), number(12345.6)
    ('0.988', '–', '12,346')
    """
    if value is None or value != value:
        return DASH
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}f}"


def interval(estimate: Estimate, digits: int = 3) -> str:
    """`0.752 to 0.809`, or a dash where none is defined."""
    if estimate.low is None or estimate.high is None:
        return DASH
    return f"{number(estimate.low, digits)} to {number(estimate.high, digits)}"


def duration(seconds: float) -> str:
    """
    >>> duration(4.21), duration(83), duration(7300)
    ('4.2 s', '1 min 23 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def versus(comparison: Comparison | None) -> str:
    """What the tuned model gained over another: difference, verdict, p value."""
    if comparison is None or comparison.difference.value is None:
        return ""
    word = {True: "better", False: "worse", None: "cannot tell"}[comparison.better]
    p = comparison.p_value
    shown = DASH if p is None else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return f"{comparison.difference.value:+.3f} {word}, {shown}"


def run_table(run: Run) -> str:
    """The end of `tunewell run`: gained, kept, needed, and where the report is."""
    from tunewell.report.saved import curve_command, made_more
    from tunewell.report.words import WORDS

    summary = run.summary
    rows = [
        ["", summary.metric, "95 % interval", "tuned against it"],
        ["tuned", number(summary.test.value), interval(summary.test)],
    ]
    for other in run.baselines:
        headline = other.evaluation.headline
        rows.append([other.title, number(headline.value), interval(headline), versus(other.comparison)])
    tests = sorted({b.comparison.test for b in run.baselines if b.comparison is not None})
    gained = f"Gained, on {summary.test.n:,} test rows" + (f" (p by: {'; '.join(tests)})" if tests else "")
    parts = ["", gained, table(rows, right=(1,))]
    if summary.ranked is not None:
        parts.append(f"  base model {summary.model}, ranked before tuning: {summary.ranked['why']}")
    if run.retention is not None:
        parts += ["", "Kept", retention_table(run.retention)]
        if summary.kept is not None:
            wanted = [f"{k} {v:g}" for k in ("keep", "keep_worst") if (v := getattr(run.recipe, k))]
            parts.append(f"  {', '.join(wanted)}: {'met' if summary.kept else 'NOT MET'} ({run.choice.reason})")
    needed = [
        f"{summary.n_train:,} training rows",
        f"tuning {duration(summary.seconds['train'])}",
        f"in all {duration(summary.seconds['total'])}",
        f"memory {summary.peak_memory_mb:,.0f} MB",
        f"{run.training.trainable_parameters / 1e6:.1f} of {run.training.parameters / 1e6:.1f} M parameters",
    ]
    parts += ["", "Needed", "  " + ", ".join(needed), ""]
    parts += [
        textwrap.fill(printable(sentence), WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        for sentence in summary.verdict
    ]
    if made_more(summary):
        parts += ["", WORDS["en"]["sv_worth"], "  " + printable(curve_command(run.recipe.model_dump(), str(run.dir)))]
    parts += ["", f"model   {run.model_path}", f"report  {run.report_path}"]
    return "\n".join(parts)


def retention_table(retention: Retention) -> str:
    """Probe by probe, then mean and worst."""
    rows = [["probe", "before", "after", "kept", "95 % interval"]]
    for probe in retention.probes:
        rows.append(
            [
                probe.title + ("" if probe.counted else " (not counted)"),
                number(probe.before.value),
                number(probe.after.value),
                number(probe.retention.value, 4),
                interval(probe.retention, 4),
            ]
        )
    rows.append(["mean", "", "", number(retention.mean.value, 4), interval(retention.mean, 4)])
    worst = next((p.title for p in retention.probes if p.name == retention.worst_probe), retention.worst_probe)
    rows.append([f"worst: {worst}", "", "", number(retention.worst.value, 4), interval(retention.worst, 4)])
    return table(rows, right=(1, 2, 3))


def restored_table(before: Run, after: Run) -> str:
    """A run and what was made of it: what was regained of each probe, and what it cost on the task."""

    def change(a: Estimate, b: Estimate) -> str:
        return DASH if a.value is None or b.value is None else f"{b.value - a.value:+.4f}"

    rows = [["", "tuned", "restored", "change", "95 % interval"]]
    for name in [before.summary.metric, *(n for n in before.metrics if n != before.summary.metric)][:3]:
        a, b = before.metrics[name], after.metrics[name]
        rows.append([f"test {name}", number(a.value, 4), number(b.value, 4), change(a, b), interval(b, 4)])
    if before.retention is not None and after.retention is not None:
        known = {p.name: p for p in before.retention.probes}
        pairs = [(f"kept: {p.title}", known[p.name].retention, p.retention) for p in after.retention.probes]
        pairs.append(("kept: mean", before.retention.mean, after.retention.mean))
        for title, a, b in pairs:
            rows.append([title, number(a.value, 4), number(b.value, 4), change(a, b), interval(b, 4)])
    parts = ["", table(rows, right=(1, 2, 3))]
    if (about := after.summary.restored or {}).get("way"):
        way = [["taken back", f"{about['probe']}, select half", f"validation {after.summary.metric}"]]
        way += [[s["layer"] or "nothing", number(s["kept"], 4), number(s["score"], 4)] for s in about["way"]]
        parts = ["", table(way, right=(1, 2)), *parts]
        parts.append(f"  {about['probe']} to keep {about['keep']:g}: {'met' if about['met'] else 'NOT MET'} as chosen")
    if after.summary.kept is not None:
        parts.append(f"  the run's budget: {'met' if after.summary.kept else 'NOT MET'}")
    return "\n".join([*parts, "", f"model   {after.model_path}", f"report  {after.report_path}"])


def merged_table(run: Run) -> str:
    """A merged model beside those that it is made of, on validation and the select halves; then what was measured."""
    metric = run.summary.metric
    rows = [["", f"validation {metric}", "95 % interval", "kept", "worst"]]
    for c in run.choice.candidates:
        mean, worst = (e.value if e is not None else None for e in (c.retention_mean, c.retention_worst))
        name = c.name + (" (chosen)" if c.chosen else "")
        rows.append([name, number(c.score.value, 4), interval(c.score, 4), number(mean, 4), number(worst, 4)])
    parts = ["", table(rows, right=(1, 3, 4)), ""]
    parts.append(f"  test {metric} {number(run.summary.test.value, 4)} ({interval(run.summary.test, 4)})")
    if run.retention is not None:
        kept = run.retention.mean
        parts.append(f"  kept, on the report halves: {number(kept.value, 4)} ({interval(kept, 4)})")
    if run.summary.kept is not None:
        parts.append(f"  the first run's budget: {'met' if run.summary.kept else 'NOT MET'}")
    return "\n".join([*parts, "", f"model   {run.model_path}", f"report  {run.report_path}"])


def probe_table(probes: Sequence[ProbeResult]) -> str:
    """What one model knows: each probe's value."""
    rows = [["probe", "metric", "value", "95 % interval", "chance"]]
    for probe in probes:
        value = probe.before
        rows.append([probe.title, probe.metric, number(value.value), interval(value), number(probe.chance)])
    return table(rows, right=(2, 4))


def evaluation_table(evaluation: Evaluation) -> str:
    """All metrics with intervals, then class by class."""
    first = evaluation.metric
    names = [first, *(name for name in evaluation.metrics if name != first)]
    rows = [["metric", "value", "95 % interval"]]
    rows += [[name, number(evaluation.metrics[name].value), interval(evaluation.metrics[name])] for name in names]
    parts = [f"{evaluation.n:,} rows", "", table(rows, right=(1,))]
    if evaluation.per_class:
        rows = [["class", "precision", "recall", "f1", "rows", "predicted"]]
        for c in evaluation.per_class:
            figures = [number(c.precision), number(c.recall), number(c.f1)]
            rows.append([c.label, *figures, f"{c.support:,}", f"{c.predicted:,}"])
        parts += ["", table(rows, right=(1, 2, 3, 4, 5))]
    return "\n".join(parts)
