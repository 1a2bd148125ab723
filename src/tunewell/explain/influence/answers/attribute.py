"""From a prompt and its answer to the training rows that made the answer likelier or less likely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import DataError, RecipeError, nearest
from tunewell.explain.influence.answers.index import AnswerIndex, adapters_at, build, query
from tunewell.explain.influence.answers.methods import DEFAULT, METHODS, neighbours
from tunewell.explain.influence.answers.rows import AnswerRows, read_answer_rows
from tunewell.explain.influence.answers.weights import ADAPTERS
from tunewell.explain.influence.attribute import strongest
from tunewell.explain.influence.index import Echo
from tunewell.explain.influence.records import Behind
from tunewell.explain.segment import need_words

if TYPE_CHECKING:
    from tunewell.tasks.generation.writers import Encoded, Writer

QUERIES_A_TIME = 64


@dataclass(frozen=True)
class AnswerAttribution:
    """One answer and the training rows that push its likelihood up and down, strongest first.

    Attributes:
        answer: the one that is explained. written: it is the model's own.
        loss: mean nats a token of it, by the tuned model.
        gradients: by which weights, and whether Adam's moments had a say.
        supports, opposes: at most `top` rows each; their `label` is the row's answer.
    """

    text: str
    answer: str
    written: bool
    loss: float
    method: str
    gradients: str
    supports: tuple[Behind, ...]
    opposes: tuple[Behind, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)


class AnswerInfluence:
    """A run of text-generation or translation whose answers can be traced to its training rows.

    >>> influence = AnswerInfluence("runs/assistant")   # doctest: +SKIP
    >>> influence.explain(["How do I reset it?"])[0].supports[0].row   # doctest: +SKIP

    Args:
        run: a finished run folder. train: where its training file is now, if it was moved.
        echo: told what takes time. progress: show bars.

    Raises:
        RunFolderError, DataError, ModelError: no such run; its training file is gone or has changed; another task.
    """

    def __init__(
        self, run: str | Path, *, train: str | None = None, echo: Echo = lambda line: None, progress: bool = False
    ) -> None:
        from tunewell.tasks.generation.task import load_writer

        self.file: AnswerRows = read_answer_rows(run, train)
        self.writer: Writer = load_writer(Path(run))
        self.writer.model.eval()
        self._echo, self._progress = echo, progress
        self._place = {int(row): i for i, row in enumerate(self.file.rows)}

    @cached_property
    def index(self) -> AnswerIndex:
        """The index of the training rows; built when it is first needed."""
        return build(self.file, self.writer, echo=self._echo, progress=self._progress)

    @property
    def gradients(self) -> str:
        """By which weights gradients are taken, and whether Adam's moments have a say."""
        found = adapters_at(self.file.run)
        own = "Adam's steps" if found is not None and found.moments else "plain gradients"
        return f"{own}, by the {ADAPTERS if found is not None else 'last block'}"

    def explain(
        self, texts: Sequence[str], answers: Sequence[str] | None = None, *, method: str = "auto", top: int = 5
    ) -> list[AnswerAttribution]:
        """The training rows behind the answers to some prompts (or sources; or messages as JSON).

        Args:
            answers: those to explain; by default what the model writes. method: a name in `METHODS`, or "auto".
            top: rows each way.

        Raises:
            DataError: an empty text or answer, answers missing. RecipeError: an unknown method.
        """
        name = DEFAULT if method == "auto" else method
        if name not in METHODS:
            raise RecipeError(
                f"no method `{name}` for written answers",
                where="method",
                expected="auto, " + ", ".join(METHODS),
                remedy=nearest(name, METHODS),
            )
        self._check(texts, answers)
        out: list[AnswerAttribution] = []
        for start in range(0, len(texts), QUERIES_A_TIME):
            part = slice(start, start + QUERIES_A_TIME)
            out += self._some(texts[part], None if answers is None else answers[part], name, top)
        return out

    def _some(
        self, texts: Sequence[str], answers: Sequence[str] | None, method: str, top: int
    ) -> list[AnswerAttribution]:
        index = self.index
        given = self.writer.predict(texts) if answers is None else list(answers)
        asked = query(self.file, self.writer, [self._encoded(t, a) for t, a in zip(texts, given, strict=True)])
        scores, near = METHODS[method](index, asked), neighbours(index, asked)
        by = "hidden states" if method == "neighbours" else self.gradients if method == "less" else self._plain
        out = []
        for i, (text, answer) in enumerate(zip(texts, given, strict=True)):
            strength = float(np.abs(scores[i]).max()) or 1.0
            sides = [
                tuple(self._behind(j, scores[i, j] / strength, near[i, j]) for j in side)
                for side in strongest(scores[i], top)
            ]
            loss = round(float(asked.losses[i]), 6)
            out.append(AnswerAttribution(text, answer, answers is None, loss, method, by, sides[0], sides[1]))
        return out

    @property
    def _plain(self) -> str:
        return "plain gradients, by the " + self.index.weights

    def _encoded(self, text: str, answer: str) -> Encoded:
        asked = [*self.writer.conversation(text), {"role": "assistant", "content": answer}]
        return self.writer.encode(asked)

    def _behind(self, j: int, score: float, near: float) -> Behind:
        row = int(self.index.rows[j])
        cell = self.file.dataset[self._place[row]]
        return Behind(row, cell["text"], None, cell["label"], round(float(score), 6), round(float(near), 6))

    def _check(self, texts: Sequence[str], answers: Sequence[str] | None) -> None:
        if answers is not None and len(answers) != len(texts):
            raise DataError(f"{len(texts)} texts but {len(answers)} answers", where="answer", expected="one for each")
        for what, cells in (("text", texts), ("answer", answers or ())):
            for number, cell in enumerate(cells, 1):
                if not cell.strip():
                    raise DataError("is empty", where=f"{what} {number}", expected="at least one word")
                said = self.writer.conversation(cell)[-1]["content"] if what == "text" else cell
                need_words(self.writer.tokenizer, str(said), where=f"{what} {number}")
