"""Explanations under padding and rewording: known for a bag of words, found out where the method is not steady."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tunewell.cli import app
from tunewell.explain import tokens
from tunewell.explain.segment import Item
from tunewell.explain.show import steadiness
from tunewell.explain.stability import Stability, compared, stability
from tunewell.predict import Predictor
from tunewell.tasks import TaskSpec

TEXT = "the crew wasn't great but the seat was fine"


@pytest.fixture
def bag_predictor(bag: Any, tiny_predictor: Predictor) -> Predictor:
    """A model whose scores are one weight a token, wherever it stands."""
    return replace(tiny_predictor, model=bag.model)


def item(words: list[str], part: list[int] | None = None) -> Item:
    n = len(words)
    return Item(np.arange(n), None, np.arange(n), tuple(words), ((0, 1),) * n, tuple(part or [0] * n))


def test_words_are_matched_and_what_became_two_is_summed() -> None:
    one, other = item(["It", "isn't", "good", "food"]), item(["it", "is", "not", "good", "food", "."])
    found = compared(one, np.array([0.0, -2.0, 4.0, 1.0]), other, np.array([0.5, -1.5, -1.0, 3.0, 1.0, 9.0]))
    # matched: 0 and 0.5, −2 and −2.5, 4 and 3, 1 and 1; the order is the same, the largest change 1 of 4
    assert found == (pytest.approx(1.0), pytest.approx(0.25))
    # ranks 1 2 3 against 3 1 2: 1 − 6 · (4 + 1 + 1) / (3 · 8) = −0.5
    words = item(["a", "b", "c"])
    assert compared(words, np.array([1.0, 2.0, 3.0]), words, np.array([3.0, 1.0, 2.0]))[0] == pytest.approx(-0.5)
    two = item(["a", "b"])
    assert compared(two, np.array([1.0, 2.0]), two, np.array([2.0, 2.0])) == (None, pytest.approx(0.5))
    pair = item(["a", "a"], [0, 1])  # the same word of another text is another word
    assert compared(pair, np.array([1.0, 2.0]), pair, np.array([1.0, 2.0])) == (None, 0.0)


@pytest.mark.parametrize("method", ["gradient_x_input", "occlusion", "shapley"])
def test_a_bag_of_words_is_steady(method: str, bag_predictor: Predictor) -> None:
    """Its scores are the tokens' own weights: equal under padding, punctuation and spaces."""
    (found,) = stability(bag_predictor, ["the crew was great and the seat fine"], method=method)
    assert found.padding == pytest.approx(0, abs=1e-4)
    by_name = {r.change: r for r in found.reworded}
    assert by_name["punctuation"].text.endswith("fine.")
    limit = 0.2 if method == "shapley" else 1e-4  # sampled, and the full stop is one word more
    assert by_name["punctuation"].difference == pytest.approx(0, abs=limit)
    assert found.variants == len(found.reworded) and found.turned == 0
    assert not {"spaces", "case"} & set(by_name)  # an uncased model with this tokenizer reads the same text


def test_a_method_that_counts_padding_or_letters_is_found_out(
    tiny_predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attribute(scorer: Any, items: Any, targets: Any, seed: int) -> list[tokens.Attribution]:
        from tunewell.explain.scorer import whole

        out = []
        for one in items:
            width = scorer.batch([whole(one)])["input_ids"].shape[1]
            scores = np.arange(len(one.words), dtype=float) * (-1 if one.words[-1] == "." else 1)
            scores[0] = width
            out.append(tokens.Attribution(scores))
        return out

    module = types.ModuleType("unsteady")
    module.attribute = attribute  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "unsteady", module)
    monkeypatch.setitem(tokens.METHODS, "unsteady", "unsteady")
    text = "nice crew great seat"
    (found,) = stability(tiny_predictor, [text], method="unsteady")
    (kept,) = [r for r in found.reworded if r.change == "punctuation"]
    # 6 tokens, 14 when padded; scores 6 1 2 3 become 7 −1 −2 −3 with the full stop
    assert found.padding == pytest.approx(8 / 6)
    assert kept.difference == pytest.approx(6 / 6)
    # ranks 4 1 2 3 against 4 3 2 1: 1 − 6 · (0 + 4 + 0 + 4) / (4 · 15) = 0.2
    assert kept.correlation == pytest.approx(0.2) == found.correlation


