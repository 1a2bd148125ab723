"""The chosen rows as a file for people: a table with an empty column, Label Studio tasks, Argilla records."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunewell.errors import DataError
from tunewell.results import write_whole

FORMATS = ("csv", "jsonl", "label-studio", "argilla")


def format_for(path: str, wanted: str | None) -> str:
    """The format of an output file: as wanted, else by its ending.

    Raises:
        DataError: an ending that says nothing.
    """
    if wanted:
        return wanted
    known = {".csv": "csv", ".jsonl": "jsonl", ".json": "label-studio"}
    ending = Path(path).suffix.lower()
    if ending not in known:
        raise DataError(
            f"cannot tell the format from {ending or 'a name without an ending'}",
            where=path,
            expected=", ".join(known),
            remedy="name it with --format: " + ", ".join(FORMATS),
        )
    return known[ending]


def write_selection(path: str, rows: Sequence[dict[str, Any]], *, format: str, labels: Sequence[str]) -> None:
    """Write chosen rows, best first, whole or not at all.

    Args:
        rows: each with rank, row, text, label (empty), prediction, probability, method, score; None where unknown.
        labels: the classes so far, for what asks for them.
    """
    if format in ("csv", "jsonl"):
        write_table(path, rows, format=format)
        return
    make = _task if format == "label-studio" else _record
    write_whole(path, json.dumps([make(row) for row in rows], ensure_ascii=False, indent=1) + "\n")
    if format == "label-studio":
        write_whole(Path(path).with_suffix(".config.xml"), _config(labels))


def write_table(path: str, rows: Sequence[dict[str, Any]], *, format: str | None = None) -> None:
    """Rows as CSV or JSONL (by the ending, where no format is named), whole or not at all."""
    if (format or Path(path).suffix.lower().lstrip(".")) == "jsonl":
        write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]))
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in rows)
    write_whole(path, "\ufeff" + buffer.getvalue())  # the mark, so that spreadsheets read it as UTF-8


def _task(row: dict[str, Any]) -> dict[str, Any]:
    """A Label Studio task, pre-annotated where there is a prediction."""
    task: dict[str, Any] = {"data": {"text": row["text"], "row": row["row"]}, "meta": {"rank": row["rank"]}}
    if row["prediction"] is not None:
        choice = {
            "from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": [row["prediction"]]}
        }  # fmt: skip
        task["predictions"] = [{"model_version": row["method"], "score": row["probability"], "result": [choice]}]
    return task


def _record(row: dict[str, Any]) -> dict[str, Any]:
    """An Argilla record, with a suggestion where there is a prediction."""
    record: dict[str, Any] = {
        "fields": {"text": row["text"]},
        "metadata": {"row": row["row"], "rank": row["rank"]},
        "suggestions": {},
        "responses": {},
    }
    if row["prediction"] is not None:
        record["suggestions"]["label"] = {"value": row["prediction"], "score": row["probability"], "agent": "tunewell"}
    return record


def _config(labels: Sequence[str]) -> str:
    """Label Studio's labelling interface for these classes; keys 1 to 9."""
    from xml.sax.saxutils import quoteattr

    choices = "".join(
        f"    <Choice value={quoteattr(label)}{f' hotkey={quoteattr(str(i))}' if i < 10 else ''}/>\n"
        for i, label in enumerate(labels or ["class 1", "class 2"], 1)
    )
    return (
        '<View>\n  <Text name="text" value="$text"/>\n'
        f'  <Choices name="label" toName="text" choice="single" showInLine="true">\n{choices}  </Choices>\n</View>\n'
    )
