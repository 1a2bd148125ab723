"""The estimators keep scikit-learn's promises; the model goes through pickles as safetensors."""

from __future__ import annotations

import copy
import pickle
import pickletools
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks as checks

from tunewell import TextClassifier, TextRegressor
from tunewell.data.memory import kind_of, target_of, texts_of
from tunewell.errors import RecipeError, TunewellError
from tunewell.estimators import InputError, KeepWarning
from tunewell.recipe import Recipe

BOTH = pytest.mark.parametrize("kind", [TextClassifier, TextRegressor])
GOOD = {"good", "great", "lovely", "happy", "fine", "nice", "superb", "bright"}


@pytest.fixture(scope="module")
def rows(make_reviews: Callable[..., Any]) -> list[tuple[str, str]]:
    return make_reviews(120)


@pytest.fixture(scope="module")
def texts(rows: list[tuple[str, str]]) -> list[str]:
    return [text for text, _ in rows]


@pytest.fixture(scope="module")
def labels(rows: list[tuple[str, str]]) -> list[str]:
    return [label for _, label in rows]


@pytest.fixture(scope="module")
def stars(texts: list[str]) -> np.ndarray:
    """Good words in a text, shown on a scale far from 0 and 1."""
    return np.array([1000 + 10 * len(GOOD & set(text.split())) for text in texts], dtype=float)


@pytest.fixture(scope="module")
def quick(tiny_model: Path) -> dict[str, Any]:
    """Parameters under which a fit takes a second."""
    return {
        "model": str(tiny_model),
        "learning_rate": 0.003,
        "num_train_epochs": 6,
        "per_device_train_batch_size": 8,
        "early_stopping_patience": 0,
        "bf16": False,
        "threads": 1,
    }


@pytest.fixture(scope="module")
def classifier(quick: dict[str, Any], texts: list[str], labels: list[str]) -> TextClassifier:
    return TextClassifier(**quick).fit(texts, labels)


@pytest.fixture(scope="module")
def regressor(quick: dict[str, Any], texts: list[str], stars: np.ndarray) -> TextRegressor:
    return TextRegressor(**quick).fit(texts, stars)


# ---------------------------------------------------------------- scikit-learn's own checks, before any fit


@BOTH
@pytest.mark.parametrize(
    "check",
    [
        checks.check_estimator_cloneable,
        checks.check_estimator_repr,
        checks.check_estimator_tags_renamed,
        checks.check_valid_tag_types,
        checks.check_no_attributes_set_in_init,
        checks.check_do_not_raise_errors_in_init_or_set_params,
        checks.check_parameters_default_constructible,
        checks.check_get_params_invariance,
        checks.check_set_params,
        checks.check_mixin_order,
    ],
    ids=lambda check: check.__name__,
)
def test_scikit_learns_checks(kind: Any, check: Any) -> None:
    check(kind.__name__, kind())


def test_kinds() -> None:
    assert is_classifier(TextClassifier())
    assert is_regressor(TextRegressor())


@BOTH
def test_parameters_are_recipe_keys_with_the_recipes_defaults(kind: Any) -> None:
    defaults = {name: field.default for name, field in Recipe.model_fields.items()}
    own = {"random_state": 42, "verbose": 0, "class_weight": None, "probes": "auto", "probe_files": ()}
    for name, value in kind().get_params().items():
        expected = own[name] if name in own else defaults[name]
        assert (list(value) if isinstance(value, tuple) else value) == (
            list(expected) if isinstance(expected, tuple) else expected
        ), name


@BOTH
def test_parameters_are_keywords(kind: Any) -> None:
    with pytest.raises(TypeError, match="positional"):
        kind("a-model")


def test_unknown_parameter_is_refused() -> None:
    with pytest.raises(ValueError, match="Invalid parameter 'learning_rat'"):
        TextClassifier().set_params(learning_rat=1)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"learning_rate": -1}, "`learning_rate: -1`: expected greater than 0"),
        ({"strategy": "distil"}, "did you mean `distill`?"),
        ({"keep": 1.5}, "`keep: 1.5`: expected less than or equal to 1"),
        ({"validation_size": 1.5}, "`validation_size: 1.5`: expected less than 1"),
        ({"class_weight": {"a": 2}}, "`class_weight: {'a': 2}`: expected 'none' or 'balanced'"),
    ],
)
def test_wrong_values_are_named_at_fit(parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError) as caught:
        TextClassifier(**parameters).fit(["a", "b"], ["x", "y"])
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("TextClassifier: ")


