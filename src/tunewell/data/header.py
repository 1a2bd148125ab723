"""Whether the first row names the columns: exports put a title above the names, and some files have no names at all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tunewell.errors import DataError
from tunewell.shown import cut

LOOKED_AT = 6  # rows, the first one included


def refuse_title(rows: Sequence[Sequence[str]], known: Iterable[str], *, source: str) -> None:
    """Refuse a table that begins with a title: read as column names, it would make a row of the names below it.

    A title is one cell alone, in the first column, above rows that all have several and are of one width. A text with
    commas below the name of its only column is none, since such rows differ in width or the name is a known one.

    Args:
        rows: the first rows that are not blank, at most `LOOKED_AT` of them. known: names that columns often have.

    Raises:
        DataError: with the row that holds the names.
    """
    if len(rows) < 3:
        return
    first = [cell.strip() for cell in rows[0]]
    if not first or not first[0] or any(first[1:]) or first[0].casefold() in set(known):
        return
    below = [(i, row) for i, row in enumerate(rows[1:], 2) if any(cell.strip() for cell in row)]
    if len(below) < 2 or len({len(row) for _, row in below}) > 1:
        return
    filled = [sum(bool(cell.strip()) for cell in row) for _, row in below]
    if min(filled[-2:]) < 2:
        return
    place = next(i for (i, _), n in zip(below, filled, strict=True) if n >= 2)
    raise DataError(
        f"begins with one cell alone, {cut(first[0], 60)!r}, above rows of {len(below[0][1])}: "
        "a title, where the column names should be",
        where=source,
        expected="the column names in the first row",
        remedy=f"delete the rows above `{cut(' | '.join(rows[place - 1]), 60)}`",
    )


def refuse_no_header(label: str, values: Iterable[str], columns: Sequence[str], *, source: str) -> None:
    """Refuse a table without column names: its first row would become their names, and be lost.

    Args:
        label: the column that was taken for the label without being named. values: the labels in it.

    Raises:
        DataError: the column is called as one of its labels is.
    """
    if label.strip() in {value.strip() for value in values}:
        raise DataError(
            f"has no column names, it seems: the first row is {cut(' | '.join(columns), 80)!r}, "
            f"and {label!r} is one of the labels below it",
            where=source,
            expected="a first row with column names, such as text,label",
            remedy=f"add one; if the column is called so, name it: --label {label!r}",
        )


def refuse_second_header(
    text: str, label: str, texts: Iterable[object], labels: Iterable[object], *, source: str
) -> None:
    """Refuse the column names among the rows, as two files have them that were put behind one another.

    Raises:
        DataError: with the row.
    """
    for row, (a, b) in enumerate(zip(texts, labels, strict=True), 1):
        if isinstance(a, str) and isinstance(b, str) and (a.strip(), b.strip()) == (text, label):
            raise DataError(
                f"row {row:,} holds the column names once more: {text} | {label}",
                where=f"{source}:{row}",
                expected="the column names in the first row alone",
                remedy="delete this row; files put behind one another keep one header",
            )
