"""`tunewell select`: from a pool to a file for people, and back with their labels; mistakes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import tunewell
from tunewell.cli import app
from tunewell.errors import DataError
from tunewell.selection.advice import Advice, advice
from tunewell.selection.labelled import read_labelled


@pytest.fixture
def place(tmp_path, monkeypatch, make_reviews, save_csv):
    """A folder with pool.csv (100 texts, 2 copies, 1 empty), labelled.csv (40) and test.csv (20)."""
    monkeypatch.chdir(tmp_path)
    rows = make_reviews(160)
    pool = [(t,) for t, _ in rows[:100]]
    save_csv(tmp_path / "pool.csv", [*pool, pool[0], (pool[1][0].upper(),), (" ",)], ("text",))
    save_csv(tmp_path / "labelled.csv", rows[100:140])
    save_csv(tmp_path / "test.csv", rows[140:])
    return tmp_path


def run(*args):
    return CliRunner().invoke(app, ["select", *map(str, args)])


def read(path):
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_from_nothing_to_labels_and_back(place, tiny_model):
    first = run("pool.csv", "--n", 20, "--model", tiny_model)
    assert first.exit_code == 0, first.output
    assert "20 of 100 rows by typiclust: to-label.csv" in first.stdout
    assert "left out: 2 the same as another" in first.stdout
    assert "left out: 1 empty" in first.stdout
    rows = read("to-label.csv")
    pool = read("pool.csv")
    assert [r["rank"] for r in rows] == [str(i) for i in range(1, 21)]
    assert all(pool[int(r["row"]) - 1]["text"] == r["text"] and r["label"] == "" for r in rows)

    for i, row in enumerate(rows[:15]):  # someone fills in most of it
        row["label"] = ("negative", "positive")[i % 2]
    with Path("to-label.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    line = ("pool.csv", "--n", 10, "--model", tiny_model, "--labelled", "to-label.csv", "--labelled", "labelled.csv")
    second = run(*line, "-o", "next.csv")
    assert second.exit_code == 0, second.output
    assert "5 rows without a label yet" in second.output
    assert "by diverse_margin: next.csv" in second.stdout
    assert "labelled already" in second.stdout
    chosen = read("next.csv")
    assert not {r["text"] for r in chosen} & {r["text"] for r in rows[:15]}
    assert all(r["prediction"] in ("negative", "positive") and 0.5 <= float(r["probability"]) <= 1 for r in chosen)


def test_a_run_says_what_it_is_unsure_of(place, tiny_classifier):
    out = tunewell.select("pool.csv", n=5, run=str(tiny_classifier), method="margin", echo=lambda line: None)
    from tunewell.predict import Predictor

    p = Predictor.load(tiny_classifier).scores([r["text"] for r in read("pool.csv")[:100]])
    gap = np.abs(p[:, 0] - p[:, 1])
    assert {r["row"] for r in out.rows} == {int(i) + 1 for i in np.argsort(gap)[:5]}
    bald = tunewell.select("pool.csv", n=5, run=str(tiny_classifier), method="bald", echo=lambda line: None)
    assert all(r["score"] > 0 for r in bald.rows)  # dropout is on
    assert bald.method == "bald"


def test_the_training_rows_of_a_run_count_as_labelled(place, tiny_model):
    run_ = tunewell.run(
        train="labelled.csv", model=str(tiny_model), probes="none", explain=0, num_train_epochs=1, bf16=False,
        max_length=32, output_dir="runs/a", echo=lambda line: None, progress=False,
    )  # fmt: skip
    texts = {r["text"] for r in read("labelled.csv")}
    with Path("mixed.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("text",), *((r["text"],) for r in read("pool.csv")[:30]), *((t,) for t in sorted(texts))])
    out = tunewell.select("mixed.csv", n=3, run=str(run_.dir), echo=lambda line: None)
    assert out.left_out["labelled already"] == run_.summary.n_train


def test_label_studio_and_argilla_and_back(place, tiny_model):
    out = run("pool.csv", "--n", 4, "--model", tiny_model, "--labelled", "labelled.csv", "-o", "tasks.json")
    assert out.exit_code == 0, out.output
    tasks = json.loads(Path("tasks.json").read_text(encoding="utf-8"))
    assert tasks[0]["predictions"][0]["result"][0]["value"]["choices"][0] in ("negative", "positive")
    assert '<Choice value="negative" hotkey="1"/>' in Path("tasks.config.xml").read_text(encoding="utf-8")
    result = {"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": ["positive"]}}
    tasks[0]["annotations"] = [{"result": [result]}]
    tasks[1]["annotations"] = [{"was_cancelled": True, "result": [result]}]
    tasks[2]["annotations"], tasks[3]["annotations"] = [], []
    Path("export.json").write_text(json.dumps(tasks), encoding="utf-8")
    found = read_labelled(["export.json"])
    assert (found.texts, found.labels, found.empty) == ([tasks[0]["data"]["text"]], ["positive"], 3)

    line = ("pool.csv", "--n", 3, "--model", tiny_model, "--labelled", "labelled.csv", "--format", "argilla")
    assert run(*line, "-o", "records.json").exit_code == 0
    records = json.loads(Path("records.json").read_text(encoding="utf-8"))
    assert records[0]["suggestions"]["label"]["agent"] == "tunewell"
    records[0]["responses"] = {"label": [{"value": "a"}, {"value": "b"}, {"value": "b"}]}
    records[1]["responses"] = {"label": [{"value": "a", "status": "draft"}]}
    Path("back.json").write_text(json.dumps(records), encoding="utf-8")
    found = read_labelled(["back.json"])
    assert (found.texts, found.labels, found.empty) == ([records[0]["fields"]["text"]], ["b"], 2)
    # one a line, with a line end within a text that JSON does not take for one
    records[0]["fields"]["text"] = odd = "one\u2028two"
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    Path("back.jsonl").write_text("\r\n".join(lines) + "\r\n", encoding="utf-8", newline="")
    found = read_labelled(["back.jsonl"])
    assert (found.texts, found.labels, found.empty) == ([odd], ["b"], 2)


def test_the_later_label_counts(place, save_csv):
    save_csv(place / "a.csv", [("one text", "x"), ("another", "y")])
    save_csv(place / "b.csv", [("One  Text", "z")])
    found = read_labelled(["a.csv", "b.csv"])
    assert found.labels == ["z", "y"]
    assert found.where[0] == "b.csv:1"
    assert found.notices == ["1 texts were labelled again; the later label counts"]


def test_advice():
    """Two far blobs are learned from a handful of labels: more bring nothing. Noise learns nothing at all."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    easy = advice(rng.standard_normal((120, 4)) + 8 * y[:, None], y, 100, 0)
    assert easy.accuracy > 0.98
    assert easy.sentence().endswith("hardly worth it") or easy.high < 0.03
    assert advice(rng.standard_normal((40, 4)), y[:40], 10, 0) is None  # too few to say
    slow = advice(rng.standard_normal((120, 60)) + 0.12 * (2 * y[:, None] - 1), y, 200, 0)
    assert slow.gain > 0
    assert slow.low <= slow.gain <= slow.high
    assert isinstance(slow, Advice)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--n", "500"], "100 rows to choose from, 500 wanted"),
        (["--method", "margn"], "did you mean `margin`?"),
        (["--method", "margin"], "needs a model that knows the classes"),
        (["--method", "bald", "--labelled", "labelled.csv"], "needs a tuned model"),
        (["--labelled", "none.csv"], "none.csv"),
        (["--labelled", "pool.csv"], "no column `label`"),
        (["--labelled", "empty.csv"], "2 are still empty"),
        (["--labelled", "misspelt.csv"], "misspelt.csv:7: the label 'postive' stands once"),
        (["--labelled", "textless.csv"], "textless.csv:2: a label without its text"),
        (["--text", "body"], "no column `body`"),
        (["--test", "pool.csv"], "rows of the pool are test rows: 1 (row "),
        (["-o", "labelled.csv"], "is there already, and may hold labels"),
        (["-o", "rows.xlsx"], "cannot tell the format"),
        (["--run", "runs/none"], "no such run"),
        (["--n", "0"], "0 is not in the range"),
    ],
)
def test_mistakes(place, tiny_model, save_csv, options, says):
    save_csv(place / "empty.csv", [("a", ""), ("b", " ")])
    save_csv(place / "misspelt.csv", [(f"text {i}", "positive") for i in range(6)] + [("text 7", "postive")])
    save_csv(place / "textless.csv", [("a", "x"), ("", "y")])
    result = run("pool.csv", "--model", tiny_model, "--n", 5, *options)
    assert result.exit_code == 2, result.output
    assert says in result.output
    assert "Traceback" not in result.output
    assert not Path("to-label.csv").exists()


def test_an_empty_pool(place, tiny_model, save_csv):
    save_csv(place / "none.csv", [], ("text",))
    with pytest.raises(DataError):
        tunewell.select("none.csv", n=1, model=str(tiny_model), echo=lambda line: None)
