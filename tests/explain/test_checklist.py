"""Behavioural tests: what each change does to a text, and verdicts on a model whose behaviour is known."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from tunewell.cli import app
from tunewell.errors import DataError, RecipeError
from tunewell.evaluate.statistics import wilson
from tunewell.explain.checklist import CHANGES, checklist
from tunewell.tasks import TaskSpec

RNG = np.random.default_rng


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("negation", "The food is good.", "The food is not good."),
        ("negation", "The food is not good.", "The food is good."),
        ("negation", "I don't like it", "I do like it"),
        ("negation", "no verb here", None),
        ("contractions", "It's fine", "It is fine"),
        ("contractions", "They do not care", "They don't care"),
        ("contractions", "nothing to write out", None),
        ("punctuation", "good.", "good"),
        ("punctuation", "good", "good."),
        ("punctuation", "好。", "好"),
        ("case", "ok", "OK"),
        ("case", "OK", None),
        ("names", "nobody is named", None),
        ("numbers", "in room 7", None),
        ("typos", "a be it", None),
    ],
)
def test_changes_by_hand(name, before, after):
    assert CHANGES[name](before, RNG(0)) == after


@pytest.mark.parametrize("seed", range(5))
def test_changes_that_are_drawn(seed):
    text = "James paid 250 dollars for an excellent dinner"
    typo = CHANGES["typos"](text, RNG(seed))
    assert sorted(typo) == sorted(text)
    assert sum(a != b for a, b in zip(typo, text, strict=True)) == 2
    named = CHANGES["names"](text, RNG(seed))
    assert not named.startswith("James")
    assert named.endswith(" paid 250 dollars for an excellent dinner")
    number = CHANGES["numbers"](text, RNG(seed)).split()[2]
    assert number != "250"
    assert len(number) == 3
    assert number.isdigit()
    assert CHANGES["length"](text, RNG(seed)).startswith(text + " ")


class Known:
    """Says positive for texts with the word good and without the word not; capitals are foreign to it."""

    spec = TaskSpec("text-classification", ("negative", "positive"))
    labels = spec.labels
    pair = False

    def scores(self, texts, pairs=None):
        p = np.array([0.9 if "good" in t and " not " not in t else 0.2 for t in texts])
        return np.stack([1 - p, p], axis=1)


ROWS = [{"text": f"The food is good number {20 + i}"} for i in range(10)]


def test_verdicts_on_a_model_whose_behaviour_is_known():
    found = checklist(Known(), ROWS, seed=1)
    tests = {t.name: t for t in found.tests}
    assert found.negation == "changes"  # the labels judge
    assert tests["negation"].expects == "changes"
    assert tests["negation"].passed.value == 1.0
    assert tests["case"].passed.value == 0.0  # GOOD is not good
    assert (tests["case"].passed.low, tests["case"].passed.high) == wilson(0, 10)
    assert tests["case"].failures[0].answer_before == "positive"
    assert tests["case"].failures[0].answer_after == "negative"
    for name in ("punctuation", "numbers", "length"):
        assert tests[name].passed.value == 1.0
    assert tests["names"].passed is None  # no row holds a name
    assert tests["names"].changed == 0
    same = {t.name: t for t in checklist(Known(), ROWS, negation="same", seed=1).tests}
    assert same["negation"].passed.value == 0.0
    assert checklist(Known(), ROWS, seed=1) == found  # seeded


def test_labels_that_do_not_judge():
    topics = SimpleNamespace(spec=TaskSpec("text-classification", ("sport", "world")), labels=("sport", "world"))
    topics.scores = Known().scores
    assert checklist(topics, ROWS).negation == "same"


def test_mistakes():
    with pytest.raises(RecipeError, match="negation: chnges"):
        checklist(Known(), ROWS, negation="chnges")
    with pytest.raises(DataError, match="too few"):
        checklist(Known(), ROWS[:3])


def test_the_command(tmp_path, tiny_model, make_reviews, save_csv):
    import tunewell

    data = save_csv(tmp_path / "a.csv", make_reviews(120))
    run = tunewell.run(
        train=str(data), model=str(tiny_model), probes="none", explain=0, num_train_epochs=1, bf16=False,
        max_length=32, output_dir=str(tmp_path / "run"), echo=lambda line: None, progress=False,
    )  # fmt: skip
    result = CliRunner().invoke(app, ["checklist", str(run.dir), "--rows", "20"])
    assert result.exit_code == 0, result.output
    assert "punctuation" in result.stdout
    record = json.loads((run.dir / "checklist.json").read_text())
    assert record["rows"] == 20
    other = save_csv(tmp_path / "b.csv", [(t,) for t, _ in make_reviews(30)], ("text",))
    line = ["checklist", str(run.dir), "--data", str(other), "--json"]
    assert json.loads(CliRunner().invoke(app, line).stdout)["rows"] == 30
    for wrong in (
        ["none"],
        [str(run.dir), "--rows", "1"],
        [str(run.dir), "--negation", "x"],
        [str(run.dir), "--data", "no.csv"],
    ):
        assert CliRunner().invoke(app, ["checklist", *wrong]).exit_code == 2
