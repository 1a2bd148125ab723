"""Reading rows to be labelled, a chunk at a time, so that a file may be larger than memory.

The readers are those of `data.load`, but nothing is brought into one type here: cells are handed on as
they stand in the file, so that the output is the user's own file with columns added.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from tunewell.data import bounds
from tunewell.data.delimited import Delimited
from tunewell.data.elsewhere import is_elsewhere, local
from tunewell.data.encoding import Encoding, detect
from tunewell.data.load import FORMATS, file_format, missing_file
from tunewell.data.secrets import shown
from tunewell.errors import DataError

SUFFIXES = {**FORMATS, ".txt": "text", ".text": "text"}
KINDS = ("csv", "tsv", "json", "jsonl", "parquet", "arrow", "text")
STDIN = "-"
CHUNK_ROWS, CHUNK_CHARACTERS = 1024, 4_000_000
SNIFFED = 1 << 16
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


@dataclass
class Chunk:
    """Some rows in file order.

    Attributes:
        rows: one dict a row.
        first: record number of the first row, counted from 1, the header not counted.
        table: the same rows as a pyarrow Table when the file has typed columns, else None.
    """

    rows: list[dict[str, Any]]
    first: int
    table: Any = None

    def texts(self, column: str) -> list[str]:
        """A column as text; missing cells and not-a-number are empty."""
        cells = (row.get(column) for row in self.rows)
        return ["" if cell is None or cell != cell else _encodable(str(cell)) for cell in cells]


def _encodable(text: str) -> str:
    """JSON can spell half a surrogate pair, which no tokenizer takes."""
    return text if text.isascii() else text.encode("utf-8", errors="replace").decode("utf-8")


@dataclass
class RowSource:
    """An open file of rows; iterate once for chunks. A context manager that closes the file.

    Attributes:
        columns: names of the columns; of the first row for JSON.
        format: one of KINDS.
        dialect: what to write again for delimited text: delimiter, lineterminator, bom.
        schema: the pyarrow schema of files with typed columns.
        notices: what had to be guessed; may grow until the last row is read.
        total: how many rows the file says that it has, None where it does not.
    """

    name: str
    format: str
    columns: list[str]
    chunks: Iterator[Chunk]
    dialect: dict[str, Any] = field(default_factory=dict)
    schema: Any = None
    notices: list[str] = field(default_factory=list)
    close: Callable[[], Any] = lambda: None
    total: int | None = None

    def __iter__(self) -> Iterator[Chunk]:
        return self.chunks

    def __enter__(self) -> RowSource:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def open_rows(source: str, *, format: str = "auto", encoding: str = "auto", chunk_rows: int = CHUNK_ROWS) -> RowSource:
    """Open a file, or standard input (`-`), as chunks of rows.

    Args:
        format: one of KINDS; `auto` goes by the file's ending, and takes lines of text from standard input.
        encoding: of text files; `auto` detects it (standard input: a byte order mark, else UTF-8).
        chunk_rows: rows a chunk at most; fewer when they are long.

    Raises:
        DataError: the file is missing, empty, not of this format, or damaged (then while iterating).
    """
    if source == STDIN:
        return _standard_input("text" if format == "auto" else format, encoding, chunk_rows)
    path = local(source) if is_elsewhere(source) else Path(source).expanduser()
    source = shown(source)
    if path.is_dir():
        raise DataError("is a folder", where=source, expected="a data file, or - for standard input")
    if not path.exists():
        raise missing_file(path, source)
    try:
        if format == "auto":
            format = "text" if SUFFIXES.get(path.suffix.lower()) == "text" else file_format(path, source)[0]
        return _open_file(path, source, format, encoding, chunk_rows)
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror or error}", where=source, expected="a file that you may read"
        ) from error


def _standard_input(format: str, encoding: str, chunk_rows: int) -> RowSource:
    """Lines and JSON lines as they come; other formats, which are read more than once, by way of a temporary file."""
    name = "standard input"
    stream: Any = sys.stdin.buffer
    if format in ("text", "jsonl"):
        own = not hasattr(stream, "peek")
        stream = io.BufferedReader(stream) if own else stream
        head = stream.peek(SNIFFED)[:SNIFFED]
        if encoding == "auto":
            found = Encoding(next((codec for mark, codec in _MARKS if head.startswith(mark)), "utf-8"))
        else:
            found = detect(lambda: io.BytesIO(head), name, encoding)
        text = io.TextIOWrapper(stream, found.codec, found.errors, newline="")

        def leave_open() -> None:
            text.detach()
            if own:
                stream.detach()

        try:
            opened = _from_objects(
                name, format, (_lines if format == "text" else _jsonl)(name, text, found), chunk_rows
            )
        except BaseException:
            leave_open()
            raise
        opened.close = leave_open
        return opened
    kept = tempfile.NamedTemporaryFile(prefix="tunewell-stdin-")  # noqa: SIM115 - closed with the source
    try:
        shutil.copyfileobj(stream, kept)
        kept.flush()
        opened = _open_file(Path(kept.name), name, format, encoding, chunk_rows)
    except BaseException:
        kept.close()
        raise
    inner = opened.close

    def close() -> None:
        inner()
        kept.close()

    opened.close = close
    return opened


def _open_file(path: Path, name: str, format: str, encoding: str, chunk_rows: int) -> RowSource:
    if path.is_file() and path.stat().st_size == 0:
        raise DataError("is empty", where=name, expected="rows to label")
    if format in ("parquet", "arrow"):
        return _columnar(name, format, path, chunk_rows)

    def opener() -> IO[bytes]:
        with path.open("rb") as start:
            zipped = start.read(2) == b"\x1f\x8b"
        return bounds.unpacking(path, name) if zipped else path.open("rb")

    with opener() as file:
        head = file.read(SNIFFED)
    found = detect(opener, name, encoding)
    dialect = {"bom": head.startswith(codecs.BOM_UTF8), "lineterminator": "\r\n" if b"\r\n" in head else "\n"}
    if format in ("csv", "tsv"):
        reader = Delimited(opener, found, name, delimiter="\t" if format == "tsv" else ",")
        dialect["delimiter"] = reader.delimiter
        chunks = _sliced(reader.batches(), chunk_rows)
        return RowSource(name, format, list(reader.columns), chunks, dialect, reader.schema, reader.notices)
    text = io.TextIOWrapper(opener(), found.codec, found.errors, newline="")
    try:
        if format == "json" and not head.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n").startswith(b"["):
            format = "jsonl"
        rows = {"json": _json, "jsonl": _jsonl, "text": _lines}[format](name, text, found)
        opened = _from_objects(name, format, rows, chunk_rows)
    except BaseException:
        text.close()
        raise
    opened.close, opened.dialect = text.close, dialect
    opened.notices = [found.notice] if found.notice else []
    return opened


# ---------------------------------------------------------------- JSON, lines


def _decoded(name: str, text: IO[str], found: Encoding) -> Iterator[tuple[int, str]]:
    """Numbered lines; a byte that does not decode is told in words."""
    number = 0
    try:
        for number, line in enumerate(iter(partial(text.readline, bounds.LINE), ""), 1):
            if len(line) >= bounds.LINE:
                raise bounds.long_line(number, name)
            yield number, line.removeprefix("\ufeff") if number == 1 else line
    except UnicodeDecodeError as error:
        raise DataError(
            f"byte 0x{error.object[error.start]:02x} after row {number} is not {found.codec}",
            where=name,
            expected="one encoding throughout",
            remedy="name the encoding with --encoding (latin-1 takes any byte)",
        ) from None
    except (gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"the compressed file is cut short: {error}", where=name) from None


def _jsonl(name: str, text: IO[str], found: Encoding) -> Iterator[dict[str, Any]]:
    for number, line in _decoded(name, text, found):
        if line.strip():
            try:
                loaded = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"not valid JSON: {error}", where=f"{name}:{number}", expected="one object a line"
                ) from None
            yield _object(loaded, name, number)


def _json(name: str, text: IO[str], found: Encoding) -> Iterator[dict[str, Any]]:
    """An array of objects; read at once."""
    content = "".join(line for _, line in _decoded(name, text, found))
    try:
        loaded = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"not valid JSON: {error}", where=name, expected="an array of objects, or one object a line"
        ) from None
    return (_object(row, name, number) for number, row in enumerate(loaded, 1))


def _object(loaded: Any, name: str, number: int) -> dict[str, Any]:
    if not isinstance(loaded, dict):
        raise DataError(
            f"holds a {type(loaded).__name__}", where=f"{name}:{number}", expected="an object with named members"
        )
    return loaded


def _lines(name: str, text: IO[str], found: Encoding) -> Iterator[dict[str, Any]]:
    return ({"text": line.rstrip("\r\n")} for _, line in _decoded(name, text, found))


def _from_objects(name: str, format: str, rows: Iterator[dict[str, Any]], chunk_rows: int) -> RowSource:
    first = next(rows, None)
    if first is None:
        raise DataError("holds no rows", where=name, expected="rows to label")

    def again() -> Iterator[dict[str, Any]]:
        yield first
        yield from rows

    return RowSource(name, format, list(first), _chunked(again(), chunk_rows))


def _chunked(rows: Iterator[dict[str, Any]], limit: int) -> Iterator[Chunk]:
    """Chunks of at most `limit` rows and about CHUNK_CHARACTERS characters."""
    held: list[dict[str, Any]] = []
    first, characters = 1, 0
    for row in rows:
        held.append(row)
        characters += sum(len(cell) for cell in row.values() if isinstance(cell, str))
        if len(held) >= limit or characters >= CHUNK_CHARACTERS:
            yield Chunk(held, first)
            first, held, characters = first + len(held), [], 0
    if held:
        yield Chunk(held, first)


# ---------------------------------------------------------------- typed columns


def _sliced(batches: Iterable[Any], limit: int) -> Iterator[Chunk]:
    import pyarrow as pa

    first = 1
    for batch in batches:
        for start in range(0, batch.num_rows, limit):
            table = pa.Table.from_batches([batch.slice(start, limit)])
            yield Chunk(table.to_pylist(), first, table)
            first += table.num_rows


def _columnar(name: str, format: str, path: Path, chunk_rows: int) -> RowSource:
    """Parquet; Arrow in the layout of Feather or in the stream layout that `datasets` writes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def explain(what: str, error: Exception) -> DataError:
        return DataError(f"{what}: {str(error).splitlines()[0]}", where=name, expected=f"a whole {format.title()} file")

    file, total = path.open("rb"), None
    try:
        if format == "parquet":
            parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=bounds.READ_AHEAD)
            total = parquet.metadata.num_rows
            bounds.bounded_parquet(parquet.metadata, path.stat().st_size, name)
            schema, batches = parquet.schema_arrow, parquet.iter_batches(batch_size=chunk_rows)
        else:
            try:
                feather = pa.ipc.open_file(file)
                schema, batches = feather.schema, (feather.get_batch(i) for i in range(feather.num_record_batches))
            except pa.ArrowInvalid:
                file.seek(0)
                stream = pa.ipc.open_stream(file)
                schema, batches = stream.schema, iter(stream)
    except DataError:
        file.close()
        raise
    except (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError) as error:
        file.close()
        raise explain(f"not a {format.title()} file", error) from None

    def chunks() -> Iterator[Chunk]:
        try:
            yield from _sliced(batches, chunk_rows)
        except (pa.ArrowException, OSError, MemoryError) as error:
            raise explain("damaged", error) from None

    return RowSource(name, format, schema.names, chunks(), schema=schema, close=file.close, total=total)


__all__ = ["KINDS", "STDIN", "SUFFIXES", "Chunk", "RowSource", "open_rows"]
