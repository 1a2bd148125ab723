"""Texts that nobody expects, as questions, contexts, sources, prompts and answers: an answer, or why there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tunewell.errors import DataError
from tunewell.explain.answers.spans import explain_span
from tunewell.explain.answers.written import explain_written

ODD = ["😀 😀", "👩‍👩‍👧 great", "שלום עולם", "مرحبا بالعالم", "这家酒店很好", "ไทยดี"]
MARKS = ["[PAD]", "[PAD] [PAD]", "[CLS] [SEP] [MASK]"]


# ---------------------------------------------------------------- questions


@pytest.mark.parametrize("text", ODD)
def test_questions_and_contexts(text: str, answerer: Any) -> None:
    for question, context in ((text, "the meal was good today"), ("was it good", f"{text} the meal was good")):
        e = explain_span(answerer, question, context, method="occlusion", target="meal")
        assert np.isfinite(e.scores).all() and len(e.words) == len(e.scores)
        for word, (start, end), part in zip(e.words, e.spans, e.part, strict=True):
            assert (context if part else question)[start:end] == word
    (e,) = [explain_span(answerer, "was it good", text, method="occlusion", target="")]
    assert e.answer is None and np.isfinite(e.score)


@pytest.mark.parametrize("text", ["", " \n", *MARKS])
def test_questions_and_contexts_without_words(text: str, answerer: Any) -> None:
    for question, context, where in ((text, "the meal was good", "question"), ("was it good", text, "context")):
        with pytest.raises(DataError, match="is empty|no words") as caught:
            explain_span(answerer, question, context, method="occlusion")
        assert caught.value.where == where


# ---------------------------------------------------------------- written answers


@pytest.mark.parametrize("which", ["decoder", "translator"])
@pytest.mark.parametrize("text", ODD)
def test_sources_and_prompts(text: str, which: str, request: pytest.FixtureRequest) -> None:
    writer = request.getfixturevalue(which)
    for source, target in ((text, "red blue"), ("red blue", text)):
        e = explain_written(writer, source, method="occlusion", target=target)
        assert np.shape(e.matrix) == (len(e.answer_words), len(e.words))
        assert np.isfinite(e.matrix).all()
        assert all(source[a:b] == word for word, (a, b) in zip(e.words, e.spans, strict=True))


@pytest.mark.parametrize("which", ["decoder", "translator"])
@pytest.mark.parametrize("text", ["", "  ", "<pad>", "<pad> <|im_end|>"])
def test_sources_and_prompts_without_words(text: str, which: str, request: pytest.FixtureRequest) -> None:
    with pytest.raises(DataError, match="no words"):
        explain_written(request.getfixturevalue(which), text, method="occlusion", target="red")
    with pytest.raises(DataError, match="no answer|no words"):
        explain_written(request.getfixturevalue(which), "red", method="occlusion", target=text)
