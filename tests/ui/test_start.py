"""Uploads, the form and the queue: what is not data is refused, mistakes stand by their fields, one job at a time."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from html import unescape

import pytest
import yaml

from tunewell.errors import DataError
from tunewell.recipe import Recipe
from tunewell.recipe_file import load_recipe
from tunewell.ui.form import LEFT_OUT, MAIN, form, placed, plain
from tunewell.ui.jobs import Queue, outcome
from tunewell.ui.places import Place
from tunewell.ui.uploads import MOST, data_files, folder_name, free, harmless

from .conftest import NASTY, session

CSV = b"review,stars\n" + b"fine,good\nbad thing,bad\n" * 3
# a stand-in for `tunewell`: writes its folder, and ends as its recipe's seed says
SCRIPT = """
import pathlib, signal, sys, time, yaml
recipe, out = yaml.safe_load(open(sys.argv[2])), pathlib.Path(sys.argv[4])
out.mkdir(exist_ok=True)
(out / "recipe.yaml").write_text("model: x")
print("\\x1b[1mworking\\x1b[0m on", recipe["train"], flush=True)
if recipe.get("seed") == 9:
    signal.signal(signal.SIGTERM, lambda *_: ((out / "saved").write_text("1"), sys.exit(143)))
    (out / "ready").write_text("1")
    time.sleep(60)
if recipe.get("seed") == 3:
    (out / "summary.json").write_text("{}")
    sys.exit(3)