def test_numpy_parameters_are_taken(quick: dict[str, Any]) -> None:
    estimator = TextClassifier(**quick).set_params(
        learning_rate=np.float64(0.01),
        per_device_train_batch_size=np.int64(8),
        average_alphas=np.array([0.5, 1.0]),
        random_state=np.int64(3),
        model=Path(quick["model"]),
    )
    recipe = estimator._recipe()
    assert (recipe.learning_rate, recipe.per_device_train_batch_size, recipe.seed) == (0.01, 8, 3)
    assert recipe.average_alphas == [0.5, 1.0]
    assert recipe.model == quick["model"]


@BOTH
@pytest.mark.parametrize("attribute", ["model_", "tokenizer_", "classes_", "choice_", "training_", "n_iter_"])
def test_nothing_is_learned_before_fit(kind: Any, attribute: str) -> None:
    assert not hasattr(kind(), attribute)


@BOTH
def test_not_fitted(kind: Any) -> None:
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        kind().predict(["a"])


# ---------------------------------------------------------------- X and y


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        np.array,
        lambda t: np.array(t, dtype=object),
        pd.Series,
        iter,
        lambda t: np.array(t)[:, None],
        lambda t: pd.DataFrame({"text": t}),
        lambda t: pd.Series(t, dtype="category"),
    ],
)
def test_forms_of_texts(make: Any) -> None:
    assert texts_of(make(["a", "b", ""])) == (["a", "b", ""], None)


@pytest.mark.parametrize(
    "make",
    [
        list,
        np.array,
        lambda p: [list(pair) for pair in p],
        lambda p: pd.DataFrame(p, columns=["question", "answer"]),
        lambda p: pd.Series(p),
        lambda p: np.array(p, dtype=object),
    ],
)
def test_forms_of_pairs(make: Any) -> None:
    assert texts_of(make([("a", "b"), ("c", "d"), ("e", "")])) == (["a", "c", "e"], ["b", "d", ""])


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ("one text", "X is a str"),
        (None, "X is a NoneType"),
        (3, "X is a int"),
        ({"text": ["a"]}, "X is a dict"),
        ([], "X holds no rows"),
        (["a", None], "X[1] is missing"),
        (["a", float("nan")], "X[1] is missing"),
        (["a", b"b"], "X[1] is a bytes"),
        ([1.5], "X[0] is a float"),
        ([("a", "b"), "c"], "X[1] is a str"),
        ([("a", "b"), ("c", "d", "e")], "X[1] is 3 entries"),
        ([("a", "b"), ("c", None)], "X[1][1] is missing"),
        (np.array([["a", "b", "c"]]), "X has the shape (1, 3)"),
        (np.array([[["a"]]]), "X has the shape (1, 1, 1)"),
        (pd.DataFrame({"a": ["x"], "b": [1]}), "X[0][1] is a int"),
        (pd.Series(["a", pd.NA]), "X[1] is missing"),
    ],
)
def test_x_that_is_no_texts(found: Any, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        texts_of(found)
    assert sentence in str(caught.value)
    assert caught.value.expected
    assert isinstance(caught.value, (ValueError, TunewellError))


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (None, "y is missing"),
        ("label", "y is a str"),
        (["a", None], "y[1] is missing"),
        ([1.0, float("nan")], "y[1] is missing"),
        (pd.Series([1, pd.NA], dtype="Int64"), "y[1] is missing"),
        (["a", "a"], "y holds one class only, a"),
        ([0.5, 1.25], "numbers that are no classes, such as 0.5"),
        ([["a"], ["a", "b"]], "y is neither one label a row nor a 0/1 matrix"),
        (np.array([["a", "b"], ["c", "d"]]), "y is neither one label a row nor a 0/1 matrix"),
        (pd.Series(["a", 1], dtype=object), "y mixes int and str"),
        (["a", "b", "a"], "2 texts but 3 labels"),
        (pd.DataFrame([[1, 0], [0, 1]], columns=["x", "x"]), "two columns of y have the same name"),
    ],
)
def test_y_that_is_no_labels(found: Any, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        TextClassifier().fit(["a", "b"], found)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (["good", "bad"], "y is not numbers"),
        ([1.0, float("inf")], "y[1] is inf"),
        ([1.0, None], "y[1] is missing"),
        (np.ones((2, 2)), "y has the shape (2, 2)"),
        ([1.0], "2 texts but 1 labels"),
    ],
)
def test_y_that_is_no_numbers(found: Any, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        TextRegressor().fit(["a", "b"], found)
    assert sentence in str(caught.value)


def test_a_column_of_labels_is_flattened_with_a_warning() -> None:
    with pytest.warns(DataConversionWarning, match="column-vector"):
        assert target_of(np.array([["a"], ["b"]])).tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("y", "kind"),
    [
        (["a", "b"], "binary"),
        ([True, False], "binary"),
        ([1, 2, 3], "multiclass"),
        (pd.Series(["a", "b", "c"]), "multiclass"),
        (pd.Categorical(["a", "b", "c"]), "multiclass"),
        (np.array([[0, 1], [1, 1]]), "multilabel-indicator"),
        (scipy.sparse.csr_matrix([[0, 1], [1, 1]]), "multilabel-indicator"),
        ([["a"], ["b", "c"]], "unknown"),
        ([0.5, 1.5], "continuous"),
    ],
)
def test_kinds_of_targets(y: Any, kind: str) -> None:
    assert kind_of(target_of(y)) == kind


