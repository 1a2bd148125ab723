"""What a counterfactual is: a plain frozen dataclass."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Edit:
    """One word changed.

    Attributes:
        word: as it stands in the text. start, end: its characters there. part: 0 or 1, which text it is from.
        instead: the word in its place; None where it is taken out.
    """

    word: str
    start: int
    end: int
    part: int = 0
    instead: str | None = None


@dataclass(frozen=True)
class Changed:
    """A change of a text that turns the answer.

    Attributes:
        edits: the words changed, in the order of the text. text, text_pair: what is left.
        prediction: the answer then. probability: of `Counterfactual.label` then.
        likely: of a replaced word: its probability in its place over that of the likeliest word there, 0 to 1; None
            where words are taken out.
    """

    edits: tuple[Edit, ...]
    text: str
    text_pair: str | None
    prediction: str | tuple[str, ...]
    probability: float
    likely: float | None = None


@dataclass(frozen=True)
class Counterfactual:
    """How one answer could be turned.

    Attributes:
        prediction: the answer as it is. label: the label that has to go; or the one that has to come, where `target`
            asks for one that is not there, or a row of several labels has none: then the likeliest.
        probability: of `label` as it is.
        without: the fewest words found whose removal turns the answer; None: not within the words and rows allowed.
        instead: the most fluent replacement of one word found; None: not found, or no model to ask.
        asked: texts that the model read for it.
    """

    text: str
    text_pair: str | None
    prediction: str | tuple[str, ...]
    label: str
    probability: float
    without: Changed | None
    instead: Changed | None
    asked: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)