sys.exit(recipe.get("seed", 0))
"""


def upload(client, name, content):
    return client.post("/upload", params={"name": name}, content=content,
                       headers={"content-type": "application/octet-stream"})  # fmt: skip


def until(check, seconds=20.0):
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.02)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def queue(folder, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    made = Queue(Place(folder), [sys.executable, str(script)])
    yield made
    made.close()


@pytest.fixture
def client(folder, queue):
    return session(folder, queue=queue, most=10_000)


# ---------------------------------------------------------------- uploads


def test_an_upload_is_kept_under_a_harmless_name(client, folder):
    answer = upload(client, "../../my data.CSV", CSV)
    assert (answer.status_code, answer.headers["x-go"]) == (200, "/start?file=uploads%2Fmy-data.csv")
    assert (folder / "uploads" / "my-data.csv").read_bytes() == CSV
    assert upload(client, "my data.csv", CSV).headers["x-go"].endswith("my-data-2.csv")  # nothing is overwritten
    assert not list((folder / ".tunewell-ui" / "incoming").iterdir())
    html = client.get(answer.headers["x-go"]).text
    assert "6 rows, csv" in html
    assert '<option value="review">' in html


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01", ""),
        ("a.parquet", b"PK\x03\x04 and so on", "is an archive"),
        ("a.parquet", CSV, "arquet"),
        ("a.csv", b"", "is empty"),
        ("a.csv", b"text,label\n", "no rows"),
        ("a.json", b'{"a": [1, 2', ""),
        ("a.jsonl", b'{"a": 1}\n{"a"', ""),
        ("a.csv", b"\x80\x04\x95\x10pickled", ""),
        ("a.exe", CSV, "ending .exe"),
        ("a", CSV, "ending"),
        ("a.csv", CSV * 400, "at most 10.0 kB"),
    ],
)
def test_an_upload_that_is_not_what_it_says_leaves_nothing(client, folder, name, content, said):
    answer = upload(client, name, content)
    assert answer.status_code == 400, answer.text
    assert said in unescape(answer.text)
    assert "verdict missed" in answer.text
    assert str(folder) not in answer.text
    assert not list((folder / "uploads").glob("*"))
    assert not (folder / ".tunewell-ui").exists() or not list((folder / ".tunewell-ui" / "incoming").iterdir())


def test_a_body_that_grows_past_the_bound_is_cut_off(client, folder):
    answer = upload(client, "a.csv", (CSV for _ in range(500)))  # without a content-length
    assert "is too large" in answer.text
    assert not list((folder / "uploads").glob("*"))
    assert client.post("/upload?name=a.csv", content=CSV).status_code == 415
    assert MOST == 500_000_000


def test_uploads_do_not_fill_the_disk(client, folder, monkeypatch):
    import shutil

    from tunewell.ui import uploads

    monkeypatch.setattr(uploads, "TOTAL", 3 * len(CSV))
    answers = [upload(client, f"{i}.csv", CSV) for i in range(4)]
    assert [a.status_code for a in answers] == [200, 200, 200, 400]
    said = unescape(answers[-1].text)
    assert "the uploads are too large together" in said
    assert "delete those files of runs/uploads that no run needs any more" in said
    assert sorted(p.name for p in (folder / "uploads").iterdir()) == ["0.csv", "1.csv", "2.csv"]
    (folder / "uploads" / "0.csv").unlink()
    assert upload(client, "again.csv", CSV).status_code == 200

    monkeypatch.setattr(uploads, "TOTAL", 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 10**12 - 10**6, 10**6))
    answer = upload(client, "more.csv", CSV)
    assert answer.status_code == 400
    assert "the disk is nearly full" in unescape(answer.text)
    assert not list((folder / ".tunewell-ui" / "incoming").iterdir())


def test_a_long_upload_is_looked_at_on_its_way(folder, monkeypatch):
    from tunewell.ui import uploads

    monkeypatch.setattr(uploads, "TOTAL", 1000)
    monkeypatch.setattr(uploads, "LOOKED", 100)
    taken = []

    async def parts():
        for i in range(1000):
            taken.append(i)
            yield CSV

    with pytest.raises(DataError, match="too large together"):
        asyncio.run(uploads.take_in(Place(folder), "a.csv", parts()))
    assert len(taken) * len(CSV) < 1000 + 100 + 3 * len(CSV)
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_names():
    assert harmless("con\x00trol\n.csv") == "con-trol.csv"
    assert harmless("..") == "data"
    assert len(harmless("x" * 500 + ".csv")) == 84
    assert folder_name(".hidden/../../x") == "hidden-x"


def test_files_inside_runs_and_links_are_not_offered(folder, tmp_path):
    (tmp_path / "secret.csv").write_bytes(CSV)
    (folder / "link.csv").symlink_to(tmp_path / "secret.csv")
    (folder / "a").mkdir()
    (folder / "a" / "steps.json").write_text("{}", encoding="utf-8")
    (folder / "a" / "predictions.csv").write_bytes(CSV)
    (folder / "own.csv").write_bytes(CSV)
    for name in ("export.json", "MLmodel", "tokenizer.json"):
        (folder / f"out-{name}" / "data").mkdir(parents=True)
        (folder / f"out-{name}" / name).write_text("{}", encoding="utf-8")
        (folder / f"out-{name}" / "data" / "example.json").write_text("[]", encoding="utf-8")
    assert [f.name for f in data_files(Place(folder))] == ["own.csv"]
    assert free(folder, "own.csv").name == "own-2.csv"
    client = session(folder)
    for asked in ("link.csv", "../secret.csv", "/etc/passwd", "no.csv"):
        assert client.get("/start", params={"file": asked}).status_code == 404


def test_cells_of_a_preview_are_text(client, folder):
    (folder / "own.csv").write_text(f'text,label\n"{NASTY.replace(chr(34), chr(34) * 2)}",x\n', encoding="utf-8")
    html = client.get("/start?file=own.csv").text
    assert NASTY not in html
    assert "&lt;img" in html


# ---------------------------------------------------------------- the form


def test_every_recipe_key_has_its_place():
    made = form({}, ["a", "b"], ["x.csv"])
    rest = [f.name for fields in made.rest.values() for f in fields]
    assert [f.name for f in made.main] == list(MAIN)
    assert sorted([*MAIN, *rest, *LEFT_OUT]) == sorted(Recipe.model_fields)
    fields = {f.name: f for f in [*made.main, *(f for fs in made.rest.values() for f in fs)]}
    assert fields["text"].choices == (("", "inferred"), ("a", "a"), ("b", "b"))
    assert ("sentiment", "sentiment") in fields["task"].choices
    assert fields["bf16"].choices[0] == ("", "default")
    assert fields["strict"].choices[0] == ("", "default (no)")
    assert "splade-tiny" in fields["model"].hints
    assert fields["keep"].numeric
    assert all(f.help for f in fields.values())


def test_what_is_typed_is_the_recipe_that_the_command_line_would_make():
    typed = {"keep": "0.98", "learning_rate": "5e-5", "strategy": "distill,average", "strict": "true", "seed": "7"}
    assert load_recipe(None, **plain(typed)) == load_recipe(
        None, keep=0.98, learning_rate=5e-5, strategy=["distill", "average"], strict=True, seed=7
    )


def test_all_mistakes_are_beside_their_fields(client, folder):
    (folder / "own.csv").write_bytes(CSV)
    (folder / "taken").mkdir()
    values = {"file": "own.csv", "name": "taken", "keep": "2", "strategy": "nonsense", "num_train_epochs": "many",
              "probe_files": "../secret.csv", "general_text": "/etc/passwd", "model": "../x", "seed": "1"}  # fmt: skip
    answer = client.post("/start", data=values)
    html = unescape(answer.text)
    assert answer.status_code == 400
    assert "7 mistakes to mend" in html
    for key in ("keep", "strategy", "num_train_epochs", "probe_files", "general_text", "model", "name"):
        field = html[html.index(f'id="k-{key}"') :]
        field = field[: field.index("</div>")]
        assert 'aria-invalid="true"' in field, key
        assert 'class="fault"' in field, key
    assert 'value="2"' in html  # what was typed is still there
    assert "less than or equal to 1" in html
    assert html.count("<details open>") == 1  # the section with a mistake in it, and no other
    assert not (folder / ".tunewell-ui").exists()


@pytest.mark.parametrize("length", [300, 3000])
def test_a_model_of_many_characters_is_no_fault_of_ours(client, queue, folder, length):
    """Longer than a file's name may be; above 2,000 characters it stands beside its field."""
    (folder / "own.csv").write_bytes(CSV)
    values = {"file": "own.csv", "name": "x", "model": "a" * length}
    answer = client.post("/start", data=values, follow_redirects=False)
    assert answer.status_code == (400 if length > 2000 else 303)
    assert ("more than 2,000 characters" in answer.text) == (length > 2000)


