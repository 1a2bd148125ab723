"""`tunewell augment`: what operations may change and what not; filters; origins; mistakes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tunewell.augment.copies import Copy, new, resolved
from tunewell.augment.filters import agreeing, near
from tunewell.augment.operations import OPERATIONS, split, words_of
from tunewell.augment.run import augment
from tunewell.cli import app
from tunewell.errors import ModelError

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
    some = augment(data, operations=["case"], only=["positive"], share=0.5, echo=quiet)
    assert {r["label"] for r in some.rows if r["augmented_by"]} == {"positive"}
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


def test_near_and_not_the_same_by_hand():
    """Cosines of (1, 0) with (1, 0), (2, 0), (1, 1), (0, 1): 1, 1, 0.7071, 0."""
    originals = np.array([[1.0, 0.0]] * 4)
    copies = np.array([[1.0, 0.0], [2.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    keep, why = near(originals, copies, 0.7)
    assert keep.tolist() == [False, False, True, False]
    assert why == {"the same to the model as its original": 2, "too unlike its original": 1}
    keep, _ = near(originals, copies, 0.71)
    assert keep.tolist() == [False] * 4
    assert near(originals, copies, 0)[0].all()


def test_the_probe_has_to_agree():
    """Rows on either side of 0; a copy that has crossed over is left out."""
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    x = np.where(y == 1, 3.0, -3.0)[:, None] + rng.normal(size=(40, 2)) * 0.1
    keep, why = agreeing(x, y, np.array([[3.0, 3.0], [3.0, 3.0], [-3.0, -3.0]]), np.array([1, 0, 0]), classes=2)
    assert keep.tolist() == [True, False, True]
    assert why == {"another label to the linear probe": 1}
    several = np.stack([y, 1 - y], axis=1).astype(np.float32)
    keep, _ = agreeing(x, several, x[:4], np.array([[1, 1], several[1], several[2], several[2]]), classes=2)
    assert keep.tolist() == [False, True, True, False]


def test_the_probe_in_a_file(data, tiny_model):
    done = augment(data, operations=["keyboard"], share=0.9, agree=True, model=str(tiny_model), echo=quiet)
    copies = [r for r in done.rows if r["augmented_by"]]
    assert done.made == len(copies) + sum(done.left_out.values())
    some = augment(
        data, operations=["case"], only=["positive"], share=0.5, agree=True, model=str(tiny_model), echo=quiet
    )
    assert {r["label"] for r in some.rows if r["augmented_by"]} == {"positive"}


def test_auto_suits_the_script():
    assert resolved(["auto"], ["The crew was late", "a fine day"]) == ("swap", "delete", "keyboard")
    assert resolved(["auto"], ["房间很好", "服务员很热情"]) == ("swap", "delete")
    assert resolved(["ocr", "case"], ["房间"]) == ("ocr", "case")


def test_a_second_text_makes_a_copy_new():
    made = [Copy(0, "swap", "b a"), Copy(1, "swap", "b a"), Copy(1, "swap", "a b"), Copy(0, "swap", "b a")]
    left_out: dict[str, int] = {}
    kept = new(made, ["a b", "a b"], left_out, taboo=["x"], pairs=["first", "second"])
    assert kept == made[:2]
    assert left_out == {"unchanged, or made twice": 2}


class Writer:
    """Translates by upper case; texts with `endless` do not come to their end."""

    shift = False
    max_length = 6

    def __init__(self, back: bool) -> None:
        from tunewell.tasks.generation.writers import Decoding

        self.back, self.decoding, self.seen = back, Decoding(), []

    def conversation(self, text):
        return text

    def prompt(self, text):
        return text.split()

    def write(self, prompts):
        self.seen.append(self.decoding)
        done = [p.lower() + " again" if self.back else p.upper() for p in prompts]
        return done, np.array(["endless" not in p for p in prompts])


def test_there_and_back(monkeypatch):
    from tunewell.augment import translate

    monkeypatch.setattr(translate, "_translator", lambda name: Writer(name == "back"))
    there_and_back = translate.BackTranslation(("there", "back"), seed=1)
    texts = ["Good day", "an endless tale", "one two three four five six", "", "Fine"]
    found = there_and_back(texts)
    assert found == ["good day again", "an endless tale", "one two three four five six", "", "fine again"]
    assert not there_and_back.back.seen[-1].do_sample
    there_and_back(texts, 1)
    assert there_and_back.back.seen[-1].do_sample  # further copies are drawn
    assert there_and_back.back.seen[-1].seed == 2
    assert not there_and_back.back.decoding.do_sample  # and the model is left as it was


def test_two_models_that_translate(data, tiny_bergamot):
    from tunewell.augment.translate import BackTranslation

    pair = BackTranslation((str(tiny_bergamot), str(tiny_bergamot)))
    texts = ["the hotel was good", "the crew was rude"]
    assert len(pair(texts)) == 2
    assert pair(texts) == pair(texts)  # greedy
    done = augment(
        data, operations=["backtranslate"], translators=[str(tiny_bergamot)] * 2, copies=2, share=0.2, echo=quiet
    )
    assert done.made == 80


def test_a_decoder_does_not_translate(data, tiny_decoder):
    with pytest.raises(ModelError, match="does not translate"):
        augment(data, operations=["backtranslate"], translators=[str(tiny_decoder)] * 2, echo=quiet)


@pytest.mark.assets
def test_portuguese_and_back():
    from tunewell.augment.names import TRANSLATORS
    from tunewell.augment.translate import BackTranslation

    found = BackTranslation(TRANSLATORS)(["The hotel was very good and the staff was friendly."])
    words = found[0].lower()
    assert "hotel" in words
    assert "friendly" in words or "kind" in words


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
        (["--operations", "auto,swap"], "`auto` stands alone"),
        (["--operations", "backtranslate", "--translators", "one"], "1 models are named"),
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
