"""The smallest change that turns an answer: against brute force on a linear model, and on one that reads."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tunewell.cli import app
from tunewell.errors import DataError, ModelError, RecipeError
from tunewell.explain.counterfactual.removal import irreducible, left, margin, margins_of, turning_sets
from tunewell.explain.counterfactual.replacement import Proposer, _fits
from tunewell.explain.counterfactual.search import counterfactuals
from tunewell.explain.scorer import Scorer
from tunewell.explain.segment import items_of
from tunewell.predict import Predictor
from tunewell.tasks import TaskSpec


def linear(weights: np.ndarray, bias: float = 0.0) -> Any:
    """Margins of a bag of words; and how many texts were asked for."""
    asked: list[int] = []

    def margins(sets: Any) -> np.ndarray:
        asked.append(len(sets))
        return np.array([bias + weights[~out].sum() for out in sets])

    margins.asked = asked  # type: ignore[attr-defined]
    return margins


def fewest(weights: np.ndarray, bias: float = 0.0) -> int | None:
    """The size of the smallest set whose removal turns the answer, by trying all."""
    for size in range(1, len(weights) + 1):
        for out in itertools.combinations(range(len(weights)), size):
            if bias + np.delete(weights, out).sum() < 0:
                return size
    return None


@pytest.mark.parametrize("seed", range(12))
def test_no_smaller_set_turns_a_linear_model(seed):
    rng = np.random.default_rng(seed)
    weights = rng.normal(0.25, 1.0, 9)
    if weights.sum() <= 0:
        weights -= weights.sum() / 9 - 0.2
    found = next(turning_sets(linear(weights), 9, most=9, rows=10_000), None)
    expected = fewest(weights)
    if expected is None:
        assert found is None
        return
    assert found is not None and found.sum() == expected
    assert weights[~found].sum() < 0
    for word in np.flatnonzero(found):  # irreducible: with any of them back the answer is as it was
        back = found.copy()
        back[word] = False
        assert weights[~back].sum() >= 0


def test_words_that_are_not_needed_come_back():
    weights = np.array([5.0, 1.0, -1.0, -2.0])  # without the first it has turned; the second is not needed
    out = irreducible(linear(weights), np.array([True, True, False, False]))
    assert out.tolist() == [True, False, False, False]


def test_no_more_is_asked_than_allowed():
    margins = linear(np.ones(50))
    assert next(turning_sets(margins, 50, most=5, rows=120), None) is None
    assert sum(margins.asked) == 120
    margins = linear(np.ones(3))
    assert [out.sum() for out in turning_sets(margins, 3, most=2, rows=1000)] == []


def test_sets_go_on_where_a_change_did_not_hold():
    weights = np.array([3.0, 0.5, 0.5, -1.5])
    sizes = [int(out.sum()) for out in turning_sets(linear(weights), 4, most=3, rows=1000)]
    assert sizes[0] == 1 and len(sizes) == 1  # every larger set holds the first word, or does not turn
    weights = np.array([2.0, 2.0, 2.0, -1.5])  # 4.5: any two of the first three, none alone
    found = [np.flatnonzero(out).tolist() for out in turning_sets(linear(weights, -2.6), 4, most=4, rows=1000)]
    assert sorted(found) == [[0], [1], [2]]
    found = [np.flatnonzero(out).tolist() for out in turning_sets(linear(weights, -1.0), 4, most=4, rows=1000)]
    assert sorted(found) == [[0, 1], [0, 2], [1, 2]]


def test_margins_by_hand(tiny_predictor: Predictor):
    from types import SimpleNamespace as N

    one = N(spec=TaskSpec("text-classification", ("a", "b", "c")))
    logits = np.array([[2.0, 1.5, -1.0], [0.0, 3.0, 1.0]])
    assert margin(one, logits, 0, None).tolist() == [0.5, -3.0]  # against the best other
    assert margin(one, logits, 0, 1).tolist() == [0.5, -2.0]  # until b is the best
    several = N(spec=TaskSpec("text-classification", ("a", "b", "c"), multi_label=True))
    assert margin(several, logits, 0, None).tolist() == [2.0, 0.0]  # until a goes
    assert margin(several, logits, 2, 2).tolist() == [1.0, -1.0]  # until c comes


def test_the_real_search_agrees_with_a_bag_of_words(bag: Scorer, tiny_predictor: Predictor, texts: list[str]):
    for text in texts:
        (item,) = items_of(tiny_predictor.tokenizer, [text], None, 128)
        known = bag.model.known(item)
        label = int(known.sum() > 0)
        signed = known if label else -known
        found = next(turning_sets(margins_of(bag, item, label, None), len(item.words), most=3, rows=5000), None)
        best = np.sort(signed)[::-1]
        needed = next((k for k in (1, 2, 3) if k < len(best) and signed.sum() - best[:k].sum() < 0), None)
        if needed is None:
            assert found is None or signed[~found].sum() < 1e-4
        else:
            assert found is not None and found.sum() == needed


@pytest.mark.parametrize(
    ("text", "spans", "expected"),
    [
        ("a good, long film", [(2, 6)], "a, long film"),
        ("good film", [(0, 4)], "film"),
        ("good film", [(5, 9)], "good"),
        ("the very very end", [(4, 8), (9, 13)], "the end"),
        ("很好吃", [(0, 1)], "好吃"),
        ("bad!", [(0, 3)], "!"),
        ("only", [(0, 4)], ""),
    ],
)
def test_what_is_left_of_a_text(text, spans, expected):
    assert left(text, spans) == expected


def test_every_change_holds_when_it_is_read(tiny_predictor: Predictor, make_reviews: Any):
    texts = [text for text, _ in make_reviews(12)]
    found = counterfactuals(tiny_predictor, texts)
    assert [c.text for c in found] == texts
    turned = [c for c in found if c.without]
    assert turned  # the tiny model turns on few words
    for c in turned:
        assert c.without is not None
        assert tiny_predictor.predict([c.without.text])[0] == c.without.prediction != c.prediction
        at = tiny_predictor.labels.index(c.label)
        assert tiny_predictor.scores([c.without.text])[0, at] == pytest.approx(c.without.probability, abs=1e-5)
        assert all(c.text[e.start : e.end] == e.word and e.instead is None for e in c.without.edits)
        assert c.without.text == left(c.text, [(e.start, e.end) for e in c.without.edits])
    for c in found:
        answer = tiny_predictor.scores([c.text])[0]
        assert c.label == c.prediction and c.probability == pytest.approx(answer.max(), abs=1e-5)
    json.dumps([c.to_dict() for c in found])


def test_an_answer_of_ones_own_is_what_comes(tiny_predictor: Predictor, make_reviews: Any):
    texts = [text for text, _ in make_reviews(12)]
    wanted = tiny_predictor.labels[0]
    for c in counterfactuals(tiny_predictor, texts, target=wanted):
        assert c.label == wanted
        if c.without:  # to it where it was not there, away from it where it was
            assert (c.without.prediction == wanted) == (c.prediction != wanted)


def test_a_word_instead_of_another(tiny_predictor: Predictor, tiny_model: Path, make_reviews: Any, monkeypatch):
    monkeypatch.setattr("tunewell.explain.counterfactual.replacement.LIKELY", 0.0)
    monkeypatch.setattr("tunewell.explain.counterfactual.replacement.PROPOSALS", 400)
    texts = [text for text, _ in make_reviews(6)]
    found = counterfactuals(tiny_predictor, texts, mask_model="splade-tiny")
    replaced = [c for c in found if c.instead]
    assert replaced
    for c in replaced:
        assert c.instead is not None and c.instead.likely is not None and 0 < c.instead.likely <= 1
        (edit,) = c.instead.edits
        assert edit.instead and c.instead.text == c.text[: edit.start] + edit.instead + c.text[edit.end :]
        assert tiny_predictor.predict([c.instead.text])[0] == c.instead.prediction != c.prediction


def test_proposals_are_what_the_masked_model_says(tiny_predictor: Predictor):
    import torch

    proposer = Proposer("splade-tiny")
    (item,) = items_of(tiny_predictor.tokenizer, ["the crew was great today"], None, 64)
    found = proposer(item, [item.words.index("great")])
    assert found and all(p.word == item.words.index("great") for p in found)
    batch = proposer.tokenizer(f"the crew was {proposer.tokenizer.mask_token} today", return_tensors="pt")
    with torch.inference_mode():
        logits = proposer.model(**batch).logits[0, 4]
    p = logits.softmax(0)
    for one in found:
        token = proposer.tokenizer.convert_tokens_to_ids(one.instead)
        assert one.likely == pytest.approx(float(p[token] / p.max()), rel=1e-3)


@pytest.mark.parametrize(
    ("token", "instead", "word", "fits"),
    [
        ("bad", "bad", "good", True),
        ("##ly", "##ly", "good", False),
        ("!", "!", "good", False),
        ("Good", "Good", "good", False),
        ("goods", "goods", "good", False),
        ("bad", "bad", "...", False),
    ],
)
def test_what_fits_in_a_place(token, instead, word, fits):
    assert _fits(token, instead, word) == fits


def test_mistakes(tiny_predictor: Predictor, tiny_classifier: Path):
    with pytest.raises(DataError, match="empty text"):
        counterfactuals(tiny_predictor, [" "])
    with pytest.raises(RecipeError, match="no label"):
        counterfactuals(tiny_predictor, ["a"], target="nope")
    with pytest.raises(ModelError, match="masked"):
        counterfactuals(tiny_predictor, ["a"], mask_model=str(tiny_classifier))


def test_the_command(tiny_classifier: Path, tmp_path: Path):
    runner = CliRunner()
    data = tmp_path / "rows.csv"
    data.write_text("text,label\nthe crew was rude and the seat was dirty,x\n,y\nnice hotel,x\n", encoding="utf-8")
    out = tmp_path / "changes.jsonl"
    args = ["counterfactual", str(tiny_classifier), "--data", str(data), "--text", "text", "-o", str(out)]
    result = runner.invoke(app, args)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [r["text"] for r in rows] == ["the crew was rude and the seat was dirty", "nice hotel"]
    shown = runner.invoke(app, ["counterfactual", str(tiny_classifier), "the crew was rude"])
    assert shown.exit_code == 0 and "the crew was rude" in shown.output
    for wrong, said in (
        ([str(tiny_classifier)], "give one TEXT"),
        ([str(tiny_classifier), "x", "-o", "a.csv"], "unknown ending"),
        ([str(tmp_path / "none"), "x"], "no such"),
        ([str(tiny_classifier), "x", "--most", "0"], "--most"),
    ):
        result = runner.invoke(app, ["counterfactual", *wrong])
        assert result.exit_code == 2 and said in result.output, result.output


ODD = [
    "😀😀 👍🏽", "الغرفة كانت رائعة", "这个房间很好,我们很喜欢!", "good", "!!! ... ?!", "good " * 300,
    "<b>the crew</b> & <script>alert('bad')</script>", "e\u0301te\u0301 was bad", "a\tb\n\nc bad\u200b",
]  # fmt: skip


@pytest.mark.parametrize("text", ODD, ids=lambda t: ascii(t[:8]))
def test_odd_texts(tiny_predictor: Predictor, text: str):
    (found,) = counterfactuals(tiny_predictor, [text], rows=150, mask_model="splade-tiny")
    assert found.text == text and found.asked <= 150 + 130 + 12 * 40  # words taken out one by one, and proposals
    for changed in (found.without, found.instead):
        if changed is not None:
            assert tiny_predictor.predict([changed.text])[0] == changed.prediction != found.prediction
            assert all(text[e.start : e.end] == e.word for e in changed.edits)


def headed(folder: Path, base: Path, labels: int, **more: Any) -> Path:
    """A random head of so many labels."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    names = {i: f"label {i}" for i in range(labels)}
    model = AutoModelForSequenceClassification.from_pretrained(
        base, id2label=names, label2id={v: k for k, v in names.items()}, **more
    )
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def test_a_row_without_any_label_turns_when_one_comes(tiny_model: Path, tmp_path: Path, make_reviews: Any):
    """Such a row has no label that could go: what turns it is the likeliest one's coming, and nothing less."""
    import torch
    from transformers import AutoModelForSequenceClassification

    folder = headed(tmp_path / "m", tiny_model, 3, problem_type="multi_label_classification")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    texts = [text for text, _ in make_reviews(12)]
    highest = Predictor.load(folder).scores(texts).max()
    with torch.no_grad():
        model.classifier.bias -= float(np.log(highest / (1 - highest))) + 0.05  # now no text has a label
    model.save_pretrained(folder)
    predictor = Predictor.load(folder)
    assert predictor.spec.multi_label and not any(predictor.predict(texts))
    found = counterfactuals(predictor, texts)
    assert any(c.without for c in found)
    for c in found:
        assert c.prediction == () and c.probability < 0.5
        assert c.label == predictor.labels[int(predictor.scores([c.text])[0].argmax())]
        if c.without:
            assert c.label in c.without.prediction and c.without.probability >= 0.5


def test_a_model_without_a_mask_and_a_decoder_propose_nothing(tiny_predictor: Predictor, tiny_decoder, tmp_path: Path):
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    from tunewell.models.load import locate

    folder = tmp_path / "m"
    AutoModelForMaskedLM.from_pretrained(locate("splade-tiny")).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(locate("splade-tiny"))
    tokenizer.mask_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match="no token for a masked word"):
        counterfactuals(tiny_predictor, ["a good room"], mask_model=str(folder))
    with pytest.raises(ModelError):
        counterfactuals(tiny_predictor, ["a good room"], mask_model=str(tiny_decoder))


@pytest.mark.parametrize("command", ["counterfactual", "explain"])
def test_what_is_read_is_not_written_over(tiny_classifier: Path, tmp_path: Path, command: str):
    data = tmp_path / "rows.jsonl"
    data.write_text('{"text": "the crew was rude"}\n', encoding="utf-8")
    args = [command, str(tiny_classifier), "--data", str(data), "--text", "text", "-o", str(data)]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 2 and "would overwrite the input" in result.output
    assert data.read_text(encoding="utf-8") == '{"text": "the crew was rude"}\n'
