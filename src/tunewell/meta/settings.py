"""What meta-learning is asked for, checked as a whole before anything is loaded. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tunewell.errors import RecipeError, nearest
from tunewell.meta.methods import METHODS

# key -> (least, most, what it must be)
NUMBERS: dict[str, tuple[float, float, str]] = {
    "ways": (2, 1000, "a whole number, at least 2"),
    "shots": (1, 1000, "a whole number, at least 1"),
    "queries": (1, 1000, "a whole number, at least 1"),
    "inner_steps": (1, 1000, "a whole number, at least 1"),
    "steps": (1, 10**6, "a whole number, at least 1"),
    "tasks_per_step": (1, 1000, "a whole number, at least 1"),
    "episodes": (2, 10**5, "a whole number, at least 2"),
    "inner_rate": (0, 100, "a number above 0"),
    "outer_rate": (0, 100, "a number above 0"),
}
RATES = {"head": 0.05, "whole": 0.005}  # of the inner steps, by what they change
WHOLE = ("ways", "shots", "queries", "inner_steps", "steps", "tasks_per_step", "episodes")


@dataclass(frozen=True)
class Settings:
    """See `tunewell.meta.meta` for what each means."""

    method: str = "protonet"
    ways: int | None = None
    shots: int = 5
    queries: int = 15
    task_column: str | None = None
    held_out: str = "0.2"
    selection: str = "0.1"
    inner_steps: int = 5
    inner_rate: float | None = None
    outer_rate: float | None = None
    steps: int = 100
    tasks_per_step: int = 4
    episodes: int = 100

    def __post_init__(self) -> None:
        """Raises RecipeError for what cannot be, with the key."""
        if self.method not in METHODS:
            raise RecipeError(
                f"unknown method `{self.method}`",
                where="method",
                expected="one of " + ", ".join(METHODS),
                remedy=nearest(self.method, METHODS),
            )
        for key, (least, most, expected) in NUMBERS.items():
            value = getattr(self, key)
            if value is None and key in ("ways", "inner_rate", "outer_rate"):
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            fits = number and least <= value <= most and (key not in WHOLE or value == int(value))
            if not fits or (key not in WHOLE and value <= 0):
                raise RecipeError(f"`{key}: {value}`", where=key, expected=expected)

    def rate(self, use: str) -> float:
        """Learning rate of the steps of a way of use: steps on all weights must be smaller than those on the head."""
        return RATES.get(use, 0.0) if self.inner_rate is None else self.inner_rate

    def key(self) -> dict[str, Any]:
        """All that decides what is learned; how much is reported apart."""
        return {k: v for k, v in asdict(self).items() if k != "episodes"}
