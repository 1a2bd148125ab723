"""The try-it box: one model in memory at a time, asked about one text at a time."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewell.errors import DataError, ModelError, TunewellError
from tunewell.ui.scan import Entry

LONGEST = 20_000  # characters of a text
SHOWN = 12  # labels with their probabilities
BUDGET = 4.0  # seconds that choosing a method of explanation may take
TURNING_WORDS, TURNING_ROWS = 3, 400  # taken out, and texts read for it, at most


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        said: label, labels, value or text. bars: (label, probability), the likeliest first. rest: labels left out.
        explanation: an `Explanation`, where one was asked for; then also turned, a `Counterfactual` of a class's
            answer, and behind, an `Attribution` to training rows, where the run's index of them is there.
        unindexed: the index could be there and is not.
    """

    said: Any
    bars: list[tuple[str, float]]
    rest: int
    seconds: float
    explanation: Any = None
    turned: Any = None
    behind: Any = None
    unindexed: bool = False


@dataclass(frozen=True)
class Kind:
    """What a run wants to be asked: with which fields, and whether its words can be explained."""

    pair: bool
    question: bool
    tasks: tuple[str, ...]
    explains: bool


def kind_of(entry: Entry) -> Kind:
    """The fields of a run's box, told by its records alone."""
    from tunewell.ui.about import read_json

    if entry.kind == "sequence":
        return Kind(False, False, entry.tasks, True)
    task = read_json(entry.path / "task.json")
    spec = task.get("spec") or {}
    name = spec.get("name", entry.task)
    question = name == "question-answering"
    explains = name in ("text-classification", "text-regression") and task.get("classify_by") != "likelihood"
    return Kind(question or bool(spec.get("pair")), question, (), explains)


class Desk:
    """The model that was asked last. Requests take their turns; another run's model takes the place of the first."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._held: tuple[Any, Any] | None = None  # what it is, and the predictor
        self._traced: tuple[Any, Any] | None = None  # the same, and its `Influence`

    def ask(self, entry: Entry, text: str, pair: str | None, *, task: str = "", explain: bool = False) -> Answer:
        """One answer.

        Raises:
            DataError: no text, one that is too long, or a second text that is missing.
            ModelError: the run has no model that can be loaded, or none that can be explained.
        """
        if not text.strip():
            raise DataError("there is no text", where="text", expected="a text with words")
        if max(len(text), len(pair or "")) > LONGEST:
            raise DataError(
                f"{max(len(text), len(pair or '')):,} characters", where="text", expected=f"at most {LONGEST:,}"
            )
        kind = kind_of(entry)
        if kind.pair and not (pair or "").strip():
            raise DataError("the second text is missing", where="pair", expected="two texts")
        pairs = [pair or ""] if kind.pair else None
        with self._turn:
            predictor = self._predictor(entry, task if kind.tasks else "")
            started = time.perf_counter()
            found = predictor.predict_batch([text], pairs)[0]
            seconds = time.perf_counter() - started
            more: dict[str, Any] = {}
            if explain:
                if not kind.explains or not hasattr(predictor, "need_head"):
                    raise ModelError("its answers cannot be explained", where=entry.name, expected="classes or scores")
                more = self._why(entry, predictor, text, pairs)
        bars = sorted((found.get("probabilities") or {}).items(), key=lambda p: -p[1])
        return Answer(found["prediction"], bars[:SHOWN], max(0, len(bars) - SHOWN), seconds, **more)

    def _why(self, entry: Entry, predictor: Any, text: str, pairs: list[str] | None) -> dict[str, Any]:
        """The words that decided, the fewest without which it would be another answer, and the training rows."""
        from tunewell.explain.counterfactual.search import counterfactuals
        from tunewell.explain.texts import explain_texts

        out: dict[str, Any] = {"explanation": explain_texts(predictor, [text], pairs, budget=BUDGET)[0]}
        if not predictor.spec.regression:
            out["turned"] = counterfactuals(predictor, [text], pairs, most=TURNING_WORDS, rows=TURNING_ROWS)[0]
        if entry.kind == "sequence":
            return out
        from tunewell.explain.influence.attribute import Influence
        from tunewell.explain.influence.index import is_built

        try:
            what = (entry.path, _weights(entry.path))
            if self._traced is None or self._traced[0] != what:
                self._traced = None
                self._traced = (what, Influence(entry.path))
            traced = self._traced[1]
            if is_built(traced.file):
                out["behind"] = traced.explain([text], pairs)[0]
            else:
                out["unindexed"] = True
        except TunewellError:  # the training file is gone, or the head is none that can be traced
            self._traced = None
        return out

    def _predictor(self, entry: Entry, task: str) -> Any:
        what = (entry.path, task, _weights(entry.path))
        if self._held is None or self._held[0] != what:
            self._held = self._traced = None  # the old one goes before the new one comes
            from tunewell.predict import load_predictor

            try:
                self._held = (what, load_predictor(entry.path, batch_size=8, task_name=task or None))
            except (OSError, ValueError, KeyError, RuntimeError) as error:
                raise ModelError(
                    f"its model cannot be loaded ({type(error).__name__})", where=entry.name, expected="a finished run"
                ) from error
        return self._held[1]


def _weights(path: Path) -> float:
    """When the model was written."""
    return max((f.stat().st_mtime for f in (path / "model").glob("*") if f.is_file()), default=0.0)
