"""The try-it box: one model in memory at a time, asked about one text at a time."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewell.errors import DataError, ModelError
from tunewell.ui.scan import Entry

LONGEST = 20_000  # characters of a text
SHOWN = 12  # labels with their probabilities
BUDGET = 4.0  # seconds that choosing a method of explanation may take


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        said: label, labels, value or text. bars: (label, probability), the likeliest first. rest: labels left out.
        explanation: an `Explanation`, where one was asked for.
    """

    said: Any
    bars: list[tuple[str, float]]
    rest: int
    seconds: float
    explanation: Any = None


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
            explanation = None
            if explain:
                if not kind.explains or not hasattr(predictor, "need_head"):
                    raise ModelError("its answers cannot be explained", where=entry.name, expected="classes or scores")
                from tunewell.explain.texts import explain_texts

                explanation = explain_texts(predictor, [text], pairs, budget=BUDGET)[0]
        bars = sorted((found.get("probabilities") or {}).items(), key=lambda p: -p[1])
        return Answer(found["prediction"], bars[:SHOWN], max(0, len(bars) - SHOWN), seconds, explanation)

    def _predictor(self, entry: Entry, task: str) -> Any:
        what = (entry.path, task, _weights(entry.path))
        if self._held is None or self._held[0] != what:
            self._held = None  # the old one goes before the new one comes
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
