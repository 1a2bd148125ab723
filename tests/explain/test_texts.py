"""The Python interface: targets, kinds of tasks, `auto`, and the user's mistakes."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest

from tunewell.errors import DataError, RecipeError
from tunewell.explain.records import Explanation, Explanations
from tunewell.explain.scorer import Scorer
from tunewell.explain.show import text_of, tried_table
from tunewell.explain.texts import explain_texts
from tunewell.explain.tokens import CANDIDATES, METHODS
from tunewell.predict import Predictor
from tunewell.report.explanations import page, pieces_of
from tunewell.tasks import TaskSpec


@pytest.fixture(scope="module")
def found(tiny_predictor: Predictor, texts: list[str]) -> list[Explanation]:
    return explain_texts(tiny_predictor, texts, budget=1e9)


def test_auto_takes_the_most_faithful(found: list[Explanation]) -> None:
    tried = {t.method: t.gap for t in found[0].tried}
    assert list(tried) == list(CANDIDATES)
    assert found[0].method == max(tried, key=lambda name: tried[name] or 0.0)
    mean = sum(e.faithfulness.gap for e in found) / len(found)
    assert mean == pytest.approx(tried[found[0].method])
    assert found[0].method in tried_table(found[0].tried)


def test_without_time_the_first_is_taken(tiny_predictor: Predictor, texts: list[str]) -> None:
    (e,) = explain_texts(tiny_predictor, texts[:1], budget=0)
    assert e.method == CANDIDATES[0]
    assert all("left out: would take about" in t.note for t in e.tried[1:])


class Counted(Scorer):
    """A scorer that takes a second for a thousand rows, whatever the machine does."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        Counted.last = self

    last: Any = None


