"""Explanations of spans, written answers and classes by likelihood: scores against the model asked directly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from tunewell.errors import DataError, ModelError, RecipeError
from tunewell.explain.answers.likelihood import without
from tunewell.explain.answers.spans import explain_span
from tunewell.explain.answers.written import _answer_words, explain_written
from tunewell.explain.segment import Item
from tunewell.explain.show import text_of, written_text
from tunewell.report.explanations import page, pieces_of

QUESTION, CONTEXT = "was the meal good", "the seat was broken and the meal was superb today"


# ---------------------------------------------------------------- spans


def log_p(answerer: Any, question: str, context: str, answer: str) -> float:
    """log softmax(start) + log softmax(end) of an answer that is words of the tiny vocabulary."""
    encoded = answerer.tokenizer(question, context, return_tensors="pt")
    with torch.inference_mode():
        out = answerer.model(**encoded)
    tokens = answerer.tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
    words = answer.split()
    first = max(i for i in range(len(tokens)) if tokens[i : i + len(words)] == words)
    start, end = out.start_logits[0].log_softmax(0), out.end_logits[0].log_softmax(0)
    return float(start[first] + end[first + len(words) - 1])


def test_occlusion_of_a_span_is_the_log_probability_lost(answerer: Any) -> None:
    e = explain_span(answerer, QUESTION, CONTEXT, method="occlusion", target="meal was")
    assert e.score == pytest.approx(log_p(answerer, QUESTION, CONTEXT, "meal was"), abs=1e-4)
    less = {(0, "good"): ("was the meal", CONTEXT), (1, "seat"): (QUESTION, CONTEXT.replace("seat ", ""))}
    for (part, word), (question, context) in less.items():
        place = next(i for i in range(len(e.words)) if e.words[i] == word and e.part[i] == part)
        assert e.scores[place] == pytest.approx(e.score - log_p(answerer, question, context, "meal was"), abs=1e-4)
    assert e.answer is not None and CONTEXT[slice(*e.answer)] == "meal was"
    assert [w for w, part in zip(e.words, e.part, strict=True) if part] == [
        "the",
        "seat",
        "was",
        "broken",
        "and",
        "the",
        "superb",
        "today",
    ]
    assert e.probability == pytest.approx(np.exp(e.score))


def test_integrated_gradients_of_a_span_add_up(answerer: Any) -> None:
    e = explain_span(answerer, QUESTION, CONTEXT, method="integrated_gradients")
    assert e.expected_sum is not None and sum(e.scores) == pytest.approx(
        e.expected_sum, abs=0.011 * abs(e.expected_sum)
    )


def test_a_long_context_is_explained_in_the_window_of_the_answer(answerer: Any) -> None:
    context = "the crew was rude today and the room was dirty " * 12
    e = explain_span(answerer, QUESTION, context, method="gradient_x_input")
    best = answerer.find([QUESTION], [context])[0].spans[0]
    assert e.answer == (best.start, best.end) and e.cut > 0 and e.faithfulness.unit == "log-probability"
    for word, (start, end), part in zip(e.words, e.spans, e.part, strict=True):
        assert (QUESTION if part == 0 else context)[start:end] == word
    assert e.cut + len(e.words) + len(context[best.start : best.end].split()) == len((QUESTION + " " + context).split())


def test_no_answer_can_be_explained(answerer: Any) -> None:
    e = explain_span(answerer, QUESTION, CONTEXT, method="occlusion", target="")
    assert e.answer is None and len(e.words) == len((QUESTION + " " + CONTEXT).split())
    assert text_of(e, colour=False).startswith("(no answer)")


def test_spans_are_shown_with_the_answer_marked(answerer: Any) -> None:
    e = explain_span(answerer, QUESTION, CONTEXT, target="broken and")
    assert "[broken and]" in text_of(e, colour=False) and len(e.tried) > 1
    assert ("broken and", None, -1.0, "") in pieces_of(e, 1)
    assert "".join(p[0] for p in pieces_of(e, 1)) == CONTEXT
    assert '<b class="answer">broken and</b>' in page([e], name="x")


def test_mistakes_about_spans_are_named(answerer: Any) -> None:
    with pytest.raises(RecipeError, match="`caviar` does not stand in the context"):
        explain_span(answerer, QUESTION, CONTEXT, target="caviar")
    with pytest.raises(DataError, match="is empty"):
        explain_span(answerer, QUESTION, "  ")
    with pytest.raises(ModelError, match="`attnlrp` is for classifiers"):
        explain_span(answerer, QUESTION, CONTEXT, method="attnlrp")


# ---------------------------------------------------------------- written answers


def likelihoods(writer: Any, source: str, answer: str) -> np.ndarray:
    """log p of the tokens of an answer, from the model asked as it is trained."""
    encoded = writer.encode([{"role": "user", "content": source}, {"role": "assistant", "content": answer}])
    batch = writer.collate([encoded._asdict()])
    labels = batch.pop("labels")[0]
    with torch.inference_mode():
        logits = writer.model(**batch).logits[0].log_softmax(-1)
    if writer.shift:
        logits, labels = logits[:-1], labels[1:]
    kept = labels != -100
    return logits[kept].gather(1, labels[kept][:, None])[:, 0].numpy()


@pytest.mark.parametrize("name", ["decoder", "translator"])
def test_occlusion_of_a_written_answer_is_the_log_probability_lost(name: str, request: pytest.FixtureRequest) -> None:
    writer = request.getfixturevalue(name)
    source, answer = "the room was good today", "red blue phone"
    e = explain_written(writer, source, method="occlusion", target=answer)
    assert e.words == ("the", "room", "was", "good", "today") and e.answer_words == ("red", "blue", "phone")
    before = likelihoods(writer, source, answer)
    assert e.score == pytest.approx(before.mean(), abs=1e-4)
    end = before.sum() - sum(e.log_probabilities)  # end marks are no word of the answer
    assert end <= 1e-4
    after = likelihoods(writer, "the room was good", answer)  # the last word: nothing behind it changes its tokens
    assert e.scores[4] == pytest.approx(before.mean() - after.mean(), abs=1e-3)
    assert np.shape(e.matrix) == (3, 5)


@pytest.mark.parametrize("name", ["decoder", "translator"])
def test_gradients_of_a_written_answer(name: str, request: pytest.FixtureRequest) -> None:
    """Integrated gradients of each word add up to its fall when the source is masked, on the encoder's side alone."""
    writer = request.getfixturevalue(name)
    e = explain_written(writer, "the room was good", method="integrated_gradients", target="red blue")
    again = explain_written(writer, "the room was good", method="smoothgrad", target="red blue")
    assert np.isfinite(np.asarray(e.matrix)).all() and np.asarray(again.matrix).any()
    auto = explain_written(writer, "the room was good", target="red blue")
    assert {t.method for t in auto.tried} == {"gradient_x_input", "occlusion"}


