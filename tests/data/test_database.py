"""Rows of a database: columns that begin empty, files with odd names, drivers by the name to install them by."""

from __future__ import annotations

import http.server
import random
import socket
import sqlite3
from pathlib import Path

import pytest

from tunewell.data.load import load
from tunewell.errors import DataError

pytest.importorskip("sqlalchemy")
N = 10_000  # rows that are read at once


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEWELL_CACHE", str(tmp_path / "cache"))


def made(path: Path, columns: str, rows: list[tuple]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as connection:
        connection.execute(f"create table t ({columns})")
        connection.executemany(f"insert into t values ({','.join('?' * len(rows[0]))})", rows)
    connection.close()
    return path


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([None] * N + [3, None], [None] * N + [3, None]),
        ([None] * N + ["a"], [None] * N + ["a"]),
        ([None] * N + [None] * N + [0.5], [None] * N * 2 + [0.5]),
        ([1] * N + [2.5], [1.0] * N + [2.5]),
        ([None] * N + [1] * N + [2.5, None], [None] * N + [1.0] * N + [2.5, None]),
        ([2.5] * N + [1], [2.5] * N + [1.0]),
        ([None] * (N + 1), [None] * (N + 1)),
    ],
)
def test_a_column_whose_kind_comes_to_light_late(tmp_path, values, kept):
    database = made(tmp_path / "a.db", "text, x", [(f"row {i}", x) for i, x in enumerate(values)])
    found = load(f"sqlite:///{database}#t").dataset
    assert found["x"][:] == kept
    assert found["text"][-1] == f"row {len(values) - 1}"
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.suffix != ".parquet"]


def test_columns_of_generated_kinds(tmp_path, monkeypatch):
    """Four columns that change at random places, against the rows themselves."""
    monkeypatch.setattr("tunewell.data.database.CHUNK", 50)
    draw = random.Random(7)

    def column(n: int) -> list:
        starts = sorted(draw.sample(range(1, n), 2))
        kinds = draw.choice([(None, 1, 1.5), (None, None, 1), (1, None, 2.5), (None, None, None), ("a", None, "b")])
        return [kinds[sum(i >= s for s in starts)] for i in range(n)]

    for turn in range(8):
        rows = list(zip(*(column(157) for _ in range(4)), strict=True))
        database = made(tmp_path / f"{turn}.db", "a, b, c, d", rows)
        found = load(f"sqlite:///{database}#t").dataset
        assert [tuple(row.values()) for row in found.to_list()] == rows  # 1 == 1.0


def test_kinds_without_anything_in_common_are_still_told(tmp_path):
    database = made(tmp_path / "a.db", "x", [(1,)] * N + [("one",)])
    with pytest.raises(DataError, match="values of several kinds") as told:
        load(f"sqlite:///{database}#t")
    assert "CAST(" in told.value.remedy
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


@pytest.mark.parametrize("folder", ["a#b", "a?b", "a%b", "a%20b", "a b", "a?mode=rwc&b", "é#?%25"])
def test_a_file_in_a_folder_with_an_odd_name_is_read_and_nothing_made(tmp_path, folder):
    database = made(tmp_path / folder / "reviews.db", "text", [("good",)])
    before = sorted(p for p in tmp_path.rglob("*") if "cache" not in p.parts)
    assert load(f"sqlite:///{database}#t").dataset["text"][:] == ["good"]
    assert load(f"sqlite:///{database}#SELECT text AS b FROM t WHERE text != '#'").dataset["b"][:] == ["good"]
    assert sorted(p for p in tmp_path.rglob("*") if "cache" not in p.parts) == before
    database.unlink()
    with pytest.raises(DataError, match="no such database file"):
        load(f"sqlite:///{database}#t")
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and "cache" not in p.parts]


def test_percent_encoded_names_and_options_as_sqlalchemy_reads_them(tmp_path):
    database = made(tmp_path / "a b" / "reviews.db", "text", [("good",)])
    address = str(database).replace(" ", "%20")
    assert load(f"sqlite:///{address}#t").dataset["text"][:] == ["good"]
    assert load(f"sqlite:///{database}?timeout=3#t").dataset["text"][:] == ["good"]


def test_two_columns_of_one_name_are_not_made_one(tmp_path):
    database = made(tmp_path / "a.db", "id, text", [(1, "good")])
    query = f"sqlite:///{database}#SELECT a.id, b.id, a.text FROM t a JOIN t b"
    with pytest.raises(DataError, match="two columns are called `id`") as told:
        load(query)
    assert " AS other_id" in told.value.remedy
    named = load(f"sqlite:///{database}#SELECT a.id, b.id AS other_id, a.text FROM t a JOIN t b").dataset
    assert named.to_list() == [{"id": 1, "other_id": 1, "text": "good"}]


@pytest.mark.parametrize(
    ("url", "package"),
    [
        ("mysql://me@host/db", "mysqlclient"),
        ("mariadb://me@host/db", "mysqlclient"),
        ("mysql+mysqlconnector://me@host/db", "mysql-connector-python"),
        ("duckdb:///shop.duckdb", "duckdb-engine"),
        ("snowflake://me@account/db", "snowflake-sqlalchemy"),
        ("bigquery://project", "sqlalchemy-bigquery"),
        ("redshift://me@host/db", "sqlalchemy-redshift"),
        ("cockroachdb://me@host/db", "sqlalchemy-cockroachdb"),
        ("postgresql+psycopg2://me@host/db", "psycopg2-binary"),
    ],
)
def test_a_missing_driver_is_named_as_it_is_installed(url, package):
    import sqlalchemy

    try:
        sqlalchemy.create_engine(url)
    except (ImportError, sqlalchemy.exc.NoSuchModuleError):
        pass
    else:
        pytest.skip("this driver is installed")
    with pytest.raises(DataError) as told:
        load(f"{url}#t")
    assert told.value.remedy == f"pip install {package}"


@pytest.fixture
def broken_site(serving):
    """A server that answers with the status that the path names."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(int(self.path.strip("/").partition(".")[0]))

        do_HEAD = do_GET  # noqa: N815 - the server's own name for it

        def log_message(self, *_):
            pass

    return serving(Answer)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("status", "says"),
    [
        (404, "no such file"),
        (410, "no such file"),
        (403, "may not be read: the server answers 403"),
        (500, "cannot be fetched: the server answers 500"),
    ],
)
def test_what_a_server_answers(broken_site, status, says):
    with pytest.raises(DataError) as told:
        load(f"{broken_site}/{status}.csv")
    assert told.value.what == says


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_nobody_there_is_not_no_such_file():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(DataError, match=r"cannot be fetched: ClientConnector.*Cannot connect to host"):
        load(f"http://127.0.0.1:{port}/a.csv")
    with pytest.raises(DataError, match=r"cannot be fetched: .*no\.such\.host\.invalid"):
        load("http://no.such.host.invalid/a.csv")
