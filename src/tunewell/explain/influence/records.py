"""Training rows behind a prediction, as plain frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Behind:
    """A training row behind a prediction.

    Attributes:
        row: its place in the training file, counted from 1.
        label: its label there (a list for several labels a row, a number for regression).
        score: −1 to 1, in units of the strongest row of all; positive rows push the explained output up.
        similarity: cosine of the two texts in the tuned model's representation, −1 to 1.
    """

    row: int
    text: str
    text_pair: str | None
    label: Any
    score: float
    similarity: float


@dataclass(frozen=True)
class Sides:
    """The training rows that push a prediction up most and down most, strongest first."""

    supports: tuple[Behind, ...]
    opposes: tuple[Behind, ...]
