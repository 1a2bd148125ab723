"""Classes by decoders: under a head on the last token, and by the likelihood of the classes' names."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tunewell.errors import ModelError, RecipeError, TunewellError
from tunewell.tasks.generation.writers import CausalWriter
from tunewell.tasks.likelihood import LabelLikelihood, conversation, probabilities, question, zero_shot
from tunewell.tasks.spec import TaskSpec

LABELS = ("good", "not_so_good", "small")


@pytest.fixture(scope="module")
def scorer(tiny_decoder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_decoder).eval()
    model.config.max_position_embeddings = 512
    return LabelLikelihood(model, AutoTokenizer.from_pretrained(tiny_decoder), LABELS, 512)


TEXTS = ["the hotel was good", "one", "red blue green black white small large room seat meal phone today"]


def test_likelihoods_are_those_of_the_whole_conversation(scorer):
    """Keys and values of a question serve for every class, in padded batches: the figures are those without."""
    writer = CausalWriter(scorer.model, scorer.tokenizer, 512)
    rows = [writer.encode(conversation(LABELS, label, text)) for text in TEXTS for label in LABELS]
    expected = writer.likelihood(rows)
    found = scorer.log_likelihoods(TEXTS)
    assert np.allclose(found, -expected.nats.reshape(3, 3), atol=1e-3)
    scorer.normalise = "mean"
    try:
        mean = scorer.log_likelihoods(TEXTS)
    finally:
        scorer.normalise = "sum"
    assert np.allclose(mean, -(expected.nats / expected.tokens).reshape(3, 3), atol=1e-3)


def test_calibration_by_its_definition(scorer):
    """Zhao et al., 2021: p̂ ∝ p / p_cf, with the mean p_cf over texts without content."""
    from scipy.special import softmax

    own = LabelLikelihood(scorer.model, scorer.tokenizer, LABELS, 512)
    own.calibrate()
    p = softmax(own.log_likelihoods(TEXTS), axis=1)
    free = softmax(own.log_likelihoods(["N/A", "[MASK]", ""]), axis=1).mean(0)
    expected = p / free / (p / free).sum(1, keepdims=True)
    assert np.allclose(own.scores(TEXTS), expected, atol=1e-4)
    even = probabilities(np.log(free)[None], np.log(free))
    assert np.allclose(even, 1 / 3, atol=1e-6)  # a text without content is for no class


def test_the_variant_is_chosen_on_validation(scorer):
    spec = TaskSpec("text-classification", LABELS, metric="accuracy")
    truth = np.array([0, 1, 2])
    variant, found = zero_shot(scorer, spec, {"validation": (TEXTS, None), "test": (TEXTS, None)}, truth)
    assert variant in {"mean, calibrated", "mean", "sum, calibrated", "sum"}
    assert np.allclose(found["validation"], found["test"]) and np.allclose(found["test"].sum(1), 1, atol=1e-5)


def test_a_long_text_loses_its_end_and_not_the_question(scorer):
    own = LabelLikelihood(None, scorer.tokenizer, LABELS, 160)
    (ids,) = own.prompts(["room " * 300], None)
    text = scorer.tokenizer.decode(ids)
    assert len(ids) == 160 and "Which of these fits" in text and text.endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_many_classes_are_not_listed():
    assert "c7" not in question([f"c{i}" for i in range(150)], "x")[0]["content"]


# ---------------------------------------------------------------- runs


def run(tiny_csv, tiny_decoder, folder, **keys):
    import tunewell

    options = {"max_steps": 2, "probes": "none", "explain": 0, "bf16": False, "per_device_train_batch_size": 8,
               "learning_rate": 1e-3} | keys  # fmt: skip
    return tunewell.run(
        train=str(tiny_csv), model=str(tiny_decoder), output_dir=str(folder), echo=lambda line: None, progress=False,
        **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def roomy_decoder(tiny_decoder, tmp_path_factory):
    """The tiny decoder with a window that questions fit into."""
    import shutil

    from transformers import AutoConfig, AutoTokenizer

    folder = tmp_path_factory.mktemp("roomy") / "model"
    shutil.copytree(tiny_decoder, folder)
    config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    config.max_position_embeddings = tokenizer.model_max_length = 512
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_head_on_a_decoder(tiny_csv, roomy_decoder, tmp_path):
    finished = run(tiny_csv, roomy_decoder, tmp_path / "run", explain=2)
    assert {b.name for b in finished.baselines} >= {"majority", "tfidf", "linear-probe", "label-likelihood"}
    model = finished.predictor.model
    assert type(model).__name__ == "LlamaForSequenceClassification"
    # the last token that is no padding is looked at: a batch of other lengths changes no answer
    texts = ["good crew", "the hotel was bad and rude and the seat was broken today"]
    together = finished.predict_proba(texts)
    assert np.allclose(together[:1], finished.predict_proba(texts[:1]), atol=1e-5)
    ids = finished.predictor.tokenizer(texts[0], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        last = model.score(model.model(input_ids=ids).last_hidden_state[:, -1]).softmax(-1)
    assert np.allclose(last.numpy(), together[:1], atol=1e-5)
    assert finished.explanations is not None


def test_tuned_by_likelihood(tiny_csv, roomy_decoder, tmp_path):
    finished = run(
        tiny_csv, roomy_decoder, tmp_path / "run", classify_by="likelihood", max_steps=60, learning_rate=3e-3,
        early_stopping_patience=0,
    )  # fmt: skip
    assert finished.summary.task == "text-classification" and finished.summary.test.n == 24
    assert type(finished.predictor.model).__name__ == "LlamaForCausalLM"
    losses = [entry["loss"] for entry in finished.training.history if "loss" in entry]
    assert losses[-1] < losses[0]
    assert set(finished.predict(["a good crew", "a bad seat"])) <= {"negative", "positive"}
    assert "load_run" in finished.report_path.read_text(encoding="utf-8")
    (why,) = finished.explain(["a good crew"], method="occlusion")
    assert why.words == ("a", "good", "crew") and why.target in ("negative", "positive")
    from tunewell.export.run import export
    from tunewell.run import evaluate_run

    with pytest.raises(TunewellError, match="no head"):
        export(finished.dir, tmp_path / "out", to="merged")

    again = evaluate_run(finished.dir, str(tiny_csv))
    assert again.n == 120


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"classify_by": "likelihood", "class_weight": "balanced"}, RecipeError, "`class_weight` does not go with"),
        ({"classify_by": "likelihood", "strategy": "lpft"}, RecipeError, "needs a classification head"),
        ({"classify_by": "likelihood", "task": "text-regression", "label": "n"}, RecipeError, "needs one class a text"),
        ({"classify_by": "likelihood", "max_length": 4000}, RecipeError, "beyond the model's window"),
        ({"classify_by": "words"}, RecipeError, "classify_by"),
        ({"text_pair": "other"}, RecipeError, "a decoder under a classification head reads one text"),
    ],
)
def test_what_a_decoder_cannot_do(roomy_decoder, tmp_path, save_csv, make_reviews, keys, error, message):
    rows = [(t, y, i, f"more {i}") for i, (t, y) in enumerate(make_reviews(60))]
    path = save_csv(tmp_path / "r.csv", rows, ("text", "label", "n", "other"))
    with pytest.raises(error, match=message):
        run(path, roomy_decoder, tmp_path / "run", **keys)


def test_an_encoder_has_no_likelihood(tiny_csv, tiny_model, tmp_path):
    with pytest.raises(ModelError, match="is no decoder"):
        run(tiny_csv, tiny_model, tmp_path / "run", classify_by="likelihood")