def test_a_form_of_many_fields_is_refused(client):
    assert client.post("/start", data={f"field{i}": "x" for i in range(501)}).status_code == 413
    assert client.post("/start", data={f"field{i}": "x" for i in range(400)}).status_code != 413


def test_mistakes_about_several_keys_stand_on_top(client, folder):
    (folder / "own.csv").write_bytes(CSV)
    answer = client.post("/start", data={"file": "own.csv", "name": "x", "text": "review", "text_pair": "review"})
    assert "text_pair must be another column than text" in answer.text
    bad = client.post("/start", data={"file": "../own.csv", "name": "x"})
    assert bad.status_code == 404
    assert client.post("/start", content=b"file=x", headers={"content-type": "text/plain"}).status_code == 415
    assert client.post("/start", data={"file": "x" * 600_000}).status_code == 413


# ---------------------------------------------------------------- the queue


def test_a_run_from_the_form(client, queue, folder):
    upload(client, "own.csv", CSV)
    values = {"file": "uploads/own.csv", "name": "my run", "label": "stars", "keep": "", "seed": "0",
              "trust_remote_code": "true", "output_dir": "/tmp/elsewhere"}  # fmt: skip
    answer = client.post("/start", data=values, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs")
    until(lambda: queue.all()[0].state == "finished")
    job = queue.all()[0]
    assert (job.at, job.code) == ("my-run", 0)
    recipe = yaml.safe_load((queue.folder / f"{job.id}.yaml").read_text(encoding="utf-8"))
    own = str(folder / "uploads" / "own.csv")  # whole, so that the recipe runs from anywhere
    assert recipe == {"train": own, "label": "stars", "seed": 0}
    assert queue.log(job.id) == f"working on {own}\n"
    html = client.get("/jobs").text
    assert f"working on {own}" in html
    assert 'href="/run?at=my-run"' not in html or "finished" in html
    assert "data-done" in client.get("/jobs?part=1").text
    again = client.post("/start", data={**values, "name": "my run"})
    assert "there is a folder of that name already" in unescape(again.text)


def test_one_job_at_a_time_and_cancelling(client, queue, folder):
    first, second = queue.add("first", "train: a\nseed: 9\n"), queue.add("second", "train: b\nseed: 9\n")
    until((folder / "first" / "ready").exists)
    assert [j.state for j in queue.all()] == ["waiting", "working"]
    assert queue.taken("second")
    assert "data-done" not in client.get("/jobs?part=1").text
    client.post("/jobs", data={"do": "cancel", "id": second.id})
    client.post("/jobs", data={"do": "cancel", "id": first.id})
    until(lambda: queue.all()[1].state == "cancelled")
    assert (folder / "first" / "saved").exists()  # SIGTERM, not SIGKILL
    assert queue.all()[0].state == "cancelled"
    assert not (folder / "second").exists()
    assert client.post("/jobs", data={"do": "cancel", "id": "no"}).status_code == 404
    assert client.post("/jobs", data={"do": "else", "id": first.id}).status_code == 400


def test_exit_codes(queue):
    ids = {code: queue.add(f"run-{code}", f"train: a\nseed: {code}\n").id for code in (0, 2, 3)}
    until(lambda: all(j.code is not None for j in queue.all()))
    assert {j.id: j.state for j in queue.all()} == {ids[0]: "finished", ids[2]: "failed", ids[3]: "missed"}
    assert outcome(-signal.SIGKILL, True, False) == "cancelled"
    assert outcome(1, False, True) == "failed"


def test_jobs_survive_a_restart_as_interrupted_and_go_on(queue, folder):
    job = queue.add("first", "train: a\nseed: 9\n")
    queue.add("second", "train: b\n")
    until((folder / "first" / "ready").exists)
    queue.close()
    assert (folder / "first" / "saved").exists()
    later = Queue(Place(folder), queue.command)
    assert {j.at: j.state for j in later.all()} == {"first": "interrupted", "second": "interrupted"}
    (later.folder / f"{job.id}.yaml").write_text("train: a\n", encoding="utf-8")
    later.again(job.id)
    until(lambda: {j.at: j.state for j in later.all()}["first"] == "finished")
    later.close()


def test_a_run_that_outlived_the_app_is_watched_by_its_lock(queue, folder):
    import fcntl

    job = queue.add("first", "train: a\n")
    until(lambda: queue.all()[0].state == "finished")
    queue.close()
    path = queue.folder / f"{job.id}.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"finished"', '"working"'), encoding="utf-8")
    (folder / "first" / ".lock").write_text(str(os.getpid()), encoding="utf-8")
    with (folder / "first" / ".lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        later = Queue(Place(folder), queue.command)
        assert later.all()[0].state == "working"
        (folder / "first" / "summary.json").write_text("{}", encoding="utf-8")
    assert later.all()[0].state == "finished"


def test_damaged_or_planted_jobs_are_left_out(queue, folder):
    queue.folder.mkdir(parents=True)
    (queue.folder / "x.json").write_text("{", encoding="utf-8")
    (queue.folder / "y.json").write_text('{"id": "y", "at": "../../elsewhere"}', encoding="utf-8")
    assert Queue(Place(folder)).all() == []
    with pytest.raises(Exception, match="no such job"):
        queue.cancel("x")


def test_the_app_s_own_folder_is_no_link(client, folder, tmp_path):
    (tmp_path / "else").mkdir()
    (folder / ".tunewell-ui").symlink_to(tmp_path / "else")
    with pytest.raises(DataError, match="is a link"):
        Queue(Place(folder)).add("x", "train: a\n")
    assert upload(client, "a.csv", CSV).status_code == 400
    assert not list((tmp_path / "else").iterdir())


def test_files_of_the_folder_are_written_whole(folder):
    (folder / "tiny").mkdir()
    (folder / "a.csv").write_bytes(CSV)
    found = placed(Place(folder), {"test": "a.csv", "model": "tiny", "probe_files": "a.csv, a.csv", "seed": 1})
    own = str(folder / "a.csv")
    assert found == {"test": own, "model": str(folder / "tiny"), "probe_files": f"{own},{own}", "seed": 1}
    assert placed(Place(folder), {"model": "splade-tiny"}) == {"model": "splade-tiny"}
