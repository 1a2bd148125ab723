"""Exports of Label Studio and Argilla as data: each label worked out by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tunewell.cli import app
from tunewell.data.annotated import settled
from tunewell.data.load import load
from tunewell.errors import DataError
from tunewell.selection.labelled import read_labelled


def choice(*labels: str, name: str = "mood") -> dict:
    return {"from_name": name, "to_name": "text", "type": "choices", "value": {"choices": list(labels)}}


def annotation(*results: dict, **more) -> dict:
    return {"id": 1, "completed_by": 7, "result": list(results), **more}


def task(text: str, *annotations: dict, **fields) -> dict:
    return {
        "id": 1, "data": {"text": text, **fields}, "annotations": list(annotations),
        "predictions": [{"result": [choice("bad")], "score": 0.9}], "meta": {}, "project": 3,
    }  # fmt: skip


@pytest.fixture
def write(tmp_path: Path):
    def save(name: str, content) -> str:
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return save


def test_label_studio_takes_the_majority_of_finished_annotations(write) -> None:
    good, bad = annotation(choice("good")), annotation(choice("bad"))
    skipped = annotation(choice("bad"), was_cancelled=True)
    tasks = [
        task("one", good, author="Ada"),
        task("divided", good, bad),
        task("two of three", bad, good, bad),
        task("nobody yet"),
        task("skipped", skipped),
        task("skipped and done", skipped, good),
        task("nothing chosen", annotation()),
    ]
    path = write("export.json", tasks)
    found = load(path)
    assert found.dataset["mood"][:] == ["good", None, "bad", None, None, "good", None]
    assert found.dataset["author"][0] == "Ada"
    assert set(found.dataset.column_names) == {"text", "author", "mood"}
    assert found.labels == ("mood",)
    assert found.notices == (
        f"{path}: 3 tasks without an annotation left out",
        f"{path}: 1 task left out on which annotators are divided",
    )


def test_several_choices_make_lists_and_their_order_does_not_count(write) -> None:
    tasks = [
        task("a", annotation(choice("x", "y")), annotation(choice("y", "x")), annotation(choice("x"))),
        task("b", annotation(choice("y"))),
    ]
    assert load(write("m.json", tasks)).dataset["mood"][:] == [["x", "y"], ["y"]]


def test_ratings_and_numbers_are_numbers(write) -> None:
    rating = {"from_name": "stars", "type": "rating", "value": {"rating": 4}}
    number = {"from_name": "hours", "type": "number", "value": {"number": 2.5}}
    found = load(write("r.json", [task("a", annotation(rating, number)), task("b")]))
    assert found.dataset["stars"][:] == [4, None]
    assert found.dataset["hours"][:] == [2.5, None]


def test_several_things_asked_are_named_and_chosen_with_label(write, make_reviews) -> None:
    tasks = [
        task(text, annotation(choice(label, name="mood"), choice("long" if i % 2 else "short", name="kind")))
        for i, (text, label) in enumerate(make_reviews(40))
    ]
    path = write("two.json", tasks)
    result = CliRunner().invoke(app, ["check", path])
    assert result.exit_code == 2
    assert f"{path}: annotators were asked 2 things: mood, kind" in result.stderr
    assert "try: name it: --label mood" in result.stderr
    with pytest.raises(DataError, match="asked 2 things: mood, kind"):
        read_labelled([path])
    result = CliRunner().invoke(app, ["check", path, "--label", "kind", "--json"])
    assert result.exit_code == 0, result.output
    assert set(json.loads(result.stdout)["class_counts"]["train"]) == {"long", "short"}
    assert set(read_labelled([path], label="kind").labels) == {"long", "short"}


def test_label_studio_csv_and_json_min_have_a_row_an_annotation(write, tmp_path: Path) -> None:
    def row(id_: int, text: str, mood, who: int) -> dict:
        return {
            "text": text, "id": id_, "mood": mood, "annotator": who, "annotation_id": 10 * id_ + who,
            "created_at": "2027-01-01T00:00:00Z", "updated_at": "2027-01-02T00:00:00Z", "lead_time": 3.2 + who,
        }  # fmt: skip

    rows = [row(1, "a", "good", 1), row(1, "a", "bad", 2), row(2, "b", "good", 1), row(1, "a", "good", 3),
            row(3, "c", "bad", 1), row(3, "c", "good", 2), row(4, "d", "", 1)]  # fmt: skip
    with (tmp_path / "e.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for path in (str(tmp_path / "e.csv"), write("min.json", rows)):
        found = load(path)
        assert found.dataset["text"][:] == ["a", "b", "c", "d"]
        assert found.dataset["mood"][:] == ["good", "good", None, None]
        assert set(found.dataset.column_names) == {"id", "text", "mood"}
        assert found.labels == ("mood",)
    many = write("many.json", [row(1, "a", {"choices": ["x", "y"]}, 1), row(2, "b", {"choices": ["x"]}, 1)])
    assert load(many).dataset["mood"][:] == [["x", "y"], ["x"]]


def test_argilla_takes_submitted_responses_and_no_suggestions(write) -> None:
    def record(text: str, *answers: dict, **more) -> dict:
        return {
            "id": text, "fields": {"text": text}, "metadata": {}, "vectors": {}, "status": "completed",
            "suggestions": {"mood": {"value": "bad", "score": 0.9, "agent": "m"}},
            "responses": {"mood": list(answers)} if answers else {}, **more,
        }  # fmt: skip

    records = [
        record("a", {"value": "good", "user_id": "1", "status": "submitted"}, {"value": "good", "user_id": "2"}),
        record("b", {"value": "good", "user_id": "1"}, {"value": "bad", "user_id": "2"}),
        record("c", {"value": "bad", "status": "draft"}, {"value": "good", "status": "submitted"}),
        record("d"),
        record("e", {"value": "bad", "status": "discarded"}),
    ]
    path = write("argilla.json", records)
    found = load(path)
    assert found.dataset["mood"][:] == ["good", None, "good", None, None]
    assert found.labels == ("mood",)
    assert f"{path}: 2 tasks without an annotation left out" in found.notices
    lines = write("argilla.jsonl", "\n".join(json.dumps(r) for r in records) + "\n")
    assert load(lines).dataset["mood"][:] == found.dataset["mood"][:]
    older = [
        {"fields": {"text": "a"}, "responses": [{"values": {"mood": {"value": "good"}}, "status": "submitted"}]},
        {"fields": {"text": "b"}, "responses": [{"values": {"mood": {"value": "bad"}}, "status": "draft"}]},
    ]
    assert load(write("older.json", older)).dataset["mood"][:] == ["good", None]


def test_an_export_that_nobody_has_labelled_says_so(write) -> None:
    with pytest.raises(DataError, match="no task has a finished label") as told:
        load(write("none.json", [task("a"), task("b")]))
    assert "export it again" in str(told.value)
    spans = {"from_name": "ner", "type": "labels", "value": {"start": 0, "end": 1, "labels": ["X"]}}
    with pytest.raises(DataError, match="no task has a finished label"):
        load(write("spans.json", [task("a", annotation(spans))]))


def test_other_json_is_read_as_it_was(write) -> None:
    assert load(write("own.json", [{"text": "a", "annotations": "none"}])).dataset["annotations"][:] == ["none"]
    assert load(write("f.jsonl", '{"fields": "x", "text": "a"}\n')).dataset["fields"][:] == ["x"]


def test_settled() -> None:
    assert settled([1, 2, 2]) == 2
    assert settled([["a", "b"], ["b", "a"]]) == ["a", "b"]
    assert settled(["a", "b", "a", "b"]) is None


def test_a_run_learns_from_an_export_and_counts_what_it_left_out(write, tiny_model, make_reviews, tmp_path) -> None:
    tasks = [task(text, annotation(choice(label))) for text, label in make_reviews(60)]
    tasks += [
        task("nobody has looked at this"),
        task("divided", annotation(choice("positive")), annotation(choice("negative"))),
    ]
    path = write("export.json", tasks)
    result = CliRunner().invoke(
        app,
        ["run", "--train", path, "--model", str(tiny_model), "--probes", "none", "--num_train_epochs", "1", "--no-bf16",
         "--max_length", "16", "--strategy", "plain", "--threads", "1", "--output_dir", str(tmp_path / "run")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "1 task without an annotation left out" in result.stderr
    assert "1 task left out on which annotators are divided" in result.stderr
    accounts = json.loads((tmp_path / "run" / "check.json").read_text(encoding="utf-8"))["accounts"]
    assert sum(account["dropped"].get("no label", 0) for account in accounts) == 2
