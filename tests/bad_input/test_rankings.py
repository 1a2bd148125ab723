"""What `tunewell rank` and `model: auto` refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def rank(here: Path, refused: Callable, tiny_model: Path, make_reviews, save_csv) -> Callable:
    """`tunewell rank` on good data with the tiny model, unless said otherwise."""
    save_csv(here / "a.csv", make_reviews(60))

    def call(*args: object, data: str = "a.csv", models: object = None, **options):
        named = ["--models", *(models if models is not None else [tiny_model])]  # type: ignore[misc]
        return refused("rank", data, *args, *named, **options)

    return call


def test_no_such_file(rank: Callable) -> None:
    rank(data="b.csv", says="b.csv: no such file")


def test_no_such_model_is_the_only_candidate(rank: Callable) -> None:
    rank(models=["./nowhere"], says=("no candidate could be measured", "./nowhere", "no such model folder"))


def test_no_candidate_can_be_loaded(rank: Callable, broken_model: Path) -> None:
    (broken_model / "config.json").unlink()
    (broken_model.parent / "other").mkdir()
    told = rank(models=[broken_model, "other"], says="no candidate could be measured")
    assert told.stderr.count("skipped: not a model folder: config.json is missing") == 2


def test_models_without_a_name(rank: Callable) -> None:
    rank(models=[], says="option '--models' requires an argument")


def test_a_model_named_twice(rank: Callable, tiny_model: Path) -> None:
    rank(models=[tiny_model, tiny_model], says=("is named twice", "each candidate once"))


def test_auto_among_the_candidates(rank: Callable) -> None:
    rank(models=["auto"], says="`auto` is what a ranking chooses, not a candidate")


def test_an_empty_name(rank: Callable) -> None:
    rank(models=[""], says="`--models` is empty")


@pytest.mark.parametrize("rows", [0, -3, 5])
def test_too_few_rows_asked_for(rank: Callable, rows: int) -> None:
    rank("--rows", rows, says=(f"rows: `rows: {rows}`", "expected:"))


def test_too_few_rows_there(rank: Callable, here: Path, make_reviews, save_csv) -> None:
    save_csv(here / "b.csv", make_reviews(12))
    rank(data="b.csv", says=("training rows", "at least 20 to compare models on"))


def test_one_class(rank: Callable, here: Path, make_reviews, save_csv) -> None:
    save_csv(here / "b.csv", [(text, "same") for text, _ in make_reviews(60)])
    rank(data="b.csv", says="same")


def test_one_score(rank: Callable, here: Path, make_reviews, save_csv) -> None:
    save_csv(here / "b.csv", [(text, 2.5) for text, _ in make_reviews(60)])
    rank("--task", "text-regression", data="b.csv", says=("2.5",))


def test_question_answering_is_not_ranked(rank: Callable, here: Path) -> None:
    rows = [{"question": f"who {i}?", "context": f"it was Ann {i}", "answers": f"Ann {i}"} for i in range(60)]
    (here / "q.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    rank(data="q.jsonl", says=("base models cannot be ranked for question-answering", "text-classification"))


def test_longer_than_the_window(rank: Callable) -> None:
    rank("--max_length", 4096, says=("no candidate could be measured", "beyond the model's window"))


def test_an_unknown_metric(rank: Callable) -> None:
    rank("--metric", "f1", says="unknown metric `f1`")


def test_a_mistyped_option(rank: Callable) -> None:
    rank("--row", 50, says=("no such option `--row`", "did you mean `--rows`?"))


def test_auto_with_a_revision(here: Path, refused: Callable, make_reviews, save_csv) -> None:
    save_csv(here / "a.csv", make_reviews(60))
    refused("run", "--train", "a.csv", "--model", "auto", "--revision", "main", "--output_dir", "runs/x",
            says="`revision` belongs to one model of the hub")  # fmt: skip


def test_auto_for_question_answering(here: Path, refused: Callable) -> None:
    rows = [{"question": f"who {i}?", "context": f"it was Ann {i}", "answers": f"Ann {i}"} for i in range(60)]
    (here / "q.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    refused("run", "--train", "q.jsonl", "--model", "auto", "--output_dir", "runs/x",
            says="base models cannot be ranked for question-answering")  # fmt: skip


def test_auto_with_nothing_at_hand(
    here: Path, refused: Callable, make_reviews, save_csv, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunewell import assets

    save_csv(here / "a.csv", make_reviews(60))
    monkeypatch.setattr(assets, "local_models", lambda: [])
    refused("run", "--train", "a.csv", "--model", "auto", "--output_dir", "runs/x",
            says=("no model for text-classification is at hand", "--models"))  # fmt: skip
