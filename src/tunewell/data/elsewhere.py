"""Data that is no plain file yet: spreadsheets, databases, files behind a URL. Each becomes a file in the cache.

    reviews.xlsx, reviews.xlsx#Sheet2
    sqlite:///reviews.db#reviews, postgresql://me@host/db#SELECT text, stars FROM reviews
    https://example.org/reviews.csv, s3://bucket/reviews.parquet, gs://..., az://...

A password in a URL would end up in the run's records, so that it is refused; `${NAME}` in a URL is filled in
from the environment each time.
"""

from __future__ import annotations

import contextlib
import csv
import logging
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tunewell.cache import cache_folder
from tunewell.data.columns import LABELS, TEXTS
from tunewell.data.header import LOOKED_AT, refuse_title
from tunewell.errors import DataError, nearest

DATABASES = ("sqlite", "postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle", "duckdb", "snowflake",
             "bigquery", "redshift", "cockroachdb")  # fmt: skip
BOOKS = (".xlsx", ".xlsm")
CHUNK = 10_000
UNPACKED = 2 << 30  # bytes that a spreadsheet may unpack to
REMOTE = 20 << 30  # bytes of a remote file
_URL = re.compile(r"^([a-z][a-z0-9+.\-]+)://", re.IGNORECASE)
_PACKAGES = {
    "http": "'tunewell[data]'", "https": "'tunewell[data]'", "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs",
    "az": "adlfs", "abfs": "adlfs", "hf": "huggingface_hub",
}  # fmt: skip


def is_elsewhere(source: str) -> bool:
    """Whether a source must be fetched or converted before it can be read.

    >>> [is_elsewhere(s) for s in ("a.csv", "a.xlsx", "a.xlsx#May", "s3://b/a.csv", "sqlite:///a.db#t", "me/data")]
    [False, True, True, True, True, False]
    """
    return bool(_URL.match(source)) or _book(source) is not None


def local(source: str) -> Path:
    """The file in the cache that holds the rows of a source for which `is_elsewhere` is true.

    Raises:
        DataError: not there, not reachable, a missing package, a password in the URL, no such sheet or table.
    """
    if (book := _book(source)) is not None:
        return _spreadsheet(*book, source)
    match = _URL.match(source)
    assert match is not None
    scheme = match[1].lower()
    _refuse_password(source)
    if scheme.partition("+")[0] in DATABASES:
        return _table(source)
    return _remote(source, scheme)


def _filled(source: str) -> str:
    """`${NAME}` from the environment."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise DataError(
                f"the environment variable {found[1]} is not set",
                where=source,
                expected="a value for ${" + found[1] + "}",
                remedy=f"export {found[1]}=...",
            )
        return os.environ[found[1]]

    return re.sub(r"\$\{(\w+)\}", value, source)


def _refuse_password(source: str) -> None:
    host = source.partition("://")[2].partition("/")[0]
    login, at, _ = host.rpartition("@")
    _, colon, password = login.partition(":")
    if at and colon and password and not re.fullmatch(r"\$\{\w+\}", password):
        raise DataError(
            "a password in the URL would be written into the run's records",
            where=source.replace(f":{password}@", ":***@"),
            expected="${NAME} in its place, filled in from the environment",
            remedy=f"export DB_PASSWORD=..., then {source.replace(f':{password}@', ':${DB_PASSWORD}@')}",
        )


# ---------------------------------------------------------------- spreadsheets


def _book(source: str) -> tuple[Path, str | None] | None:
    """Path and sheet of `book.xlsx` or `book.xlsx#Sheet`; None for any other source."""
    if _URL.match(source):
        return None
    if Path(source).suffix.lower() in BOOKS:
        return Path(source).expanduser(), None
    path, sign, sheet = source.rpartition("#")
    return (Path(path).expanduser(), sheet) if sign and Path(path).suffix.lower() in BOOKS else None


def _spreadsheet(path: Path, sheet: str | None, source: str) -> Path:
    from tunewell.data.load import missing_file
    from tunewell.extras import need
    from tunewell.folder import file_hash

    if not path.is_file():
        raise missing_file(path, source)
    need("data", source)
    target = cache_folder("data", f"{file_hash(path)[:20]}-{re.sub(r'[^0-9A-Za-z]+', '_', sheet or 'first')}.csv")
    return target if target.is_file() else _written(target, lambda part: _convert_book(path, sheet, source, part))


def _convert_book(path: Path, sheet: str | None, source: str, target: Path) -> None:
    import openpyxl

    try:
        with zipfile.ZipFile(path) as archive:
            if sum(item.file_size for item in archive.infolist()) > UNPACKED:
                raise DataError(
                    f"unpacks to more than {UNPACKED >> 30} GB",
                    where=source,
                    expected="a spreadsheet of ordinary size",
                    remedy="save it as CSV",
                )
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, TypeError) as error:
        raise DataError(
            f"is not a spreadsheet that can be read: {error}", where=source, expected="an .xlsx file",
            remedy="save it again, or as CSV UTF-8",
        ) from None  # fmt: skip
    try:
        if sheet is not None and sheet not in book.sheetnames:
            raise DataError(
                f"no sheet `{sheet}`",
                where=source,
                expected=", ".join(book.sheetnames),
                remedy=nearest(sheet, book.sheetnames),
            )
        page = book[sheet] if sheet is not None else book.worksheets[0]
        with target.open("w", encoding="utf-8", newline="") as file:
            writer, width = csv.writer(file), 0
            written = ([_cell(value) for value in row] for row in page.iter_rows(values_only=True))
            filled = (cells for cells in written if any(cells))
            first = list(islice(filled, LOOKED_AT))
            most = max(map(len, first), default=0)
            refuse_title([row + [""] * (most - len(row)) for row in first], {*TEXTS, *LABELS}, source=source)
            for cells in chain(first, filled):
                if not width:
                    while cells and not cells[-1]:
                        cells.pop()
                    width = len(cells)
                if width and any(cells[:width]):
                    writer.writerow(cells[:width] + [""] * (width - len(cells)))
            if not width:
                raise DataError("the sheet is empty", where=source, expected="a header and rows of data")
    finally:
        book.close()


def _cell(value: Any) -> str:
    """A cell as a CSV file would hold it: 5.0 is 5, dates are ISO dates."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return value.isoformat() if isinstance(value, (datetime, date, time)) else str(value)


