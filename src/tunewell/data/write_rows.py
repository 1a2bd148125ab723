"""Writing rows with what a model says of them: in the format they came in, whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from tunewell.data.rows import SUFFIXES, Chunk, RowSource
from tunewell.errors import DataError

STDOUT = "-"
PROBABILITY_COLUMNS = 50  # with more labels a table gets only the answer's own probability
GROUP_ROWS, GROUP_BYTES = 1 << 16, 64_000_000  # of a Parquet row group, whichever comes first
BINARY = ("parquet", "arrow")


def format_of(target: str, fallback: str) -> str:
    """The format of an output: by its ending, else that of the input; lines of text become CSV."""
    ending = Path(target).suffix.lower() if target != STDOUT else ""
    if ending in (".gz", ".bz2", ".xz", ".zst", ".zip"):
        raise DataError("output is not compressed", where=target, expected="an ending such as .csv, .jsonl or .parquet")
    known = SUFFIXES.get(ending, fallback)
    return "csv" if known == "text" else known


class Columns:
    """The names and kinds of the columns that are added.

    Args:
        taken: the input's own columns; where one of them is called like ours, all of ours get a number.
        labels: in the order of the probabilities; empty for regression.
        task: "text-classification" or "text-regression".
    """

    def __init__(self, taken: Sequence[str], labels: Sequence[str], *, regression: bool, multi_label: bool) -> None:
        self.labels, self.regression, self.multi_label = tuple(labels), regression, multi_label
        self.each = not regression and len(self.labels) <= PROBABILITY_COLUMNS
        self.suffix, number = "", 1
        while any(name in taken for name in (*self.flat, "probabilities" + self.suffix)):
            number += 1
            self.suffix = f"_{number}"

    def types(self) -> list[Any]:
        """Of `flat`, as pyarrow types."""
        import pyarrow as pa

        kind = pa.float64() if self.regression else pa.list_(pa.string()) if self.multi_label else pa.string()
        return [kind, *[pa.float32()] * (len(self.flat) - 1)]

    @property
    def flat(self) -> list[str]:
        """As columns of a table: prediction, then p_<label> each (with many labels: probability)."""
        if self.regression:
            return ["prediction" + self.suffix]
        names = [f"p_{label}" for label in self.labels] if self.each else ["probability"]
        return [name + self.suffix for name in ("prediction", *names)]

    def cells(self, answer: dict[str, Any] | None) -> list[Any]:
        """Values for `flat`; None throughout for a row without a prediction."""
        if answer is None:
            return [None] * len(self.flat)
        if self.regression:
            return [answer["prediction"]]
        values = list(answer["probabilities"].values())
        return [answer["prediction"], *(values if self.each else [max(values)])]

    def nested(self, answer: dict[str, Any] | None) -> dict[str, Any]:
        """As members of a JSON object: prediction, and probabilities by label."""
        out = {"prediction" + self.suffix: None if answer is None else answer["prediction"]}
        if not self.regression:
            named = None if answer is None else {k: round(v, 6) for k, v in answer["probabilities"].items()}
            out["probabilities" + self.suffix] = named
        return out


class AnswerColumns:
    """The same for answers that are texts.

    Args:
        taken: the input's own columns.
        fields: name -> str, float or int, in order; the first is the prediction.
        nested: further members that only JSON can hold.
    """

    def __init__(self, taken: Sequence[str], fields: dict[str, type], nested: Sequence[str] = ()) -> None:
        self.fields, self.deep = fields, tuple(nested)
        self.suffix, number = "", 1
        while any(name + self.suffix in taken for name in (*fields, *self.deep)):
            number += 1
            self.suffix = f"_{number}"

    @property
    def flat(self) -> list[str]:
        """As columns of a table."""
        return [name + self.suffix for name in self.fields]

    def types(self) -> list[Any]:
        """Of `flat`, as pyarrow types."""
        import pyarrow as pa

        return [{str: pa.string(), float: pa.float32(), int: pa.int64()}[kind] for kind in self.fields.values()]

    def cells(self, answer: dict[str, Any] | None) -> list[Any]:
        """Values for `flat`; None throughout for a row without a prediction."""
        return [None if answer is None else answer[name] for name in self.fields]

    def nested(self, answer: dict[str, Any] | None) -> dict[str, Any]:
        """As members of a JSON object."""
        return {name + self.suffix: None if answer is None else answer[name] for name in (*self.fields, *self.deep)}


class WholeFile(io.RawIOBase):
    """A file that appears under its name only when `commit` is called; standard output and devices are written through.

    Raises:
        DataError: from any method, when it cannot be written.
    """

    def __init__(self, target: str) -> None:
        self.target, self._temporary, self._place = target, None, 0
        path = Path(target)
        try:
            if target == STDOUT:
                self._file: IO[bytes] = sys.stdout.buffer
            elif path.exists() and not path.is_file() and not path.is_dir():
                self._file = path.open("wb")
            elif path.is_dir():
                raise IsADirectoryError(None, "is a folder")
            else:
                if not path.parent.is_dir():
                    _make_folder(path.parent)
                handle, self._temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
                self._file = os.fdopen(handle, "wb")
        except OSError as error:
            raise self._explain(error) from error

    def _explain(self, error: OSError) -> DataError:
        return DataError(
            f"cannot write: {error.strerror or error}",
            where="standard output" if self.target == STDOUT else self.target,
            expected="a place that can be written, with free disk space",
            remedy="free some space, mend the permissions, or name another -o",
        )

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def write(self, data: Any) -> int:
        if self._file.closed:  # thrown away
            return len(data)
        try:
            written = self._file.write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._explain(error) from error
        self._place += written
        return written

    def flush(self) -> None:
        if getattr(self, "_file", None) is None or self._file.closed:
            return
        try:
            self._file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._explain(error) from error

    def commit(self) -> None:
        """Sync and rename."""
        self.flush()
        if self.target == STDOUT:
            return
        try:
            if self._temporary is not None:
                os.fsync(self._file.fileno())
            self._file.close()
            if self._temporary is not None:
                os.chmod(self._temporary, 0o644)
                os.replace(self._temporary, self.target)
                self._temporary = None
        except OSError as error:
            raise self._explain(error) from error

    def discard(self) -> None:
        """Remove what was not committed."""
        if self.target != STDOUT:
            with contextlib.suppress(OSError):  # a full disk cannot take what was buffered; it is thrown away here
                self._file.close()
        if self._temporary is not None:
            Path(self._temporary).unlink(missing_ok=True)
            self._temporary = None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise OSError(None, "a part of the path is a file, not a folder") from None


class RowWriter:
    """Writes chunks with predictions; a context manager that leaves a whole file or none.

    Args:
        target: a path, or `-` for standard output. format: one of `rows.KINDS` but text.
        source: where the rows come from: columns, dialect and types are taken over.
    """

    def __init__(self, target: str, format: str, source: RowSource, columns: Columns | AnswerColumns) -> None:
        self.format, self.source, self.columns = format, source, columns
        if format in BINARY and target == STDOUT and sys.stdout.isatty():
            raise DataError(
                f"{format} is no text for a terminal", where="standard output", remedy="name a file with -o"
            )
        self.file = WholeFile(target)
        self.rows = 0
        self._arrow: Any = None
        self._held: list[Any] = []  # tables that are not yet a row group
        self._schema: Any = None
        self._text: io.StringIO | None = None if format in BINARY else io.StringIO(newline="")

    def __enter__(self) -> RowWriter:
        dialect = self.source.dialect
        if self.format in ("csv", "tsv"):
            if dialect.get("bom"):
                self._put("\ufeff")
            delimiter = "\t" if self.format == "tsv" else dialect.get("delimiter", ",")
            if self.format == "csv" and self.source.format == "tsv":
                delimiter = ","
            self._csv = csv.writer(self._text, delimiter=delimiter, lineterminator=dialect.get("lineterminator", "\n"))  # type: ignore[arg-type]
            self._csv.writerow([*self.source.columns, *self.columns.flat])
        elif self.format == "json":
            self._put("[")
        return self

    def write(self, chunk: Chunk, answers: Sequence[dict[str, Any] | None]) -> None:
        """Rows with their answers, None for a row without one."""
        if self.format in BINARY:
            self._write_table(chunk, answers)
        else:
            for row, answer in zip(chunk.rows, answers, strict=True):
                self._write_row(row, answer)
                self.rows += 1
            self._drain()

    def _write_row(self, row: dict[str, Any], answer: dict[str, Any] | None) -> None:
        if self.format in ("csv", "tsv"):
            if len(row) > len(self.source.columns) or row.keys() - set(self.source.columns):
                unknown = sorted(row.keys() - set(self.source.columns))
                raise DataError(
                    f"has members that the first row has not: {', '.join(unknown)}",
                    where=f"{self.source.name}:{self.rows + 1}",
                    expected="the same members in each row, to be written as a table",
                    remedy="write JSONL instead: -o OUT.jsonl",
                )
            cells = self.columns.cells(answer)
            answered = [f"{v:.6f}" if i and isinstance(v, float) else v for i, v in enumerate(cells)]
            self._csv.writerow([_cell(row.get(name)) for name in self.source.columns] + [_cell(v) for v in answered])
            return
        line = json.dumps(row | self.columns.nested(answer), ensure_ascii=False, default=str)
        self._put((",\n" if self.rows else "\n") + line if self.format == "json" else line + "\n")

    def _put(self, text: str) -> None:
        assert self._text is not None
        self._text.write(text)

    def _drain(self) -> None:
        assert self._text is not None
        self.file.write(self._text.getvalue().encode("utf-8", errors="backslashreplace"))
        self._text.seek(0)
        self._text.truncate()
        if self.file.target == STDOUT:
            self.file.flush()

    def _write_table(self, chunk: Chunk, answers: Sequence[dict[str, Any] | None]) -> None:
        import pyarrow as pa

        table = chunk.table
        if table is None:
            table = self._typed(chunk)
        kinds = self.columns.types()
        cells = [self.columns.cells(a) for a in answers]
        for i, name in enumerate(self.columns.flat):
            table = table.append_column(name, pa.array([c[i] for c in cells], type=kinds[i]))
        if self._arrow is None:
            self._arrow = self._open_arrow(table.schema)
        self.rows += table.num_rows
        if self.format != "parquet":
            self._arrow.write_table(table)
            return
        self._held.append(table)
        if sum(t.num_rows for t in self._held) >= GROUP_ROWS or sum(t.nbytes for t in self._held) >= GROUP_BYTES:
            self._write_held()

    def _write_held(self) -> None:
        """One row group of the chunks so far: a group a chunk would be many, and all are listed at the end."""
        import pyarrow as pa

        if self._held:
            self._arrow.write_table(pa.concat_tables(self._held))
            self._held.clear()

    def _typed(self, chunk: Chunk) -> Any:
        """Untyped rows as a table, in the types of the first chunk."""
        import pyarrow as pa

        try:
            table = pa.Table.from_pylist(chunk.rows, schema=self._schema)
            self._schema = table.schema
            return table
        except pa.ArrowException as error:
            raise DataError(
                f"does not fit the types of the rows before it: {str(error).splitlines()[0]}",
                where=f"{self.source.name}:{chunk.first}",
                expected="one type a column",
                remedy="write JSONL instead: -o OUT.jsonl",
            ) from None

    def _open_arrow(self, schema: Any) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        return pq.ParquetWriter(self.file, schema) if self.format == "parquet" else pa.ipc.new_file(self.file, schema)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None:
                if self._text is not None:
                    if self.format == "json":
                        self._put("\n]\n")
                    self._drain()
                else:
                    if self._arrow is None:  # no rows: the columns alone
                        self._write_table(Chunk([], 1, self.source.schema.empty_table()), [])
                    self._write_held()
                    self._arrow.close()
                self.file.commit()
        finally:
            self.file.discard()
            if kind is not None and self._arrow is not None:
                self._arrow.close()  # into a file that takes no more


def _cell(value: Any) -> Any:
    """A value as one cell of delimited text."""
    if value is None:
        return ""
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value


__all__ = ["AnswerColumns", "Columns", "RowWriter", "WholeFile", "format_of"]
