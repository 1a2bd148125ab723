"""The table of tasks, and which of them a file is for. Stays light: the recipe reads it before anything heavy."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

TASKS: dict[str, str] = {
    "text-classification": "tunewell.tasks.classification:CLASSIFICATION",
    "text-regression": "tunewell.tasks.classification:REGRESSION",
    "sentiment": "tunewell.tasks.classification:SENTIMENT",
    "question-answering": "tunewell.tasks.question_answering.task:TASK",
    "text-generation": "tunewell.tasks.generation.task:GENERATION",
    "translation": "tunewell.tasks.generation.task:TRANSLATION",
}
# columns that tell a task; the first set that a file has all of decides
TELLING: tuple[tuple[str, frozenset[str]], ...] = (
    ("question-answering", frozenset({"question", "context", "answers"})),
    ("question-answering", frozenset({"question", "context", "answer_start"})),
    ("question-answering", frozenset({"paragraphs"})),
    ("text-generation", frozenset({"messages"})),
    ("text-generation", frozenset({"conversations"})),
    ("text-generation", frozenset({"prompt", "completion"})),
    ("text-generation", frozenset({"instruction", "output"})),
    ("translation", frozenset({"source", "target"})),
    ("translation", frozenset({"translation"})),
)
# recipe keys that tell a task when they are given
KEYS: dict[str, str] = {
    "question": "question-answering",
    "answers": "question-answering",
    "messages": "text-generation",
    "polarity": "sentiment",
    "aspect": "sentiment",
    "source": "translation",
    "target": "translation",
}


def task_of(name: str) -> Any:
    """The task behind a name of the table."""
    module, attribute = TASKS[name].split(":")
    return getattr(import_module(module), attribute)


def told_by_keys(values: dict[str, Any]) -> str | None:
    """The task that given recipe keys belong to."""
    return next((task for key, task in KEYS.items() if values.get(key) is not None), None)


def told_by_columns(columns: Iterable[str]) -> str | None:
    """The task that a file's columns belong to, None for classes and scores (always when there is a text or label)."""
    names = {c.lower() for c in columns}
    if names & {"text", "label", "labels"}:
        return None
    return next((task for task, needed in TELLING if needed <= names), None)
