"""`tunewell label`: every answer saved at once, other columns untouched, this machine only."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from tunewell.cli import app
from tunewell.errors import DataError
from tunewell.selection.sheet import Sheet

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from tunewell.selection.service import create_app

HEADER = ("rank", "row", "text", "label", "prediction", "probability")
ROWS = [
    ("1", "7", 'a, "quoted"\ntext', "", "good", "0.7"),
    ("2", "9", "床前明月光", "bad", "bad", "0.6"),
    ("3", "2", "third", "", "", ""),
]


@pytest.fixture
def path(tmp_path, save_csv):
    return save_csv(tmp_path / "to-label.csv", ROWS, HEADER)


@pytest.fixture
def client(path):
    return TestClient(create_app(Sheet(str(path))), base_url="http://127.0.0.1:1")


def read(path):
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_an_answer_is_in_the_file_at_once(path, client):
    first = client.get("/row/next").json()
    assert (first["n"], first["done"], first["labels"]) == (3, 1, ["bad", "good"])
    assert first["row"] == {"i": 0, "text": ROWS[0][2], "label": "", "prediction": "good", "probability": 0.7}
    after = client.post("/label", json={"i": 0, "label": " good "}).json()
    assert (after["done"], after["row"]["i"], after["row"]["probability"]) == (2, 2, None)  # row 1 has one already
    rows = read(path)
    assert [r["label"] for r in rows] == ["good", "bad", ""]
    assert [[r[c] for c in HEADER if c != "label"] for r in rows] == [[*r[:3], *r[4:]] for r in ROWS]
    client.post("/label", json={"i": 2, "label": "新的"})
    assert client.get("/row/1").json()["labels"] == ["bad", "good", "新的"]
    assert client.post("/label", json={"i": 1, "label": ""}).json()["done"] == 2  # taken away
    assert [r["label"] for r in read(path)] == ["good", "", "新的"]
    assert not [p for p in path.parent.iterdir() if p != path]  # nothing half-written beside it


def test_jsonl_keeps_what_else_a_row_holds(tmp_path):
    path = tmp_path / "rows.jsonl"
    odd = "two\u2028three"  # a line end to Python, and not to JSON
    path.write_text(f'{{"text": "one", "tags": [1, 2]}}\n\n{{"text": "{odd}", "label": null}}\n', encoding="utf-8")
    sheet = Sheet(str(path), labels=("y", "x"))
    sheet.set(1, "x")
    assert [json.loads(line) for line in path.read_bytes().splitlines()] == [
        {"text": "one", "tags": [1, 2]}, {"text": odd, "label": "x"},
    ]  # fmt: skip
    assert sheet.labels == ["y", "x"]
    assert sheet.next_empty(1) == 0
    sheet.set(0, "y")
    assert sheet.next_empty(0) is None


def test_a_text_of_any_length_is_labelled_and_kept(tmp_path):
    path = tmp_path / "long.csv"
    path.write_text(f"text,label\n{'long ' * 40_000},\nshort,b\n", encoding="utf-8")
    limit = csv.field_size_limit(131_072)
    try:
        sheet = Sheet(str(path))
        sheet.set(0, "a")
        assert [row["label"] for row in Sheet(str(path)).rows] == ["a", "b"]
        assert len(Sheet(str(path)).show(0)["text"]) == 200_000
    finally:
        csv.field_size_limit(limit)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"json": {"i": 9, "label": "x"}}, 404),
        ({"json": {"i": -1, "label": "x"}}, 422),
        ({"json": {"i": 0, "label": "x\ny"}}, 409),
        ({"json": {"i": 0, "label": "x" * 300}}, 422),
        ({"json": {"i": 0}}, 422),
        ({"json": {"i": 0, "label": "x", "more": 1}}, 422),
        ({"data": {"i": 0, "label": "x"}}, 415),
        ({"content": b"{}", "headers": {"content-type": "text/plain"}}, 415),
        ({"json": {"i": 0, "label": "x"}, "headers": {"host": "evil.example"}}, 421),
        ({"content": b" " * 5000, "headers": {"content-type": "application/json"}}, 413),
    ],
)
def test_what_is_refused_changes_nothing(path, client, request_, status):
    before = path.read_bytes()
    answer = client.post("/label", **request_)
    assert answer.status_code == status
    assert answer.json()["error"]["what"]
    assert path.read_bytes() == before


def test_the_page_and_its_headers(client):
    answer = client.get("/")
    assert "script-src 'sha256-" in answer.headers["content-security-policy"]
    assert answer.headers["x-frame-options"] == "DENY"
    assert "<script src" not in answer.text
    assert client.get("/row/99").status_code == 404
    assert client.get("/row/x").status_code == 422
    assert client.get("/row/1", headers={"host": "evil.example:80"}).status_code == 421
    assert client.get("/docs").status_code == 404


def test_a_disk_that_cannot_be_written_takes_the_label_back(path, monkeypatch):
    import tunewell.selection.sheet as sheets
    from tunewell.errors import RunFolderError

    def full(*_):
        raise RunFolderError("cannot write: no space left", where=str(path))

    sheet = Sheet(str(path))
    monkeypatch.setattr(sheets, "write_whole", full)
    answer = TestClient(create_app(sheet), base_url="http://localhost").post("/label", json={"i": 0, "label": "good"})
    assert answer.status_code == 409
    assert "no space left" in answer.json()["error"]["what"]
    assert sheet.show(0)["label"] == ""


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("none.csv", None, "no such file"),
        ("rows.xlsx", "x", "cannot label .xlsx in place"),
        ("empty.csv", "text,label\n", "no rows"),
        ("ragged.csv", "text,label\na,b,c\n", "ragged.csv:1"),
        ("rows.jsonl", "[1]\n", "rows.jsonl:1"),
        ("latin.csv", "text\ncaf\xe9\n", "cannot be read"),
        ("numbers.csv", "row,label\n,\n", "no column holds text"),
    ],
)
def test_files_that_cannot_be_labelled(tmp_path, name, content, says):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError) as error:
        Sheet(str(path))
    assert says in str(error.value)
    assert CliRunner().invoke(app, ["label", str(path), "--no-browser"]).exit_code == 2


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_the_command_answers_and_ends(path):
    line = [sys.executable, "-m", "tunewell", "label", str(path), "--no-browser"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("1 of 3 rows are labelled; label the rest at http://127.0.0.1:")
        url = said.split()[-1]
        for _ in range(100):
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    assert b"tunewell: label" in answer.read()
                break
            except OSError:
                import time

                time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
        assert "1 of 3 rows are labelled" in error
        assert "Traceback" not in error
        assert process.returncode in (0, 130)
