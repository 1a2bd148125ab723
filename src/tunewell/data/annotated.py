"""Exports of Label Studio (JSON, JSON-MIN, CSV) and Argilla (JSON, JSONL) as rows with a label each.

Every task stays a row, in the file's order, with its own fields and one column for each thing that was asked. The
label is what most finished annotations say; where two answers are equally frequent, and where nobody has answered,
the cell is empty, so that the row is left out and counted like any row without a label. Skipped, draft and discarded
answers are no answers, and neither is a suggestion or prediction.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import IO, Any

from tunewell.data.bounds import DOCUMENT
from tunewell.errors import DataError

PEEKED = 1 << 20
# columns that Label Studio adds to CSV and JSON-MIN, where each annotation is a row
OURS = ("annotation_id", "annotator", "created_at", "updated_at", "lead_time")
ASKED = {"choices": "choices", "rating": "rating", "number": "number", "taxonomy": "taxonomy"}  # kind -> its value
Answers = dict[str, list[Any]]  # what was asked -> one finished answer a person


@dataclass
class Export:
    """Rows of an export.

    Attributes:
        records: a task each: its fields, and what was asked -> the label, None where there is none.
        labels: what was asked, in the order found. notices: how many tasks have no label, and why.
    """

    records: list[dict[str, Any]]
    labels: tuple[str, ...]
    notices: list[str] = field(default_factory=list)

    def lines(self) -> bytes:
        """As JSON lines."""
        return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in self.records).encode("utf-8")


def read(opener: Callable[[], IO[bytes]], source: str) -> Export | None:
    """The export that a JSON or JSONL file holds; None for any other file.

    Raises:
        DataError: an export without a text, or in which nothing was asked that is a label.
    """
    with opener() as file:
        head = file.read(PEEKED)
        keys = (b'"annotations"', b'"completions"', b'"fields"', b'"annotation_id"')
        if not any(key in head for key in keys):
            return None
        content = head + file.read(DOCUMENT - len(head))
        if file.read(1):
            return None
    try:
        text = content.decode("utf-8-sig")
        array = text.lstrip()[:1] == "["
        items = json.loads(text) if array else [json.loads(x) for x in text.split("\n") if x.strip()]
    except (ValueError, RecursionError):
        return None  # told properly when it is read as plain JSON
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        return None
    if all(isinstance(i.get("data"), dict) and ("annotations" in i or "completions" in i) for i in items):
        return _export([(_plain(i["data"]), _label_studio(i)) for i in items], source)
    if all(isinstance(i.get("fields"), dict) for i in items):
        return _export([(_plain(i["fields"]), _argilla(i)) for i in items], source)
    if all("annotation_id" in i and "annotator" in i for i in items):
        return by_annotation(items, source)
    return None


def is_table(columns: Iterable[str]) -> bool:
    """Whether a CSV is Label Studio's: one row an annotation."""
    return {"annotation_id", "annotator"} <= set(columns)


def by_annotation(rows: list[dict[str, Any]], source: str) -> Export:
    """Label Studio's CSV and JSON-MIN: the rows of a task, which share its `id`, become one.

    What was asked is what holds choices, or differs between the annotations of a task; with one answer a task the
    columns are left as they are, and which is the label is inferred or named as in any table.
    """
    tasks: dict[Any, list[dict[str, Any]]] = {}
    for number, row in enumerate(rows):
        values = {k: _cell(v) for k, v in row.items() if k not in OURS}
        tasks.setdefault(str(row.get("id", f"row {number}")), []).append(values)
    names = list(dict.fromkeys(k for values in tasks.values() for v in values for k in v if k != "id"))
    asked = [
        n
        for n in names
        if any(isinstance(v.get(n), list) for values in tasks.values() for v in values)
        or any(len({json.dumps(v.get(n)) for v in values}) > 1 for values in tasks.values())
    ]
    pairs = []
    for mine in tasks.values():
        fields = {k: v for k, v in mine[0].items() if k not in asked}
        pairs.append((fields, {n: [v[n] for v in mine if v.get(n) not in (None, "", [])] for n in asked}))
    return _export(pairs, source, needs_asked=False)


def the_label(labels: tuple[str, ...], source: str) -> str | None:
    """What was asked in an export where one thing was; None for any other file.

    Raises:
        DataError: several things were asked.
    """
    if len(labels) > 1:
        raise DataError(
            f"annotators were asked {len(labels)} things: {', '.join(labels)}",
            where=source,
            expected="the one to learn",
            remedy=f"name it: --label {labels[0]}",
        )
    return labels[0] if labels else None


