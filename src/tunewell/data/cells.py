"""CSV files of our own, whose cells may be as long as a text is: Python's reader stops at 131,072 characters."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from typing import Any

LONGEST = 2**31 - 1  # characters of a cell; a C long on every system


class Rows:
    """The rows of a CSV file by column, as `csv.DictReader` gives them, with cells of any length.

    >>> rows = Rows(["text,label", "a" * 200_000 + ",1"])
    >>> rows.columns, [len(row["text"]) for row in rows]
    (['text', 'label'], [200000])
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._reader = csv.DictReader(_unlimited(lines))

    @property
    def columns(self) -> list[str]:
        """The header's cells; none in an empty file."""
        return list(self._reader.fieldnames or [])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._reader)


def _unlimited(lines: Iterable[str]) -> Iterator[str]:
    """The lines, with the limit taken away before each: it belongs to the process, and others set it too."""
    for line in lines:
        csv.field_size_limit(LONGEST)
        yield line
