"""From start and end logits to answers: the n best spans over all windows, with probabilities, and the
threshold for answering nothing (Devlin et al., 2019, for SQuAD 2.0).

Shapes: T tokens of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import DataError
from tunewell.tasks.question_answering.windows import Window, windows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tunewell.data.write_rows import AnswerColumns

ROWS_AT_ONCE = 256
TOKENS_A_BATCH = 8192


@dataclass(frozen=True)
class Span:
    """`context[start:end]` with its score, the sum of a start and an end logit."""

    score: float
    start: int
    end: int


@dataclass(frozen=True)
class Found:
    """What was found for one row: the best spans first, and the score of "no answer" (its lowest over windows)."""

    spans: tuple[Span, ...]
    null: float

    @property
    def gap(self) -> float:
        """How much better "no answer" is than the best span."""
        return self.null - self.spans[0].score if self.spans else float("inf")

    def answer(self, threshold: float | None) -> Span | None:
        """The best span, or None where "no answer" beats it by more than the threshold (None: never)."""
        return self.spans[0] if self.spans and (threshold is None or self.gap <= threshold) else None


@dataclass
class Answerer:
    """A model with a span head, ready to answer.

    Attributes:
        threshold: of `Found.gap`; None where every question has an answer.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    doc_stride: int = 128
    max_answer_length: int = 30
    n_best: int = 20
    threshold: float | None = None
    batch_size: int = 64
    bf16: bool = False
    source: str = ""
    text_column: str | None = None
    text_pair_column: str | None = None

    # what `tunewell predict` asks of everything that predicts
    pair = True
    usual = ("question", "query", "text")
    usual_pair = ("context", "passage", "paragraph", "document", "text_pair")

    def added(self, taken: Sequence[str]) -> AnswerColumns:
        """The columns that predictions add to rows with the columns `taken`."""
        from tunewell.data.write_rows import AnswerColumns

        return AnswerColumns(taken, {"prediction": str, "probability": float, "start": int, "end": int}, ("nbest",))

    def predict_batch(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """`answers` under the name that all predictors have."""
        if pairs is None:
            raise DataError("questions need contexts", where="context", expected="a context for each question")
        if len(pairs) != len(texts):
            raise DataError(
                f"{len(texts)} questions but {len(pairs)} contexts", where="context", expected="one for each question"
            )
        return self.answers(texts, pairs)

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[str]:
        """The answers to questions `texts` on contexts `pairs`; empty for "no answer"."""
        return [a["prediction"] for a in self.predict_batch(texts, pairs)]

    def find(
        self, questions: Sequence[str], contexts: Sequence[str], progress: Callable[[int], None] | None = None
    ) -> list[Found]:
        """The best spans of each row, in the order given."""
        out: list[Found] = []
        for at in range(0, len(questions), ROWS_AT_ONCE):
            part = slice(at, at + ROWS_AT_ONCE)
            out += self._find(questions[part], contexts[part])
            if progress is not None:
                progress(len(questions[part]))
        return out

    def _find(self, questions: Sequence[str], contexts: Sequence[str]) -> list[Found]:
        cut = windows(self.tokenizer, questions, contexts, max_length=self.max_length, doc_stride=self.doc_stride)
        spans: list[list[Span]] = [[] for _ in questions]
        null = [float("inf")] * len(questions)
        for window, start, end in self._logits(cut):
            null[window.row] = min(null[window.row], float(start[0] + end[0]))
            spans[window.row] += best_spans(window, start, end, self.n_best, self.max_answer_length)
        found = []
        for row, some in enumerate(spans):
            unique: dict[tuple[int, int], Span] = {}
            for span in sorted(some, key=lambda s: (-s.score, s.start, s.end)):
                unique.setdefault((span.start, span.end), span)
            found.append(Found(tuple(unique.values())[: self.n_best], null[row]))
        return found

    def _logits(self, cut: list[Window]) -> Iterator[tuple[Window, np.ndarray, np.ndarray]]:
        """Start and end logits (T,) of each window, in batches of like length."""
        import torch

        from tunewell.models.embed import like_length

        model: Any = self.model
        device, training = model.device, model.training
        model.eval()
        lengths = np.array([len(w.ids) for w in cut], dtype=np.int64)
        try:
            for index in like_length(lengths, self.batch_size, TOKENS_A_BATCH):
                batch = {k: v.to(device) for k, v in pad([cut[i] for i in index], self.tokenizer).items()}
                with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16):
                    out = model(**batch)
                start, end = (x.float().cpu().numpy() for x in (out.start_logits, out.end_logits))
                for j, i in enumerate(index):
                    n = lengths[i]
                    yield cut[i], start[j, :n], end[j, :n]
        finally:
            model.train(training)

    def answers(self, questions: Sequence[str], contexts: Sequence[str]) -> list[dict[str, Any]]:
        """One dict a row: prediction (empty for "no answer"), probability, start, end (None for "no answer"),
        nbest: at most `n_best` of {text, probability, start, end}."""
        return [
            describe(found, context, self.threshold)
            for found, context in zip(self.find(questions, contexts), contexts, strict=True)
        ]