# ---------------------------------------------------------------- databases


def _table(source: str) -> Path:
    """The rows of a table or query, written as Parquet under the hash of their content."""
    from tunewell.extras import need
    from tunewell.folder import file_hash

    need("data", _shown(source))
    url, sign, query = source.partition("#")
    if not sign or not query.strip():
        raise DataError(
            "names a database, but no table",
            where=_shown(source),
            expected="URL#TABLE, or URL#SELECT ... for a query",
            remedy=f"{_shown(url)}#reviews",
        )
    part = _written(cache_folder("data", f".sql-{os.getpid()}.parquet"), lambda path: _query(url, query, source, path))
    target = part.with_name(f"{file_hash(part)[:20]}.parquet")
    os.replace(part, target)
    return target


def _query(url: str, query: str, source: str, target: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import sqlalchemy as sql

    shown = _shown(source)
    try:
        parsed = sql.make_url(_filled(url))
        if parsed.drivername.startswith("postgres") and parsed.drivername in ("postgres", "postgresql"):
            parsed = parsed.set(drivername="postgresql+pg8000")
        if parsed.get_backend_name() == "sqlite":
            file = Path(parsed.database or "")
            if not file.is_file():
                raise DataError("no such database file", where=str(file), expected="an SQLite database")
            parsed = sql.make_url(f"sqlite:///file:{file.absolute()}?mode=ro&uri=true")
        engine = sql.create_engine(parsed)
    except (sql.exc.ArgumentError, sql.exc.NoSuchModuleError) as error:
        raise DataError(f"is no database URL: {error}", where=shown, expected="dialect://user@host/database") from None
    except ImportError as error:
        raise DataError(
            f"the driver of this database is not installed: {error.name}",
            where=shown,
            expected=f"the package {error.name}",
            remedy=f"pip install {error.name}",
        ) from None
    statement = sql.text(query) if re.match(r"\s*(select|with)\b", query, re.IGNORECASE) else None
    try:
        options: dict[str, Any] = {"stream_results": True, "max_row_buffer": CHUNK}
        if parsed.get_backend_name() == "postgresql":
            options["postgresql_readonly"] = True
        with _silent(), engine.connect().execution_options(**options) as connection:
            if statement is None:
                names = sql.inspect(connection).get_table_names() + sql.inspect(connection).get_view_names()
                if query.rpartition(".")[2] not in names and "." not in query:
                    raise DataError(
                        f"no table `{query}`",
                        where=shown,
                        expected="one of: " + ", ".join(names[:20]) if names else "a database with tables",
                        remedy=nearest(query, names),
                    )
                schema, _, name = query.rpartition(".")
                statement = sql.select(sql.text("*")).select_from(sql.table(name, schema=schema or None))  # type: ignore[assignment]
            result = connection.execute(statement)  # type: ignore[arg-type]
            writer: Any = None
            try:
                for rows in _chunks(result):
                    batch = pa.Table.from_pylist(rows, schema=writer.schema if writer else None)
                    if writer is None:
                        fields = [
                            pa.field(f.name, pa.string()) if pa.types.is_null(f.type) else f for f in batch.schema
                        ]
                        writer = pq.ParquetWriter(str(target), pa.schema(fields))
                    writer.write_table(batch.cast(writer.schema))
            finally:
                if writer is not None:
                    writer.close()
            if writer is None:
                raise DataError("has no rows", where=shown, expected="at least one row")
    except sql.exc.SQLAlchemyError as error:
        raise DataError(
            f"the database answers: {_said(error)}",
            where=shown,
            expected="a database that can be reached, and a query that it understands",
        ) from None
    except pa.ArrowException as error:
        raise DataError(
            f"a column holds values of several kinds: {str(error).splitlines()[0]}",
            where=shown,
            expected="one kind of value a column",
            remedy="cast it in the query: SELECT CAST(stars AS TEXT) AS stars, ...",
        ) from None
    finally:
        engine.dispose()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """No traces of a failed query's cursor in the log: the error itself is told."""
    log = logging.getLogger("sqlalchemy.pool")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


def _said(error: Any) -> str:
    """The sentence in a driver's error."""
    first = getattr(error, "orig", None) or error
    if first.args and isinstance(first.args[0], dict):  # pg8000 hands over the server's fields
        return str(first.args[0].get("M", first))
    return str(first).splitlines()[0]


def _chunks(result: Any) -> Iterator[list[dict[str, Any]]]:
    while rows := result.fetchmany(CHUNK):
        yield [{key: _plain(value) for key, value in row._mapping.items()} for row in rows]


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    return str(value) if isinstance(value, (bytes, memoryview)) else value


def _shown(source: str) -> str:
    return re.sub(r":(?!\$\{)[^:@/]*@", ":***@", source)


# ---------------------------------------------------------------- URLs


def _remote(source: str, scheme: str) -> Path:
    """A file behind a URL, fetched once as long as its size and mark (ETag, time) stay the same."""
    import fsspec

    from tunewell.data.arrow import fingerprint

    try:
        filesystem, path = fsspec.core.url_to_fs(_filled(source))
    except (ImportError, ValueError) as error:
        package = _PACKAGES.get(scheme)
        raise DataError(
            f"cannot read {scheme}:// URLs: {error}",
            where=source,
            expected=f"the package {package}" if package else "http, https, s3, gs, az, or a database",
            remedy=f"pip install {package}" if package else "",
        ) from None
    try:
        info = filesystem.info(path)
        size = info.get("size") or 0
        if info.get("type") == "directory":
            raise DataError("is a folder", where=source, expected="the URL of one file")
        if size > REMOTE:
            raise DataError(f"has {size:,} bytes", where=source, expected=f"at most {REMOTE:,}")
        marks = {k: str(info.get(k)) for k in ("size", "ETag", "etag", "mtime", "LastModified", "md5", "updated")}
        name = Path(path.partition("?")[0]).name or "data"
        target = cache_folder("data", f"{fingerprint('remote', source, marks)}-{name}")
        known = any(value != "None" for key, value in marks.items() if key != "size")
        if target.is_file() and known:
            return target
        return _written(target, lambda part: filesystem.get_file(path, str(part)))
    except DataError:
        raise
    except ImportError as error:
        raise DataError(f"{error}", where=source, remedy=f"pip install {_PACKAGES.get(scheme, scheme)}") from None
    except FileNotFoundError:
        raise DataError("no such file", where=source, expected="a URL that can be read") from None
    except Exception as error:  # whatever a network and its library say
        raise DataError(
            f"cannot be fetched: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            where=source,
            expected="a URL that can be reached from here",
            remedy="fetch the file and name it",
        ) from None


def _written(target: Path, write: Callable[[Path], Any]) -> Path:
    """Let `write` make a file under a temporary name, then put it in place."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".part")
        os.close(handle)
    except OSError as error:
        raise DataError(
            f"cannot write to the cache: {error.strerror or error}",
            where=str(target.parent),
            expected="a folder that can be written",
            remedy="set TUNEWELL_CACHE to another folder",
        ) from error
    try:
        write(Path(part))
        os.replace(part, target)
    finally:
        Path(part).unlink(missing_ok=True)
    return target
