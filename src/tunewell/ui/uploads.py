"""Files that a browser sends, bounded, harmlessly named and read before they are kept; data files that are here."""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from tunewell.errors import DataError, TunewellError
from tunewell.shown import cut
from tunewell.ui.pages import size
from tunewell.ui.places import Place
from tunewell.ui.scan import is_run

OWN = ".tunewell-ui"  # the app's own folder beneath the one that it shows
UPLOADS = "uploads"
TABLES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json", ".parquet", ".arrow", ".feather", ".xlsx")
ENDINGS = (*TABLES, ".po", ".tmx")
MOST = 500_000_000  # bytes of a file
TOTAL = 20_000_000_000  # bytes of all uploads together
SPARE = 1_000_000_000  # bytes of the disk that stay free: runs write there too
LOOKED = 16_000_000  # bytes between two looks at what is left
LONGEST = 80  # characters of a name
FILES = 200  # listed at most
SHOWN, CELL = 5, 160  # rows of a preview, characters of a cell


@dataclass(frozen=True)
class Preview:
    """What a data file holds."""

    name: str
    columns: tuple[str, ...]
    rows: int
    format: str
    first: tuple[tuple[str, ...], ...]
    notices: tuple[str, ...] = ()


def harmless(name: str) -> str:
    """A file name without folders, hidden dots or anything but letters, digits, `-`, `_` and `.`.

    >>> harmless("../../etc/my data (1).CSV"), harmless("C:\\\\x\\\\评论.jsonl"), harmless(".csv")
    ('my-data-1.csv', '评论.jsonl', 'data.csv')
    """
    name = unicodedata.normalize("NFC", name).replace("\\", "/").rsplit("/", 1)[-1]
    stem, dot, ending = name.rpartition(".")
    if not dot:
        stem, ending = name, ""
    stem = re.sub(r"[^\w.-]+", "-", stem).strip("-._") or "data"
    ending = re.sub(r"\W+", "", ending).lower()
    stem = stem[:LONGEST].encode()[: 3 * LONGEST].decode("utf-8", "ignore").strip("-._")
    return f"{stem}.{ending[:10]}" if ending else stem


def folder_name(name: str) -> str:
    """A name for a new run's folder; empty where nothing is left of what was typed.

    >>> folder_name(" my run/../x "), folder_name("..")
    ('my-run-x', '')
    """
    name = unicodedata.normalize("NFC", name).strip()
    return re.sub(r"-{2,}", "-", re.sub(r"[^\w-]+", "-", name)).strip("-_")[:LONGEST]


def free(folder: Path, name: str) -> Path:
    """A path that is not taken: name.csv, name-2.csv, ..."""
    stem, dot, ending = name.partition(".")
    n, path = 1, folder / name
    while path.exists() or path.is_symlink():
        n += 1
        path = folder / f"{stem}-{n}{dot}{ending}"
    return path


async def take_in(place: Place, name: str, parts: AsyncIterator[bytes], most: int = MOST) -> Path:
    """Store a file that comes in parts, if it is data; nothing stays of one that is not.

    Returns:
        Its place beneath uploads/.

    Raises:
        DataError: another ending than a data file's, too large, no room, or not what its ending says.
    """
    from starlette.concurrency import run_in_threadpool

    clean = harmless(name)
    if not clean.endswith(ENDINGS):
        raise DataError(
            f"has the ending {Path(clean).suffix or '(none)'}", where=clean, expected=", ".join(ENDINGS)
        )  # fmt: skip
    waiting = own_folder(place) / "incoming" / uuid4().hex
    waiting.mkdir(parents=True)
    try:
        count = looked = 0
        _need_room(place)
        with (waiting / clean).open("wb") as file:
            async for part in parts:
                count += len(part)
                if count > most:
                    raise DataError("is too large", where=clean, expected=f"at most {size(most)}")
                file.write(part)
                if count - looked > LOOKED:
                    looked = count
                    file.flush()
                    _need_room(place)
        _need_room(place)
        await run_in_threadpool(read, waiting / clean)
        (place.folder / UPLOADS).mkdir(exist_ok=True)
        kept = free(place.folder / UPLOADS, clean)
        os.replace(waiting / clean, kept)
        return kept
    except OSError as error:
        raise DataError(f"cannot be stored: {error.strerror}", where=clean, expected="free disk space") from None
    finally:
        shutil.rmtree(waiting, ignore_errors=True)