def test_what_the_model_writes_is_explained_by_default(decoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(decoder), "write", lambda self, prompts: (["red good phone"], np.array([True])))
    e = explain_written(decoder, "say the word twice please", method="occlusion")
    assert e.prediction == e.answer == "red good phone"
    shown = written_text(e)
    assert "behind the whole answer" in shown and "log-probability" in shown
    html = page([e], name="x")
    assert html.count('<th scope="row"') == len(e.answer_words) and html.count('<th scope="col"') == len(e.words)


def test_earlier_messages_stay(decoder: Any) -> None:
    messages = [
        {"role": "user", "content": "red"}, {"role": "assistant", "content": "blue"},
        {"role": "user", "content": "the hotel was good"},
    ]  # fmt: skip
    e = explain_written(decoder, json.dumps(messages), method="occlusion", target="green")
    assert e.words == ("the", "hotel", "was", "good") and e.earlier == 2
    assert e.score == pytest.approx(_chat(decoder, messages, "green"), abs=1e-4)


def _chat(writer: Any, messages: list, answer: str) -> float:
    encoded = writer.encode([*messages, {"role": "assistant", "content": answer}])
    batch = writer.collate([encoded._asdict()])
    with torch.inference_mode():
        found = writer.model(input_ids=batch["input_ids"]).logits[0].log_softmax(-1)
    ids = batch["input_ids"][0]
    start = next(i for i, y in enumerate(reversed(encoded.labels)) if y == -100)
    return float(np.mean([float(found[k - 1, ids[k]]) for k in range(len(ids) - start, len(ids))]))


