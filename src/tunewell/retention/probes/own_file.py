"""The user's own probe: text_a, text_b, score is a similarity probe; text, label a topic probe.

The file is cut into select and report halves by seed; of a topic probe's half, two fifths of the
rows train its linear probe.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from tunewell.errors import DataError
from tunewell.retention.probes import Probe
from tunewell.retention.probes.similarity import halve, similarity_probe
from tunewell.retention.probes.topics import topics_probe

LEAST_ROWS = 40
EXPECTED = "columns text_a, text_b, score (similarity) or text, label (topics)"


def own_probe(path: str, half: str, seed: int) -> Probe:
    """Read a file as a probe named after it.

    Raises:
        DataError: no such file, other columns, too few rows, or scores that are no numbers.
    """
    from tunewell.data.load import load

    rows = load(path).dataset
    columns = set(rows.column_names)
    name = Path(path).stem
    if not ({"text_a", "text_b", "score"} <= columns or {"text", "label"} <= columns):
        raise DataError(f"columns {', '.join(sorted(columns))}", where=path, expected=EXPECTED)
    if len(rows) < LEAST_ROWS:
        raise DataError(
            f"only {len(rows)} rows", where=path, expected=f"at least {LEAST_ROWS} for a probe of two halves"
        )
    if {"text_a", "text_b", "score"} <= columns:
        pairs = [
            (str(a), str(b), _number(s, path, i))
            for i, (a, b, s) in enumerate(zip(rows["text_a"], rows["text_b"], rows["score"], strict=True))
        ]
        if len({p[2] for p in pairs}) < 2:
            raise DataError("all scores are the same", where=path, expected="scores that differ")
        return similarity_probe(name, f"Own similarity ({name})", halve(pairs, half, seed))
    chosen = halve([(str(t), str(label)) for t, label in zip(rows["text"], rows["label"], strict=True)], half, seed)
    order = np.random.default_rng(seed + 1).permutation(len(chosen))
    cut = max(2, len(chosen) * 2 // 5)
    train, test = ([chosen[i] for i in part] for part in (order[:cut], order[cut:]))
    if len({label for _, label in train}) < 2:
        raise DataError(
            "one label only among the rows that train the probe",
            where=path,
            expected="two labels or more, each with several rows",
        )
    return topics_probe(name, f"Own topics ({name})", train, test)


def _number(value: object, path: str, i: int) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(
            f"score {value!r} is not a number", where=f"{path}:{i + 1}", expected="a number in the column score"
        )
    return number
