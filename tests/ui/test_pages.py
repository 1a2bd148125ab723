"""`tunewell ui`: what is listed, what is shown, and that a broken run is named and not a trace."""

from __future__ import annotations

import fcntl
import os
import re
from html import unescape

import pytest
from click.testing import CliRunner

from tunewell.cli import app as command_line
from tunewell.errors import RunFolderError
from tunewell.ui.pages import preferred
from tunewell.ui.places import Place
from tunewell.ui.scan import Shelf, working
from tunewell.ui.words import BOTH, WORDS

from .conftest import NASTY, session


def test_every_run_is_listed_with_its_state(runs):
    found = {e.at: e for e in Shelf(Place(runs)).all()}
    assert {at: e.state for at, e in found.items()} == {
        "a": "finished", "deep/b": "finished", "broken": "broken", "stopped": "stopped", "seq": "finished",
    }  # fmt: skip
    assert found["a"].test.value == 0.75
    assert found["a"].date == "2026-01-02T03:04:05"
    assert found["broken"].why.startswith("summary.json: is damaged")
    assert (found["stopped"].model, found["stopped"].strategy) == ("tiny", "ewc")
    assert (found["seq"].kind, found["seq"].test.low, found["seq"].tasks) == ("sequence", 0.7, ("first", "second"))


@pytest.mark.parametrize("record", ["curve.json", "prune.json", "meta.json"])
def test_folders_of_other_commands_are_no_stopped_runs(tmp_path, record):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "steps.json").write_text("{}", encoding="utf-8")
    assert [e.state for e in Shelf(Place(tmp_path)).all()] == ["stopped"]
    (tmp_path / "x" / record).write_text("{}", encoding="utf-8")
    assert Shelf(Place(tmp_path)).all() == []


def test_a_folder_that_is_a_run_itself(runs):
    assert [(e.at, e.name) for e in Shelf(Place(runs / "a")).all()] == [(".", "a")]
    assert session(runs / "a").get("/run?at=.").status_code == 200


def test_changes_are_seen(tmp_path, make_records):
    make_records(tmp_path / "a")
    shelf = Shelf(Place(tmp_path))
    assert shelf.all()[0].state == "finished"
    (tmp_path / "a" / "summary.json").unlink()
    assert shelf.all()[0].state == "stopped"


