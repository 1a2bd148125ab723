"""Tuning by a pattern and a verbaliser instead of a new head: see `models.prompt` for how the model answers."""

from __future__ import annotations

from typing import Any


class Prompting:
    name = "prompt"
    title = "Classes as words in a gap, for few labels"
    paper = "Schick and Schütze, 2021, Exploiting cloze questions for few shot text classification and NLI"

    def __init__(self, options: dict[str, Any]) -> None:
        pass
