"""The try-it box and the curves: what a model says, whose words decided, how far a run is."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from html import unescape

import pytest

from tunewell.errors import DataError, ModelError
from tunewell.predict import load_predictor
from tunewell.ui.live import live, planned, read_log, series
from tunewell.ui.places import Place
from tunewell.ui.scan import Shelf
from tunewell.ui.tryit import LONGEST, Desk
from tunewell.ui.words import WORDS

from .conftest import NASTY, session


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, make_records, tiny_classifier):
    """Two finished runs with models: a, and b without task.json; c has lost its model."""
    folder = tmp_path_factory.mktemp("tuned")
    for name in "abc":
        make_records(folder / name)
    spec = {"name": "text-classification", "labels": ["negative", "positive"], "multi_label": False,
            "metric": "f1_macro", "pair": False}  # fmt: skip
    task = {"spec": spec, "columns": {"text": "text"}, "max_length": 32}
    (folder / "a" / "task.json").write_text(json.dumps(task), encoding="utf-8")
    for name in "ab":
        shutil.copytree(tiny_classifier, folder / name / "model", dirs_exist_ok=True)
    return folder


def entry(folder, name):
    return Shelf(Place(folder)).entry(folder / name)


def test_the_answer_is_the_model_s(tuned):
    text = "the crew was lovely"
    found = Desk().ask(entry(tuned, "a"), text, None)
    expected = load_predictor(tuned / "a").predict_batch([text])[0]
    assert found.said == expected["prediction"]
    assert dict(found.bars) == pytest.approx(expected["probabilities"])
    assert found.bars[0][1] >= found.bars[1][1]


def test_one_model_at_a_time(tuned, monkeypatch):
    import tunewell.predict as predict

    loaded, real = [], predict.load_predictor
    monkeypatch.setattr(predict, "load_predictor", lambda path, **o: loaded.append(path.name) or real(path, **o))
    desk = Desk()
    for name in ("a", "a", "b", "a"):
        desk.ask(entry(tuned, name), "fine", None)
        assert desk._held[0][0] == tuned / name
    assert loaded == ["a", "b", "a"]


def test_what_cannot_be_asked(tuned):
    desk = Desk()
    with pytest.raises(DataError, match="no text"):
        desk.ask(entry(tuned, "a"), " \n", None)
    with pytest.raises(DataError, match="characters"):
        desk.ask(entry(tuned, "a"), "x" * (LONGEST + 1), None)
    with pytest.raises(ModelError):
        desk.ask(entry(tuned, "c"), "fine", None)


def test_the_box(tuned):
    client = session(tuned)
    assert 'for="text"' in client.get("/try?at=a").text
    said = client.post("/try?at=a", data={"text": "the crew was lovely", "explain": ""})
    assert said.status_code == 200
    assert 'max="1" value="' in said.text
    assert "x_title" not in said.text and WORDS["en"]["x_title"] not in said.text
    why = unescape(client.post("/try?at=a", data={"text": f"the crew was lovely {NASTY}", "explain": "1"}).text)
    assert WORDS["en"]["x_title"] in why
    assert 'class="for s' in why or 'class="against s' in why
    raw = client.post("/try?at=a", data={"text": NASTY, "explain": "1"}).text
    assert NASTY not in raw
    assert "style=" not in raw
    lost = client.post("/try?at=c", data={"text": "fine"})
    assert lost.status_code == 400
    assert "verdict missed" in lost.text
    assert client.post("/try?at=nope", data={"text": "fine"}).status_code == 404
    assert client.post("/try?at=a", data={"text": "x" * 300_000}).status_code == 413


def test_what_would_turn_it_and_the_rows_behind_it(tiny_model, make_reviews, save_csv, tmp_path):
    """Rows where the run's index is there; before, and where the training file is gone, the rest stands alone."""
    import tunewell
    from tunewell.explain.counterfactual.search import counterfactuals
    from tunewell.explain.influence.attribute import Influence

    text = "the crew was awful and the seat was broken"
    folder = tmp_path / "runs"
    train = save_csv(tmp_path / "reviews.csv", make_reviews(80))
    run = tunewell.run(
        train=str(train), model=str(tiny_model), probes="none", explain=0, num_train_epochs=1, bf16=False, threads=1,
        output_dir=str(folder / "a"), echo=lambda line: None, progress=False,
    )  # fmt: skip
    asked = {"text": text, "explain": "1"}
    client = session(folder)
    first = unescape(client.post("/try?at=a", data=asked).text)
    assert f"tunewell influence {run.dir}" in first
    (turned,) = counterfactuals(run.predictor, [text], most=3, rows=400)
    assert (WORDS["en"]["x_without"] if turned.without else WORDS["en"]["x_stays"]) in first
    (wanted,) = Influence(run.dir).explain([text])
    then = unescape(client.post("/try?at=a", data=asked).text)
    assert "tunewell influence" not in then
    for row in (*wanted.supports, *wanted.opposes):
        assert f'<td class="n">{row.score:+.2f}</td><td>{row.label}</td><td dir="auto">{row.text}</td>' in then
    assert "x_behind" not in then and WORDS["en"]["x_behind"] in then
    assert WORDS["en"]["x_behind"] not in client.post("/try?at=a", data={"text": text, "explain": ""}).text
    train.unlink()
    alone = unescape(session(folder).post("/try?at=a", data=asked).text)
    assert WORDS["en"]["x_title"] in alone
    assert WORDS["en"]["x_behind"] not in alone


