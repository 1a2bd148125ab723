"""Rows on their way into a `datasets.Dataset`: in memory when small, through an Arrow file when large.

The Arrow files live in tunewell's cache folder, are written whole or not at all, and are removed when
they have not been used for a month.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tunewell.cache import cache_folder
from tunewell.data.bounds import READ_AHEAD, bounded_columns, bounded_parquet
from tunewell.errors import DataError
from tunewell.seal import sha256_of

if TYPE_CHECKING:
    from datasets import Dataset

IN_MEMORY = 32 << 20  # bytes of source below which rows are held in memory
BATCH_ROWS = 20_000
KEPT_DAYS = 30
FORMAT = 2  # raise when the way rows are read changes, so that old cache files are not taken


def fingerprint(*parts: Any) -> str:
    """A short hash of whatever decides about the rows: file, size, time, settings."""
    return hashlib.sha256(json.dumps([FORMAT, *parts], default=str).encode()).hexdigest()[:24]


def file_fingerprint(path: Path, *parts: Any) -> str:
    """The fingerprint of a file as it is now, by name, size and modification time, and of the settings."""
    state = path.stat()
    return fingerprint(str(path.resolve()), state.st_size, state.st_mtime_ns, *parts)


def cached_dataset(key: str) -> tuple[Dataset, dict[str, Any]] | None:
    """The data set and notes that `build` stored under this key, or None, also where the file is damaged since."""
    file = _file(key)
    try:
        notes = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        if notes.pop("sha256") != sha256_of(file):
            return None
        dataset = _mapped(file, key)
    except (OSError, ValueError, KeyError, AttributeError, TypeError):  # pa.ArrowInvalid is a ValueError
        return None
    with contextlib.suppress(OSError):
        os.utime(file)
    return dataset, notes


def build(
    batches: Iterable[pa.RecordBatch],
    schema: Callable[[], pa.Schema],
    key: str,
    *,
    large: bool,
    notes: Callable[[], dict[str, Any]] = dict,
) -> Dataset:
    """Make a data set of record batches.

    Args:
        batches: read once, in order.
        schema: asked after the first batch was read (a CSV file's columns are known only then).
        key: fingerprint of what the rows were made from.
        large: write to an Arrow file in the cache and map it into memory, holding one batch at a time.
        notes: asked after the last batch; stored beside the file for `cached_dataset`.

    Raises:
        DataError: the cache folder cannot be written or the disk is full.
    """
    from datasets import Dataset
    from datasets.table import InMemoryTable

    stream = iter(batches)
    first = next(stream, None)
    if not large:
        rows = [] if first is None else [first, *stream]
        return Dataset(InMemoryTable(pa.Table.from_batches(rows, schema=schema())), fingerprint=key)
    file = _file(key)
    temporary = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _prune(file.parent)
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".part")
        with os.fdopen(handle, "wb") as out, pa.ipc.new_stream(out, schema()) as writer:
            if first is not None:
                writer.write_batch(first)
            for batch in stream:
                writer.write_batch(batch)
        os.replace(temporary, file)
        temporary = None
        _write_notes(file.with_suffix(".json"), {**notes(), "sha256": sha256_of(file)})
    except OSError as error:
        raise DataError(
            f"cannot write the converted data: {error.strerror or error}",
            where=str(file.parent),
            expected="a folder that can be written, with free disk space of about the size of the data",
            remedy="free some space, or set TUNEWELL_CACHE to another folder",
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
    return _mapped(file, key)


def _write_notes(path: Path, notes: dict[str, Any]) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(notes), encoding="utf-8")
    os.replace(part, path)


def _file(key: str) -> Path:
    return cache_folder("data", f"{key}.arrow")


def _mapped(file: Path, key: str) -> Dataset:
    from datasets import Dataset
    from datasets.table import MemoryMappedTable

    return Dataset(MemoryMappedTable.from_file(str(file)), fingerprint=key)


def _prune(folder: Path) -> None:
    """Remove what nobody used for a month; a file that another process has open stays readable there."""
    limit = time.time() - KEPT_DAYS * 86400
    for file in folder.iterdir():
        with contextlib.suppress(OSError):
            if file.stat().st_mtime < limit and not file.with_suffix(".arrow").stat().st_mtime >= limit:
                file.unlink()


def plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with strings as `string` and categories as their values, so that later rooms see few types."""
    columns = [_plain_array(column) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=plain_schema(batch.schema))


def plain_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema([f.with_type(_plain_type(f.type)) for f in schema], metadata=schema.metadata)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or kind == pa.string_view():
        return pa.string()
    if pa.types.is_large_list(kind):
        return pa.list_(_plain_type(kind.value_type))
    return kind


def _plain_array(array: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(array.type):
        return _plain_array(array.dictionary_decode())
    wanted = _plain_type(array.type)
    return array if wanted == array.type else array.cast(wanted)


def parquet_batches(path: Path, source: str) -> tuple[Iterator[pa.RecordBatch], pa.Schema]:
    """Rows of a Parquet file, a batch at a time."""
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=READ_AHEAD)
        bounded_parquet(file.metadata, path.stat().st_size, source)
        return (plain(b) for b in _checked(file.iter_batches(BATCH_ROWS), source, "Parquet")), plain_schema(
            file.schema_arrow
        )
    except (pa.ArrowException, OSError, EOFError, MemoryError, UnicodeDecodeError) as error:
        raise _damaged(source, "Parquet", error) from None


def ipc_batches(path: Path, source: str) -> tuple[Iterator[pa.RecordBatch], pa.Schema]:
    """Rows of an Arrow IPC (Feather version 2) file or stream, memory-mapped."""
    mapped = pa.memory_map(str(path))
    try:
        try:
            file = pa.ipc.open_file(mapped)
            batches: Iterator[pa.RecordBatch] = (file.get_batch(i) for i in range(file.num_record_batches))
        except pa.ArrowInvalid:
            mapped.seek(0)
            file = pa.ipc.open_stream(mapped)
            batches = iter(file)
    except (pa.ArrowException, OSError, MemoryError) as error:
        raise _damaged(source, "Arrow", error) from None
    bounded_columns(file.schema.names, source)
    return (plain(b) for b in _checked(batches, source, "Arrow")), plain_schema(file.schema)


def _checked(batches: Iterator[pa.RecordBatch], source: str, kind: str) -> Iterator[pa.RecordBatch]:
    try:
        yield from batches
    except (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError) as error:
        raise _damaged(source, kind, error) from None


def _damaged(source: str, kind: str, error: BaseException) -> DataError:
    return DataError(
        f"not a {kind} file, or damaged: {str(error).splitlines()[0] if str(error) else 'it ends too early'}",
        where=source,
        expected=f"a {kind} file",
        remedy="export it again, or give it the extension of what it is",
    )