@pytest.mark.parametrize("budget", [4, 8, 13])
def test_auto_keeps_its_budget_with_measuring_counted(
    budget: float, tiny_predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time is rows here: no call may go on for longer, beyond what the first method takes."""
    from tunewell.explain import auto, faithfulness
    from tunewell.explain import texts as module

    sentence = "the crew was great and the seat was fine but the meal was cold and the film was"
    texts = [f"{sentence} {word}" for word in ("bad", "good", "rude", "nice", "late", "new")] * 10
    monkeypatch.setattr(module, "scorer_of", lambda p: Counted(p.model, p.tokenizer, p.spec))
    monkeypatch.setattr(auto.time, "perf_counter", lambda: Counted.last.forwards / 1000)
    found = explain_texts(tiny_predictor, texts, budget=budget)
    first = len(texts) * (3 + faithfulness.rows_to_measure(18))  # gradient × input alone, which is never left out
    assert 3000 < first < 4000
    assert Counted.last.forwards / 1000 <= budget
    tried = [t.method for t in found[0].tried if t.gap is not None]
    assert tried[0] == CANDIDATES[0] and (budget < 13 or len(tried) > 3)
    assert any("left out" in t.note for t in found[0].tried)


def test_rollout_is_no_candidate_since_its_scores_have_no_sign() -> None:
    assert set(METHODS) - set(CANDIDATES) == {"rollout", "random"}


def test_what_an_explanation_holds(found: list[Explanation], texts: list[str], tiny_predictor: Predictor) -> None:
    scores = tiny_predictor.scores(texts)
    for e, text, row in zip(found, texts, scores, strict=True):
        assert e.text == text
        assert [text[a:b] for a, b in e.spans] == list(e.words)
        assert len(e.words) == len(e.scores) == len(e.part)
        assert e.target == e.prediction == tiny_predictor.labels[row.argmax()]
        assert e.probability == pytest.approx(row.max(), abs=1e-5)
    with pytest.raises(FrozenInstanceError):
        found[0].method = "x"  # type: ignore[misc]


def test_the_probability_is_that_of_predictions(tiny_predictor: Predictor, texts: list[str]) -> None:
    """After the run's calibration; scores among the words are not touched by it."""
    from tunewell.results import Calibrator

    surer = replace(tiny_predictor, calibrator=Calibrator(method="temperature", temperature=0.05, n=60))
    plain, sure = (explain_texts(p, texts, method="occlusion") for p in (tiny_predictor, surer))
    for before, after, row in zip(plain, sure, surer.scores(texts), strict=True):
        assert after.probability == pytest.approx(row.max(), abs=1e-5)
        assert after.probability > before.probability + 1e-3
        assert (after.scores, after.score, after.prediction) == (before.scores, before.score, before.prediction)


def test_second_texts_are_for_runs_of_pairs(tiny_predictor: Predictor, texts: list[str]) -> None:
    """Of a plain model folder it is not known what it reads."""
    assert tiny_predictor.predict(texts, texts)
    run = replace(tiny_predictor, run=Path("runs/reviews"))
    for ask in (lambda: run.predict(texts, texts), lambda: explain_texts(run, texts, texts, method="occlusion")):
        with pytest.raises(DataError, match="tuned on single texts"):
            ask()


def test_a_label_of_ones_own(tiny_predictor: Predictor, texts: list[str]) -> None:
    """With two classes, the score for one is the score against the other."""
    one, other = (
        explain_texts(tiny_predictor, texts[:1], method="occlusion", target=label)[0] for label in tiny_predictor.labels
    )
    assert one.scores == pytest.approx([-s for s in other.scores], abs=1e-5)
    assert one.probability == pytest.approx(1 - (other.probability or 0), abs=1e-5)
    assert one.prediction == other.prediction
    assert one.target != one.prediction or other.target != other.prediction


def test_all_rows_are_explained_when_methods_are_tried_on_some(tiny_predictor: Predictor, make_reviews: Any) -> None:
    texts = [text for text, _ in make_reviews(70)]
    found = explain_texts(tiny_predictor, texts, method="auto", budget=0)
    assert [e.text for e in found] == texts
    named = explain_texts(tiny_predictor, texts, method=found[0].method)
    assert all(a.scores == pytest.approx(b.scores, abs=2e-4) for a, b in zip(found, named, strict=True))


@pytest.mark.parametrize("name", [n for n in METHODS if n not in ("shapley", "lime")])
def test_regression(name: str, tiny_predictor: Predictor, regression_model: Any, texts: list[str]) -> None:
    predictor = Predictor(regression_model, tiny_predictor.tokenizer, TaskSpec("text-regression", metric="r2"), 64)
    e = explain_texts(predictor, texts[:1], method=name)[0]
    assert (e.target, e.probability, e.faithfulness.unit) == (None, None, "label")
    assert e.score == pytest.approx(e.prediction, abs=1e-5)
    assert e.score == pytest.approx(float(predictor.scores(texts[:1])[0]), abs=1e-4)
    assert any(words in text_of(e, colour=False) for words in ("raise it: ", "lower it: "))
    with pytest.raises(RecipeError, match="predicts a value and has no labels"):
        explain_texts(predictor, texts[:1], target="positive")


def test_several_labels(tiny_predictor: Predictor, texts: list[str]) -> None:
    spec = TaskSpec("text-classification", tiny_predictor.labels, True, "f1_micro")
    predictor = Predictor(tiny_predictor.model, tiny_predictor.tokenizer, spec, 64)
    row = predictor.scores(texts[:1])[0]
    for j, label in enumerate(spec.labels):
        (e,) = explain_texts(predictor, texts[:1], method="integrated_gradients", target=label)
        assert e.probability == pytest.approx(row[j], abs=1e-5)
        assert isinstance(e.prediction, tuple)


def test_pairs(tiny_predictor: Predictor) -> None:
    spec = TaskSpec("text-classification", tiny_predictor.labels, pair=True)
    predictor = Predictor(tiny_predictor.model, tiny_predictor.tokenizer, spec, 64)
    (e,) = explain_texts(predictor, ["great crew"], ["rude crew today"], method="occlusion")
    assert (e.words, e.part) == (("great", "crew", "rude", "crew", "today"), (0, 0, 1, 1, 1))
    assert "".join(c for c, *_ in pieces_of(e, 1)) == "rude crew today"
    with pytest.raises(DataError, match="tuned on pairs of texts"):
        explain_texts(predictor, ["great crew"])
    with pytest.raises(DataError, match="1 texts but 2 second texts"):
        explain_texts(predictor, ["great crew"], ["a", "b"])


@pytest.mark.parametrize("text", ["😀 😀", "这家酒店很好", "שלום עולם", "a" * 500, "great\u200bcrew\n\nfine"])
def test_odd_texts_have_an_answer(text: str, tiny_predictor: Predictor) -> None:
    (e,) = explain_texts(tiny_predictor, [text], method="occlusion")
    assert e.words
    assert "".join(c for c, *_ in pieces_of(e, 0)) == text
    assert text_of(e, colour=True)


def test_mistakes_are_named(tiny_predictor: Predictor) -> None:
    with pytest.raises(DataError, match="text 2: an empty text has no words to explain"):
        explain_texts(tiny_predictor, ["fine", "  "])
    with pytest.raises(DataError, match="no text to explain"):
        explain_texts(tiny_predictor, [])
    with pytest.raises(RecipeError, match="no label `positiv`") as caught:
        explain_texts(tiny_predictor, ["fine"], target="positiv")
    assert caught.value.remedy == "did you mean `positive`?"
    with pytest.raises(RecipeError, match="no method `shaply`"):
        explain_texts(tiny_predictor, ["fine"], method="shaply")


def test_records_come_back_from_json(found: list[Explanation]) -> None:
    record = Explanations(method="m", title="t", paper="p", unit="u", tried=found[0].tried, explanations=tuple(found))
    again = Explanations.model_validate_json(record.model_dump_json())
    assert again.explanations == tuple(found)
    assert json.loads(json.dumps(found[0].to_dict()))["words"] == list(found[0].words)


def test_the_page_escapes_text_and_shows_signs(tiny_predictor: Predictor) -> None:
    (e,) = explain_texts(tiny_predictor, ["<script>alert(1)</script> great & bad"], method="occlusion")
    html = page([replace(e, label="negative")], name="<b>")
    assert "<script>alert" not in html and "<b>" not in html.split("<main>")[0].split("<h1>")[1].split("</h1>")[0]
    assert "alert" in html and "&amp;" in html
    strongest = max(e.scores, key=abs)
    assert f'data-tip="{strongest:+.3f}"' in html
    assert "default-src 'none'" in html and "prefers-color-scheme" in html
    assert "http" not in html.replace("http-equiv", "")
