"""Why this span: the words of question and context behind an answer, in the window that it was found in.

The score of a span is its log-probability, log softmax(start) + log softmax(end) at its first and last token. The
answer's own words are never taken out and get no score: without them the question of where it stands has no meaning.

Shapes: W words, B rows of a batch, T tokens of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import DataError, RecipeError
from tunewell.explain.answers.scoring import AnswerScorer
from tunewell.explain.auto import choose
from tunewell.explain.faithfulness import measure
from tunewell.explain.records import Explanation
from tunewell.explain.scorer import Row
from tunewell.explain.segment import Item, joined, need_words, spans_of
from tunewell.tasks.question_answering.windows import Window, place, windows
from tunewell.tasks.spec import TaskSpec

if TYPE_CHECKING:
    import torch

    from tunewell.tasks.question_answering.spans import Answerer

CANDIDATES = ("gradient_x_input", "occlusion", "smoothgrad", "integrated_gradients", "lime", "shapley")
UNIT = "log-probability of the span"
SPEC = TaskSpec("question-answering", metric="f1", pair=True)


class SpanScorer(AnswerScorer):
    """The log-probability of one span of a window.

    Args:
        first, last: its tokens; 0 and 0 for "no answer".
    """

    width = 1

    def __init__(self, answerer: Answerer, first: int, last: int) -> None:
        super().__init__(answerer.model, answerer.tokenizer, SPEC)
        self.first, self.last = first, last

    def outputs(self, batch: dict[str, torch.Tensor], rows: Sequence[Row]) -> torch.Tensor:
        import torch

        found, kept = self.model(**batch), batch["attention_mask"].bool()
        shift = kept.int().argmax(dim=1)  # of models that pad on the left
        total = torch.zeros(len(rows), device=kept.device)
        for logits, token in ((found.start_logits, self.first), (found.end_logits, self.last)):
            sure = logits.float().masked_fill(~kept, -torch.inf).log_softmax(dim=1)
            at = torch.as_tensor([int(np.searchsorted(row.kept, token)) for row in rows], device=kept.device)
            total = total + sure.gather(1, (at + shift)[:, None]).squeeze(1)
        return total[:, None]


def explain_span(
    answerer: Answerer,
    question: str,
    context: str,
    *,
    method: str = "auto",
    target: str | None = None,
    budget: float = 20.0,
    seed: int = 42,
) -> Explanation:
    """Which words of question and context made the model answer so.

    Args:
        target: an answer to explain, as it stands in the context (its likeliest place), or "" for "no answer"; by
            default the model's own.

    Returns:
        An explanation with `answer`, the span's characters in the context; words of the answer are not in `words`.

    Raises:
        DataError: a question or context without words. RecipeError: no such words in the context.
        ModelError: a method that cannot be used here.
    """
    from tunewell.explain import tokens

    for name, text in (("question", question), ("context", context)):
        if not text.strip():
            raise DataError("is empty", where=name, expected="a text with words")
        need_words(answerer.tokenizer, text, where=name)
    best = answerer.find([question], [context])[0].answer(answerer.threshold)
    said = "" if best is None else context[best.start : best.end]
    wanted = said if target is None else target
    spans = [(best.start, best.end)] if target is None and best is not None else _places(context, wanted)
    window, first, last, span = _seen(answerer, question, context, spans)
    item = _item(answerer, question, context, window, first, last)
    scorer = SpanScorer(answerer, first, last)
    none = np.zeros(1, dtype=np.int64)
    if method == "auto":
        method, tried, found, faith = choose(
            scorer, [item], none, budget=budget, n_all=1, seed=seed, candidates=CANDIDATES
        )
    else:
        scorer.refuse(method)
        found, tried = tokens.method(method).attribute(scorer, [item], none, seed=seed), []
        faith = measure(scorer, [item], none, [found[0].scores], seed=seed)
    score = float(scorer.logits([item])[0, 0])
    return Explanation(
        text=question, text_pair=context, words=item.words, scores=tuple(map(float, found[0].scores)),
        spans=item.spans, part=item.part, method=method, unit=UNIT, prediction=said, target=wanted,
        probability=float(np.exp(score)), score=score, faithfulness=faith[0], convergence_delta=found[0].delta,
        expected_sum=found[0].total, low=None if found[0].low is None else tuple(map(float, found[0].low)),
        high=None if found[0].high is None else tuple(map(float, found[0].high)), cut=item.cut, tried=tuple(tried),
        answer=span,
    )  # fmt: skip


def _places(context: str, wanted: str) -> list[tuple[int, int]]:
    """Where an answer stands in the context; nowhere for "no answer"."""
    if not wanted:
        return []
    found, at = [], context.find(wanted)
    while at >= 0:
        found.append((at, at + len(wanted)))
        at = context.find(wanted, at + 1)
    if not found:
        raise RecipeError(
            f"`{wanted}` does not stand in the context", where="target", expected="words as the context has them"
        )
    return found


def _seen(
    answerer: Answerer, question: str, context: str, places: Sequence[tuple[int, int]]
) -> tuple[Window, int, int, tuple[int, int] | None]:
    """The window and tokens where the answer is likeliest; for "no answer" the window that is least sure of it."""
    cut = windows(
        answerer.tokenizer, [question], [context], max_length=answerer.max_length, doc_stride=answerer.doc_stride
    )
    options: list[tuple[float, Window, int, int, tuple[int, int] | None]] = []
    for window, start, end in answerer._logits(cut):
        if not places:
            options.append((-float(start[0] + end[0]), window, 0, 0, None))
        for wanted in places:
            first, last = place(window, *wanted)
            if first:
                options.append((float(start[first] + end[last]), window, first, last, wanted))
    if not options:
        raise DataError("the answer does not fit into one window of the model", where="context")
    _, window, first, last, span = max(options, key=lambda option: option[0])
    return window, first, last, span


def _item(answerer: Answerer, question: str, context: str, window: Window, first: int, last: int) -> Item:
    tokenizer: Any = answerer.tokenizer
    asked = tokenizer(question.strip(), "", return_offsets_mapping=True)
    before, lead = asked.sequence_ids(0), len(question) - len(question.lstrip())
    ids = np.asarray(window.ids, dtype=np.int64)
    parts = (
        (question, [(t, (a + lead, b + lead)) for t, (a, b) in enumerate(asked["offset_mapping"])
                    if t < len(ids) and before[t] == 0 and b > a and asked["input_ids"][t] == ids[t]
                    and window.offsets[t] is None]),
        (context, [(t, span) for t, span in enumerate(window.offsets) if span is not None]),
    )  # fmt: skip
    word_of, words, spans, part = np.full(len(ids), -1, dtype=np.int64), [], [], []  # type: ignore[var-annotated]
    cut = 0
    for side, (text, places) in enumerate(parts):
        found, of_token = joined(spans_of(text, [a for _, (a, _) in places]), [span for _, span in places])
        fixed = {w for (t, _), w in zip(places, of_token, strict=True) if side and first and first <= t <= last}
        seen = sorted({w for w in of_token if w >= 0} - fixed)
        cut += len(found) - len(seen) - len(fixed - {-1})
        number = {w: k + len(words) for k, w in enumerate(seen)}
        for (t, _), w in zip(places, of_token, strict=True):
            word_of[t] = number.get(w, -1)
        words += [text[slice(*found[w])] for w in seen]
        spans += [found[w] for w in seen]
        part += [side] * len(seen)
    if not words:
        raise DataError("nothing but the answer reaches the model", where="context")
    types = None if window.types is None else np.asarray(window.types, dtype=np.int64)
    return Item(ids, types, word_of, tuple(words), tuple(spans), tuple(part), cut, (question, context))
