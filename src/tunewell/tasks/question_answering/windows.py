"""Long contexts in overlapping windows (Devlin et al., 2019; `doc_stride`), and the answer's place in each.

Shapes: T tokens of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

QUESTION_SHARE = 0.5  # of a window that the question may take; what is beyond is cut


@dataclass(frozen=True)
class Window:
    """One window of one row.

    Attributes:
        row: place of the row. ids, types: (T,) token ids and segment ids (None where the model has none).
        offsets: (T,) characters of the context that each token covers, None outside of the context.
    """

    row: int
    ids: list[int]
    types: list[int] | None
    offsets: list[tuple[int, int] | None]


def windows(
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    contexts: Sequence[str],
    *,
    max_length: int,
    doc_stride: int,
) -> list[Window]:
    """All windows of some rows, in order: the question, then as much of the context as fits.

    A window begins `doc_stride` tokens before the end of the one before it, at most half a window.
    """
    limit = max(1, int(QUESTION_SHARE * max_length))
    cut = [_cut(tokenizer, q, limit) for q in questions]
    left = min(max_length - len(tokenizer(q, "")["input_ids"]) for q in cut) if cut else max_length
    encoded: Any = tokenizer(
        cut,
        list(contexts),
        truncation="only_second",
        max_length=max_length,
        stride=max(0, min(doc_stride, left // 2)),
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    has_types = "token_type_ids" in encoded and "token_type_ids" in tokenizer.model_input_names
    out = []
    for i, row in enumerate(encoded["overflow_to_sample_mapping"]):
        parts = encoded.sequence_ids(i)
        offsets = [
            tuple(span) if part == 1 and span[1] > span[0] else None
            for part, span in zip(parts, encoded["offset_mapping"][i], strict=True)
        ]
        types = encoded["token_type_ids"][i] if has_types else None
        out.append(Window(row, encoded["input_ids"][i], types, offsets))
    return out


def _cut(tokenizer: PreTrainedTokenizerBase, question: str, limit: int) -> str:
    """The question, shortened to at most `limit` tokens."""
    question = question.strip()
    if len(question) <= limit:  # a token has at least one character
        return question
    encoded: Any = tokenizer(question, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    offsets = encoded["offset_mapping"]
    return question if len(offsets) <= limit else question[: offsets[limit - 1][1]]


def place(window: Window, start: int, end: int) -> tuple[int, int]:
    """First and last token of the answer `context[start:end]`; (0, 0), the place of "no answer", where the
    window does not hold the whole of it."""
    inside = [(i, span) for i, span in enumerate(window.offsets) if span is not None]
    if not inside or start < inside[0][1][0] or end > inside[-1][1][1]:
        return 0, 0
    first = next(i for i, span in inside if span[1] > start)
    last = next((i for i, span in reversed(inside) if span[0] < end), 0)
    return (first, last) if first <= last else (0, 0)
