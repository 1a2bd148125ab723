"""Which column is what: roles and task inferred from the data, said so, and rows in one canonical form.

Canonical rows have exactly the columns `text`, `text_pair` (of pairs), `label`, `group` (if named),
`row` (1-based record number in the file) and `source`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunewell.data.header import refuse_no_header, refuse_second_header
from tunewell.errors import DataError, nearest

if TYPE_CHECKING:
    from datasets import Dataset

TEXTS = ("text", "sentence", "review", "tweet", "content", "comment", "body", "message", "document", "question",
         "title",          "文本", "评论", "内容", "句子", "正文", "text_a", "sentence1", "premise")  # fmt: skip
LABELS = ("label", "labels", "class", "category", "sentiment", "target", "intent", "topic", "stars", "rating", "score",
          "y",           "标签", "类别", "情感", "评分", "分类", "gold")  # fmt: skip
PAIRS = (("text_a", "text_b"), ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"))
LOOKED_AT = 20_000  # rows looked at when a role or the task is inferred
FEW_VALUES = 20  # distinct whole numbers up to here are classes
NOT_LABELS = ("", "nan", "null", "<na>")  # "none" may well be a class
BAD_NUMBERS = 0.05  # share of labels that may fail to be numbers before it is an error


@dataclass(frozen=True)
class Columns:
    """The roles of a file's columns."""

    text: str
    text_pair: str | None
    label: tuple[str, ...]
    group: str | None
    task: str
    multi_label: bool
    label_separator: str | None
    notices: tuple[str, ...] = ()
    polarity: dict[str, str] | str | None = None  # of sentiment, see tasks/polarity.py


def resolve(
    dataset: Dataset,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    label: Sequence[str] | None = None,
    group: str | None = None,
    task: str = "auto",
    multi_label: bool | None = None,
    label_separator: str | None = None,
    source: str = "data",
    evaluating: bool = False,
) -> Columns:
    """Settle the roles of columns and the task.

    Args:
        text, text_pair, label, group: column names; text and label are inferred when None.
        task: "auto", "text-classification" or "text-regression".
        multi_label: None to infer it from lists, several label columns or a separator.
        evaluating: the rows are to be scored, not learned from: one class is enough.

    Raises:
        DataError: a column is missing or cannot be inferred, or its values do not fit the task.
    """
    names, notices = list(dataset.column_names), []
    for role, name in (
        ("text", text),
        ("text_pair", text_pair),
        ("group", group),
        *(("label", c) for c in label or ()),
    ):
        if name is not None and name not in names:
            raise _missing(role, name, names, source)
    if text is None:
        text = text_column(dataset, source=source, besides=[*(label or ()), text_pair, group])
        notices.append(f"text column: {text!r} (name another with `text`)")
        if text_pair is None:
            text_pair = next((b for a, b in PAIRS if a == text and b in names), None)
            if text_pair:
                notices.append(f"text pair column: {text_pair!r}")
    if not label:
        label = (label_column(names, text, text_pair, source),)
        if label[0].casefold() not in LABELS:
            values = (_name(v) for v in dataset[label[0]][:LOOKED_AT] if not isinstance(v, list))
            refuse_no_header(label[0], values, names, source=source)
        notices.append(f"label column: {label[0]!r} (name another with `label`)")
    if text in label or text_pair in label:
        raise DataError(
            f"`{text if text in label else text_pair}` is named as text and as label",
            where=source,
            expected="two columns",
        )
    few = dataset.select(range(min(len(dataset), LOOKED_AT)))
    refuse_second_header(text, label[0], few[text], few[label[0]], source=source)
    lists = len(label) == 1 and any(_listed(v) is not None for v in few[label[0]][:200])
    several = len(label) > 1 or lists or label_separator is not None
    if multi_label is None:
        multi_label = several and task != "text-regression"
        if multi_label:
            notices.append("several labels a row (multi-label)")
    elif multi_label and not several:
        raise DataError(
            f"`multi_label` is on, but {label[0]!r} holds one label a row",
            where=source,
            expected="lists of labels, several label columns of 0 and 1, or a label_separator",
        )
    if len(label) > 1 and not multi_label:
        raise DataError(f"{len(label)} label columns without `multi_label`", where=source, expected="one label column")
    if multi_label and task == "text-regression":
        raise DataError(
            "`multi_label` does not go with text-regression", where=source, expected="task: text-classification"
        )
    if task == "auto":
        task = "text-classification" if multi_label else _infer_task(few[label[0]], label[0], notices)
    columns = Columns(text, text_pair, tuple(label), group, task, bool(multi_label), label_separator, tuple(notices))
    if not evaluating:
        _refuse_one_class(dataset, columns, source)
    return columns


