"""Bounds on what a data file may ask for, so that one made to harm ends in a sentence and not in a full memory.

They are far beyond data that people label, and are checked on claims and on the way, before memory is taken.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

from tunewell.errors import DataError

LINE = 64 << 20  # characters of a line of text
COLUMNS = 10_000
DOCUMENT = 512 << 20  # characters of a JSON document that is no array and no lines
UNPACKED = 256 << 20  # bytes that any compressed file may unpack to ...
RATIO = 200  # ... and beyond that, times its own size; text packs 3 to 20 times
READ_AHEAD = 1 << 20  # bytes of each column of a Parquet file; without a bound a whole row group is read
ROWS = 10_000_000  # rows that any Parquet file may claim ...
ROWS_A_BYTE = 100  # ... and beyond that, times its bytes


def bounded_columns(names: Sequence[str], source: str) -> None:
    """Raises DataError when there are more columns than a table of data has."""
    if len(names) > COLUMNS:
        raise DataError(
            f"has {len(names):,} columns",
            where=source,
            expected=f"at most {COLUMNS:,}",
            remedy="keep the columns with texts and labels; a matrix of numbers is not what is learned from here",
        )


def long_line(number: int, source: str) -> DataError:
    return DataError(
        f"line {number:,} is longer than {LINE >> 20} MB",
        where=source,
        expected="rows on lines of their own",
        remedy="this is binary data, or its lines end in something else than a line break: export it again",
    )


class Unpacking:
    """A gzip file that is read up to a bound, see RATIO."""

    def __init__(self, file: gzip.GzipFile, most: int, source: str) -> None:
        self._file, self._most, self._source = file, most, source

    def _checked(self, data: bytes) -> bytes:
        if self._file.tell() > self._most:
            raise DataError(
                f"unpacks to more than {self._most >> 20:,} MB, {RATIO} times its size",
                where=self._source,
                expected="compressed text",
                remedy="unpack it where you have checked what it is, and name that file",
            )
        return data

    def read(self, size: int = -1) -> bytes:
        if size is None or size < 0:
            return self._checked(self._file.read(self._most + 1))
        return self._checked(self._file.read(size))

    def read1(self, size: int = -1) -> bytes:
        return self._checked(self._file.read1(size if size and size > 0 else 1 << 16))

    def readline(self, size: int = -1) -> bytes:
        return self._checked(self._file.readline(LINE if size is None or size < 0 else min(size, LINE)))

    def __enter__(self) -> Unpacking:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __iter__(self) -> Any:
        return iter(self.readline, b"")

    def close(self) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def unpacking(path: Path, source: str) -> IO[bytes]:
    """Open a gzip file for reading, bounded."""
    most = max(UNPACKED, RATIO * path.stat().st_size)
    return cast("IO[bytes]", Unpacking(gzip.open(path, "rb"), most, source))


def bounded_parquet(metadata: Any, size: int, source: str) -> None:
    """Raises DataError when a Parquet file's own account cannot be true of `size` bytes, or asks for too much.

    Args:
        metadata: a `pyarrow.parquet.FileMetaData`, read from the file's foot.
    """
    if metadata.num_columns > COLUMNS:
        bounded_columns(range(metadata.num_columns), source)  # type: ignore[arg-type]
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    claimed = sum(max(g.total_byte_size, 0) for g in groups)
    rows = sum(max(g.num_rows, 0) for g in groups)
    impossible = any(g.num_rows < 0 or g.total_byte_size < 0 for g in groups) or rows != metadata.num_rows
    if impossible or rows > max(ROWS, ROWS_A_BYTE * size) or claimed > max(4 * UNPACKED, RATIO * size):
        raise DataError(
            f"says that it holds {metadata.num_rows:,} rows in {claimed / 2**20:,.0f} MB, but has {size:,} bytes",
            where=source,
            expected="a Parquet file that is what it says",
            remedy="export it again",
        )
