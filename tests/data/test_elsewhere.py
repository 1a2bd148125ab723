"""Spreadsheets, databases and URLs become rows; passwords stay out of the records; nothing is written to a database."""

from __future__ import annotations

import datetime
import functools
import http.server
import os
import sqlite3
import zipfile

import pytest

from tunewell.data.elsewhere import is_elsewhere
from tunewell.data.load import load
from tunewell.data.rows import open_rows
from tunewell.errors import DataError

openpyxl = pytest.importorskip("openpyxl")
pytest.importorskip("sqlalchemy")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEWELL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def book(tmp_path):
    """Two sheets: numbers, dates, line breaks, empty rows and cells behind the header's end."""
    out = openpyxl.Workbook()
    first = out.active
    first.title = "May"
    first.append(["text", "stars", "day", "ok"])
    first.append(['good, "really"\nand more', 5, datetime.date(2026, 5, 1), True])
    first.append([None, None, None, None])
    first.append(["床前明月光", 4.5, None, False, "a stray cell"])
    second = out.create_sheet("June")
    second.append(["text", "stars"])
    second.append(["=1+1", 3])
    path = tmp_path / "reviews.xlsx"
    out.save(path)
    return path


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "reviews.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table reviews (text text, stars integer, note text)")
        rows = [(f"review number {i}", i % 5 + 1, None) for i in range(25_000)]
        connection.executemany("insert into reviews values (?, ?, ?)", rows)
        connection.execute("create view best as select text from reviews where stars = 5")
        connection.execute("create table bare (text text)")
    return path


def test_a_spreadsheet(book):
    may = load(book)
    assert may.source == str(book)
    assert may.dataset.to_list() == [
        {"text": "good, \"really\"\nand more", "stars": "5", "day": "2026-05-01T00:00:00", "ok": "true"},
        {"text": "床前明月光", "stars": "4.5", "day": "", "ok": "false"},
    ]  # fmt: skip
    assert load(f"{book}#June").dataset["stars"][:] == ["3"]


def test_a_changed_spreadsheet_is_read_again(book):
    before = load(book).dataset["text"][0]
    out = openpyxl.load_workbook(book)
    out["May"]["A2"] = "changed"
    out.save(book)
    assert (before, load(book).dataset["text"][0]) == ('good, "really"\nand more', "changed")


def test_a_table_a_view_and_a_query(database):
    table = load(f"sqlite:///{database}#reviews").dataset
    assert (len(table), table[24_999]["text"], table[1]["stars"]) == (25_000, "review number 24999", 2)
    assert table.column_names == ["text", "stars", "note"]
    assert len(load(f"sqlite:///{database}#best").dataset) == 5_000
    query = load(f"sqlite:///{database}#SELECT text AS words FROM reviews WHERE stars < 3 LIMIT 7").dataset
    assert query.column_names == ["words"]
    assert len(query) == 7


def test_a_run_trains_on_a_table(database, tiny_model, tmp_path):
    import tunewell

    with sqlite3.connect(database) as connection:
        connection.execute("create table few as select text, stars from reviews limit 120")
    options = {
        "train": f"sqlite:///{database}#few", "label": "stars", "task": "text-classification", "probes": "none",
        "model": str(tiny_model), "explain": 0, "num_train_epochs": 1, "bf16": False, "max_length": 32,
        "output_dir": str(tmp_path / "run"), "progress": False,
    }  # fmt: skip
    said: list[str] = []
    run = tunewell.run(**options, echo=said.append)
    assert run.summary.n_train > 50
    said.clear()
    tunewell.run(**options, echo=said.append)
    assert not any(line.startswith("tune: ") for line in said)  # the same rows: nothing to do
    with sqlite3.connect(database) as connection:
        connection.execute("update few set text = 'another text' where rowid = 1")
    tunewell.run(**options, echo=said.append)
    assert any(line.startswith("tune: ") for line in said)  # other rows


