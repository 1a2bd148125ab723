"""`augment` in a run: training rows only, the same steps, decided by a paired test on validation, resumable."""

from __future__ import annotations

import json
import random

import pytest

import tunewell
from tunewell.errors import RecipeError
from tunewell.recipe_file import load_recipe
from tunewell.results import Augmentation, Comparison, Estimate
from tunewell.stages.augment import verdict
from tunewell.stages.keys import keys_for


@pytest.fixture
def keys(tiny_model, tmp_path, make_reviews, save_csv):
    files = {
        name: str(save_csv(tmp_path / f"{name}.csv", make_reviews(n, seed=seed)))
        for seed, (name, n) in enumerate({"train": 32, "validation": 40, "test": 24}.items())
    }
    return {
        **files, "model": str(tiny_model), "probes": "none", "explain": 0, "bf16": False, "threads": 1,
        "learning_rate": 2e-3, "num_train_epochs": 2, "metric": "accuracy", "calibrate": "none", "monitor": "off",
        "per_device_train_batch_size": 8, "echo": lambda line: None, "progress": False,
        "augment": "swap,keyboard", "augment_share": 0.3, "augment_agree": False, "augment_similar": 0,
    }  # fmt: skip


def test_a_run_with_and_without(keys, tmp_path):
    lines: list[str] = []
    run = tunewell.run(**{**keys, "echo": lines.append}, augment_factor=2, output_dir=str(tmp_path / "a"))
    found = run.augmentation
    assert found is not None and found.comparison is not None
    assert found.operations == ("swap", "keyboard")
    assert found.rows == 32
    assert found.made == 64
    assert found.kept == sum(found.by.values()) == 64 - sum(found.left_out.values())

    # the same steps and the same validations on both sides: 32 rows, 8 a batch, 2 epochs
    sides = {name: json.loads((run.dir / "train" / name / "training.json").read_text()) for name in found.seconds}
    assert set(sides) == {"without", "augmented"}
    for side in sides.values():
        assert (side["steps"], side["planned_steps"], side["eval_steps"]) == (8, 8, 4)
        assert [e["step"] for e in side["history"] if "eval_accuracy" in e] == [4, 8]
    assert run.summary.seconds["train"] == pytest.approx(sum(s["seconds"] for s in sides.values()), abs=0.02)

    # every copy is of a training row, with its label
    with open(keys["train"], encoding="utf-8") as file:
        rows = [line.rstrip("\n").rsplit(",", 1) for line in file.read().splitlines()[1:]]
    texts = {t for t, _ in rows}
    copies = [json.loads(line) for line in (run.dir / "augmented.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(copies) == found.kept
    for c in copies:
        assert c["label"] == rows[c["augmented_from"] - 1][1]
        assert c["text"] not in texts
        assert c["augmented_by"] in found.operations

    # what is said, and what was chosen
    told = next(line for line in lines if line.startswith("augment: ") and "validation rows" in line)
    assert "for the same 8 steps" in told
    assert f"{found.comparison.difference.value:+.4f}".replace("-", "−") in told
    chosen = run.choice.chosen
    assert ("augmented" in chosen.strategy) is found.helps
    assert run.summary.augment is not None
    assert run.summary.augment["helps"] is found.helps
    assert run.summary.n_train == 32
    page = run.report_path.read_text(encoding="utf-8")
    assert "With and without changed copies" in page
    assert told.removeprefix("augment: ") in page

    # the side without is a plain run of the same recipe to the bit
    plain = tunewell.run(**{**keys, "augment": "none"}, output_dir=str(tmp_path / "plain"))
    assert plain.augmentation is None
    assert found.without == plain.choice.chosen.score
    if not found.helps:
        assert run.evaluation.headline == plain.evaluation.headline

    # again: nothing is tuned or made anew; another setting makes the copies anew and keeps the side without
    lines.clear()
    tunewell.run(**{**keys, "echo": lines.append}, augment_factor=2, output_dir=str(tmp_path / "a"))
    assert not [line for line in lines if line.startswith(("tune:", "augment:"))]
    lines.clear()
    tunewell.run(**{**keys, "echo": lines.append}, augment_factor=1, output_dir=str(tmp_path / "a"))
    assert len([line for line in lines if line.startswith("tune:")]) == 1

    # without copies after all: the folder tells of none
    off = tunewell.run(**{**keys, "augment": "none"}, output_dir=str(tmp_path / "a"))
    assert off.augmentation is None
    assert off.summary.augment is None
    assert "With and without changed copies" not in off.report_path.read_text(encoding="utf-8")
    assert off.evaluation.headline == plain.evaluation.headline


@pytest.mark.parametrize("helps", [True, False])
def test_what_was_decided_is_followed_by_other_seeds(keys, tmp_path, monkeypatch, helps):
    """The verdict is put in place of the test: what then happens must be as it says."""
    from tunewell.stages import augment
    from tunewell.train.dynamics import Dynamics

    monkeypatch.setattr(augment, "verdict", lambda *a: (helps, "beyond" if helps else "no-gain"))
    lines: list[str] = []
    run = tunewell.run(**{**keys, "echo": lines.append}, seeds=2, output_dir=str(tmp_path / "a"))
    found = run.augmentation
    assert found is not None and found.helps is helps
    assert run.choice.chosen.strategy == (("plain", "augmented") if helps else ("plain",))
    assert run.choice.chosen.score == (found.augmented if helps else found.without)
    assert run.seeds is not None
    own, further = run.seeds.results
    assert own.steps == further.steps == 8
    learned = [line for line in lines if line.startswith("tune:")]
    more = f"{32 + found.kept} rows"
    assert ["32 rows" in learned[0], more in learned[1], (more if helps else "32 rows") in learned[2]] == [True] * 3
    # the dynamics that the run leaves are those of its own rows
    noted = Dynamics.load(run.dir / "train" / "dynamics.npz")
    assert noted is not None and noted.margin.shape[1] == 32


def test_a_run_that_was_stopped_goes_on(keys, tmp_path, monkeypatch):
    from tunewell.stages import held

    whole = tunewell.run(**keys, output_dir=str(tmp_path / "whole"))
    tune = held.tune

    def stopped(child):
        if child.candidate == "augmented":
            raise KeyboardInterrupt
        return tune(child)

    with monkeypatch.context() as patch:
        patch.setattr(held, "tune", stopped)
        with pytest.raises(KeyboardInterrupt):
            tunewell.run(**keys, output_dir=str(tmp_path / "a"))
    lines: list[str] = []
    again = tunewell.run(**{**keys, "echo": lines.append}, output_dir=str(tmp_path / "a"))
    assert len([line for line in lines if line.startswith("tune:")]) == 1  # the one that was missing
    assert again.evaluation.headline == whole.evaluation.headline
    assert again.augmentation.comparison == whole.augmentation.comparison
    assert (again.dir / "augmented.jsonl").read_bytes() == (whole.dir / "augmented.jsonl").read_bytes()


def test_inside_a_budget_the_saved_model_is_the_chosen_candidate(keys, tmp_path, make_pairs, save_csv):
    """Both sides have averages with the base model among their candidates."""
    probe = save_csv(tmp_path / "probe.csv", make_pairs(40), ("text_a", "text_b", "score"))
    run = tunewell.run(
        **keys, strategy="average", average_alphas=[0.5, 1.0], keep=0.01, probe_files=[str(probe)],
        raise_on_gate=False, output_dir=str(tmp_path / "a"),
    )  # fmt: skip
    found = run.augmentation
    assert found is not None
    names = [c.name for c in run.choice.candidates]
    assert names == ["average", "average, alpha 0.5", "average + augmented", "average + augmented, alpha 0.5"]
    assert [c.chosen for c in run.choice.candidates].count(True) == 1
    assert ("augmented" in run.choice.chosen.strategy) is found.helps
    assert all(c.retention_mean is not None for c in run.choice.candidates)
    with open(keys["validation"], encoding="utf-8") as file:
        rows = [line.rstrip("\n").rsplit(",", 1) for line in file.read().splitlines()[1:]]
    answers = run.predict([t for t, _ in rows])
    right = sum(a == label for a, (_, label) in zip(answers, rows, strict=True)) / len(rows)
    assert right == pytest.approx(run.choice.chosen.score.value)


@pytest.mark.parametrize("kind", ["pairs", "scores", "several"])
def test_other_kinds_of_rows(keys, tmp_path, make_reviews, save_csv, kind):
    files = {}
    for seed, (name, n) in enumerate({"train": 32, "validation": 24, "test": 24}.items()):
        rows = make_reviews(n, seed=seed)
        if kind == "pairs":
            rows = [(t, f"{t} today", label) for t, label in rows]
        elif kind == "scores":
            rows = [(t, f"{len(t) / 7:.2f}") for t, _ in rows]
        else:
            rows = [(t, label if i % 3 else f"{label}|long") for i, (t, label) in enumerate(rows)]
        header = ("text_a", "text_b", "label") if kind == "pairs" else ("text", "label")
        files[name] = str(save_csv(tmp_path / f"{kind}-{name}.csv", rows, header))
    more = {"label_separator": "|"} if kind == "several" else {}
    own = {k: v for k, v in keys.items() if k != "metric"}
    run = tunewell.run(
        **{**own, **files, **more, "augment": "swap", "augment_agree": True, "augment_similar": 0.2},
        output_dir=str(tmp_path / "a"),
    )
    found = run.augmentation
    assert found is not None
    assert found.kept + sum(found.left_out.values()) == found.made == 32
    assert found.kept > 0
    copies = [json.loads(line) for line in (run.dir / "augmented.jsonl").read_text(encoding="utf-8").splitlines()]
    if kind == "pairs":  # the second text stays
        assert all(sorted(c["text"].split()) == sorted(c["text_pair"].removesuffix(" today").split()) for c in copies)
    if kind == "scores":  # no probe has a say about scores
        assert "another label to the linear probe" not in found.left_out
        assert all(isinstance(c["label"], float) for c in copies)
    if kind == "several":
        assert all(isinstance(c["label"], list) for c in copies)


def test_filters_in_a_run(keys, tmp_path):
    run = tunewell.run(
        **{**keys, "augment_agree": True, "augment_similar": 0.9999, "augment": "case,delete"},
        output_dir=str(tmp_path / "a"),
    )
    found = run.augmentation
    assert found is not None
    # the tiny tokenizer knows no case, so that a copy in other letters is the same input
    assert found.left_out["the same to the model as its original"] + found.left_out["unchanged, or made twice"] >= 16
    assert found.left_out["too unlike its original"] > 0
    assert found.kept + sum(found.left_out.values()) == found.made


def test_chinese_is_changed_by_what_suits_it(keys, tmp_path, save_csv):
    rng, rows = random.Random(0), set()
    while len(rows) < 40:
        label = "好评" if len(rows) % 2 else "差评"
        rows.add(
            ("".join(rng.sample("天地人山水火木金土日月", 4)) + ("很好吃" if label == "好评" else "太难吃"), label)
        )
    files = {n: str(save_csv(tmp_path / f"zh-{n}.csv", sorted(rows))) for n in ("train", "validation", "test")}
    run = tunewell.run(**{**keys, **files, "augment": "auto"}, output_dir=str(tmp_path / "zh"), lang="zh")
    assert run.augmentation is not None
    assert run.augmentation.operations == ("swap", "delete")
    assert run.augmentation.kept > 0
    assert "使用与不使用改动副本的对比" in run.report_path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("value", "low", "high", "met", "met_without", "keeps", "why"),
    [
        (0.04, 0.02, 0.06, None, None, True, "beyond"),
        (0.01, 0.001, 0.019, None, None, True, "likely"),  # the interval is above 0, the test is not below 0.05
        (0.02, -0.01, 0.05, None, None, True, "likely"),  # a standard error is 0.06 / 3.92 = 0.0153
        (0.015, -0.015, 0.045, None, None, False, "within"),
        (0.0, -0.01, 0.01, None, None, False, "no-gain"),
        (-0.03, -0.05, -0.01, None, None, False, "no-gain"),
        (0.02, None, None, None, None, False, "unknown"),
        (None, None, None, None, None, False, "unknown"),
        (-0.03, -0.05, -0.01, True, False, True, "budget-with"),
        (0.04, 0.02, 0.06, False, True, False, "budget-without"),
        (0.04, 0.02, 0.06, True, True, True, "beyond"),
    ],
)
def test_what_decides(value, low, high, met, met_without, keeps, why):
    d = Estimate(value=value, low=low, high=high, n=50)
    better = True if value == 0.04 else None
    found = Comparison(metric="accuracy", difference=d, test="McNemar, exact", p_value=0.5, better=better)
    assert verdict(found, met, met_without) == (keeps, why)


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize(
    "why", ["beyond", "likely", "within", "no-gain", "unknown", "budget-with", "budget-without", "no-copies"]
)
def test_every_reason_has_words(why, lang):
    from tunewell.report.augment import reasons, sentences

    d = Estimate(value=-0.0123, low=-0.03, high=0.01, n=50)
    record = Augmentation(
        operations=("swap",), factor=1, rows=9, made=9, kept=8, by={"swap": 8},
        left_out={"too unlike its original": 1}, steps=5, eval_steps=1, without=Estimate(value=0.8),
        augmented=Estimate(value=0.7877),
        comparison=Comparison(metric="accuracy", difference=d, test="McNemar, exact", p_value=0.4, better=None),
        helps=False, why=why, seconds={},
    )  # fmt: skip
    told = " ".join(sentences(record, lang))
    assert "{" not in told
    assert "−0.0123" in told  # a loss is said too
    assert reasons(record, lang)[0][1] == 1


def test_only_what_decides_the_copies_is_in_the_key(tmp_path):
    def key(**more):
        return keys_for(load_recipe(None, train="a.csv", **more), "rows", "model").tune

    assert key() == key(augment="none") == key(augment_factor=3)  # settings of what is not asked for
    asked = {"augment": "swap"}
    assert key(**asked) != key()
    for more in ({"augment_factor": 2}, {"augment_share": 0.2}, {"augment_agree": False}, {"augment_similar": 0.7}):
        assert key(**asked, **more) != key(**asked)
    assert key(**asked) == key(**asked, augment_mlm="other")
    assert key(augment="masked") != key(augment="masked", augment_mlm="other")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"augment": "swp"}, "did you mean `swap`"),
        ({"augment": "auto,swap"}, "`auto` stands alone"),
        ({"augment": "swap,swap"}, "an operation is named twice"),
        ({"augment_factor": 0}, "augment_factor"),
        ({"augment_translators": "one"}, "expected two models"),
        ({"augment": "swap", "strategy": "auto", "keep": 0.9, "probes": "auto"}, "`strategy: auto` is a search"),
        ({"augment": "swap", "validation": None, "validation_size": 0}, "decided on validation rows"),
    ],
)
def test_mistakes(keys, tmp_path, more, says):
    with pytest.raises(RecipeError, match=says):
        tunewell.run(**{**keys, **more}, output_dir=str(tmp_path / "a"))
    assert not (tmp_path / "a").exists()


