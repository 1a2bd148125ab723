"""Why whatever a run does: classes, scores, spans of contexts, written answers; each by what suits it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tunewell.errors import DataError

if TYPE_CHECKING:
    from tunewell.explain.answers.records import WrittenExplanation
    from tunewell.explain.records import Explanation


def why(
    predictor: Any, texts: Sequence[str], text_pairs: Sequence[str] | None = None, **options: Any
) -> Iterator[Explanation | WrittenExplanation]:
    """Explanations of n texts, in their order, as they are ready.

    Args:
        predictor: what `load_predictor` gives. texts: texts; questions; sources or prompts.
        text_pairs: second texts; contexts; what stands below a prompt (Alpaca's `input`).
        options: `method`, `target` (a label, or an answer), `budget`, `seed`; see `explained`, `explain_span` and
            `explain_written`. The budget is for all texts.

    Raises:
        DataError, RecipeError, ModelError: see those three.
    """
    from tunewell.predict import Predictor

    if isinstance(predictor, Predictor):
        from tunewell.explain.texts import explained

        yield from explained(predictor, texts, text_pairs, **options)
        return
    if not len(texts):
        raise DataError("there is no text to explain", expected="one text or more")
    if text_pairs is not None and len(text_pairs) != len(texts):
        raise DataError(
            f"{len(texts)} texts but {len(text_pairs)} second texts", where="text_pair", expected="one for each text"
        )
    if "budget" in options:
        options = {**options, "budget": options["budget"] / len(texts)}
    yield from _answers(predictor, texts, text_pairs, options)


def _answers(
    predictor: Any, texts: Sequence[str], text_pairs: Sequence[str] | None, options: dict[str, Any]
) -> Iterator[Explanation | WrittenExplanation]:
    from tunewell.explain.answers.spans import explain_span
    from tunewell.explain.answers.written import explain_written
    from tunewell.tasks.question_answering.spans import Answerer

    if not isinstance(predictor, Answerer):
        for i, text in enumerate(texts):
            below = text_pairs[i] if text_pairs is not None else ""
            yield explain_written(predictor, f"{text}\n\n{below}" if below.strip() else text, **options)
        return
    if text_pairs is None:
        raise DataError("questions need contexts", where="text_pair", expected="a context for each question")
    for question, context in zip(texts, text_pairs, strict=True):
        yield explain_span(predictor, question, context, **options)
