"""A tuned model on sets of several domains, against its own test rows: how much of the score is left elsewhere.

The drop is the difference of two figures measured on different rows. Its interval is made of their two intervals by
the method of variance estimates recovery (Zou and Donner, 2008): for a - b with a in [la, ua] and b in [lb, ub],
low = a - b - √((a - la)² + (ub - b)²) and high = a - b + √((ua - a)² + (b - lb)²).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tunewell.errors import DataError
from tunewell.results import Estimate, Evaluation, Record


class DomainRow(Record):
    """One set: its figures, and how far below the run's own test rows the headline metric lies."""

    data: str
    n: int
    metrics: dict[str, Estimate]
    drop: Estimate | None  # own test rows - this set; above 0: worse here. None for the own rows


class DomainShift(Record):
    """`tunewell evaluate RUN --data ... --data ...`."""

    run: str
    metric: str
    rows: tuple[DomainRow, ...]


def difference(a: Estimate, b: Estimate) -> Estimate:
    """a - b of figures measured on different rows, with its interval; see the head of this file.

    >>> e = difference(Estimate(value=0.8, low=0.7, high=0.9, n=9), Estimate(value=0.5, low=0.4, high=0.6, n=4))
    >>> round(e.low, 4), round(e.high, 4), e.n
    (0.1586, 0.4414, 4)
    """
    n = min(a.n, b.n)
    if a.value is None or b.value is None:
        return Estimate(value=None, n=n)
    value = a.value - b.value
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Estimate(value=value, n=n)
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    high = value + math.hypot(a.high - a.value, b.value - b.low)
    return Estimate(value=value, low=low, high=high, n=n)


def _columns(path: Path, file: str, options: dict[str, Any], echo: Callable[[str], None]) -> dict[str, Any]:
    """Text and label columns of a file that lacks those of the run: sets of other domains name them otherwise."""
    from tunewell.data.columns import label_column, text_column
    from tunewell.data.load import load
    from tunewell.predict import read_task

    known = ((read_task(path) or {}).get("columns") or {}) if path.is_dir() else {}
    loaded = load(file, encoding=options.get("encoding", "auto"))
    names = loaded.dataset.column_names
    out: dict[str, Any] = {}
    if not known.get("label") or not isinstance(known["label"], list):
        return {}
    text = str(options.get("text") or known.get("text"))
    if not options.get("text") and text not in names:
        text = out["text"] = text_column(loaded.dataset, source=file, besides=known["label"])
    if not options.get("label") and len(known["label"]) == 1 and known["label"][0] not in names:
        out["label"] = [label_column(names, text, known.get("text_pair"), file)]
    if out:
        echo(f"{file}: " + ", ".join(f"{role} column {v if role == 'text' else v[0]!r}" for role, v in out.items()))
    return out


def domain_shift(
    path: str | Path, data: Sequence[str], *, echo: Callable[[str], None] = lambda line: None, **options: Any
) -> DomainShift:
    """Measure a run on several files; its own test rows come first where it has any.

    Args:
        path: a run folder or a plain model folder.
        data: files, each read as `tunewell.run.evaluate_run` reads one, with its `options`.

    Raises:
        TunewellError: no such run, a file that does not fit, or the same file twice.
    """
    from tunewell.run import evaluate_run

    if twice := next((file for i, file in enumerate(data) if file in data[:i]), None):
        raise DataError("is named twice", where=twice, expected="each set once")
    own = Path(path) / "evaluation.json"
    first = Evaluation.load(own) if own.is_file() else None
    rows = []
    if first is not None:
        rows.append(DomainRow(data="own test rows", n=first.n, metrics=first.metrics, drop=None))
    metric = first.metric if first is not None else ""
    for file in data:
        echo(f"evaluate: {file}")
        found = evaluate_run(path, file, echo=echo, **{**options, **_columns(Path(path), file, options, echo)})
        metric = metric or found.metric
        drop = difference(first.headline, found.metrics[metric]) if first is not None else None
        rows.append(DomainRow(data=file, n=found.n, metrics=found.metrics, drop=drop))
    return DomainShift(run=str(path), metric=metric, rows=tuple(rows))