# ---------------------------------------------------------------- what a fit gives


def test_learns_what_can_be_learned(
    classifier: TextClassifier, regressor: TextRegressor, make_reviews: Any, stars: np.ndarray, texts: list[str]
) -> None:
    fresh = make_reviews(60, seed=99)
    assert classifier.score([t for t, _ in fresh], [y for _, y in fresh]) >= 0.9
    assert regressor.score(texts, stars) >= 0.8  # R², in y's own units: 1000 to 1020


def test_learned_attributes(classifier: TextClassifier) -> None:
    assert classifier.classes_.tolist() == ["negative", "positive"]
    assert classifier.n_iter_ == classifier.training_.steps == 6 * 14  # 108 rows in batches of 8
    assert classifier.seed_ == 42
    assert classifier.choice_.met is None
    assert classifier.model_.config.id2label == {0: "negative", 1: "positive"}
    assert classifier.tokenizer_.model_max_length == classifier.max_length_


def test_probabilities_and_labels_agree(classifier: TextClassifier, texts: list[str]) -> None:
    probabilities = classifier.predict_proba(texts)
    assert probabilities.shape == (120, 2)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    assert (classifier.classes_[probabilities.argmax(1)] == classifier.predict(texts)).all()


def test_the_model_is_a_plain_transformers_one(classifier: TextClassifier, texts: list[str], tmp_path: Path) -> None:
    from transformers import pipeline

    classifier.model_.save_pretrained(tmp_path)
    classifier.tokenizer_.save_pretrained(tmp_path)
    plain = pipeline("text-classification", model=str(tmp_path), top_k=None)
    for text, row in zip(texts[:5], classifier.predict_proba(texts[:5]), strict=True):
        scores = {answer["label"]: answer["score"] for answer in plain([text])[0]}
        np.testing.assert_allclose([scores["negative"], scores["positive"]], row, atol=1e-5)


def test_order_and_company_of_rows_do_not_matter(classifier: TextClassifier, texts: list[str]) -> None:
    whole, order = classifier.predict_proba(texts), np.random.default_rng(0).permutation(120)
    np.testing.assert_allclose(classifier.predict_proba(np.array(texts)[order]), whole[order], atol=1e-6)
    np.testing.assert_allclose(classifier.predict_proba(texts[:7]), whole[:7], atol=1e-6)


def test_fit_again_is_a_new_start(quick: dict[str, Any], classifier: TextClassifier, texts: Any, labels: Any) -> None:
    again = TextClassifier(**quick)
    assert again.fit(texts[:40], [label == "positive" for label in labels[:40]]) is again
    again.fit(texts, labels)
    assert (again.predict_proba(texts) == classifier.predict_proba(texts)).all()


def test_other_seeds_give_other_models(quick: dict[str, Any], texts: list[str], labels: list[str]) -> None:
    few = {**quick, "max_steps": 2}

    def proba(seed: Any) -> np.ndarray:
        return TextClassifier(**few, random_state=seed).fit(texts, labels).predict_proba(texts)

    assert (proba(7) != proba(8)).any()
    assert (proba(np.random.RandomState(3)) == proba(np.random.RandomState(3))).all()
    assert TextClassifier(**few, random_state=None)._recipe().seed != TextClassifier(random_state=None)._recipe().seed


def test_a_fit_leaves_the_callers_process_as_it_was(quick: dict[str, Any], texts: list[str], labels: list[str]) -> None:
    import datasets
    import torch

    threads, bars = torch.get_num_threads(), datasets.are_progress_bars_disabled()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = random.random(), np.random.random(), torch.rand(1).item()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    TextClassifier(**quick, max_steps=1).fit(texts, labels)
    assert (random.random(), np.random.random(), torch.rand(1).item()) == expected
    assert torch.get_num_threads() == threads
    assert datasets.are_progress_bars_disabled() == bars


