"""Plain fine-tuning: all weights follow the task's loss and nothing protects them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunewell.train.hooks import Tuning, Weights


class Plain:
    name = "plain"
    title = "Plain fine-tuning"
    paper = "Devlin et al., 2019, BERT"

    def __init__(self, options: dict[str, Any]) -> None:
        pass

    def prepare(self, tuning: Tuning) -> None:
        """Nothing to prepare."""

    def extra_loss(self, model: Any, step: int) -> None:
        return None

    def variants(self, base: Weights, tuned: Weights) -> Iterator[tuple[dict[str, float], Weights]]:
        return iter(())