def test_nothing_is_written_to_a_database(database):
    before = database.read_bytes()
    for query in (
        "DROP TABLE reviews",
        "DELETE FROM reviews",
        "SELECT 1; DROP TABLE reviews",
        "WITH x AS (SELECT 1) DELETE FROM reviews",
    ):
        with pytest.raises(DataError):
            load(f"sqlite:///{database}#{query}")
    assert database.read_bytes() == before


@pytest.fixture
def site(tmp_path, serving):
    """A web server on this machine: its address and the folder that it serves."""
    folder = tmp_path / "site"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    return serving(functools.partial(Quiet, directory=str(folder))), folder


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_file_behind_a_url(site):
    address, folder = site
    (folder / "reviews.csv").write_text("text,label\ngood,1\n", encoding="utf-8")
    found = load(f"{address}/reviews.csv")
    assert found.dataset.to_list() == [{"text": "good", "label": "1"}]
    assert found.source == f"{address}/reviews.csv"
    (folder / "reviews.csv").write_text("text,label\nbad and longer,0\n", encoding="utf-8")
    assert load(f"{address}/reviews.csv").dataset["text"][:] == ["bad and longer"]
    with open_rows(f"{address}/reviews.csv") as rows:
        assert [row["text"] for chunk in rows for row in chunk.rows] == ["bad and longer"]
    with pytest.raises(DataError, match="no such file"):
        load(f"{address}/none.csv")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("postgresql://me:secret@host/db#t", "a password in the URL"),
        ("postgresql://me:${NOT_SET_HERE}@host/db#t", "NOT_SET_HERE is not set"),
        ("sqlite:///{db}", "names a database, but no table"),
        ("sqlite:///{db}#review", "did you mean `reviews`?"),
        ("sqlite:///{db}#SELECT nonsense FROM reviews", "the database answers: no such column: nonsense"),
        ("sqlite:///{db}#bare", "has no rows"),
        ("sqlite:///none.db#t", "no such database file"),
        ("foo://host/x.csv", "cannot read foo:// URLs"),
        ("{book}#July", "no sheet `July`"),
        ("none.xlsx", "no such file"),
        ("{bad}", "is not a spreadsheet"),
        ("{empty}", "the sheet is empty"),
    ],
)
def test_mistakes(source, says, database, book, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.xlsx").write_bytes(b"PK\x03\x04" + b"\0" * 60)
    openpyxl.Workbook().save(tmp_path / "empty.xlsx")
    for name, path in (("db", database), ("book", book), ("bad", "bad.xlsx"), ("empty", "empty.xlsx")):
        source = source.replace("{" + name + "}", str(path)) if "${" not in source else source
    assert is_elsewhere(source)
    with pytest.raises(DataError) as error:
        load(source)
    assert says in str(error.value)
    assert "secret" not in str(error.value)
    cache = tmp_path / "cache" / "data"
    assert not cache.exists() or not [p for p in cache.iterdir() if p.name.startswith(".")]  # nothing half-written


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    import tunewell.data.elsewhere as elsewhere

    monkeypatch.setattr(elsewhere, "UNPACKED", 1000)
    with zipfile.ZipFile(tmp_path / "bomb.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", "0" * 5000)
    with pytest.raises(DataError, match="unpacks to more than"):
        load(tmp_path / "bomb.xlsx")


@pytest.mark.skipif("TUNEWELL_TEST_POSTGRES" not in os.environ, reason="names no PostgreSQL server to test with")
def test_postgresql():
    """TUNEWELL_TEST_POSTGRES=postgresql://user:${PASSWORD}@host/db, a database that may be read."""
    url = os.environ["TUNEWELL_TEST_POSTGRES"]
    found = load(f"{url}#SELECT 'a text' AS text, 1.5::numeric AS score, DATE '2026-05-01' AS day")
    assert found.dataset.to_list() == [{"text": "a text", "score": 1.5, "day": "2026-05-01"}]
    for query in ("WITH x AS (DELETE FROM reviews RETURNING text) SELECT text FROM x", "DROP TABLE reviews"):
        with pytest.raises(DataError):
            load(f"{url}#{query}")
