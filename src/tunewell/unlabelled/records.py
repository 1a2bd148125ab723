"""`unlabelled.json`: what texts without labels brought, method by method, and what was decided."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tunewell.results import Comparison, Estimate, Record


class MethodResult(Record):
    """One method against the same tuning without it."""

    method: str
    score: Estimate
    comparison: Comparison  # with − without, on the same rows
    helps: bool  # by the recipe's `unlabelled_rule`
    chosen: bool = False
    rows: int = 0  # of the pool with a guessed label, learned in the last round
    classes: dict[str, int] = Field(default_factory=dict)  # label -> of those
    confidence: Estimate | None = None  # their mean calibrated confidence
    least: float | None = None  # the least of them
    temperature: float | None = None
    rounds: int = 1
    seconds: float = 0.0
    about: dict[str, Any] = Field(default_factory=dict)  # of pretraining: what and how; of consistency: what counted


class Unlabelled(Record):
    """The pool, and what its methods brought."""

    source: str
    read: int
    pool: int  # texts that could be used
    left_out: dict[str, int]
    judged: Literal["validation", "cross-validation"]
    n: int  # rows that the methods were judged on
    metric: str
    rule: Literal["likely", "sure"]
    without: Estimate
    methods: tuple[MethodResult, ...]
    skipped: dict[str, str] = Field(default_factory=dict)  # method -> why it brought no tuning
    chosen: str | None  # None: the model that learned from labelled rows alone

    @property
    def tells(self) -> float | None:
        """The largest standard error of the differences: what the rows can tell; None where no answer differed."""
        errors = [m.comparison.difference.standard_error for m in self.methods]
        return max((e for e in errors if e is not None), default=None)

    @property
    def winner(self) -> MethodResult | None:
        return next((m for m in self.methods if m.chosen), None)
