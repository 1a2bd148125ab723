"""The label page within the app: the same server, one room a file, nothing outside of the folder."""

from __future__ import annotations

import csv

import pytest

from .conftest import session


@pytest.fixture
def folder(tmp_path, save_csv):
    folder = tmp_path / "runs"
    folder.mkdir()
    save_csv(folder / "to-label.csv", [("1", "one", ""), ("2", "two", "bad")], ("rank", "text", "label"))
    save_csv(folder / "own.csv", [("x", "y")])
    save_csv(tmp_path / "secret.csv", [("x", "y")])
    (folder / "link.csv").symlink_to(tmp_path / "secret.csv")
    (folder / "bad.csv").write_text("a,b\n1\n", encoding="utf-8")
    return folder


def test_files_are_listed_those_of_select_first(folder):
    html = session(folder).get("/label").text
    assert html.index("Written by tunewell select") < html.index("to-label.csv") < html.index("Other files")
    assert html.index("Other files") < html.index("own.csv")
    assert "secret" not in html
    assert "link.csv" not in html


def test_a_label_is_in_the_file_at_once(folder):
    client = session(folder)
    room = client.get("/label?file=to-label.csv", follow_redirects=False).headers["location"]
    page = client.get(room)
    assert page.status_code == 200
    assert "sha256-" in page.headers["content-security-policy"]
    assert 'call("row/next")' in page.text  # relative: the room is part of the address
    assert client.get(f"{room}row/next").json()["row"]["text"] == "one"
    after = client.post(f"{room}label", json={"i": 0, "label": "good"}).json()
    assert after["done"] == 2
    with (folder / "to-label.csv").open(newline="") as file:
        assert [r["label"] for r in csv.DictReader(file)] == ["good", "bad"]
    assert (
        client.post(f"{room}label", json={"i": 0, "label": "x"}, headers={"origin": "http://evil"}).status_code == 403
    )


@pytest.mark.parametrize("name", ["link.csv", "../secret.csv", "no.csv", "/etc/passwd"])
def test_only_files_of_the_folder(folder, name):
    assert session(folder).get("/label", params={"file": name}).status_code == 404


def test_what_cannot_be_labelled(folder):
    client = session(folder)
    assert "more or fewer cells" in client.get("/label?file=bad.csv").text
    assert client.get("/labels/0123456789abcdef/").status_code == 404
    assert client.get("/labels/").status_code == 404
