"""The cheap alternative: answer with the sentence of the context that shares most with the question.

Words (Chinese: characters) are weighted by how rare they are in the training contexts, log(N / (1 + n)); a
sentence's score is the share of the question's weight that it holds.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from tunewell.tasks.question_answering.score import units
from tunewell.tasks.question_answering.spans import Found, Span

SENTENCE = re.compile(r"[^.!?。！？\n]+[.!?。！？]*")


class Overlap:
    """Fitted on training contexts.

    >>> model = Overlap(["The bar is open.", "The room is small.", "A pool, a bar."])
    >>> found = model.find(["Is the room small?"], ["The bar is open. The room is small."])[0]
    >>> found.spans[0].start, found.spans[0].end
    (17, 35)
    """

    def __init__(self, contexts: Sequence[str]) -> None:
        counts: Counter[str] = Counter()
        distinct = list(dict.fromkeys(contexts))
        for context in distinct:
            counts.update(set(units(context)))
        self.rows = len(distinct)
        self.counts = counts

    def weight(self, unit: str) -> float:
        return max(0.0, math.log((1 + self.rows) / (1 + self.counts[unit])))

    def find(self, questions: Sequence[str], contexts: Sequence[str]) -> list[Found]:
        """The best sentence of each row, scored from 0 to 1; "no answer" has the score 0."""
        return [self._find(q, c) for q, c in zip(questions, contexts, strict=True)]

    def _find(self, question: str, context: str) -> Found:
        asked = {u: self.weight(u) for u in units(question)}
        whole = sum(asked.values()) or 1.0
        best = Span(-1.0, 0, 0)
        for match in SENTENCE.finditer(context):
            text = match.group()
            start = match.start() + len(text) - len(text.lstrip())
            end = match.end() - (len(text) - len(text.rstrip()))
            if end <= start:
                continue
            score = sum(asked.get(u, 0.0) for u in set(units(text))) / whole
            if score > best.score:
                best = Span(score, start, end)
        return Found((best,) if best.end else (), 0.0)