def test_a_rewording_that_turns_the_answer_does_not_count(bag_predictor: Predictor) -> None:
    import torch

    tokenizer, model = bag_predictor.tokenizer, bag_predictor.model
    stop = tokenizer.convert_tokens_to_ids(".")
    with torch.no_grad():  # the full stop decides alone
        model.embedding.weight[stop] = 1000 * model.weight / model.weight.norm() ** 2
    texts = ["the crew was bad", "the crew was great"]
    before = bag_predictor.predict(texts)
    after = bag_predictor.predict([t + "." for t in texts])
    for found, one, other in zip(stability(bag_predictor, texts, method="occlusion"), before, after, strict=True):
        assert found.turned == (one != other)
        assert ("punctuation" in {r.change for r in found.reworded}) == (one == other)
    assert before != after


def test_a_full_window_leaves_no_room_for_padding(tiny_predictor: Predictor) -> None:
    short = replace(tiny_predictor, max_length=8)
    (full, free) = stability(short, ["the crew was great and fine today", "great crew"], method="gradient_x_input")
    assert full.padding is None and free.padding == pytest.approx(0, abs=1e-4)
    assert all(r.correlation is None for r in free.reworded)  # two words rank nothing


def test_of_values_every_rewording_counts(tiny_predictor: Predictor, regression_model: Any) -> None:
    predictor = Predictor(regression_model, tiny_predictor.tokenizer, TaskSpec("text-regression", metric="r2"), 64)
    (found,) = stability(predictor, [TEXT], method="occlusion")
    assert {r.change for r in found.reworded} >= {"punctuation", "contractions"} and found.turned == 0


def test_chinese_and_right_to_left_texts_are_reworded_by_their_final_sign(tiny_predictor: Predictor) -> None:
    for text in ("这家酒店很好", "שלום עולם טוב"):
        (found,) = stability(tiny_predictor, [text], method="gradient_x_input")
        assert found.variants + found.turned >= 1


def test_the_command_tells_it_in_words_and_in_json(tiny_classifier: Path, explain: Callable) -> None:
    shown = explain(tiny_classifier, TEXT, "--method", "occlusion", "--sanity")
    assert shown.exit_code == 0, shown.output
    assert "stability: reworded (" in shown.stdout and "padded: 0 %" in shown.stdout
    done = explain(tiny_classifier, TEXT, "great crew", "--method", "occlusion", "--sanity", "--json")
    first, second = json.loads(done.stdout)
    assert first["stability"]["variants"] == len(first["stability"]["reworded"]) >= 1
    assert first["stability"]["padding"] < 1e-3
    assert first["sanity"] == second["sanity"]
    assert [s["part"] for s in first["sanity"]["steps"]] == ["head", "layer 2", "layer 1", "embeddings"]
    assert first["sanity"]["passed"] in (True, False) and first["sanity"]["steps"][0]["correlation"]["n"] == 1
    assert "rank correlation" not in done.stderr
    plain = json.loads(explain(tiny_classifier, TEXT, "--method", "occlusion", "--json").stdout)
    assert plain["stability"] is None and "sanity" not in plain


def test_what_is_said_without_variants() -> None:
    assert steadiness(Stability(None, 0, 2, None, None)) == "stability: every rewording turned the answer"
    assert "no rewording changes what the model reads" in steadiness(Stability(0.0, 0, 0, None, None))


@pytest.fixture
def explain() -> Callable:
    return lambda *arguments: CliRunner().invoke(app, ["explain", *map(str, arguments)])
