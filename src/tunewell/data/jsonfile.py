"""JSON and JSONL: records of any keys, their types brought together over the whole file.

The file is read twice, a record at a time: once to learn the columns and their types, once for the
values. A column of mixed kinds is read as text and said so; nothing is dropped.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from tunewell.data.arrow import BATCH_ROWS
from tunewell.data.bounds import DOCUMENT, bounded_columns
from tunewell.data.encoding import Encoding, Opener
from tunewell.errors import DataError

RECORD_LIMIT = 10 << 20  # characters of one record
CHUNK = 1 << 16
BATCH_CHARACTERS = 32 << 20
_SPACE = " \t\r\n"


class JsonFile:
    """A JSON or JSONL file opened for reading: `schema`, then `batches()`.

    Raises:
        DataError: not JSON, not records, a record of more than 10 MB, or no records.
    """

    def __init__(self, opener: Opener, encoding: Encoding, source: str, *, lines: bool) -> None:
        self._opener, self._encoding, self.source = opener, encoding, source
        self.notices: list[str] = [encoding.notice] if encoding.notice else []
        self._nested: list[Any] | None = None
        self.objects: dict[str, int] = {}  # column -> first record that holds an object there
        self.lines = lines or self._looks_like_lines()
        if self.lines and not lines:
            self.notices.append(f"{source}: one record a line (JSONL)")
        self.schema = self._learn_schema()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All records, in batches of bounded size."""
        rows: list[dict[str, Any]] = []
        characters = 0
        for row, size in self.records():
            rows.append(row)
            characters += size
            if len(rows) == BATCH_ROWS or characters > BATCH_CHARACTERS:
                yield self._batch(rows)
                rows, characters = [], 0
        if rows:
            yield self._batch(rows)

    def _batch(self, rows: list[dict[str, Any]]) -> pa.RecordBatch:
        arrays = [pa.array([_as(row.get(field.name), field.type) for row in rows], field.type) for field in self.schema]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _learn_schema(self) -> pa.Schema:
        kinds: dict[str, set[str]] = {}
        number = 0
        for row, _ in self.records():
            number += 1
            for name, value in row.items():
                if (kind := _kind(value)) not in (known := kinds.setdefault(name, set())):
                    known.add(kind)
                    if kind == "objects":
                        self.objects[name] = number
            bounded_columns(kinds, self.source)  # type: ignore[arg-type]
        if not number:
            raise DataError("holds no records", where=self.source, expected="at least one record")
        if not kinds:
            raise DataError("its records have no keys", where=self.source, expected='records such as {"text": "..."}')
        fields = []
        for name, found in kinds.items():
            kind, mixed = _unite(found)
            fields.append((name, kind))
            if mixed:
                what = " and ".join(sorted(found - {"null"}))
                self.notices.append(f"{self.source}: column `{name}` mixes {what}; read as text")
        return pa.schema(fields)

    # -- records

    def _text(self) -> io.TextIOWrapper:
        return io.TextIOWrapper(self._opener(), self._encoding.codec, self._encoding.errors)

    def records(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Each record as it stands in the file, with its size in characters."""
        try:
            with self._text() as text:
                yield from self._of_lines(text) if self.lines else self._of_document(text)
        except UnicodeError as error:
            raise DataError(
                f"cannot be read as {self._encoding.codec}: {error}",
                where=self.source,
                expected=f"text in {self._encoding.codec}",
                remedy="leave `encoding` at auto, or name the encoding that the file was saved in",
            ) from None
        except EOFError as error:
            raise DataError(f"the compressed file is cut short: {error}", where=self.source) from None
        except RecursionError:
            raise DataError("is nested too deeply", where=self.source, expected="an array of flat records") from None
        except ValueError as error:  # a number of more digits than Python reads
            raise DataError(f"holds a value that cannot be read: {error}", where=self.source) from None

    def _looks_like_lines(self) -> bool:
        """A file named .json that holds one object a line."""
        with self._text() as text:
            try:
                first, second = (text.readline(RECORD_LIMIT).removeprefix("\ufeff").strip() for _ in range(2))
                return first.startswith("{") and second.startswith("{") and isinstance(json.loads(first), dict)
            except (ValueError, EOFError, RecursionError):
                return False

    def _of_lines(self, text: io.TextIOWrapper) -> Iterator[tuple[dict[str, Any], int]]:
        number = 0
        while line := text.readline(RECORD_LIMIT + 1):
            number += 1
            if len(line) > RECORD_LIMIT:
                raise self._too_large(f"{self.source}:{number}")
            if number == 1:
                line = line.removeprefix("\ufeff")
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"line {number} is not JSON: {error.msg} at character {error.pos + 1}",
                    where=f"{self.source}:{number}",
                    expected='one record a line, such as {"text": "...", "label": "..."}',
                    remedy="mend the line, or name the file .json if it is one JSON document",
                ) from None
            if not isinstance(value, dict):
                raise self._not_a_record(value, f"{self.source}:{number}")
            yield value, len(line)

    def _of_document(self, text: io.TextIOWrapper) -> Iterator[tuple[dict[str, Any], int]]:
        if self._nested is None:
            stream = _Stream(text)
            first = stream.peek()
            if first == "[":
                yield from self._of_array(stream)
                return
            try:
                self._nested = self._inside(stream.rest(), first)
            except OverflowError:
                raise self._too_large(self.source) from None
        for number, value in enumerate(self._nested, 1):
            if not isinstance(value, dict):
                raise self._not_a_record(value, f"{self.source}:{number}")
            yield value, 0

    def _of_array(self, stream: _Stream) -> Iterator[tuple[dict[str, Any], int]]:
        """Records of a top-level array, without holding more than one."""
        stream.take()
        number = 0
        while True:
            if stream.peek() == "]" and number == 0:
                return
            number += 1
            where = f"{self.source}:{number}"
            try:
                value, size = stream.value()
            except OverflowError:
                raise self._too_large(where) from None
            except json.JSONDecodeError as error:
                raise DataError(
                    f"record {number} is not JSON: {error.msg}",
                    where=where,
                    expected='an array of records: [{"text": "...", "label": "..."}, ...]',
                    remedy="mend the file; `python -m json.tool FILE` shows the place",
                ) from None
            if not isinstance(value, dict):
                raise self._not_a_record(value, where)
            yield value, size
            after = stream.peek()
            if after == ",":
                stream.take()
            elif after == "]":
                stream.take()
                if stream.peek():
                    raise DataError("has more text after the array of records", where=self.source, expected="one array")
                return
            else:
                found = f"`{after}`" if after else "the end of the file"
                raise DataError(
                    f"{found} stands after record {number}", where=where, expected="a comma or ]",
                    remedy="the file may have been cut short: export it again",
                )  # fmt: skip

    def _inside(self, document: str, first: str) -> list[Any]:
        """The records of `{"data": [...]}` or of an object whose only list is the records."""
        if not first:
            raise DataError("is empty", where=self.source, expected="an array of records")
        try:
            value = json.loads(document)
        except json.JSONDecodeError as error:
            raise DataError(
                f"is not JSON: {error.msg} in line {error.lineno}, column {error.colno}",
                where=self.source,
                expected='an array of records: [{"text": "...", "label": "..."}, ...]',
            ) from None
        lists = {k: v for k, v in value.items() if isinstance(v, list)} if isinstance(value, dict) else {}
        if "data" in lists:
            return lists["data"]
        if len(lists) == 1:
            ((name, records),) = lists.items()
            self.notices.append(f"{self.source}: records taken from `{name}`")
            return records
        raise self._not_a_record(value, self.source)

    def _not_a_record(self, value: Any, where: str) -> DataError:
        kind = {dict: "an object without a list of records", list: "an array", str: "a text", bool: "true or false"}
        found = kind.get(type(value), "a number" if isinstance(value, int | float) else "null")
        return DataError(
            f"holds {found} where a record is expected",
            where=where,
            expected='records with column names, such as {"text": "...", "label": "..."}',
            remedy='write an array of such records, {"data": [...]}, or one record a line (.jsonl)',
        )

    def _too_large(self, where: str) -> DataError:
        limit = f"{RECORD_LIMIT >> 20} MB"
        return DataError(f"a record is larger than {limit}", where=where, expected=f"records of at most {limit}")


class _Stream:
    """Values of a JSON text, decoded one after the other from a buffer that is filled as needed."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text, self._buffer, self._at, self._done = text, "", 0, False
        self._decode = json.JSONDecoder().raw_decode

    def _fill(self, size: int = CHUNK) -> bool:
        more = self._text.read(size)
        self._buffer = self._buffer[self._at :] + more
        self._at = 0
        self._done = not more
        return bool(more)

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self._at < len(self._buffer):
                if self._buffer[self._at] not in _SPACE and self._buffer[self._at] != "\ufeff":
                    return self._buffer[self._at]
                self._at += 1
            if not self._fill():
                return ""

    def take(self) -> None:
        self._at += 1

    def rest(self) -> str:
        """All that is left."""
        rest = self._buffer[self._at :] + self._text.read(DOCUMENT)
        if len(rest) > DOCUMENT:
            raise OverflowError
        self._buffer, self._at, self._done = "", 0, True
        return rest

    def value(self) -> tuple[Any, int]:
        """The next value and its size; OverflowError when it is larger than the limit."""
        self.peek()
        while True:
            try:
                value, end = self._decode(self._buffer, self._at)
                if end < len(self._buffer) or self._done:  # a number at the very end may go on
                    size, self._at = end - self._at, end
                    return value, size
                if not self._fill():
                    continue
            except json.JSONDecodeError:
                if len(self._buffer) - self._at > RECORD_LIMIT:
                    raise OverflowError from None
                if not self._fill(max(CHUNK, len(self._buffer) - self._at)):
                    raise


# ---------------------------------------------------------------- types


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true/false"
    if isinstance(value, int):
        return "whole numbers" if -(2**63) <= value < 2**63 else "huge numbers"
    if isinstance(value, float):
        return "numbers"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list):
        return "lists of text" if all(isinstance(v, str) for v in value) else "lists"
    return "objects"


def _unite(kinds: set[str]) -> tuple[pa.DataType, bool]:
    """The Arrow type that holds all kinds seen in a column, and whether they had to be turned into text."""
    found = kinds - {"null"}
    if not found or found == {"text"}:
        return pa.string(), False
    if found == {"true/false"}:
        return pa.bool_(), False
    if found == {"whole numbers"}:
        return pa.int64(), False
    if found <= {"whole numbers", "numbers"}:
        return pa.float64(), False
    if found <= {"lists of text", "lists"}:
        return pa.list_(pa.string()), False
    return pa.string(), len(found) > 1


def _as(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_string(kind):
        return _word(value)
    if pa.types.is_list(kind):
        return [None if v is None else _word(v) for v in value]
    return float(value) if pa.types.is_floating(kind) else value


def _word(value: Any) -> str:
    """A value as text: numbers as JSON writes them, nested values as JSON.

    >>> _word(1), _word(True), _word({"a": ["ü"]})
    ('1', 'true', '{"a": ["ü"]}')
    """
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
