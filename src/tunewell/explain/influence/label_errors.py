"""Rows of the training file whose label looks wrong, most suspicious first.

Several witnesses are heard, since a tuned model has learned wrong labels too: logistic regression on the base
model's embeddings and on the tuned model's, both out of fold; the nearest neighbours; and what the tuned model itself
thought of the row while it was being tuned (margins by epoch: AUM, Pleiss et al., 2020), or, for rows that it was not
tuned on, what it answers. Rows are ranked by the mean of the witnesses' ranks, weighted by what each is worth; which
rows to flag is decided by confident learning (Northcutt, Jiang & Chuang, 2021). See `witnesses.py` for the numbers.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunewell.errors import DataError
from tunewell.explain.influence.index import Echo
from tunewell.explain.influence.rows import FileRows, read_rows
from tunewell.explain.influence.witnesses import Witnesses, hear
from tunewell.results import write_whole
from tunewell.shown import cut

SHOWN = 5


@dataclass(frozen=True)
class LabelErrors:
    """All labelled rows of the training file, most suspicious first.

    Attributes:
        file: the rows in the file's order.
        order: (n,) places in `file`, most suspicious first.
        suspicion: (n,) 0 to 1 in the file's order: the share of rows that are less suspicious.
        likely: n labels that would fit better (the given one where none does): a name, a list, or a number.
        flagged: (n,) rows that confident learning takes for wrong (residuals: beyond 4 robust deviations).
        columns: further columns of the table, (n,) each, in the file's order.
    """

    file: FileRows
    order: np.ndarray
    suspicion: np.ndarray
    likely: list[Any]
    flagged: np.ndarray
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.order)

    def records(self) -> list[dict[str, Any]]:
        """One dict a row: the data's own columns as they stand in the file, then ours."""
        own = self.file.own.select(self.file.rows[self.order] - 1).to_list()
        names = self._names()
        out = []
        for cells, i in zip(own, map(int, self.order), strict=True):
            ours = {
                "row": int(self.file.rows[i]),
                "split": str(self.file.split[i]),
                "suspicion": round(float(self.suspicion[i]), 6),
                "flagged": bool(self.flagged[i]),
                "likely_label": self.likely[i],
                **{k: _number(v[i]) for k, v in self.columns.items()},
            }
            out.append({**cells, **{names[k]: v for k, v in ours.items()}})
        return out

    def _names(self) -> dict[str, str]:
        ours = ("row", "split", "suspicion", "flagged", "likely_label", *self.columns)
        return names_beside(self.file.own.column_names, ours)

    def write(self, path: str | Path) -> None:
        """Write the table: .csv, .tsv or .jsonl.

        Raises:
            DataError: another ending, or the training file itself. RunFolderError: cannot be written.
        """
        path = Path(path)
        ending = check_output(path, self.file.source)
        records = self.records()
        if ending == ".jsonl":
            write_whole(path, "".join(json.dumps(r, ensure_ascii=False, default=str) + "\n" for r in records))
            return
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer, delimiter="\t" if ending == ".tsv" else ",")
        writer.writerow(records[0].keys())
        writer.writerows([_cell(v) for v in record.values()] for record in records)
        write_whole(path, buffer.getvalue())

    def summary(self, output: str | None = None) -> dict[str, Any]:
        """Counts and the most suspicious rows, as plain values."""
        labels, texts = self.file.dataset["label"], self.file.dataset["text"]
        return {
            "rows": len(self),
            "flagged": int(self.flagged.sum()),
            "output": output,
            "most_suspicious": [
                {
                    "row": int(self.file.rows[i]),
                    "split": str(self.file.split[i]),
                    "suspicion": round(float(self.suspicion[i]), 6),
                    "label": labels[i],
                    "likely_label": self.likely[i],
                    "text": texts[i],
                }
                for i in map(int, self.order[:SHOWN])
            ],
        }

    def lines(self, output: str) -> list[str]:
        """What to tell on a terminal."""
        found = self.summary(output)
        lines = [
            f"{found['rows']:,} rows in {output}, the most suspicious first; {found['flagged']:,} "
            f"({found['flagged'] / max(1, found['rows']):.1%}) are flagged as probably wrong"
        ]
        for one in found["most_suspicious"]:
            text = cut(" ".join(one["text"].split()), 72)
            given, likely = (_told(one[k]) for k in ("label", "likely_label"))
            lines.append(f"  row {one['row']:<6} {given}, rather {likely}: {text}")
        lines.append("read them from the top, correct the labels in the data, and run again")
        return lines


def names_beside(own: Sequence[str], ours: Sequence[str]) -> dict[str, str]:
    """Our column names; where the data has one of the same name already, ours gets a number.

    >>> names_beside(["text", "row"], ["row", "score"])
    {'row': 'row_2', 'score': 'score'}
    """
    taken, names = set(own), {}
    for name in ours:
        free, number = name, 1
        while free in taken:
            number += 1
            free = f"{name}_{number}"
        names[name] = free
        taken.add(free)
    return names


def check_output(path: Path, source: str) -> str:
    """The ending of an output; an ending that we do not write, or the training file itself, is a mistake."""
    ending = path.suffix.lower()
    if ending not in (".csv", ".tsv", ".jsonl"):
        raise DataError(
            f"cannot write a {ending or 'nameless'} file", where=str(path), expected="an ending .csv, .tsv or .jsonl"
        )
    if path.exists() and Path(source).exists() and path.samefile(source):
        raise DataError("would overwrite the training file", where=str(path), remedy="name another file")
    return ending


def label_errors(
    run: str | Path, *, train: str | None = None, echo: Echo = lambda line: None, progress: bool = False
) -> LabelErrors:
    """Rank the rows of a run's training file by how wrong their labels look.

    All rows of the file that have a text and a label are judged, also those that the run took for validation and test
    (column `split`): their labels count too.

    Args:
        run: a finished run folder. train: where its training file is now, if it was moved.
        echo: told what takes time. progress: show bars.

    Returns:
        The ranked rows, with likely labels and each witness's score.

    Raises:
        RunFolderError, DataError, ModelError: no such run; its training file is gone or has changed; too few rows.
    """
    rows = read_rows(run, train)
    if len(rows) < 10:
        raise DataError(f"only {len(rows)} rows to compare", where=rows.source, expected="at least 10 labelled rows")
    found: Witnesses = hear(rows, echo=echo, progress=progress)
    order = np.argsort(-found.suspicion, kind="stable")
    place = np.empty(len(rows))
    place[order] = 1 - np.arange(len(rows)) / len(rows)
    return LabelErrors(rows, order, place, found.likely, found.flagged, found.columns)


def _number(value: Any) -> float | None:
    value = float(value)
    return round(value, 6) if np.isfinite(value) else None


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value


def _told(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "no label"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
