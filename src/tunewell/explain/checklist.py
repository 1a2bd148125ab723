"""Behavioural tests made from the user's own rows: does the answer stay, or move, as it should?

After CheckList (Ribeiro et al., 2020, Beyond Accuracy). Each test changes rows in one way and watches the answer:

- typos, letter case, final punctuation, contractions, names, numbers and length (an empty phrase is added, as CheckList
  adds addresses): the answer should stay;
- negation ("not" put in after a verb form of be, have or can, or taken out): for labels that judge, such as positive
  and negative, the answer should get less sure or turn; for others it should stay. Which is assumed is said.

A test is run on the rows that it can change. For English; typos, punctuation, numbers and length also change other
texts. For regression an answer stays when it moves by no more than a quarter of the spread of the answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tunewell.errors import DataError, RecipeError, nearest
from tunewell.explain.segment import units
from tunewell.results import Estimate, Record

if TYPE_CHECKING:
    from tunewell.predict import Predictor

FEWEST = 5  # rows that a test must be able to change
SHOWN = 5
STEADY = 0.25  # of the spread of a regression's answers
LESS_SURE = 0.1  # probability that a negated text must lose
NEGATION = ("auto", "changes", "same")
JUDGING = re.compile(r"\b(pos|neg|positive|negative|good|bad|love|hate|happy|sad|yes|no|true|false|toxic)\b", re.I)
NAMES = (
    "James", "Mary", "John", "Linda", "Robert", "Susan", "Michael", "Karen", "David", "Anna", "William", "Emma",
    "Thomas", "Laura", "Daniel", "Sarah", "Paul", "Julia", "Mark", "Maria", "Peter", "Alice", "George", "Helen",
    "Ahmed", "Fatima", "Wei", "Mei", "Carlos", "Sofia", "Ivan", "Olga", "Kenji", "Yuki", "Raj", "Priya",
)  # fmt: skip
CONTRACTIONS = {
    "don't": "do not", "doesn't": "does not", "didn't": "did not", "isn't": "is not", "aren't": "are not",
    "wasn't": "was not", "weren't": "were not", "can't": "cannot", "won't": "will not", "wouldn't": "would not",
    "couldn't": "could not", "shouldn't": "should not", "haven't": "have not", "hasn't": "has not", "it's": "it is",
    "i'm": "i am", "you're": "you are", "they're": "they are", "we're": "we are", "i've": "i have", "that's": "that is",
}  # fmt: skip
PHRASES = ("That is all I have to say.", "https://t.co/x7Kq2b", "Posted from my phone.", "Thank you for reading this.")
VERBS = frozenset([
    "is", "are", "was", "were", "am", "has", "have", "had", "can", "could", "will", "would", "should", "do", "does",
    "did",
])  # fmt: skip


class Failure(Record):
    """A row that failed: texts before and after, and the answers."""

    before: str
    after: str
    answer_before: str
    answer_after: str
    probability_before: float | None = None  # of the first answer, in both
    probability_after: float | None = None


class Behaviour(Record):
    """One test: its pass rate with Wilson's interval, None where it could change too few rows."""

    name: str
    expects: Literal["same", "changes"]
    passed: Estimate | None
    changed: int  # rows that the test could change
    failures: tuple[Failure, ...] = ()


class Checklist(Record):
    """`checklist.json`: all tests on the same rows."""

    rows: int
    negation: str  # what was assumed: "changes" or "same"
    tests: tuple[Behaviour, ...]


# ---------------------------------------------------------------- changes: text, draws -> text, None where impossible


def typo(text: str, rng: np.random.Generator) -> str | None:
    """Two neighbouring inner letters of one word of four letters or more change places."""
    spans = [(a, b) for a, b in units(text) if b - a >= 4 and text[a:b].isalpha()]
    places = [i for a, b in spans for i in range(a + 1, b - 2) if text[i] != text[i + 1]]
    if not places:
        return None
    i = places[int(rng.integers(len(places)))]
    return text[:i] + text[i + 1] + text[i] + text[i + 2 :]


def letter_case(text: str, rng: np.random.Generator) -> str | None:
    """All in capitals."""
    return text.upper() if text.upper() != text and text.isascii() else None


def punctuation(text: str, rng: np.random.Generator) -> str | None:
    """The final sign goes, or a full stop comes."""
    bare = text.rstrip()
    if not bare:
        return None
    return (
        bare.rstrip(".!?。！？").rstrip()
        if bare[-1] in ".!?。！？" and bare.rstrip(".!?。！？").strip()
        else bare + "."
    )


def contractions(text: str, rng: np.random.Generator) -> str | None:
    """The first contraction is written out, or the first full form contracted."""
    found = re.search(r"\b(" + "|".join(map(re.escape, CONTRACTIONS)) + r")\b", text.replace("’", "'"), re.I)
    if found:
        return text[: found.start()] + _like(CONTRACTIONS[found.group().lower()], found.group()) + text[found.end() :]
    back = {full: short for short, full in CONTRACTIONS.items()}
    found = re.search(r"\b(" + "|".join(map(re.escape, back)) + r")\b", text, re.I)
    return (
        text[: found.start()] + _like(back[found.group().lower()], found.group()) + text[found.end() :]
        if found
        else None
    )


def names(text: str, rng: np.random.Generator) -> str | None:
    """A common first name becomes another."""
    found = re.search(r"\b(" + "|".join(NAMES) + r")\b", text)
    if not found:
        return None
    others = [n for n in NAMES if n != found.group()]
    return text[: found.start()] + others[int(rng.integers(len(others)))] + text[found.end() :]