def test_a_task_without_labels():
    from types import SimpleNamespace

    from tunewell.stages.augment import preflight

    job = SimpleNamespace(recipe=load_recipe(None, augment="swap"), spec=SimpleNamespace(name="translation"))
    with pytest.raises(RecipeError, match="this task is translation"):
        preflight(job)


def test_a_learning_curve_measures_rows_as_they_are(keys, tmp_path):
    from tunewell.curve.run import learning_curve

    with pytest.raises(RecipeError, match="measures the rows as they are"):
        learning_curve(**keys, output_dir=str(tmp_path / "a"))


def test_copies_hold_line_ends_that_json_does_not_take_for_one(tmp_path):
    from types import SimpleNamespace

    from datasets import Dataset

    from tunewell.stages.augment import ROWS, canonical

    train = Dataset.from_dict({"text": ["one", "two"], "label": ["a", "b"], "row": [3, 7]})
    texts = ["t\u2028wo", "o\u0085ne"]
    lines = [
        json.dumps({"text": t, "augmented_from": at}, ensure_ascii=False) for t, at in zip(texts, (7, 3), strict=True)
    ]
    (tmp_path / ROWS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = canonical(SimpleNamespace(splits={"train": train}, folder=tmp_path))
    assert (found["text"][:], found["label"][:]) == (texts, ["b", "a"])
