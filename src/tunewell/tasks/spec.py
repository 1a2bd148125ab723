"""What is learned: the kind of task, its labels, its headline metric; targets as arrays.

Shapes: n rows, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset

WRITING = ("text-generation", "translation")  # tasks whose answers a model writes itself


@dataclass(frozen=True)
class TaskSpec:
    """One task as the later rooms need it.

    Attributes:
        name: "text-classification" or "text-regression".
        labels: class names in the order of the model's outputs; empty for regression.
        multi_label: several labels a row.
        metric: name of the headline metric; higher is better.
        pair: the input is a pair of texts.
        ordered: the classes have an order, as in `labels` (sentiment): distances between them are measured.
    """

    name: str
    labels: tuple[str, ...] = ()
    multi_label: bool = False
    metric: str = "f1_macro"
    pair: bool = False
    ordered: bool = False

    @property
    def regression(self) -> bool:
        return self.name == "text-regression"

    @property
    def problem_type(self) -> str:
        """The name Transformers gives to this kind of head."""
        if self.regression:
            return "regression"
        return "multi_label_classification" if self.multi_label else "single_label_classification"

    @property
    def outputs(self) -> int:
        return 1 if self.regression else len(self.labels)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "labels": list(self.labels),
            "multi_label": self.multi_label,
            "metric": self.metric,
            "pair": self.pair,
            **({"ordered": True} if self.ordered else {}),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TaskSpec:
        return cls(**{**values, "labels": tuple(values["labels"])})


def spec_of(
    splits: dict[str, Dataset],
    *,
    task: str,
    multi_label: bool,
    pair: bool,
    metric: str = "auto",
    order: tuple[str, ...] = (),
) -> TaskSpec:
    """The spec of canonical splits: the classes are those of the training rows, sorted.

    Whole numbers are sorted by value ("2" before "10"), other labels as text; classes that have an order of their
    own stand in that order.

    Args:
        order: classes from the lowest to the highest, where they have an order.
    """
    if metric == "auto":
        metric = "r2" if task == "text-regression" else "f1_micro" if multi_label else "f1_macro"
    if task == "text-regression":
        return TaskSpec(task, metric=metric, pair=pair)
    column = splits["train"]["label"][:]
    names = {label for cell in column for label in cell} if multi_label else set(column)
    if order:
        return TaskSpec(task, tuple(n for n in order if n in names), multi_label, metric, pair, ordered=True)
    try:
        ordered = sorted(names, key=lambda name: (float(name), name))
    except ValueError:
        ordered = sorted(names)
    return TaskSpec(task, tuple(ordered), multi_label, metric, pair)


def targets(spec: TaskSpec, dataset: Dataset) -> np.ndarray:
    """Targets of canonical rows.

    Returns:
        (n,) int64 class ids; (n, C) float32 of 0 and 1 for multi-label; (n,) float32 for regression.
    """
    column = dataset["label"][:]
    if spec.regression:
        return np.asarray(column, dtype=np.float32)
    ids = {label: i for i, label in enumerate(spec.labels)}
    if not spec.multi_label:
        return np.fromiter((ids[label] for label in column), dtype=np.int64, count=len(dataset))
    matrix = np.zeros((len(dataset), len(ids)), dtype=np.float32)
    for i, cell in enumerate(column):
        for label in cell:
            matrix[i, ids[label]] = 1.0
    return matrix


def scores_of(spec: TaskSpec, logits: np.ndarray) -> np.ndarray:
    """Scores of logits (n, C): probabilities (n, C), or predicted values (n,) for regression."""
    from scipy.special import expit, softmax

    logits = np.asarray(logits, dtype=np.float64)
    if spec.regression:
        return logits[:, 0].astype(np.float32)
    return (expit(logits) if spec.multi_label else softmax(logits, axis=1)).astype(np.float32)
