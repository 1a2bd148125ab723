"""Plain fine-tuning: all weights follow the task's loss and nothing protects them."""

from __future__ import annotations

from typing import Any


class Plain:
    name = "plain"
    title = "Plain fine-tuning"
    paper = "Devlin et al., 2019, BERT"

    def __init__(self, options: dict[str, Any]) -> None:
        pass