def _need_room(place: Place) -> None:
    """Refuse to fill the disk, by large files or by many; what is on its way counts.

    Raises:
        DataError: with how to make room.
    """
    held = 0
    for top in (place.folder / UPLOADS, place.folder / OWN / "incoming"):
        for folder, _, names in os.walk(top):
            for name in names:
                with suppress(OSError):  # gone meanwhile
                    held += os.lstat(os.path.join(folder, name)).st_size
    remedy = f"delete those files of {place.name}/{UPLOADS} that no run needs any more"
    if held > TOTAL:
        raise DataError("the uploads are too large together", where=UPLOADS, expected=f"at most {size(TOTAL)}",
                        remedy=remedy)  # fmt: skip
    if shutil.disk_usage(place.folder).free < SPARE:
        raise DataError("the disk is nearly full", where=place.name, expected=f"at least {size(SPARE)} free",
                        remedy=remedy)  # fmt: skip


def own_folder(place: Place) -> Path:
    """The app's own folder, made when first needed; never a link that leads elsewhere."""
    path = place.folder / OWN
    if path.is_symlink():
        raise DataError("is a link", where=OWN, expected="a folder of the app's own", remedy="remove it")
    path.mkdir(exist_ok=True)
    return path


def preview(path: Path) -> Preview:
    """A data file's columns, number of rows and first rows.

    Raises:
        TunewellError: it cannot be read as data.
    """
    found = path.stat()
    return _preview(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=8)
def _preview(path: Path, changed: int, length: int) -> Preview:
    return read(path)


def read(path: Path) -> Preview:
    """See `preview`; errors name the file and not the machine's folders."""
    from tunewell.data.load import load

    try:
        loaded = load(str(path))
        data = loaded.dataset
        columns = tuple(data.column_names)
        if not columns or not len(data):
            raise DataError("has no rows", where=path.name, expected="at least one row")
        rows = [data[i] for i in range(min(SHOWN, len(data)))]
    except TunewellError as error:
        where = error.where.replace(str(path), path.name)
        raise type(error)(
            error.what.replace(str(path), path.name), where=where, expected=error.expected, remedy=error.remedy
        ) from None
    except (OSError, ValueError, MemoryError) as error:
        raise DataError(f"cannot be read ({type(error).__name__})", where=path.name, expected="a data file") from None
    first = tuple(tuple(_cell(row[c]) for c in columns) for row in rows)
    return Preview(path.name, columns, len(data), loaded.format, first, tuple(map(str, loaded.notices))[:5])


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return cut(text, CELL)


OF_MODELS = ("export.json", "tokenizer.json", "MLmodel")  # what lies beside them is no data


def data_files(place: Place, endings: tuple[str, ...] = ENDINGS) -> list[Path]:
    """Data files beneath the folder, the newest first; links and what is in runs, models and exports are left out."""
    out: list[tuple[float, Path]] = []
    for folder, inner, names in os.walk(place.folder):
        path = Path(folder)
        a_model = path != place.folder and any(name in names for name in OF_MODELS)
        if is_run(path) or a_model or len(path.relative_to(place.folder).parts) > 4:
            inner.clear()
            continue
        inner[:] = [n for n in inner if not n.startswith(".")]
        for name in names:
            file = path / name
            if name.lower().endswith(endings) and not name.startswith(".") and not file.is_symlink():
                out.append((file.stat().st_mtime, file))
    return [file for _, file in sorted(out, reverse=True)[:FILES]]