def test_parts_of_characters_belong_to_their_word(decoder: Any) -> None:
    ids = decoder.tokenizer("grün 很", add_special_tokens=False)["input_ids"]
    text, spans, of = _answer_words(decoder.tokenizer, ids)
    assert text == "grün 很" and [text[a:b] for a, b in spans] == ["grün", "很"]
    inside = [w for w in of if w >= 0]  # a space by itself is of no word
    assert set(inside) == {0, 1} and inside == sorted(inside) and of[-1] == 1


def test_mistakes_about_written_answers_are_named(decoder: Any) -> None:
    with pytest.raises(DataError, match="empty text"):
        explain_written(decoder, " ")
    with pytest.raises(DataError, match="no answer to explain"):
        explain_written(decoder, "red", target=" ")
    with pytest.raises(ModelError, match="`rollout` is for classifiers"):
        explain_written(decoder, "red", target="blue", method="rollout")


# ---------------------------------------------------------------- classes by likelihood


def test_words_are_taken_out_of_the_text_itself() -> None:
    item = Item(
        np.zeros(1), None, np.zeros(1), ("a", "b", "c", "d"), ((0, 1), (2, 3), (4, 5), (0, 1)), (0, 0, 0, 1), 0,
        ("a b c", "d"),
    )  # fmt: skip
    assert without(item, np.array([True, False, True, True])) == ("a c", "d")
    assert without(item, np.array([True, True, True, False])) == ("a b c", "")


def test_classes_by_likelihood(tiny_decoder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tunewell.explain.texts import explain_texts
    from tunewell.predict import Predictor
    from tunewell.tasks import TaskSpec
    from tunewell.tasks.likelihood import LabelLikelihood

    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_decoder), AutoTokenizer.from_pretrained(tiny_decoder)
    spec = TaskSpec("text-classification", ("bad", "good"))
    asked = LabelLikelihood(model, tokenizer, spec.labels, 128, 8)
    predictor = Predictor(model, tokenizer, spec, 128, scorer=asked)
    (e,) = explain_texts(predictor, ["the hotel was good"], method="occlusion")
    p, less = predictor.scores(["the hotel was good"])[0], predictor.scores(["the hotel was"])[0]
    k = spec.labels.index(str(e.target))
    odds = [float(np.log(q[k] / (1 - q[k]))) for q in (p, less)]
    assert e.scores[3] == pytest.approx(odds[0] - odds[1], abs=1e-3)
    (auto,) = explain_texts(predictor, ["the hotel was good"])
    assert {t.method for t in auto.tried} == {"occlusion", "lime", "shapley"}
    with pytest.raises(ModelError, match="`attnlrp` reads a head"):
        explain_texts(predictor, ["the hotel"], method="attnlrp")
    for place in ("how-to/decoder-classes.md", "zh/how-to/decoder-classes.md", "how-to/explain.md"):
        text = (Path(__file__).parents[3] / "docs" / place).read_text(encoding="utf-8")
        assert all(f"`{t.method}`" in text for t in auto.tried)


# ---------------------------------------------------------------- command line


def test_the_command_explains_what_a_model_writes(tiny_decoder: Path, tmp_path: Path) -> None:
    from tunewell.cli import app

    asked = ["explain", str(tiny_decoder), "the hotel was good", "--method", "occlusion", "--target", "red blue"]
    done = CliRunner().invoke(app, [*asked, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["answer_words"] == ["red", "blue"] and np.shape(found["matrix"]) == (2, 4)
    done = CliRunner().invoke(app, [*asked, "-o", str(tmp_path / "why.html")])
    assert done.exit_code == 0 and "matrix" in (tmp_path / "why.html").read_text(encoding="utf-8")
    done = CliRunner().invoke(app, [*asked, "--sanity"])
    assert done.exit_code == 2 and "no head" in done.stderr
