"""What an explanation of a written answer is.

Shapes: W words of the source or prompt, U words of the answer.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tunewell.explain.faithfulness import Faithfulness
from tunewell.explain.records import Tried


@dataclass(frozen=True)
class WrittenExplanation:
    """Which words of a source or prompt the words of an answer came from.

    Attributes:
        text: the source, or the last message of a prompt. words: W words of it. spans: (W, 2) their characters.
        answer: what is explained. answer_words: U words of it. answer_spans: (U, 2) their characters.
        matrix: (U, W): by how much a word of the source speaks for a word of the answer; see `unit`.
        scores: (W,) the same for the whole answer, a token of it on average.
        log_probabilities: (U,) of the answer's words, each behind the answer before it, in nats.
        score: mean log-probability of a token of the answer.
        method: name of the method. unit: what a score is measured in.
        prediction: what the model writes; None where another answer was asked to be explained.
        faithfulness: of `scores`, on the mean log-probability of a token.
        cut: words beyond the model's window. earlier: messages before the last one, which stay.
        tried: what `auto` tried; empty when the method was named.
    """

    text: str
    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    answer: str
    answer_words: tuple[str, ...]
    answer_spans: tuple[tuple[int, int], ...]
    matrix: tuple[tuple[float, ...], ...]
    scores: tuple[float, ...]
    log_probabilities: tuple[float, ...]
    score: float
    method: str
    unit: str
    prediction: str | None
    faithfulness: Faithfulness
    cut: int = 0
    earlier: int = 0
    tried: tuple[Tried, ...] = ()
    label: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)