def refuse_objects(objects: dict[str, int], columns: Columns, *, source: str) -> None:
    """Refuse JSON objects where a text or a label is wanted, which would be learned as their JSON.

    Args:
        objects: column -> first row that holds one (`load.Loaded.objects`).

    Raises:
        DataError: with file, row and column.
    """
    named = [("text", columns.text), ("text", columns.text_pair), *(("label", c) for c in columns.label)]
    for role, name in named:
        if name in objects:
            raise _not_a_text(role, str(name), "an object", source, objects[name])


def _not_a_text(role: str, name: str, kind: str, source: str, row: int) -> DataError:
    wanted = "a text in each row" if role == "text" else "a label in each row"
    return DataError(
        f"`{name}` holds {kind} where a {role} is wanted",
        where=f"{source}:{row}",
        expected=wanted,
        remedy=f"write the {role} itself into the column, or name another: --{role} COLUMN",
    )


def text_column(dataset: Dataset, *, source: str, besides: Iterable[str | None] = ()) -> str:
    """The column with the text: by name, else the one with the longest strings.

    Raises:
        DataError: no column holds text.
    """
    names = [n for n in dataset.column_names if n not in set(besides)]
    lowered = {n.casefold().strip(): n for n in reversed(names)}
    for known in TEXTS:
        if known in lowered:
            return lowered[known]
    few = dataset.select(range(min(len(dataset), 500)))
    lengths = {}
    for name in names:
        values = [v for v in few[name] if isinstance(v, str) and v.strip()]
        if values:
            lengths[name] = sum(map(len, values)) / len(values)
    if not lengths:
        raise DataError(
            "no column holds text",
            where=source,
            expected="a column of texts",
            remedy="columns are: " + ", ".join(dataset.column_names),
        )
    return max(lengths, key=lambda n: lengths[n])


def label_column(names: list[str], text: str, text_pair: str | None, source: str) -> str:
    """The column with the label: by name, else the only one that is left.

    Raises:
        DataError: it cannot be told.
    """
    free = [n for n in names if n not in (text, text_pair)]
    lowered = {n.casefold().strip(): n for n in reversed(free)}
    for known in LABELS:
        if known in lowered:
            return lowered[known]
    if len(free) == 1:
        return free[0]
    raise DataError(
        "cannot tell which column is the label",
        where=source,
        expected="one of: " + ", ".join(free or names),
        remedy="name it: --label COLUMN",
    )


def _missing(role: str, name: str, names: list[str], source: str) -> DataError:
    hint = nearest(name, names)
    return DataError(
        f"no column `{name}` (wanted as {role})", where=source, expected="one of: " + ", ".join(names), remedy=hint
    )


def _listed(value: Any) -> list[str] | None:
    """The labels of a cell that holds a list, or a JSON list as text; None for any other cell."""
    if isinstance(value, (list, tuple)):
        return [_name(v) for v in value]
    if isinstance(value, str) and value.startswith("[") and value.rstrip().endswith("]"):
        try:
            found = json.loads(value)
        except ValueError:
            return None
        return [_name(v) for v in found] if isinstance(found, list) else None
    return None


