"""Explanations as HTML: a page of their own, and what the report's section on words needs.

Colour is never alone: a word's sign shows in its underline (solid for, dashed against, thicker with size) and its
number on hover or keyboard focus; blue and orange can be told apart by colour-blind readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunewell.report.engine import engine
from tunewell.report.words import WORDS

if TYPE_CHECKING:
    from tunewell.explain.answers.records import WrittenExplanation
    from tunewell.explain.records import Explanation


def page(explanations: Sequence[Explanation | WrittenExplanation], *, name: str, lang: str = "en") -> str:
    """A self-contained page: opens from disk, light or dark. All text from data is escaped by the template."""
    from tunewell import __version__

    return engine(pieces_of=pieces_of, cells_of=cells_of).get_template("explanations.html").render(
        w=WORDS[lang], lang=lang, name=name, found=explanations, version=__version__
    )  # fmt: skip


def pieces_of(e: Explanation, part: int) -> list[tuple[str, float | None, float, str]]:
    """A text cut into what stands between words and words.

    Returns:
        (characters, score or None between words, strength 0 to 1, interval in words or ""); the explained answer of
        a question has strength −1 and no score.
    """
    text = e.text if part == 0 else e.text_pair or ""
    largest = max(map(abs, e.scores), default=0.0) or 1.0
    out: list[tuple[str, float | None, float, str]] = []
    at = 0
    for i, (start, end) in enumerate(e.spans):
        if e.part[i] != part:
            continue
        if start > at:
            out += _between(e, part, at, start)
        interval = f" [{e.low[i]:+.3f}, {e.high[i]:+.3f}]" if e.low is not None and e.high is not None else ""
        out.append((text[start:end], e.scores[i], abs(e.scores[i]) / largest, interval))
        at = end
    if at < len(text):
        out += _between(e, part, at, len(text))
    return out


def _between(e: Explanation, part: int, start: int, end: int) -> list[tuple[str, float | None, float, str]]:
    """What stands between two words, with the answer in it marked."""
    text = e.text if part == 0 else e.text_pair or ""
    if part == 0 or e.answer is None or not start <= e.answer[0] < e.answer[1] <= end:
        return [(text[start:end], None, 0.0, "")]
    cuts = ((start, e.answer[0], 0.0), (*e.answer, -1.0), (e.answer[1], end, 0.0))
    return [(text[a:b], None, strength, "") for a, b, strength in cuts if b > a]


def cells_of(e: WrittenExplanation) -> list[tuple[str, list[tuple[float, float, str]]]]:
    """The heat map: for each word of the answer (score, strength 0 to 1 within its row, words for the pointer)."""
    rows = []
    for word, scores in zip(e.answer_words, e.matrix, strict=True):
        largest = max(map(abs, scores), default=0.0) or 1.0
        cells = [
            (s, abs(s) / largest, f"{source} → {word}: {s:+.3f}") for source, s in zip(e.words, scores, strict=True)
        ]
        rows.append((word, cells))
    return rows
