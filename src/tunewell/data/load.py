"""Any data file as a `datasets.Dataset`, whole and in order, with what had to be guessed.

CSV, TSV, JSON, JSONL (also .gz), Parquet, Arrow, gettext catalogues, translation memories, a folder of `datasets`,
packaged tables and hub ids. Small files are held in memory, large ones go through an Arrow file in the cache and
are mapped into memory.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tunewell import assets
from tunewell.data import annotated, arrow, bilingual, bounds, elsewhere, hub
from tunewell.data.delimited import Delimited
from tunewell.data.encoding import Encoding, detect
from tunewell.data.jsonfile import JsonFile
from tunewell.data.secrets import shown
from tunewell.errors import DataError, nearest

if TYPE_CHECKING:
    from datasets import Dataset

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".po": "po",
    ".tmx": "tmx",
}
_REFUSED = {
    "excel": ("is a spreadsheet", "in the spreadsheet program: save as CSV UTF-8"),
    "pickle": ("is a pickle, which can run code when it is opened", "write the data as Parquet or JSONL"),
    "zip": ("is an archive", "unpack it and name the file inside"),
}
_REFUSED_ENDINGS = {
    **dict.fromkeys((".xls", ".ods", ".numbers"), "excel"),
    **dict.fromkeys((".pkl", ".pickle", ".pt", ".pth", ".joblib"), "pickle"),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst"), "zip"),
}


@dataclass(frozen=True)
class Loaded:
    """A data file's rows and what was found out on the way."""

    dataset: Dataset
    source: str  # as it may be shown, see data/secrets.py; row i is cited as f"{source}:{i + 1}"
    format: str
    encoding: str | None  # of text files
    notices: tuple[str, ...]
    objects: dict[str, int] = field(default_factory=dict)  # column of JSON -> first row with an object in it
    labels: tuple[str, ...] = ()  # of an export of annotations: the columns with what was asked
    file: Path | None = None  # where the rows lie here


def load(path: str | Path, *, encoding: str = "auto") -> Loaded:
    """Read a data file: its own columns, all rows, in the file's order.

    Cells of CSV and TSV stay text. A file is converted once and found again in the cache as long as it
    does not change (large ones only).

    Args:
        path: a file, a folder written by `datasets` (`folder:split` names a split), or a hub id.
        encoding: of a text file; "auto" detects it and says so in `notices`.

    Raises:
        DataError: the file is missing, empty, not readable, or not what its name says; a row is broken.
    """
    source = str(path)
    try:
        return _load(source, encoding)
    except PermissionError as error:
        raise DataError(
            "no permission to read",
            where=error.filename or source,
            expected="a file that you may read",
            remedy="change its permissions, or those of the folders above it",
        ) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=source) from error


def _load(source: str, encoding: str) -> Loaded:
    if not source.strip():
        raise DataError("no data file is named", where="train", expected="a file, a `datasets` folder or a hub id")
    if elsewhere.is_elsewhere(source):
        file = elsewhere.local(source)
        return replace(_load_file(file, shown(source), encoding), file=file)
    file = Path(source).expanduser()
    base, split = hub.split_suffix(source)
    folder = Path(base).expanduser()
    if file.is_dir():
        dataset, notices = hub.load_folder(file, None, source)
        return Loaded(_not_empty(dataset, source), source, "datasets folder", None, tuple(notices))
    if split is not None and folder.is_dir():
        dataset, notices = hub.load_folder(folder, split, source)
        return Loaded(_not_empty(dataset, source), source, "datasets folder", None, tuple(notices))
    if file.is_file():
        return replace(_load_file(file, source, encoding), file=file)
    if file.exists():
        raise DataError("is no ordinary file", where=source, expected="a data file")
    if (asset := assets.find(source, "data")) is not None:
        from tunewell.data.ui_strings import load_asset

        return Loaded(load_asset(asset), source, "packaged table", None, ())
    if Path(source).suffix.lower() not in FORMATS and hub.is_hub_id(source):
        dataset, notices = hub.load_hub(base, split, source)
        return Loaded(_not_empty(dataset, source), source, "hub", None, tuple(notices))
    raise missing_file(file, source)


def _load_file(file: Path, source: str, encoding: str) -> Loaded:
    size = file.stat().st_size
    if size == 0:
        raise DataError("is empty", where=source, expected="rows of data")
    kind, zipped = file_format(file, source)
    large = size * (8 if zipped else 1) > arrow.IN_MEMORY
    key = arrow.file_fingerprint(file, source, encoding)
    if large and (found := arrow.cached_dataset(key)):
        dataset, notes = found
        return Loaded(
            dataset, source, notes["format"], notes["encoding"], tuple(notes["notices"]), notes.get("objects", {})
        )

    if kind in ("parquet", "arrow"):
        reader = arrow.parquet_batches if kind == "parquet" else arrow.ipc_batches
        batches, schema = reader(file, source)
        notes = {"format": kind, "encoding": None, "notices": []}
        dataset = arrow.build(batches, lambda: schema, key, large=large, notes=lambda: notes)
        return Loaded(_not_empty(dataset, source), source, kind, None, ())

    def opener() -> IO[bytes]:
        return bounds.unpacking(file, source) if zipped else file.open("rb")

    if kind in ("po", "tmx"):
        try:
            dataset, skipped = bilingual.read(kind, opener, source)
        except (gzip.BadGzipFile, EOFError) as error:
            raise DataError(f"not a gzip file, or cut short: {error}", where=source) from None
        return Loaded(dataset, source, kind, None, tuple(skipped))

    try:
        found_encoding = detect(opener, source, encoding)
        text = _open_text(kind, opener, found_encoding, source)
        if (export := _export(kind, text, opener, source)) is not None:
            rows = JsonFile(lambda: io.BytesIO(export.lines()), Encoding("utf-8"), source, lines=True)
            dataset = arrow.build(rows.batches(), lambda: rows.schema, key, large=False, notes=dict)
            said = (*export.notices, *rows.notices)
            return Loaded(dataset, source, kind, found_encoding.codec, said, labels=export.labels)

        def text_notes() -> dict[str, object]:
            objects = getattr(text, "objects", {})
            return {"format": kind, "encoding": found_encoding.codec, "notices": text.notices, "objects": objects}

        dataset = arrow.build(text.batches(), lambda: text.schema, key, large=large, notes=text_notes)
    except (gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"not a gzip file, or cut short: {error}", where=source, remedy="compress it again") from None
    return Loaded(dataset, source, kind, found_encoding.codec, tuple(text.notices), getattr(text, "objects", {}))