def pad(cut: Sequence[Window], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Windows as padded tensors (len(cut), T), on the right."""
    import torch

    width = max(len(w.ids) for w in cut)
    ids = np.full((len(cut), width), tokenizer.pad_token_id or 0, dtype=np.int64)
    mask, types = np.zeros_like(ids), np.zeros_like(ids)
    for i, w in enumerate(cut):
        ids[i, : len(w.ids)], mask[i, : len(w.ids)] = w.ids, 1
        if w.types is not None:
            types[i, : len(w.ids)] = w.types
    batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    if cut[0].types is not None:
        batch["token_type_ids"] = torch.from_numpy(types)
    return batch


def best_spans(window: Window, start: np.ndarray, end: np.ndarray, n_best: int, longest: int) -> list[Span]:
    """The `n_best` spans of at most `longest` tokens with the highest sum of logits start + end (T,)."""
    inside = np.array([i for i, span in enumerate(window.offsets) if span is not None], dtype=np.int64)
    if not len(inside):
        return []
    starts = inside[np.argsort(-start[inside], kind="stable")[:n_best]]
    ends = inside[np.argsort(-end[inside], kind="stable")[:n_best]]
    score = start[starts][:, None] + end[ends][None, :]
    length = ends[None, :] - starts[:, None] + 1
    fits = (length >= 1) & (length <= longest)
    if not fits.any():  # the best starts all lie behind the best ends: take the best one-token span
        i = int(inside[np.argmax((start + end)[inside])])
        first, last = window.offsets[i] or (0, 0)
        return [Span(float(start[i] + end[i]), first, last)]
    order = np.argsort(np.where(fits, -score, np.inf), axis=None, kind="stable")[: min(n_best, int(fits.sum()))]
    out = []
    for a, b in zip(*np.unravel_index(order, score.shape), strict=True):
        first, last = window.offsets[starts[a]], window.offsets[ends[b]]
        assert first is not None and last is not None
        out.append(Span(float(score[a, b]), first[0], last[1]))
    return out


def describe(found: Found, context: str, threshold: float | None) -> dict[str, Any]:
    """See `Answerer.answers`. Probabilities are a softmax over the spans kept (and "no answer", where allowed)."""
    from scipy.special import softmax

    values = [s.score for s in found.spans] + ([found.null] if threshold is not None else [])
    shares = softmax(np.array(values, dtype=np.float64)) if values else np.zeros(0)
    nbest: list[dict[str, Any]] = [
        {"text": context[s.start : s.end], "probability": float(p), "start": s.start, "end": s.end}
        for s, p in zip(found.spans, shares, strict=False)
    ]
    nothing = {
        "text": "",
        "probability": float(shares[-1]) if threshold is not None and len(shares) else 0.0,
        "start": None,
        "end": None,
    }
    chosen = nbest[0] if found.answer(threshold) is not None else nothing
    if threshold is not None:
        nbest = sorted([*nbest, nothing], key=lambda x: -float(x["probability"]))
    return {"prediction": chosen["text"], **{k: chosen[k] for k in ("probability", "start", "end")}, "nbest": nbest}


def best_threshold(gaps: np.ndarray, answered: np.ndarray, empty: np.ndarray) -> float:
    """The threshold of `Found.gap` with the highest mean score; ties go to the middle of the best stretch.

    Args:
        gaps: (n,) null score less best span's score.
        answered, empty: (n,) score (F1) of each row if the span is answered, if nothing is.

    >>> best_threshold(np.array([-2.0, -1.0, 3.0]), np.array([1.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0]))
    1.0
    """
    order = np.argsort(gaps, kind="stable")
    g = np.asarray(gaps, dtype=np.float64)[order]
    gain = (np.asarray(answered) - np.asarray(empty))[order]
    total = np.r_[0.0, np.cumsum(gain)]  # k rows answered, k from 0 to n
    last = np.r_[g[1:] != g[:-1], True]  # rows with the same gap are answered together
    allowed = np.flatnonzero(np.r_[True, last])
    k = int(allowed[np.argmax(np.round(total[allowed], 9))])
    finite = g[np.isfinite(g)]
    if not len(finite):
        return 0.0
    low = g[k - 1] if k else finite[0] - 2.0
    high = g[k] if k < len(g) and np.isfinite(g[k]) else low + 2.0
    return float((low + high) / 2)
