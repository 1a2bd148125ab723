"""What explanations are: plain frozen dataclasses for callers, and the record of a run.

Shapes: W words, K bins.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tunewell.explain.counterfactual.records import Counterfactual
from tunewell.explain.faithfulness import Faithfulness
from tunewell.explain.influence.records import Sides
from tunewell.explain.stability import Stability
from tunewell.results import Estimate, Record


@dataclass(frozen=True)
class Tried:
    """A method that `auto` tried, with its means over the texts it was tried on; or why it was not tried."""

    method: str
    comprehensiveness: float | None = None
    sufficiency: float | None = None
    texts: int = 0
    note: str = ""

    @property
    def gap(self) -> float | None:
        if self.comprehensiveness is None or self.sufficiency is None:
            return None
        return self.comprehensiveness - self.sufficiency


@dataclass(frozen=True)
class Explanation:
    """Which words of one text decided.

    Attributes:
        text, text_pair: as they were given.
        words: W words in the order of the text, those of the second text last. scores: (W,), positive where a word
            speaks for `target` (or raises the value), negative where it speaks against; see `unit`.
        spans: (W, 2) first and last + 1 character in their text. part: (W,) 0 or 1, which text a word is from.
        method: name of the method. unit: what a score is measured in.
        prediction: the model's answer: a label, a list of labels (multi-label) or a value (regression).
        target: the label that is explained; None for regression. probability: of the target, after the
            run's calibration as in predictions; None for regression.
        score: the target's log-odds before it, or the value: what is handed out among the words.
        faithfulness: how true the explanation is.
        convergence_delta: |sum of scores − what they must add up to|, for methods where that is defined.
        expected_sum: what they must add up to.
        low, high: (W,) 95 % intervals where scores were sampled (Shapley values), else None.
        cut: words beyond the model's window, which it did not see and which are not in `words`.
        tried: what `auto` tried; empty when the method was named.
        label: the true label, where rows with labels were explained.
        answer: of question answering, the characters of the explained answer in `text_pair`; its words are not among
            `words`. None for "no answer" and for all other tasks.
        stability: how far the scores stay when the text is padded or reworded; None where it was not looked at.
    """

    text: str
    text_pair: str | None
    words: tuple[str, ...]
    scores: tuple[float, ...]
    spans: tuple[tuple[int, int], ...]
    part: tuple[int, ...]
    method: str
    unit: str
    prediction: str | tuple[str, ...] | float
    target: str | None
    probability: float | None
    score: float
    faithfulness: Faithfulness
    convergence_delta: float | None = None
    expected_sum: float | None = None
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    cut: int = 0
    tried: tuple[Tried, ...] = ()
    label: str | None = None
    answer: tuple[int, int] | None = None
    stability: Stability | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


@dataclass(frozen=True)
class WordInfluence:
    """A word over many texts: its mean score with a 95 % t interval, n texts that hold it."""

    word: str
    score: Estimate


@dataclass(frozen=True)
class ClassWords:
    """The words that speak most for a label; "+" and "−" stand for raising and lowering a regression's value."""

    label: str
    words: tuple[WordInfluence, ...]


@dataclass(frozen=True)
class Shortcut:
    """A word that nearly decides the label and means nothing for it; see `explain.shortcuts`.

    Attributes:
        coverage: share of the label's training rows that hold the word.
        precision: share of the training rows that hold it which have the label.
        turned: share of test texts of other labels that get the label once the word is put in front.
        lost: mean fall of the label's probability when the word is taken out of test texts that hold it.
        known: probability of the label that the base model sees in the word alone (a linear probe fitted on rows
            without it); None where too few rows are left to fit one.
    """

    word: str
    label: str
    coverage: float
    precision: Estimate
    turned: Estimate
    lost: Estimate
    known: float | None


class Explanations(Record):
    """`explanations.json` of a run: some test rows explained, and the words that matter over many."""

    method: str
    title: str
    paper: str
    unit: str
    tried: tuple[Tried, ...]
    explanations: tuple[Explanation, ...]
    counterfactuals: tuple[Counterfactual, ...] = ()  # of the explained rows, in their order; none for values
    behind: tuple[Sides, ...] = ()  # training rows behind each explained row, in their order; none: not measurable
    behind_rows: int = 0  # training rows that were looked at
    class_words: tuple[ClassWords, ...] = ()
    class_words_method: str = ""
    class_words_rows: int = 0
    shortcuts: tuple[Shortcut, ...] = ()
    seconds: float = 0.0