def _export(pairs: list[tuple[dict[str, Any], Answers]], source: str, *, needs_asked: bool = True) -> Export:
    """Rows of fields and answers, the answers settled."""
    labels = tuple(dict.fromkeys(name for _, answers in pairs for name in answers))
    if not labels and needs_asked:
        raise DataError(
            "is an export of annotations, and no task has a finished label",
            where=source,
            expected="choices, a rating or a number as answers of annotators",
            remedy="export it again when tasks are labelled; spans and free texts are no labels",
        )
    if not any(isinstance(v, str) and v.strip() for fields, _ in pairs for v in fields.values()):
        raise DataError("no text", where=source, expected="tasks with a field that holds the text")
    records, empty, tied = [], Counter[str](), Counter[str]()
    for fields, answers in pairs:
        row = {k: v for k, v in fields.items() if k not in labels}
        for name in labels:
            given = answers.get(name) or []
            row[name] = settled(given)
            empty[name] += not given
            tied[name] += bool(given) and row[name] is None
        records.append(row)
    for name in labels:  # one choice a text is a word, several make lists of all
        cells = [r[name] for r in records if r[name] is not None]
        if all(isinstance(c, list) and len(c) == 1 for c in cells):
            for r in records:
                r[name] = r[name] and r[name][0]
    notices = []
    for name in labels:
        of = f" of `{name}`" if len(labels) > 1 else ""
        if empty[name]:
            notices.append(f"{source}: {_tasks(empty[name])} without an annotation{of} left out")
        if tied[name]:
            notices.append(f"{source}: {_tasks(tied[name])} left out on which annotators are divided{of}")
    return Export(records, labels, notices)


def settled(given: list[Any]) -> Any:
    """The most frequent answer, None where two are equally frequent.

    >>> settled([["good"], ["bad"], ["good"]]), settled([["good"], ["bad"]]), settled([4]), settled([])
    (['good'], None, 4, None)
    """
    counts = Counter(json.dumps(sorted(g) if isinstance(g, list) else g) for g in given).most_common(2)
    if not counts or (len(counts) == 2 and counts[0][1] == counts[1][1]):
        return None
    return json.loads(counts[0][0])


def _tasks(n: int) -> str:
    return f"{n:,} task{'s' * (n != 1)}"


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of a task that a cell can hold."""
    return {k: v for k, v in fields.items() if v is None or isinstance(v, str | int | float)}


def _label_studio(item: dict[str, Any]) -> Answers:
    """Finished answers of a task, by the tag's name."""
    out: Answers = {}
    for annotation in item.get("annotations") or item.get("completions") or []:
        if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
            continue
        mine: dict[str, Any] = {}
        for result in annotation.get("result") or []:
            value = (result.get("value") or {}).get(ASKED.get(result.get("type", "choices"), "choices"))
            if value in (None, []):
                continue
            name = str(result.get("from_name") or "label")
            mine[name] = [*mine.get(name, []), *_words(value)] if isinstance(value, list) else value
        for name, value in mine.items():
            out.setdefault(name, []).append(value)
    return out


def _argilla(item: dict[str, Any]) -> Answers:
    """Submitted answers of a record, by the question's name; the older form, one response a person, too."""
    out: Answers = {}
    responses = item.get("responses") or {}
    if isinstance(responses, list):
        found = [
            (name, {**answer, "status": response.get("status")})
            for response in responses
            for name, answer in (response.get("values") or {}).items()
        ]
    else:
        found = [
            (name, answer if isinstance(answer, dict) else {"value": answer})
            for name, answers in responses.items()
            for answer in (answers if isinstance(answers, list) else [answers])
        ]
    for name, answer in found:
        value = answer.get("value")
        if answer.get("status") not in (None, "submitted") or value in (None, "", []):
            continue
        if isinstance(value, str):
            value = [value.strip()]
        if isinstance(value, int | float) or (isinstance(value, list) and all(isinstance(v, str) for v in value)):
            out.setdefault(name, []).append(value)
    return out


def _words(value: list[Any]) -> list[str]:
    """Choices as words; of a path through a taxonomy its leaf."""
    return [str(v[-1] if isinstance(v, list) and v else v).strip() for v in value]


def _cell(value: Any) -> Any:
    """A cell of CSV or JSON-MIN; `{"choices": [...]}`, also as text, is a list."""
    if isinstance(value, str) and value.startswith('{"choices"'):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    if isinstance(value, dict):
        return _words(value["choices"]) if isinstance(value.get("choices"), list) else json.dumps(value)
    return value


__all__ = ["Export", "by_annotation", "is_table", "read", "settled", "the_label"]