def records_of(loaded: Loaded, encoding: str = "auto") -> Iterator[dict[str, Any]] | None:
    """The records of a JSON or JSONL file as they stand in it, one for each row; None of any other source.

    In `dataset` nested values are JSON: whether a cell was an object or a text that looks like one is not told there.
    """
    file = loaded.file
    if file is None or loaded.format not in ("json", "jsonl") or loaded.labels:
        return None
    _, zipped = file_format(file, loaded.source)

    def opener() -> IO[bytes]:
        return bounds.unpacking(file, loaded.source) if zipped else file.open("rb")

    text = _open_text(loaded.format, opener, detect(opener, loaded.source, encoding), loaded.source)
    assert isinstance(text, JsonFile)
    return (record for record, _ in text.records())


def _export(kind: str, text: Delimited | JsonFile, opener, source: str) -> annotated.Export | None:
    if isinstance(text, JsonFile):
        return annotated.read(opener, source)
    if not annotated.is_table(text.columns):
        return None
    return annotated.by_annotation([row for batch in text.batches() for row in batch.to_pylist()], source)


def _open_text(kind: str, opener, encoding: Encoding, source: str) -> Delimited | JsonFile:
    if kind in ("json", "jsonl"):
        return JsonFile(opener, encoding, source, lines=kind == "jsonl")
    return Delimited(opener, encoding, source, delimiter="\t" if kind == "tsv" else ",")


def file_format(file: Path, source: str) -> tuple[str, bool]:
    """The format by the name's ending, checked against the first bytes; and whether it is gzip."""
    endings = [s.lower() for s in file.suffixes]
    with file.open("rb") as stream:
        head = stream.read(8)
    zipped = head.startswith(b"\x1f\x8b")
    if zipped:
        endings = endings[:-1] if endings and endings[-1] in (".gz", ".gzip") else endings
        with gzip.open(file, "rb") as stream:
            try:
                head = stream.read(8)
            except (OSError, EOFError) as error:
                raise DataError(f"not a gzip file, or cut short: {error}", where=source) from None
    ending = endings[-1] if endings else ""
    content = _content(head)
    if content in _REFUSED or ending in _REFUSED_ENDINGS:
        what, remedy = _REFUSED[content if content in _REFUSED else _REFUSED_ENDINGS[ending]]
        if ending in _REFUSED_ENDINGS:  # an .xlsx is a zip file inside
            what, remedy = _REFUSED[_REFUSED_ENDINGS[ending]]
        raise DataError(what, where=source, expected=_expected(), remedy=remedy)
    kind = FORMATS.get(ending) or content
    if kind in ("parquet", "arrow") and content != kind and content is not None:
        raise DataError(
            f"not a {kind.capitalize()} file: it begins with {head[:4]!r}", where=source,
            remedy="give it the ending of what it is",
        )  # fmt: skip
    if content in ("parquet", "arrow"):
        kind = content
    if kind in ("parquet", "arrow") and zipped:
        raise DataError("is compressed a second time with gzip", where=source, remedy="unpack it with gunzip")
    return kind or "csv", zipped


def _content(head: bytes) -> str | None:
    """The format that the first bytes give away; None when they do not."""
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"ARROW1") or head.startswith(b"\xff\xff\xff\xff"):
        return "arrow"
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head.startswith(b"\xd0\xcf\x11\xe0"):
        return "excel"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
        return "json"
    return None


def _expected() -> str:
    return (
        "CSV, TSV, JSON, JSONL, Parquet, Arrow, XLSX, .po, .tmx, a URL, a database URL, a `datasets` folder or a hub id"
    )


def _not_empty(dataset: Dataset, source: str) -> Dataset:
    if len(dataset) == 0:
        raise DataError("has no rows", where=source, expected="at least one row")
    return dataset


def missing_file(file: Path, source: str) -> DataError:
    folder = file.parent
    if not folder.is_dir():
        return DataError("no such folder", where=str(folder), expected=f"a folder with {file.name} in it")
    names = [f.name for f in folder.iterdir() if f.is_file()]
    here = sorted(n for n in names if Path(n).suffix.lower() in FORMATS)
    hint = nearest(file.name, names)
    if not hint and here:
        hint = "the folder has " + ", ".join(here[:5]) + (", ..." if len(here) > 5 else "")
    return DataError("no such file", where=source, expected=_expected(), remedy=hint)
