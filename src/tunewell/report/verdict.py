"""The verdict in three sentences: gained, kept, what it took and what to do."""

from __future__ import annotations

from pathlib import Path

from tunewell.report.records import Records, read
from tunewell.report.words import WORDS
from tunewell.results import BaselineResult, Estimate


def interval(e: Estimate, digits: int = 3) -> str:
    """[0.810, 0.850], or nothing where there is no interval."""
    return "" if e.low is None or e.high is None else f"[{e.low:.{digits}f}, {e.high:.{digits}f}]"


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def duration(seconds: float) -> str:
    """12 s, 3 min 5 s, 2 h 10 min.

    >>> duration(12.3), duration(185), duration(7800)
    ('12 s', '3 min 5 s', '2 h 10 min')
    """
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    return f"{s // 60} min {s % 60} s" if s < 3600 else f"{s // 3600} h {s % 3600 // 60} min"


def verdict(run_dir: str | Path | Records, lang: str = "en") -> tuple[str, ...]:
    """Three sentences about a run, one more where a strategy did nothing; none when it has no evaluation yet."""
    records = run_dir if isinstance(run_dir, Records) else read(run_dir)
    if records.evaluation is None or records.summary is None:
        return ()
    w = WORDS[lang]
    said = [_gained(records, w), _kept(records, w), _took(records, w)]
    if records.sdft is not None and not records.sdft.rewritten:
        said.append(w["sd_none"].format(rows=f"{records.sdft.rows:,}"))
    return tuple(" ".join(s.split()) for s in said)


def _strongest(records: Records) -> BaselineResult | None:
    known = [b for b in records.baselines if b.evaluation.headline.value is not None]
    return max(known, key=lambda b: b.evaluation.headline.value or 0.0) if known else None


def _gained(records: Records, w: dict[str, str]) -> str:
    evaluation = records.evaluation
    assert evaluation is not None
    own = evaluation.headline
    figures = {"metric": evaluation.metric, "value": number(own.value), "interval": interval(own), "n": f"{own.n:,}"}
    strongest = _strongest(records)
    if strongest is None:
        return w["v_alone"].format(**figures)
    judged = [b for b in records.baselines if b.comparison is not None and b.comparison.better is not True]
    if any(b.comparison is not None and b.comparison.better is False for b in judged):
        key = "v_worse"
        strongest = next(b for b in judged if b.comparison is not None and b.comparison.better is False)
    elif judged:
        key = "v_unclear"
        strongest = max(judged, key=lambda b: b.evaluation.headline.value or 0.0)
        if (strongest.evaluation.headline.value or 0.0) > (own.value or 0.0):
            key = "v_below"
    else:
        key = "v_better"
    return w[key].format(**figures, other=strongest.title, other_value=number(strongest.evaluation.headline.value))


def _kept(records: Records, w: dict[str, str]) -> str:
    retention, summary = records.retention, records.summary
    assert summary is not None
    if retention is None or retention.mean.value is None:
        return w["v_unmeasured"]
    title = next((p.title for p in retention.probes if p.name == retention.worst_probe), retention.worst_probe)
    key = {True: "v_kept", False: "v_missed", None: "v_measured"}[summary.kept]
    keep = f"{summary.keep:g}" if summary.keep else ""
    return w[key].format(
        mean=number(retention.mean.value),
        interval=interval(retention.mean),
        worst_name=title,
        worst=number(retention.worst.value),
        keep=keep,
    )


def _took(records: Records, w: dict[str, str]) -> str:
    summary, check = records.summary, records.check
    assert summary is not None
    suspects = next((f.count for f in check.findings if f.code == "label-suspects"), 0) if check else 0
    if check and check.errors:
        advice = w["a_errors"].format(n=len(check.errors))
    elif summary.kept is False:
        advice = w["a_missed"]
    elif any(b.comparison is not None and b.comparison.better is None for b in records.baselines):
        advice = w["a_unclear"]
    elif suspects > 0.02 * summary.n_train:
        advice = w["a_suspects"].format(n=f"{suspects:,}")
    else:
        advice = w["a_fine"]
    return w["v_took"].format(train=duration(summary.seconds["train"]), n=f"{summary.n_train:,}", advice=advice)
