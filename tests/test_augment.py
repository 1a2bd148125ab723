"""`tunewell augment`: what operations may change and what not; filters; origins; mistakes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tunewell.augment.operations import OPERATIONS, split, words_of
from tunewell.augment.run import augment
from tunewell.cli import app

TEXT = "The crew was not friendly, and 3 bags never came."


def apply(name, text, times=2, seed=0):
    return "".join(OPERATIONS[name](split(text), times, np.random.default_rng(seed)))


@given(st.text(max_size=80))
def test_pieces_joined_are_the_text(text):
    assert "".join(split(text)) == text


@pytest.mark.parametrize("name", list(OPERATIONS))
@pytest.mark.parametrize("seed", range(8))
def test_negations_and_numbers_stay(name, seed):
    changed = apply(name, TEXT, 3, seed)
    for word in ("not", "never", "3"):
        assert word in changed.split()
    assert apply(name, TEXT, 3, seed) == changed  # seeded
    chinese = apply(name, "房间不干净，服务员很热情", 2, seed)
    assert "不" in chinese


def test_each_operation_by_what_it_may_do():
    words = sorted(TEXT.split())
    assert sorted(apply("swap", TEXT).split()) == words
    assert apply("swap", TEXT) != TEXT
    assert len(apply("delete", TEXT, 2).split()) == len(words) - 2
    assert len(apply("delete", "one two three four", 9).split()) == 2  # half stays
    assert apply("case", TEXT, 3).casefold() == TEXT.casefold()
    for name in ("keyboard", "ocr"):
        changed = apply(name, TEXT, 2).split()
        assert len(changed) == len(words)
        assert sum(a != b for a, b in zip(changed, TEXT.split(), strict=True)) in (1, 2)
    assert apply("ocr", "moon", 1) in ("rnoon", "m0on", "mo0n", "moori")
    assert apply("swap", "好", 1) == "好"
    assert words_of(split("not 3 ... 不")) == []
    assert sorted(apply("swap", "房间很好", 1)) == sorted("房间很好")


@pytest.fixture
def data(tmp_path, monkeypatch, make_reviews, save_csv):
    monkeypatch.chdir(tmp_path)
    save_csv(tmp_path / "a.csv", [*make_reviews(40), ("", "negative")])
    return "a.csv"


def quiet(line):
    pass


def test_copies_know_their_origin(data):
    done = augment(data, copies=2, share=0.2, echo=quiet)
    copies = [r for r in done.rows if r["augmented_by"]]
    assert len(done.rows) - len(copies) == 41
    assert done.made == 80
    assert len(copies) == 80 - sum(done.left_out.values())
    assert {r["augmented_by"] for r in copies} == {"swap", "delete", "keyboard"}
    for r in copies:
        origin = done.rows[r["augmented_from"] - 1]
        assert origin["label"] == r["label"]
        assert origin["text"] != r["text"]
    assert len({r["text"] for r in done.rows}) == len(done.rows)
    assert augment(data, copies=2, share=0.2, echo=quiet).rows == done.rows  # seeded


def test_only_some_classes_and_no_test_text(data, save_csv):
    some = augment(data, operations=["case"], only=["positive"], echo=quiet)
    assert {r["label"] for r in some.rows if r["augmented_by"]} <= {"positive"}
    made = augment(data, operations=["delete"], echo=quiet)
    texts = [r["text"] for r in made.rows if r["augmented_by"]]
    save_csv(Path("test.csv"), [(t.upper(), "x") for t in texts[:5]])
    watched = augment(data, operations=["delete"], test=["test.csv"], echo=quiet)
    assert watched.left_out["a test text"] == 5
    assert not {t.casefold() for t in texts[:5]} & {r["text"].casefold() for r in watched.rows}


def test_filters(data, tiny_model, tiny_classifier):
    near = augment(data, operations=["keyboard"], share=0.5, similar=0.9999, model=str(tiny_model), echo=quiet)
    assert near.left_out["too unlike its original"] > 0
    alike = augment(data, operations=["keyboard"], run=str(tiny_classifier), echo=quiet)
    from tunewell.predict import Predictor

    copies = [r for r in alike.rows if r["augmented_by"]]
    answers = Predictor.load(tiny_classifier).predict([r["text"] for r in copies])
    assert answers == [r["label"] for r in copies]


def test_a_masked_model_proposes_words(data, tiny_model, tmp_path):
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertForMaskedLM(BertConfig.from_pretrained(tiny_model)).save_pretrained(tmp_path / "mlm")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "mlm")
    done = augment(data, operations=["masked"], share=0.3, mlm=str(tmp_path / "mlm"), echo=quiet)
    copies = [r for r in done.rows if r["augmented_by"]]
    assert copies
    for r in copies:
        before, after = done.rows[r["augmented_from"] - 1]["text"].split(), r["text"].split()
        assert len(before) == len(after)
        assert sum(a != b for a, b in zip(before, after, strict=True)) <= max(1, round(0.3 * len(before)))


def test_the_command(data):
    result = CliRunner().invoke(app, ["augment", data, "-o", "more.csv", "--operations", "swap,ocr", "--copies", "2"])
    assert result.exit_code == 0, result.output
    with Path("more.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["text", "label", "augmented_by", "augmented_from"]
    assert f"41 rows and {len(rows) - 41} changed copies" in result.stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--operations", "swp"], "did you mean `swap`?"),
        (["--copies", "0"], "`copies: 0` is not possible"),
        (["--share", "0"], "`share: 0` is not possible"),
        (["--similar", "2"], "`similar: 2` is not possible"),
        (["--only", "positiv"], "did you mean `positive`?"),
        (["--text", "body"], "no column `body`"),
        (["--label", "stars"], "no column `stars`"),
        (["-o", "a.csv"], "is there already"),
        (["-o", "a.xlsx"], "cannot tell the format"),
        (["--test", "none.csv"], "none.csv"),
        (["--run", "none"], "none"),
    ],
)
def test_mistakes(data, options, says):
    result = CliRunner().invoke(app, ["augment", data, "-o", "more.csv", *options])
    assert result.exit_code == 2, result.output
    assert says in result.output
    assert not Path("more.csv").exists()
