"""Marks of the tokenizer are no words; a plain sentence says so."""

from __future__ import annotations

import pytest

from tunewell.errors import DataError
from tunewell.explain.counterfactual.search import counterfactuals
from tunewell.explain.texts import explain_texts
from tunewell.predict import Predictor

MARKS = ["[PAD]", "[PAD] [PAD]", "[CLS] [SEP] [MASK]"]


@pytest.mark.parametrize("text", MARKS)
def test_marks_of_the_tokenizer_are_no_words(text: str, tiny_predictor: Predictor) -> None:
    for ask in (
        lambda: explain_texts(tiny_predictor, ["fine", text], method="occlusion"),
        lambda: counterfactuals(tiny_predictor, ["fine", text]),
    ):
        with pytest.raises(DataError, match="text 2.*no words") as caught:
            ask()
        assert text.split()[0] in caught.value.what
    (e,) = explain_texts(tiny_predictor, [f"fine {text}"], method="occlusion")  # beside words they are shown
    assert e.words[0] == "fine"