def test_silent_unless_asked(
    quick: dict[str, Any], texts: list[str], labels: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    TextClassifier(**quick, evals_per_epoch=2).fit(texts, labels)
    assert tuple(capfd.readouterr()) == ("", "")
    TextClassifier(**quick, max_steps=1, verbose=1).fit(texts, labels)
    out, err = capfd.readouterr()
    assert out == ""
    assert "tune: plain, 108 rows" in err


@pytest.mark.parametrize(
    "make",
    [
        lambda y: [v == "positive" for v in y],
        lambda y: [5 if v == "positive" else 10 for v in y],
        lambda y: np.where(np.array(y) == "positive", 2.0, 1.0),
        lambda y: pd.Series(y, dtype="category"),
        lambda y: pd.Series([int(v == "positive") for v in y], dtype="Int64"),
    ],
    ids=["bools", "ints", "floats", "categories", "nullable"],
)
def test_labels_come_back_in_their_own_type(
    quick: dict[str, Any], texts: list[str], labels: list[str], make: Any
) -> None:
    y = make(labels)
    fitted = TextClassifier(**quick).fit(texts, y)
    found = fitted.predict(texts)
    assert fitted.classes_.tolist() == sorted(set(np.asarray(y).tolist()))
    assert found.dtype == fitted.classes_.dtype
    assert (found == np.asarray(y)).mean() >= 0.9


def test_several_labels_a_row(quick: dict[str, Any], texts: list[str]) -> None:
    words = ["flight", "crew", "good"]
    matrix = np.array([[int(word in text.split()) for word in words] for text in texts])
    fitted = TextClassifier(**{**quick, "num_train_epochs": 12}).fit(texts, matrix)
    assert fitted.classes_.tolist() == [0, 1, 2]
    probabilities, found = fitted.predict_proba(texts), fitted.predict(texts)
    assert probabilities.shape == found.shape == (120, 3)
    assert ((probabilities >= 0.5) == found).all()
    assert (found == matrix).mean() >= 0.9
    assert fitted.score(texts, matrix) == (found == matrix).all(1).mean()  # scikit-learn's subset accuracy
    named = TextClassifier(**quick, max_steps=1).fit(texts, pd.DataFrame(matrix, columns=words))
    assert named.classes_.tolist() == words
    sparse = TextClassifier(**quick, max_steps=1).fit(texts, scipy.sparse.csr_matrix(matrix))
    assert (sparse.predict_proba(texts) == named.predict_proba(texts)).all()


def test_pairs(quick: dict[str, Any], texts: list[str]) -> None:
    pairs = list(zip(texts, texts[::-1], strict=True))
    fitted = TextRegressor(**quick, max_steps=2).fit(pairs, np.arange(120.0))
    assert fitted.predict(pairs).shape == (120,)
    frame = pd.DataFrame(pairs, columns=["a", "b"])
    assert (fitted.predict(frame) == fitted.predict(pairs)).all()
    assert (fitted.predict([p[::-1] for p in pairs]) != fitted.predict(pairs)).any()
    with pytest.raises(InputError, match="X holds single texts, but the model was fitted on pairs"):
        fitted.predict(texts)


def test_single_texts_do_not_become_pairs(classifier: TextClassifier) -> None:
    with pytest.raises(InputError, match="X holds pairs, but the model was fitted on single texts"):
        classifier.predict([("a", "b")])


def test_no_rows_to_predict(classifier: TextClassifier) -> None:
    with pytest.raises(ValueError, match="X holds no rows"):
        classifier.predict([])


# ---------------------------------------------------------------- pickles


def test_a_pickle_holds_bytes_and_no_tensor(classifier: TextClassifier) -> None:
    data = pickle.dumps(classifier)
    classes = [str(arg) for op, arg, _ in pickletools.genops(data) if op.name in ("SHORT_BINUNICODE", "GLOBAL")]
    assert not any(name.startswith(("torch", "transformers", "tokenizers")) for name in classes)
    files = classifier.__getstate__()["_files"]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    assert all(isinstance(content, bytes) for content in files.values())


@pytest.mark.parametrize(
    "through", [lambda e: pickle.loads(pickle.dumps(e)), copy.deepcopy], ids=["pickle", "deepcopy"]
)
def test_copies_predict_the_same(classifier: TextClassifier, texts: list[str], through: Any) -> None:
    twice = through(through(classifier))  # a copy of a copy whose model was never looked at
    assert (twice.predict_proba(texts) == classifier.predict_proba(texts)).all()
    assert twice.training_ == classifier.training_
    assert twice.get_params() == classifier.get_params()


def test_a_fresh_process_predicts_the_same(classifier: TextClassifier, texts: list[str], tmp_path: Path) -> None:
    joblib.dump(classifier, tmp_path / "model.joblib")
    code = (
        "import joblib, json, sys\n"
        f"model = joblib.load({str(tmp_path / 'model.joblib')!r})\n"
        "assert 'torch' not in sys.modules  # loaded when first needed\n"
        f"print(json.dumps(model.predict_proba({texts[:5]!r}).tolist()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    np.testing.assert_allclose(np.array(eval(done.stdout)), classifier.predict_proba(texts[:5]), atol=1e-6)


def test_unfitted_ones_are_pickled_too() -> None:
    again = pickle.loads(pickle.dumps(TextRegressor(keep=0.9)))
    assert again.get_params()["keep"] == 0.9
    with pytest.raises(NotFittedError):
        again.predict(["a"])


def test_a_pickle_without_weights_is_refused(classifier: TextClassifier) -> None:
    state = classifier.__getstate__()
    state["_files"] = {"config.json": b"{}"}
    with pytest.raises(TunewellError, match="holds no model"):
        TextClassifier().__setstate__(state)


# ---------------------------------------------------------------- in scikit-learn's company


def test_clone_forgets_what_was_learned(classifier: TextClassifier) -> None:
    again = clone(classifier)
    assert again.get_params() == classifier.get_params()
    assert not hasattr(again, "classes_")


def test_grid_search_in_a_pipeline(quick: dict[str, Any], texts: list[str], labels: list[str]) -> None:
    upper = [text.upper() for text in texts]
    steps = [("lower", FunctionTransformer(lambda xs: [x.lower() for x in xs])), ("model", TextClassifier(**quick))]
    search = GridSearchCV(Pipeline(steps), {"model__learning_rate": [1e-6, 0.003]}, cv=2, scoring="f1_macro")
    search.fit(upper, labels)
    assert search.best_params_ == {"model__learning_rate": 0.003}
    assert search.best_score_ >= 0.6
    assert search.predict(upper[:3]).tolist() == search.best_estimator_.named_steps["model"].predict(texts[:3]).tolist()
    assert search.predict_proba(upper[:3]).shape == (3, 2)


def test_cross_validation_with_a_dataframe_of_pairs(quick: dict[str, Any], texts: list[str], stars: np.ndarray) -> None:
    frame = pd.DataFrame({"a": texts, "b": ["the meal"] * 120})
    assert cross_val_score(TextRegressor(**quick), frame, stars, cv=2).shape == (2,)


# ---------------------------------------------------------------- keeping


@pytest.fixture(scope="module")
def probe_file(tmp_path_factory: pytest.TempPathFactory, texts: list[str], save_csv: Any) -> Path:
    """Pairs of texts scored by the words they share."""
    pairs = [(a, b, len(set(a.split()) & set(b.split()))) for a in texts[:12] for b in texts[12:24]]
    return save_csv(tmp_path_factory.mktemp("probe") / "words.csv", pairs, ("text_a", "text_b", "score"))


def test_keep_chooses_inside_the_budget(
    quick: dict[str, Any], texts: list[str], labels: list[str], probe_file: Path
) -> None:
    budget = {"probes": "none", "probe_files": [str(probe_file)], "keep": 0.9}
    fitted = TextClassifier(**quick, **budget, strategy="average", average_alphas=(0.05, 0.5, 1)).fit(texts, labels)
    assert fitted.choice_.met is True
    assert [c.parameters for c in fitted.choice_.candidates] == [{}, {"alpha": 0.5}, {"alpha": 0.05}]
    retention = fitted.retention()
    assert retention.half == "report"
    assert [p.counted for p in retention.probes] == [True]


def test_a_missed_budget_is_a_warning(
    quick: dict[str, Any], texts: list[str], labels: list[str], probe_file: Path
) -> None:
    estimator = TextClassifier(
        **quick, strategy="plain", probes="none", probe_files=[str(probe_file)], keep=1.0, keep_worst=1.0
    )
    with pytest.warns(KeepWarning, match="keep is not met"):
        estimator.fit(texts, labels)
    assert estimator.choice_.met is False
    assert estimator.predict(texts[:1]).shape == (1,)
