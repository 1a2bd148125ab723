"""The model-randomisation check tells methods that look at the weights from those that do not."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from tunewell.cli import app
from tunewell.errors import DataError
from tunewell.explain import tokens
from tunewell.explain.class_words import class_words
from tunewell.explain.sanity import parts, sanity
from tunewell.explain.show import sanity_table
from tunewell.tasks import TaskSpec


def test_a_gradient_follows_the_weights(tiny_predictor: Any, texts: list[str]) -> None:
    before = {name: w.clone() for name, w in tiny_predictor.model.named_parameters()}
    found = sanity(tiny_predictor, texts, method="gradient_x_input", seed=1)
    assert [s.part for s in found.steps] == ["head", "layer 2", "layer 1", "embeddings"]
    assert found.passed
    assert found.steps[-1].correlation.n == 3  # texts of three words and more
    assert all(torch.equal(w, before[name]) for name, w in tiny_predictor.model.named_parameters())
    assert "the scores follow the weights" in sanity_table(found)


def test_a_method_that_reads_only_the_text_is_found_out(
    tiny_predictor: Any, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("word_length")
    module.attribute = lambda scorer, items, targets, seed: [  # type: ignore[attr-defined]
        tokens.Attribution(np.array([float(len(w)) for w in item.words])) for item in items
    ]
    monkeypatch.setitem(sys.modules, "word_length", module)
    monkeypatch.setitem(tokens.METHODS, "length", "word_length")
    found = sanity(tiny_predictor, texts, method="length")
    assert [s.correlation.value for s in found.steps] == pytest.approx([1.0] * 4)
    assert not found.passed
    assert "they show the text, not the model" in sanity_table(found)


def test_texts_too_short_to_be_ranked_are_said(tiny_predictor: Any, tiny_classifier: Path) -> None:
    with pytest.raises(DataError, match="the longest has 2") as caught:
        sanity(tiny_predictor, ["good", "nice hotel"], method="gradient_x_input")
    assert caught.value.expected == "a text of 3 words or more"
    done = CliRunner().invoke(app, ["explain", str(tiny_classifier), "good", "--sanity", "--method", "occlusion"])
    assert done.exit_code == 2 and "the longest has 1" in done.stderr
    assert not done.stdout  # said before anything was explained


def test_every_weight_belongs_to_one_part(tiny_predictor: Any) -> None:
    ids = [id(w) for _, weights in parts(tiny_predictor.model) for w in weights]
    assert sorted(ids) == sorted(id(w) for w in tiny_predictor.model.parameters())


def test_words_of_each_class_by_hand() -> None:
    spec = TaskSpec("text-classification", ("neg", "pos"))
    words = [("Good", "!"), ("good",), ("good", "bad"), ("bad",), ("bad",)]
    scores = [np.array([2.0, 9.0]), np.array([1.9]), np.array([2.1, -1.0]), np.array([1.0]), np.array([1.0])]
    neg, pos = class_words(spec, words, scores, [1, 1, 1, 0, 0])
    assert [w.word for w in pos.words] == ["good"]
    estimate = pos.words[0].score
    assert (estimate.value, estimate.n) == (pytest.approx(2.0), 3)
    assert estimate.low == pytest.approx(2 - 4.302653 * 0.1 / np.sqrt(3))  # t of 2 degrees of freedom, deviation 0.1
    # "bad": 1 for neg in each of three texts; a constant has an interval of no width
    assert [(w.word, w.score.value, w.score.n) for w in neg.words] == [("bad", 1.0, 3)]