def _name(value: Any) -> str:
    """A label as text; whole numbers without a fraction."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _absent(value: Any) -> bool:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return isinstance(value, str) and value.strip().casefold() in NOT_LABELS


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _infer_task(values: Iterable[Any], name: str, notices: list[str]) -> str:
    present = [v for v in values if not _absent(v)]
    numbers = [_number(v) for v in present]
    known = [n for n in numbers if n is not None]
    distinct = len(set(known))
    if present and len(known) == len(present) and not all(isinstance(v, bool) for v in present):
        whole = all(n.is_integer() for n in known)
        if not whole or distinct > max(FEW_VALUES, len(known) // 20):
            notices.append(
                f"task: text-regression, since {name!r} holds {distinct:,} distinct numbers "
                "(`task: text-classification` for classes)"
            )
            return "text-regression"
        if distinct > 2:
            notices.append(
                f"task: text-classification with the {distinct} numbers in {name!r} as classes "
                "(`task: text-regression` for scores)"
            )
            return "text-classification"
    notices.append(f"task: text-classification, {len({_name(v) for v in present}):,} labels in {name!r}")
    return "text-classification"


def _refuse_one_class(dataset: Dataset, columns: Columns, source: str) -> None:
    if columns.task == "text-regression":
        numbers = {_number(v) for v in dataset[columns.label[0]][:] if not _absent(v)} - {None}
        if not numbers:
            raise DataError(
                f"no row has a number in `{columns.label[0]}`", where=source, expected="a number in each row"
            )
        if len(numbers) == 1:
            raise DataError(
                f"all labels are the same number, {numbers.pop():g}", where=source, expected="scores that differ"
            )
        return
    found: Counter[str] = Counter()
    for cell in _labels(dataset, columns):
        found.update(cell or ())
        if len(found) > 1:
            return
    if not found:
        raise DataError(
            f"no row has a label in {', '.join(columns.label)}", where=source, expected="a label in each row"
        )
    raise DataError(
        f"one class only: {next(iter(found))!r}", where=source, expected="at least two classes to tell apart"
    )


def _labels(dataset: Dataset, columns: Columns) -> Iterator[list[str] | None]:
    """Labels of each row as a list; None where there is none."""
    if len(columns.label) > 1:
        for row in zip(*(dataset[c] for c in columns.label), strict=True):
            yield (
                None
                if any(_absent(v) for v in row)
                else [c for c, v in zip(columns.label, row, strict=True) if _truth(v)]
            )
        return
    for value in dataset[columns.label[0]]:
        listed = _listed(value)
        if columns.multi_label and listed is not None:
            yield listed
        elif _absent(value):
            yield None
        elif columns.multi_label and columns.label_separator is not None:
            yield [part.strip() for part in str(value).split(columns.label_separator) if part.strip()]
        else:
            yield [_name(value)]


def _truth(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().casefold() in ("1", "1.0", "true", "yes", "y", "x")
    return bool(value)


def canonical(dataset: Dataset, columns: Columns, *, source: str) -> tuple[Dataset, dict[str, int]]:
    """Rows in canonical form, and how many were left out by reason: "empty text", "no label", "label is not a number".

    Raises:
        DataError: a column is missing in this file, or over 5 % of the labels of a regression are no numbers.
    """
    for role, name in (
        ("text", columns.text),
        ("text_pair", columns.text_pair),
        ("group", columns.group),
        *(("label", c) for c in columns.label),
    ):
        if name is not None and name not in dataset.column_names:
            raise _missing(role, name, list(dataset.column_names), source)
    dropped: Counter[str] = Counter()
    first_bad: list[tuple[int, Any]] = []
    made = _made(dataset, columns, source, dropped, first_bad)
    bad = dropped["label is not a number"]
    if bad > BAD_NUMBERS * len(dataset):
        row, value = first_bad[0]
        raise DataError(
            f"{bad:,} of {len(dataset):,} labels are not numbers, the first is {value!r}",
            where=f"{source}:{row}",
            expected="numbers in " + columns.label[0],
            remedy="`task: text-classification` if these are classes",
        )
    return made, dict(dropped)


def _made(
    dataset: Dataset, columns: Columns, source: str, dropped: Counter[str], first_bad: list[tuple[int, Any]]
) -> Dataset:
    from datasets import Dataset, Features, List, Value

    label_kind = (
        Value("float64")
        if columns.task == "text-regression"
        else List(Value("string"))
        if columns.multi_label
        else Value("string")
    )
    kinds: dict[str, Any] = {
        "text": Value("string"),
        "label": label_kind,
        "row": Value("int64"),
        "source": Value("string"),
    }
    if columns.text_pair:
        kinds["text_pair"] = Value("string")
    if columns.group:
        kinds["group"] = Value("string")

    shapes: dict[bool, int] = {}  # of labels: whether a list -> first row

    def one_shape(cell: Any, row: int) -> None:
        """Lists of labels and single labels in one column are a mistake in one of them."""
        if len(columns.label) > 1 or columns.label_separator is not None or _absent(cell):
            return
        shapes.setdefault(_listed(cell) is not None, row)
        if len(shapes) == 2:
            raise DataError(
                f"`{columns.label[0]}` mixes lists and single labels: row {shapes[True]} holds a list, "
                f"row {shapes[False]} does not",
                where=f"{source}:{max(shapes.values())}",
                expected="a list of labels in each row, or one label in each row",
                remedy="write single labels as lists of one",
            )

    def convert(batch: dict[str, list], indices: list[int]) -> dict[str, list]:
        out: dict[str, list] = {k: [] for k in kinds}
        part = {c: batch[c] for c in {*columns.label}}
        cells = list(_labels_of(part, columns, len(indices)))
        for j, i in enumerate(indices):
            text = batch[columns.text][j]
            pair = batch[columns.text_pair][j] if columns.text_pair else None
            for name, value in ((columns.text, text), (columns.text_pair, pair)):
                if isinstance(value, dict | list):
                    kind = "an object" if isinstance(value, dict) else "a list"
                    raise _not_a_text("text", str(name), kind, source, i + 1)
            if columns.multi_label:
                one_shape(batch[columns.label[0]][j], i + 1)
            if text is None or not str(text).strip() or (columns.text_pair and (pair is None or not str(pair).strip())):
                dropped["empty text"] += 1
                continue
            cell: Any = cells[j]
            if cell is None:
                dropped["no label"] += 1
                continue
            if columns.task == "text-regression":
                number = _number(cell[0]) if cell else None
                if number is None:
                    dropped["label is not a number"] += 1
                    first_bad.append((i + 1, cell[0] if cell else ""))
                    continue
                cell = number
            elif not columns.multi_label:
                cell = cell[0]
            out["text"].append(str(text))
            out["label"].append(cell)
            out["row"].append(i + 1)
            out["source"].append(source)
            if columns.text_pair:
                out["text_pair"].append(str(pair))
            if columns.group:
                out["group"].append(str(batch[columns.group][j]))
        return out

    if not len(dataset):
        return Dataset.from_dict({k: [] for k in kinds}, features=Features(kinds))
    return dataset.map(
        convert,
        batched=True,
        with_indices=True,
        remove_columns=dataset.column_names,
        features=Features(kinds),
        keep_in_memory=len(dataset) < 200_000,
        load_from_cache_file=False,
    )


def _labels_of(batch: dict[str, list], columns: Columns, n: int) -> Iterator[list[str] | None]:
    if columns.task == "text-regression":
        for value in batch[columns.label[0]]:
            yield None if _absent(value) else [value]
        return
    yield from _labels(batch, columns)