def numbers(text: str, rng: np.random.Generator) -> str | None:
    """One whole number of two digits or more becomes another of as many digits."""
    found = list(re.finditer(r"(?<![\w.,])[0-9]{2,6}(?![\w]|[.,][0-9])", text))
    if not found:
        return None
    one = found[int(rng.integers(len(found)))]
    low = 10 ** (len(one.group()) - 1)
    new = str(low + (int(one.group()) - low + 1 + int(rng.integers(9 * low - 1))) % (9 * low))
    return text[: one.start()] + new + text[one.end() :]


def length(text: str, rng: np.random.Generator) -> str | None:
    """An empty phrase is added at the end."""
    return f"{text.rstrip()} {PHRASES[int(rng.integers(len(PHRASES)))]}"


def negation(text: str, rng: np.random.Generator) -> str | None:
    """ "not" (n't) goes, else "not" comes after the first form of be, have, can and their like."""
    spans = units(text)
    words = [text[a:b].lower().replace("’", "'") for a, b in spans]
    for (a, b), word in zip(spans, words, strict=True):
        if word in ("not", "n't"):
            return (text[:a].rstrip() + text[b:]).lstrip()
        if word.endswith("n't") and word[:-3] in VERBS:
            return text[: b - 3] + text[b:]
    for (_, b), word in zip(spans, words, strict=True):
        if word in VERBS:
            return f"{text[:b]} not{text[b:]}"
    return None


CHANGES: dict[str, Callable[[str, np.random.Generator], str | None]] = {
    "typos": typo,
    "case": letter_case,
    "punctuation": punctuation,
    "contractions": contractions,
    "names": names,
    "numbers": numbers,
    "length": length,
    "negation": negation,
}


def _like(new: str, old: str) -> str:
    return new[0].upper() + new[1:] if old[0].isupper() else new


# ---------------------------------------------------------------- tests


def checklist(
    predictor: Predictor,
    rows: Sequence[dict[str, Any]],
    *,
    negation: str = "auto",
    seed: int = 42,
    watch: Callable[[str], None] = lambda line: None,
) -> Checklist:
    """Run all tests.

    Args:
        rows: with `text` and, for pairs, `text_pair`; the first text is changed. At least 5.
        negation: "changes" or "same", what should become of a negated text's answer; "auto": "changes" where a label
            is a word that judges, such as positive, good or yes. watch: told which test is run.

    Raises:
        RecipeError: another negation. DataError: too few rows.
    """
    if negation not in NEGATION:
        raise RecipeError(
            f"`negation: {negation}`",
            where="negation",
            expected=", ".join(NEGATION),
            remedy=nearest(negation, NEGATION),
        )
    if len(rows) < FEWEST:
        raise DataError(f"{len(rows)} rows are too few to test on", where="rows", expected=f"at least {FEWEST}")
    spec = predictor.spec
    if negation == "auto":
        negation = "changes" if any(JUDGING.search(label) for label in predictor.labels) else "same"
    texts = [row["text"] for row in rows]
    pairs = [row["text_pair"] for row in rows] if spec.pair else None
    before = predictor.scores(texts, pairs)
    tests = []
    for name, change in CHANGES.items():
        watch(name)
        new = [change(t, np.random.default_rng([seed, i])) for i, t in enumerate(texts)]
        places = [i for i, t in enumerate(new) if t is not None and t.strip() and t != texts[i]]
        expects: Literal["same", "changes"] = "changes" if name == "negation" and negation == "changes" else "same"
        if len(places) < FEWEST:
            tests.append(Behaviour(name=name, expects=expects, passed=None, changed=len(places)))
            continue
        changed = [str(new[i]) for i in places]
        after = predictor.scores(changed, [pairs[i] for i in places] if pairs else None)
        tests.append(_judged(predictor, name, expects, [texts[i] for i in places], changed, before[places], after))
    return Checklist(rows=len(rows), negation=negation, tests=tuple(tests))


def _judged(
    predictor: Predictor,
    name: str,
    expects: Literal["same", "changes"],
    old: Sequence[str],
    new: Sequence[str],
    before: np.ndarray,
    after: np.ndarray,
) -> Behaviour:
    from tunewell.evaluate.statistics import wilson
    from tunewell.predict import decide

    spec, n = predictor.spec, len(old)
    first, second = decide(spec, before), decide(spec, after)
    sure: tuple[np.ndarray, np.ndarray] | None = None
    if spec.regression:
        moved = np.abs(after - before)
        same = moved <= STEADY * float(np.std(before))
        worst = moved
        less = ~same
    else:
        top = before.argmax(axis=1)
        sure = before[np.arange(n), top], after[np.arange(n), top]
        same = np.array(
            [sorted(a) == sorted(b) if spec.multi_label else a == b for a, b in zip(first, second, strict=True)]
        )
        less = ~same | (sure[0] - sure[1] >= LESS_SURE)
        worst = sure[0] - sure[1]
    passed = same if expects == "same" else less
    low, high = wilson(int(passed.sum()), n)
    bad = [i for i in np.argsort(-worst if expects == "same" else worst, kind="stable") if not passed[i]][:SHOWN]
    return Behaviour(
        name=name,
        expects=expects,
        passed=Estimate(value=float(passed.mean()), low=low, high=high, n=n),
        changed=n,
        failures=tuple(
            Failure(
                before=old[i],
                after=new[i],
                answer_before=_said(first[i]),
                answer_after=_said(second[i]),
                probability_before=None if sure is None else float(sure[0][i]),
                probability_after=None if sure is None else float(sure[1][i]),
            )
            for i in bad
        ),
    )


def _said(answer: Any) -> str:
    return ", ".join(answer) if isinstance(answer, list) else f"{answer:.4g}" if isinstance(answer, float) else answer