def test_who_holds_the_lock_is_at_work(tmp_path, make_records):
    path = make_records(tmp_path / "a")
    shelf = Shelf(Place(tmp_path))
    (path / ".lock").write_text(str(os.getpid()), encoding="utf-8")
    assert working(path) is None  # named, and held by nobody
    with (path / ".lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert working(path) == os.getpid()
        assert shelf.entry(path).state == "working"
    assert shelf.entry(path).state == "finished"
    (path / ".lock").write_text("nobody", encoding="utf-8")
    assert working(path) is None


@pytest.mark.parametrize("at", ["a", "deep/b", "broken", "stopped", "seq"])
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_page_of_a_run(client, at, lang):
    html = client.get("/run", params={"at": at, "lang": lang}).text
    assert f'<html lang="{"zh-CN" if lang == "zh" else "en"}"' in html
    assert WORDS[lang]["files"] in html
    shown = {
        "a": ["0.7500", "[0.7400, 0.7600]", "0.9875", "HTML remains", "f1_macro"],
        "deep/b": ["baseline word: f1_macro", "keep"],
        "broken": [WORDS[lang]["broken_note"], "summary.json: is damaged"],
        "stopped": [WORDS[lang]["go_on"], "runs/stopped/recipe.yaml --output_dir /"],
        "seq": ["0.750", "[0.700, 0.800]", "first"],
    }[at]
    for text in shown:
        assert text in unescape(html), text
    assert "Traceback" not in html
    assert (f'href="/try?at={at}"' in html) == (at in ("a", "deep/b", "seq"))


def test_nothing_from_data_is_markup(client):
    for address in ("/", "/run?at=a"):
        html = client.get(address).text
        assert NASTY not in html
        assert "&lt;img src=x" in html


@pytest.mark.parametrize("address", ["/", "/run?at=a", "/run?at=broken", "/run?at=seq", "/nope"])
def test_pages_work_without_inline_code_and_for_screen_readers(client, address):
    html = client.get(address).text
    assert not re.search(r"\son\w+=\"|<script>|\sstyle=\"|javascript:", html)
    for needed in ("<main", "<header", "<nav aria-label=", 'class="skip" href="#main"', "<title>"):
        assert needed in html
    for control in re.findall(r"<(?:input|select|textarea)[^>]*>", html):
        name = re.search(r'id="([^"]+)"', control)
        assert "aria-label=" in control or (name and f'for="{name[1]}"' in html) or 'type="hidden"' in control, control
    assert len(re.findall(r"<h1", html)) == 1


def test_the_list_sorts_by_headers_that_say_so(client):
    html = client.get("/").text
    assert html.count('aria-sort="descending"') == 1
    assert html.count('class="sort"') == html.count("aria-sort=") == 8
    assert 'role="status"' in html


def test_language_follows_the_address_then_the_cookie_then_the_browser(client):
    assert WORDS["zh"]["runs"] in client.get("/", headers={"accept-language": "zh-CN,zh;q=0.9"}).text
    assert "<h1>Runs</h1>" in client.get("/", headers={"accept-language": "fr"}).text
    client.get("/?lang=zh")
    assert f"<h1>{WORDS['zh']['runs']}</h1>" in client.get("/").text
    assert preferred("zh;q=0, en;q=0.1") == "en"
    assert all(en and zh for en, zh in BOTH.values())


def test_a_report_is_shut_in(client):
    answer = client.get("/report?at=a")
    assert answer.text == "<script>1</script>"
    assert answer.headers["content-security-policy"].startswith("sandbox allow-scripts; default-src 'none'")
    assert "allow-same-origin" not in answer.headers["content-security-policy"]


def test_files_are_saved_and_not_shown(client):
    answer = client.get("/file?at=a&name=report.html")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert client.get("/file?at=a&name=train/training.json").status_code == 200


@pytest.mark.parametrize(
    "address",
    [
        "/run?at=../secret", "/run?at=out", "/run?at=/etc", "/run?at=", "/run?at=a/..", "/run?at=deep", "/run?at=%00",
        "/run?at=no", "/report?at=deep/b", "/report?at=stopped", "/file?at=a&name=../../recipe.yaml",
        "/file?at=a&name=.",
        "/file?at=a&name=/etc/passwd", "/file?at=deep/b&name=report.html", "/file?at=out&name=summary.json",
        "/run?at=" + "x" * 5000, "/static/words.py", "/static/..%2fapp.py",
    ],
)  # fmt: skip
def test_no_address_leads_out_of_the_folder(client, address):
    answer = client.get(address)
    assert answer.status_code == 404
    assert "secret" not in answer.text.replace("..%2Fsecret", "").replace("../secret", "")


def test_a_folder_that_is_not_there():
    with pytest.raises(RunFolderError, match="no such folder"):
        Place("/no/such/folder")
    result = CliRunner().invoke(command_line, ["ui", "/no/such/folder"])
    assert result.exit_code == 2
    assert "mkdir runs" in result.output


@pytest.mark.parametrize(
    "garbage",
    [
        b"[1]",
        pytest.param(b"", marks=pytest.mark.slow),
        pytest.param(b'{"a": {"b": "x"}}', marks=pytest.mark.slow),
        pytest.param(b"\xff\xfe\x00{", marks=pytest.mark.slow),
    ],
)
def test_whatever_a_file_of_a_run_holds_there_is_no_fault(tmp_path, make_records, garbage):
    make_records(tmp_path / "good")
    path = make_records(tmp_path / "bad")
    client = session(tmp_path)
    names = [p for p in sorted(path.rglob("*")) if p.is_file()]
    for file in [*names, path / "task.json", path / "steps.json", path / "sequence.json", path / "train/metrics.jsonl"]:
        before = file.read_bytes() if file.exists() else None
        file.write_bytes(garbage)
        for address in ("/", "/run?at=bad", "/live?at=bad", "/try?at=bad", "/compare?at=good&at=bad"):
            answer = client.get(address)  # a fault would be raised here
            assert answer.status_code in (200, 400), (file.name, address)
            assert "good" in answer.text or "bad" in answer.text, (file.name, address)
        file.unlink() if before is None else file.write_bytes(before)
