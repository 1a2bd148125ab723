"""Data that is no plain file yet: spreadsheets, databases, files behind a URL. Each becomes a file in the cache.

    reviews.xlsx, reviews.xlsx#Sheet2
    sqlite:///reviews.db#reviews, postgresql://me@host/db#SELECT text, stars FROM reviews
    https://example.org/reviews.csv, s3://bucket/reviews.parquet, gs://..., az://...

A secret in a URL would end up in the run's records, so that it is refused; `${NAME}` in a URL is filled in
from the environment each time, see `secrets`.
"""

from __future__ import annotations

import csv
import os
import re
import tempfile
import zipfile
from collections.abc import Callable
from datetime import date, datetime, time
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tunewell.cache import cache_folder
from tunewell.data.columns import LABELS, TEXTS
from tunewell.data.header import LOOKED_AT, refuse_title
from tunewell.data.secrets import URL, filled, is_database, refuse_secret, scrubbed, shown
from tunewell.errors import DataError, nearest

BOOKS = (".xlsx", ".xlsm")
UNPACKED = 2 << 30  # bytes that a spreadsheet may unpack to
REMOTE = 20 << 30  # bytes of a remote file
_PACKAGES = {
    "http": "'tunewell[data]'", "https": "'tunewell[data]'", "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs",
    "az": "adlfs", "abfs": "adlfs", "hf": "huggingface_hub",
}  # fmt: skip


def is_elsewhere(source: str) -> bool:
    """Whether a source must be fetched or converted before it can be read.

    >>> [is_elsewhere(s) for s in ("a.csv", "a.xlsx", "a.xlsx#May", "s3://b/a.csv", "sqlite:///a.db#t", "me/data")]
    [False, True, True, True, True, False]
    """
    return bool(URL.match(source)) or _book(source) is not None


def local(source: str) -> Path:
    """The file in the cache that holds the rows of a source for which `is_elsewhere` is true.

    Raises:
        DataError: not there, not reachable, a missing package, a password in the URL, no such sheet or table.
    """
    if (book := _book(source)) is not None:
        return _spreadsheet(*book, source)
    match = URL.match(source)
    assert match is not None
    refuse_secret(source)
    return _table(source) if is_database(source) else _remote(source, match[1].lower())


# ---------------------------------------------------------------- spreadsheets


def _book(source: str) -> tuple[Path, str | None] | None:
    """Path and sheet of `book.xlsx` or `book.xlsx#Sheet`; None for any other source."""
    if URL.match(source):
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
    from tunewell.data.database import table_of, write_rows
    from tunewell.extras import need
    from tunewell.folder import file_hash

    need("data", shown(source))
    table_of(source)
    part = _written(cache_folder("data", f".sql-{os.getpid()}.parquet"), lambda path: write_rows(source, path))
    target = part.with_name(f"{file_hash(part)[:20]}.parquet")
    os.replace(part, target)
    return target


# ---------------------------------------------------------------- URLs


def _remote(source: str, scheme: str) -> Path:
    """A file behind a URL, fetched once as long as its size and mark (ETag, time) stay the same."""
    import fsspec

    from tunewell.data.arrow import fingerprint

    where, package = shown(source), _PACKAGES.get(scheme)
    try:
        filesystem, path = fsspec.core.url_to_fs(filled(source))
    except (ImportError, ValueError) as error:
        raise DataError(
            f"cannot read {scheme}:// URLs: {scrubbed(str(error), source)}",
            where=where,
            expected=f"the package {package}" if package else "http, https, s3, gs, az, or a database",
            remedy=f"pip install {package}" if package else "",
        ) from None
    try:
        info = filesystem.info(path)
        size = info.get("size") or 0
        if info.get("type") == "directory":
            raise DataError("is a folder", where=where, expected="the URL of one file")
        if size > REMOTE:
            raise DataError(f"has {size:,} bytes", where=where, expected=f"at most {REMOTE:,}")
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
        raise DataError(scrubbed(str(error), source), where=where, remedy=f"pip install {package or scheme}") from None
    except Exception as error:  # whatever a network and its library say
        raise _unreached(error, source) from None


def _unreached(error: BaseException, source: str) -> DataError:
    """Why a URL could not be fetched. fsspec says of every fault of HTTP that there is no such file, and keeps the
    fault itself as its cause."""
    where, seen = shown(source), {id(error)}
    while isinstance(error, FileNotFoundError) and (cause := error.__cause__) is not None and id(cause) not in seen:
        error = cause
        seen.add(id(error))
    status = getattr(error, "status", None)  # of aiohttp's ClientResponseError
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return DataError("no such file", where=where, expected="a URL that can be read")
    if status in (401, 403):
        return DataError(
            f"may not be read: the server answers {status}",
            where=where,
            expected="a URL that may be read from here",
            remedy="a token or signature that the server asks for goes into the URL as ${NAME}, from the environment",
        )
    said = str(error).splitlines()[0] if str(error) else ""
    said = f"the server answers {status}" if status else f"{type(error).__name__}: {scrubbed(said, source)}"
    return DataError(
        f"cannot be fetched: {said}",
        where=where,
        expected="a URL that can be reached from here",
        remedy="look at the host's name and at the connection, or fetch the file and name it",
    )


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
