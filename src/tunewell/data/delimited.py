"""CSV and TSV: every cell stays the text that it is ("007", "NA" and "None" are words, not numbers or gaps).

Rows are read one at a time, so that a file larger than memory works, and none is dropped in silence: a
row with too few or too many cells, a quotation mark that is never closed, or a cell of more than 10 MB
stops with the row's number.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import pyarrow as pa

from tunewell.data.arrow import BATCH_ROWS
from tunewell.data.bounds import LINE, bounded_columns, long_line
from tunewell.data.columns import LABELS, TEXTS
from tunewell.data.encoding import Encoding, Opener
from tunewell.data.header import LOOKED_AT, refuse_title
from tunewell.errors import DataError
from tunewell.shown import cut

DELIMITERS = (",", "\t", ";", "|")
NAMES = {",": "comma", "\t": "tab", ";": "semicolon", "|": "vertical bar"}
CELL_LIMIT = 10 << 20  # characters
BATCH_CHARACTERS = 32 << 20
Quoting = Literal[0, 3]  # csv.QUOTE_MINIMAL, csv.QUOTE_NONE
_SEP_LINE = re.compile(r'^"?sep=(.)"?\r?\n?$')


class Delimited:
    """A CSV or TSV file opened for reading: `columns` first, then `batches()`; `notices` grows on the way.

    Raises:
        DataError: empty, no rows, duplicate column names, or a row that cannot be read.
    """

    def __init__(self, opener: Opener, encoding: Encoding, source: str, *, delimiter: str = ",") -> None:
        self._opener, self._encoding, self.source = opener, encoding, source
        self._skip = 0
        self.notices: list[str] = [encoding.notice] if encoding.notice else []
        self.quoting: Quoting = csv.QUOTE_MINIMAL
        self.delimiter = self._sniff(delimiter)
        if self.delimiter == "\t" and self._unquoted():
            self.quoting = csv.QUOTE_NONE
            self.notices.append(f"{source}: quotation marks are taken as ordinary characters")
        self.columns = self._columns()

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([(name, pa.string()) for name in self.columns])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows, in batches of bounded size."""
        schema, rows, characters, any_row = self.schema, [], 0, False
        reader = self._rows()
        next(reader)  # the header
        for row in reader:
            any_row = True
            rows.append(row)
            characters += sum(map(len, row)) + 8 * len(row)  # empty cells take memory too
            if len(rows) == BATCH_ROWS or characters > BATCH_CHARACTERS:
                yield _batch(rows, schema)
                rows, characters = [], 0
        if rows:
            yield _batch(rows, schema)
        if not any_row:
            raise DataError("has a header but no rows", where=self.source, expected="at least one row below the header")

    def _text(self) -> io.TextIOWrapper:
        return io.TextIOWrapper(self._opener(), self._encoding.codec, self._encoding.errors, newline="")

    def _lines(self, text: io.TextIOWrapper) -> Iterator[str]:
        """Lines without a byte order mark, a `sep=` line or NUL characters (those are an error)."""
        for number, line in enumerate(iter(partial(text.readline, LINE), "")):
            if len(line) >= LINE:
                raise long_line(number + 1, self.source)
            if number == 0:
                line = line.removeprefix("\ufeff")
                if _SEP_LINE.match(line):
                    continue
            if "\0" in line:
                raise DataError(
                    f"line {number + 1} holds a NUL character: this is binary data or a damaged file",
                    where=self.source,
                    expected="text",
                    remedy="export the file again",
                )
            yield line

    def _rows(self) -> Iterator[list[str]]:
        """The header, then every row, checked for its number of cells."""
        blank, record, width, ended_at = 0, 0, 0, 0
        limit = csv.field_size_limit(CELL_LIMIT)
        try:
            with self._text() as text:
                reader = csv.reader(self._lines(text), delimiter=self.delimiter, quoting=self.quoting, strict=True)
                for row in reader:
                    if csv.field_size_limit() != CELL_LIMIT:  # the limit belongs to the process, not to the reader
                        csv.field_size_limit(CELL_LIMIT)
                    if not row and width != 1:
                        blank += 1
                    elif not width:
                        width = len(row)
                        yield row
                    else:
                        record += 1
                        row = row or [""]
                        if len(row) != width:
                            raise self._ragged(record, ended_at + 1, row, width)
                        yield row
                    ended_at = reader.line_num
        except csv.Error as error:
            raise self._broken(record + 1 if width else 0, ended_at + 1, str(error)) from None
        except UnicodeError as error:
            raise DataError(
                f"cannot be read as {self._encoding.codec} near row {record + 1}: {error}",
                where=self.source,
                expected=f"text in {self._encoding.codec}",
                remedy="leave `encoding` at auto, or name the encoding that the file was saved in",
            ) from None
        except EOFError as error:
            raise DataError(f"the compressed file is cut short: {error}", where=self.source) from None
        finally:
            csv.field_size_limit(limit)
        if blank:
            self.notices.append(f"{self.source}: {blank:,} blank line{'s' * (blank > 1)} between the rows passed over")

    def _columns(self) -> tuple[str, ...]:
        reader = self._rows()
        header = next(reader, None)
        reader.close()  # type: ignore[attr-defined]
        if header is None:
            raise DataError("is empty", where=self.source, expected="a header line with column names, then rows")
        bounded_columns(header, self.source)
        self._refuse_title()
        names = [name.strip() for name in header]
        for place, name in enumerate(names):
            if not name:
                names[place] = f"unnamed_{place + 1}"
                self.notices.append(f"{self.source}: column {place + 1} has no name, called `unnamed_{place + 1}`")
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise DataError(
                f"the column name `{twice[0]}` stands {names.count(twice[0])} times in the header",
                where=self.source,
                expected="different column names",
                remedy="rename the columns in the header line",
            )
        return tuple(names)

    def _refuse_title(self) -> None:
        first = self._sample(self.delimiter, self.quoting)[:LOOKED_AT]
        others = {"\t", ";", "|"} - {self.delimiter} if all(len(row) == 1 for row in first) else ()
        for rows in (first, *(self._sample(delimiter)[:LOOKED_AT] for delimiter in others)):
            refuse_title(rows, {*TEXTS, *LABELS}, source=self.source)

    # -- structure

    def _sample(self, delimiter: str, quoting: Quoting = csv.QUOTE_MINIMAL) -> list[list[str]]:
        """Rows among the first 64 KB, without the last, which may be cut."""
        with self._text() as text:
            try:
                head = text.read(1 << 16).removeprefix("\ufeff")
                more = bool(text.read(1))
            except (UnicodeError, EOFError):
                return []  # told properly when the rows are read
        lines = io.StringIO(head, newline="").readlines()
        if lines and _SEP_LINE.match(lines[0]):
            lines = lines[1:]
        rows = []
        try:
            for row in csv.reader(lines, delimiter=delimiter, quoting=quoting):
                if row:
                    rows.append(row)
        except csv.Error:
            pass
        return rows[:-1] if more and len(rows) > 2 else rows

    def _sniff(self, usual: str) -> str:
        """The usual delimiter unless another one cuts header and rows into equally many cells and it does not."""
        with self._text() as text:
            try:
                first = text.readline(1 << 16).removeprefix("\ufeff")
            except (UnicodeError, EOFError):
                first = ""
        if named := _SEP_LINE.match(first):
            return named[1]
        usual_rows = self._sample(usual)
        if not usual_rows or (_even(usual_rows) and len(usual_rows[0]) > 1):
            return usual
        others = [d for d in DELIMITERS if d != usual]
        for delimiter in others:
            rows = self._sample(delimiter)
            if rows and len(rows[0]) > 1 and (_even(rows) or len(usual_rows[0]) == 1):
                self.notices.append(f"{self.source}: cells are separated by a {NAMES[delimiter]}")
                return delimiter
        return usual

    def _unquoted(self) -> bool:
        """Whether a tab-separated file uses quotation marks as ordinary characters.

        So it is when reading them as quotes fails, or hides a tab inside a cell, and reading them as
        ordinary characters gives every row the same number of cells.
        """
        marks, suspicious = False, False
        limit = csv.field_size_limit(CELL_LIMIT)
        try:
            with self._text() as text:
                marks = any('"' in part for part in iter(partial(text.read, 1 << 20), ""))
            if not marks:
                return False
            with self._text() as text:
                try:
                    width = 0
                    for row in csv.reader(self._lines(text), delimiter="\t", strict=True):
                        width = width or len(row)
                        if (row and len(row) != width) or any("\t" in cell for cell in row):
                            suspicious = True
                            break
                except csv.Error:
                    suspicious = True
            if not suspicious:
                return False
            with self._text() as text:
                widths = {len(row) for row in csv.reader(self._lines(text), delimiter="\t", quoting=csv.QUOTE_NONE)}
            return len(widths - {0}) == 1
        except (UnicodeError, EOFError, csv.Error):
            return False  # told properly when the rows are read
        finally:
            csv.field_size_limit(limit)

    # -- what went wrong

    def _ragged(self, record: int, line: int, row: list[str], width: int) -> DataError:
        names = ", ".join(self.columns[:8]) + (", ..." if width > 8 else "")
        many = len(row) > width
        return DataError(
            f"row {record:,} (line {line:,}) has {len(row)} cell{'s' * (len(row) != 1)}: {_short(row)}",
            where=f"{self.source}:{record}",
            expected=f"{width} cell{'s' * (width > 1)}, as in the header ({names})",
            remedy=(
                f"put quotation marks around texts that contain a {NAMES.get(self.delimiter, 'delimiter')}"
                if many
                else "fill in the missing cells; a line break inside a text needs quotation marks around the text"
            ),
        )

    def _broken(self, record: int, line: int, detail: str) -> DataError:
        row = f"row {record:,} (line {line:,})" if record else "the header"
        where = f"{self.source}:{record}" if record else self.source
        if "field larger" in detail:
            return DataError(
                f"{row} has a cell of more than {CELL_LIMIT >> 20} MB",
                where=where,
                expected=f"cells of at most {CELL_LIMIT >> 20} MB",
                remedy="look for a quotation mark in this row that is opened and never closed",
            )
        if "unexpected end of data" in detail:
            return DataError(
                f"a quotation mark opened in {row} is never closed",
                where=where,
                expected="quotation marks in pairs; one inside a quoted text is doubled",
                remedy="close it, or double it where it belongs to the text",
            )
        return DataError(
            f"{row} cannot be read: {detail}",
            where=where,
            expected="a quoted text followed by a delimiter or the end of the line",
            remedy='double the quotation marks inside a quoted text ("He said ""yes""")',
        )


def _batch(rows: list[list[str]], schema: pa.Schema) -> pa.RecordBatch:
    arrays: list[Any] = [pa.array(cells, pa.string()) for cells in zip(*rows, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _even(rows: list[list[str]]) -> bool:
    return len({len(row) for row in rows}) == 1


def _short(row: list[str], limit: int = 120) -> str:
    return cut(" | ".join(row), limit)
