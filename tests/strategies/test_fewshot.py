"""Few labels: the contrast by hand, batches with partners, names of classes, a head on embeddings, runs without
validation rows, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import tunewell
from tunewell.errors import DataError, ModelError, RecipeError
from tunewell.predict import load_predictor
from tunewell.prediction_sets import SetPredictor
from tunewell.strategies.fewshot import ClassBatches, contrast, name_weight, names_of, plan, with_names

SMALL = {"num_train_epochs": 1, "bf16": False, "probes": ["none"], "explain": 0, "threads": 1, "max_length": 16}


# ---------------------------------------------------------------- definitions


def test_contrast_by_hand():
    """Three texts: a and b of one class, at right angles to one another; c of another, equal to a.

    For a: partners {b}, cosines b 0, c 1 -> -log(e^0 / (e^0 + e^(1/t))). For b: cosines a 0, c 0 -> log 2. c has no
    partner and does not count.
    """
    z = torch.tensor([[2.0, 0.0], [0.0, 5.0], [1.0, 0.0]])
    t = 0.5
    by_hand = (np.log(1 + np.exp(1 / t)) + np.log(2)) / 2
    assert contrast(z, torch.tensor([0, 0, 1]), t).item() == pytest.approx(by_hand, rel=1e-6)
    assert contrast(z, torch.tensor([0, 1, 2]), t).item() == 0.0


def test_contrast_is_equation_2_of_the_paper():
    """Against a loop over the sums as they are printed."""
    rng = np.random.default_rng(0)
    z, y, t = rng.normal(size=(7, 5)), np.array([0, 1, 0, 2, 1, 0, 3]), 0.2
    u = z / np.linalg.norm(z, axis=1, keepdims=True)
    losses = []
    for i in range(7):
        others = [a for a in range(7) if a != i]
        partners = [p for p in others if y[p] == y[i]]
        if partners:
            below = sum(np.exp(u[i] @ u[a] / t) for a in others)
            losses.append(-np.mean([np.log(np.exp(u[i] @ u[p] / t) / below) for p in partners]))
    found = contrast(torch.tensor(z), torch.tensor(y), t).item()
    assert found == pytest.approx(np.mean(losses), rel=1e-6)


def test_the_contrast_has_a_gradient_where_a_text_has_no_partner():
    z = torch.randn(4, 3, requires_grad=True)
    contrast(z, torch.tensor([0, 0, 1, 2]), 0.1).backward()
    assert z.grad.isfinite().all() and z.grad[2].abs().sum() > 0  # as one to be told apart from


@pytest.mark.parametrize("classes", [2, 3, 40])
def test_every_row_of_a_batch_has_a_partner_and_all_rows_have_their_turn(classes):
    labels = np.repeat(np.arange(classes), 5)
    batches = list(ClassBatches(np.full(len(labels), 6), labels, rows=16, tokens=10_000, steps=60, seed=3))
    for batch in batches:
        counts = np.bincount(labels[batch])
        assert set(counts[counts > 0]) <= {2, 5}
        assert len(set(batch)) == len(batch) <= 16
    assert {i for batch in batches for i in batch} == set(range(len(labels)))
    again = list(ClassBatches(np.full(len(labels), 6), labels, rows=16, tokens=10_000, steps=60, seed=3))
    assert batches == again


def test_long_texts_make_smaller_batches():
    labels = np.repeat([0, 1], 20)
    long = ClassBatches(np.full(40, 200), labels, rows=16, tokens=2000, steps=5, seed=0)
    assert all(len(batch) <= 10 for batch in long)


def test_the_plan_follows_the_rows():
    assert plan(np.full(2, 4), 8).steps == 20  # few rows
    assert plan(np.full(10, 64), 16).steps == 160  # four passes
    assert plan(np.full(10, 64), 16).contrast == 1
    assert plan(np.full(10, 65), 16).contrast == 0


def test_names_that_are_words():
    assert names_of(["negative", "very negative"]) == ["negative", "very negative"]
    assert names_of(["A", "B"]) is None  # letters tell nothing
    assert names_of(["class_1", "class_2"]) is None  # not told apart by words
    assert names_of(["体育", "财经"]) == ["体育", "财经"]


def test_names_count_where_they_stand_with_their_class_and_not_where_they_stand_elsewhere():
    rng = np.random.default_rng(0)
    labels, centres = np.array([0, 1] * 4), np.eye(8)[:2]
    features = centres[labels] + 0.4 * rng.normal(size=(8, 8))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    assert name_weight(features, labels, centres) > 0
    assert name_weight(features, labels, centres[::-1]) == 0


def test_rows_with_names():
    x, y = with_names(np.zeros((3, 2)), np.array([0, 1, 1]), np.ones((2, 2)), 2)
    assert x.sum(axis=1).tolist() == [0, 0, 0, 2, 2, 2, 2]
    assert y.tolist() == [0, 1, 1, 0, 1, 0, 1]


# ---------------------------------------------------------------- the head on sentence embeddings


def test_logits_by_hand(tiny_model: Path):
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    from tunewell.models.pooled import pooled

    model = pooled(AutoModelForSequenceClassification.from_pretrained(tiny_model)).eval()
    torch.nn.init.normal_(model.sentence_head.weight)
    batch = AutoTokenizer.from_pretrained(tiny_model)(["good crew", "bad"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained(tiny_model).eval()(**batch).last_hidden_state.numpy()
        logits = model(**batch).logits.numpy()
    for row, n in enumerate([4, 3]):  # with the special tokens
        e = hidden[row, :n].mean(axis=0)
        expected = model.sentence_head.weight.detach().numpy() @ (e / np.linalg.norm(e))
        np.testing.assert_allclose(logits[row], expected, atol=1e-5)


@pytest.mark.parametrize("family", ["distilbert", "roberta", "electra", "mpnet", "modernbert"])
def test_other_families_answer_the_same_when_saved_and_loaded(family, tiny_model, tmp_path):
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    from tunewell.models.pooled import is_pooled, load_pooled, pooled

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    if family == "distilbert":
        sizes = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if family == "modernbert":
        special |= {"cls_token_id": 1, "sep_token_id": 2, "attn_implementation": "sdpa"}
    config = AutoConfig.for_model(family, vocab_size=64, max_position_embeddings=32, num_labels=3, **sizes, **special)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = pooled(AutoModelForSequenceClassification.from_config(config)).eval()
        torch.nn.init.normal_(model.sentence_head.weight)
    ids = torch.tensor([[5, 6, 7, 0], [8, 9, 10, 11]])
    batch = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    model.save_pretrained(tmp_path)
    shutil.copy(tiny_model / "tokenizer.json", tmp_path)
    assert is_pooled(tmp_path)
    with torch.inference_mode():
        torch.testing.assert_close(load_pooled(str(tmp_path))(**batch).logits, model(**batch).logits)
        encoder = AutoModel.from_pretrained(tmp_path).eval()  # what Transformers alone makes of it
        torch.testing.assert_close(encoder(**batch).last_hidden_state, model.base_model(**batch).last_hidden_state)


def test_its_folder_is_a_base_model_like_others(tiny_model, tmp_path):
    """Under a new head of the usual kind it is no model of this kind any more."""
    from tunewell.models.load import load_classifier, load_encoder, load_tuned
    from tunewell.models.pooled import pooled
    from tunewell.tasks import TaskSpec

    spec = TaskSpec("text-classification", ("negative", "positive"))
    pooled(load_classifier(str(tiny_model), spec, seed=0)).save_pretrained(tmp_path / "few")
    shutil.copy(tiny_model / "tokenizer.json", tmp_path / "few")
    load_encoder(str(tmp_path / "few"))
    again = load_classifier(str(tmp_path / "few"), spec, seed=0)
    assert "classifier.weight" in again.drawn_parameters
    again.save_pretrained(tmp_path / "plain")
    shutil.copy(tiny_model / "tokenizer.json", tmp_path / "plain")
    torch.testing.assert_close(load_tuned(tmp_path / "plain")[0].classifier.weight, again.classifier.weight)


def test_a_folder_without_its_head_is_told(tiny_model: Path, tmp_path):
    from tunewell.models.load import load_tuned

    shutil.copytree(tiny_model, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | {"tunewell_pooled": True, "num_labels": 2}))
    with pytest.raises(ModelError, match="lacks its head on sentence embeddings"):
        load_tuned(tmp_path / "m")


# ---------------------------------------------------------------- runs


@pytest.fixture
def few_run(tiny_model: Path, make_moods, save_csv, tmp_path: Path):
    """A run on 8 rows of each of three moods and 40 test rows."""

    def run(n=24, rows=None, **keys):
        moods = make_moods(n + 40)
        train = save_csv(tmp_path / "few.csv", rows or moods[:n])
        test = save_csv(tmp_path / "test.csv", moods[n:])
        options = {"strategy": ["fewshot"], "learning_rate": 1e-3, **SMALL, "output_dir": str(tmp_path / "run")}
        files = {"train": str(train), "test": str(test), "model": str(tiny_model)}
        return tunewell.run(progress=False, echo=lines.append, **{**files, **options, **keys})

    lines: list[str] = []
    run.lines = lines
    return run


def test_a_run_takes_no_rows_away_and_says_so(few_run, tmp_path):
    run = few_run()
    split = json.loads((run.dir / "split.json").read_text())
    assert split["rows"] == {"train": 24, "validation": 0, "test": 40}
    assert any("no rows are taken away for validation" in line for line in few_run.lines)
    assert run.summary.n_train == 24
    assert run.choice.chosen.score.value is None
    assert run.calibration.calibrator.method == "none"
    assert "no validation rows" in run.calibration.reason
    assert run.training.steps == plan(np.full(3, 8), 16).steps
    assert run.metrics["accuracy"].value > 0.9  # words tell these moods, even under random weights
    assert run.predict(["good great lovely superb nice"]) == ["positive"]
    assert run.report_path.is_file()
    with pytest.raises(DataError, match="0 validation rows are too few"):
        SetPredictor(load_predictor(run.dir), 0.9)


def test_the_head_is_the_logistic_regression_of_scikit_learn_on_the_tuned_embeddings(
    few_run, make_reviews, save_csv, tmp_path
):
    """Two classes; C = 10 on rows of length 1."""
    from sklearn.linear_model import LogisticRegression

    from tunewell.models.embed import embed
    from tunewell.models.load import load_tuned

    test = str(save_csv(tmp_path / "two.csv", make_reviews(20, seed=3)))
    run = few_run(rows=make_reviews(24), test=test, fewshot_names=False)
    model, tokenizer = load_tuned(run.model_path)
    rows = [line.rsplit(",", 1) for line in (run.dir.parent / "few.csv").read_text().splitlines()[1:]]
    x = embed(model, tokenizer, [text for text, _ in rows], max_length=16)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = [label for _, label in rows]
    difference = (model.sentence_head.weight[1] - model.sentence_head.weight[0]).detach().numpy()
    # two rows of half the length each carry half the penalty of one row
    half = LogisticRegression(C=20.0, tol=1e-8, max_iter=5000).fit(x, y)
    assert np.abs(difference - half.coef_[0]).max() < 0.02 * np.abs(half.coef_).max()


def test_validation_rows_are_taken_where_asked_for(few_run):
    run = few_run(36, validation_size=0.25)
    assert json.loads((run.dir / "split.json").read_text())["rows"]["validation"] == 9
    assert run.choice.chosen.score.value is not None


def test_no_validation_rows_with_another_strategy(few_run, make_pairs, save_csv, tmp_path):
    probe = save_csv(tmp_path / "pairs.csv", make_pairs(60), ("text_a", "text_b", "score"))
    run = few_run(strategy=["average"], validation_size=0, keep=0.5, probe_files=[str(probe)])
    assert run.choice.chosen.score.value is None and run.choice.reason.startswith("no validation rows")
    linear = next(b for b in run.baselines if b.name == "linear-probe")
    assert linear.evaluation.headline.value > 0.7


def test_many_labels_a_class_are_validated(tiny_model, make_reviews):
    from tunewell.recipe import Recipe
    from tunewell.stages.prepare import validation_share

    recipe = Recipe(train="x.csv", strategy=["fewshot"])
    assert validation_share(recipe, ["a", "b"] * 64) == 0
    assert validation_share(recipe, ["a", "b"] * 65) == 0.1
    assert validation_share(Recipe(train="x.csv"), ["a", "b"]) == 0.1


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("keys", "error", "words"),
    [
        ({"strategy": ["fewshot", "lpft"]}, RecipeError, "leave `lpft` out"),
        ({"strategy": ["fewshot", "prompt"]}, RecipeError, "`prompt` goes with"),
        ({"strategy": ["fewshot", "freeze"], "freeze": "head_only"}, RecipeError, "to tune it by contrast"),
        ({"strategy": ["auto"], "keep": 0.9, "validation_size": 0, "probes": ["auto"]}, RecipeError, "there are none"),
        ({"calibrate": "temperature"}, RecipeError, "fitted on validation rows, and there are none"),
        ({"monitor": "rollback", "keep": 0.9, "probes": ["auto"]}, RecipeError, "there are none"),
        ({"label_separator": " ", "multi_label": True}, RecipeError, "compares texts of one class"),
        ({"task": "text-regression", "rows": [(f"crew {i}", str(i / 7)) for i in range(40)]}, RecipeError, "classes"),
        ({"rows": [("good crew", "a"), ("bad crew", "b")]}, DataError, "a single training row"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_told_before_anything_is_written(few_run, save_csv, tmp_path, keys, error, words):
    if "rows" in keys:
        keys = keys | {"test": str(save_csv(tmp_path / "t.csv", keys["rows"]))}
    with pytest.raises(error, match=words):
        few_run(**keys)
    assert not (tmp_path / "run" / "recipe.yaml").exists()


@pytest.mark.parametrize("task", ["text-generation", "question-answering"])
def test_other_tasks_refuse_it(task, tiny_model, tiny_decoder, tmp_path):
    rows = [{"prompt": f"say {i}", "completion": f"word {i}"} for i in range(20)]
    if task == "question-answering":
        rows = [{"question": f"which {i}?", "context": f"room {i}", "answers": [f"room {i}"]} for i in range(20)]
    train = tmp_path / "rows.jsonl"
    train.write_text("\n".join(json.dumps(row) for row in rows))
    model = tiny_decoder if task == "text-generation" else tiny_model
    with pytest.raises(RecipeError, match=f"does not go with {task}"):
        tunewell.run(
            train=str(train), task=task, model=str(model), strategy=["fewshot"], probes=["none"],
            output_dir=str(tmp_path / "run"), progress=False, echo=lambda line: None,
        )  # fmt: skip


def test_what_chooses_on_validation_rows_refuses_to_go_without(tiny_model, tiny_csv, tmp_path):
    from tunewell.curve.run import learning_curve
    from tunewell.sequence.run import run_sequence

    keys = {"model": str(tiny_model), "validation_size": 0, "bf16": False, "output_dir": str(tmp_path / "run")}
    with pytest.raises(RecipeError, match="best epoch from validation rows, and there are none"):
        learning_curve(train=str(tiny_csv), echo=lambda line: None, **keys)
    tasks = [{"name": name, "train": str(tiny_csv)} for name in ("a", "b")]
    with pytest.raises((DataError, RecipeError), match="chooses on validation rows, and there are none"):
        run_sequence({"tasks": tasks, "strategy": "plain", **keys}, echo=lambda line: None)
    with pytest.raises(RecipeError, match="unknown strategy `fewshot`; a sequence knows"):
        run_sequence({"tasks": tasks, "strategy": "fewshot", "model": str(tiny_model)}, echo=lambda line: None)


def test_a_decoder_is_refused(few_run, tiny_decoder, tmp_path):
    with pytest.raises((ModelError, RecipeError), match="decoder"):
        few_run(model=str(tiny_decoder))


def test_a_class_of_the_test_file_without_a_training_row(few_run, make_moods, save_csv, tmp_path):
    rows = [(t, m) for t, m in make_moods(24) if m != "neutral"]
    with pytest.raises(DataError, match="'neutral' is in test but in no training row"):
        few_run(rows=rows)


def test_in_scikit_learn(tiny_model, make_moods):
    from tunewell import TextClassifier

    rows = make_moods(64)
    texts, labels = [t for t, _ in rows], [m for _, m in rows]
    clf = TextClassifier(model=str(tiny_model), strategy="fewshot", learning_rate=1e-3, bf16=False, threads=1)
    clf.fit(texts[:24], labels[:24])
    assert clf.score(texts[24:], labels[24:]) > 0.9
    assert clf.training_.examples >= 24 and clf.choice_.chosen.score.value is None


@pytest.mark.slow
def test_explanations_and_onnx_read_the_head(few_run):
    """Explanations by gradients and by leaving words out, and the exported model's answers."""
    pytest.importorskip("onnxruntime")
    from tunewell.export.run import export

    run = few_run(explain=2)
    assert len(run.explanations.explanations) == 2
    for method in ("integrated_gradients", "occlusion"):
        found = run.explain(["good great lovely superb nice"], method=method)[0]
        assert found.target == "positive"
    export(run.dir, run.dir.parent / "onnx")  # held to the same answers, or refused