# ---------------------------------------------------------------- curves


@pytest.fixture
def at_work(tmp_path):
    """A run in its first epoch of two, its lock held by this process."""
    path = tmp_path / "a"
    (path / "train").mkdir(parents=True)
    (path / "recipe.yaml").write_text("num_train_epochs: 2.0\n", encoding="utf-8")
    (path / "steps.json").write_text('{"check": "1", "baselines": "2"}', encoding="utf-8")
    rows = [{"loss": 1 / s, "learning_rate": 1e-5 * s, "epoch": s / 50, "step": s} for s in range(1, 41)]
    rows += [{"eval_f1_macro": 0.5, "epoch": 0.8, "step": 40}, {"kept_estimate": 0.99, "step": 40},
             {"loss": "nan", "step": 41, "epoch": 0.82}]  # fmt: skip
    log = "".join(json.dumps(r) + "\n" for r in rows)
    (path / "train" / "metrics.jsonl").write_text(log + '{"loss": 0.0', encoding="utf-8")
    (path / ".lock").write_text(str(os.getpid()), encoding="utf-8")
    with (path / ".lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path


def test_how_far_a_run_is(at_work):
    found = live(entry(at_work.parent, "a"), WORDS["en"])
    assert (found.phase, found.step, found.steps) == ("tuning", 41, 100)
    assert found.share == 0.41
    assert list(found.curves) == [
        "Training loss", "Validation score: f1_macro", "Kept, estimated while tuning", "learning rate",
    ]  # fmt: skip
    assert found.done == ("check", "baselines")
    rows = read_log(at_work / "train" / "metrics.jsonl")
    assert len(rows) == 43  # the half-written line is left for the next look
    assert len(series(rows, "loss")) == 40  # a loss that is no number has no place
    assert series([{"step": i, "x": i} for i in range(10_000)], "x")[-1] == (9999.0, 9999.0)


def test_a_checkpoint_knows_the_steps(at_work):
    state = at_work / "train" / "checkpoints" / "checkpoint-40"
    state.mkdir(parents=True)
    (state / "trainer_state.json").write_text('{"max_steps": 77}', encoding="utf-8")
    assert planned(at_work / "train", [], {}) == 77
    assert planned(at_work, [{"step": 5, "epoch": 0.5}], {"max_steps": 30}) == 30
    assert planned(at_work, [], {}) == 0


def test_the_part_that_is_looked_at_again(at_work):
    client = session(at_work.parent)
    part = client.get("/live?at=a&part=1").text
    assert "step 41 of about 100" in part
    assert "<html" not in part
    assert "data-done" not in part
    assert "data-poll=" in client.get("/live?at=a").text
    (at_work / ".lock").write_text("", encoding="utf-8")
    assert "data-done" in client.get("/live?at=a&part=1").text


def test_a_run_without_a_step_and_a_search(tmp_path):
    (tmp_path / "a" / "train" / "lpft").mkdir(parents=True)
    (tmp_path / "a" / "steps.json").write_text("{}", encoding="utf-8")
    assert WORDS["en"]["l_none"] in session(tmp_path).get("/live?at=a").text
    (tmp_path / "a" / "train" / "lpft" / "metrics.jsonl").write_text('{"loss": 1.0, "step": 1}\n', encoding="utf-8")
    found = live(entry(tmp_path, "a"), WORDS["en"])
    assert (found.part, found.step, found.steps, found.share) == ("train/lpft", 1, 0, None)
