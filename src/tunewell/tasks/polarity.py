"""Labels of sentiment brought to one scale: stars, signed scores and words to negative, neutral and positive.

A polarity maps rules to classes, the first rule that fits decides. A rule is a label as it stands (`5`, `happy`), a
range with both ends (`-0.5..0.5`), or one side (`<-0.5`, `<=2`, `>0.5`, `>=4`). `keep` takes numbers as they are, as
classes in order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from tunewell.errors import DataError

NEGATIVE, NEUTRAL, POSITIVE = CLASSES = ("negative", "neutral", "positive")
KEEP = "keep"
STARS = {"1": NEGATIVE, "2": NEGATIVE, "3": NEUTRAL, "4": POSITIVE, "5": POSITIVE}
BINARY = {"0": NEGATIVE, "1": POSITIVE}
SIGNS = {"-1": NEGATIVE, "0": NEUTRAL, "1": POSITIVE}
SIGNED = {"<-0.5": NEGATIVE, "-0.5..0.5": NEUTRAL, ">0.5": POSITIVE}
WORDS = {
    NEGATIVE: ("negative", "neg", "negativ", "négatif", "negativo", "负面", "消极", "差评"),
    NEUTRAL: ("neutral", "neu", "neutre", "neutro", "中性", "中评"),
    POSITIVE: ("positive", "pos", "positiv", "positif", "positivo", "正面", "积极", "好评"),
}
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
RANGE = re.compile(rf"\s*({NUMBER})\s*\.\.\s*({NUMBER})\s*")
SIDE = re.compile(rf"\s*(<=|>=|<|>)\s*({NUMBER})\s*")


def parse(value: Any) -> Any:
    """What stands in a recipe or on the command line as a mapping; anything else is left to the recipe to refuse.

    >>> parse("<3=negative,3=neutral,4..5=positive")
    {'<3': 'negative', '3': 'neutral', '4..5': 'positive'}
    """
    if isinstance(value, str) and value.strip() != KEEP:
        parts = [part.rpartition("=") for part in value.split(",") if part.strip()]
        value = {rule.strip(): name.strip() for rule, _, name in parts}
    elif isinstance(value, dict):
        value = {_written(k): _written(v) for k, v in value.items()}
    if isinstance(value, dict):
        for rule, name in value.items():
            if not rule or not name:
                raise ValueError("write rule=class, such as 1=negative,2=negative,3=neutral,4..5=positive")
            if (".." in rule and not RANGE.fullmatch(rule)) or (rule[0] in "<>" and not SIDE.fullmatch(rule)):
                raise ValueError(f"`{rule}` is no range of numbers, such as 4..5 or <=2")
        if len(set(value.values())) < 2:
            raise ValueError("name at least two classes")
    return value


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def number(label: str) -> float | None:
    try:
        value = float(label)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def fits(rule: str, label: str) -> bool:
    """
    >>> fits("4..5", "4.5"), fits("<3", "3"), fits("5", "5.0"), fits("Good", "good")
    (True, False, True, True)
    """
    value = number(label)
    if (found := RANGE.fullmatch(rule)) is not None:
        return value is not None and float(found[1]) <= value <= float(found[2])
    if (found := SIDE.fullmatch(rule)) is not None:
        bound, sign = float(found[2]), found[1]
        if value is None:
            return False
        return {"<": value < bound, "<=": value <= bound, ">": value > bound, ">=": value >= bound}[sign]
    wanted = number(rule)
    if wanted is not None and value is not None:
        return wanted == value
    return rule.strip().casefold() == label.strip().casefold()


def class_of(polarity: dict[str, str], label: str) -> str | None:
    """The class of a label; None where no rule fits."""
    return next((name for rule, name in polarity.items() if fits(rule, label)), None)


def covers(polarity: dict[str, str] | str, labels: Iterable[str]) -> bool:
    if isinstance(polarity, str):
        return all(number(label) is not None for label in labels)
    return all(class_of(polarity, label) is not None for label in labels)


def usual(labels: Sequence[str]) -> dict[str, str] | None:
    """The polarity that labels tell by themselves; None where they do not.

    Stars 1 to 5 (1 and 2 negative, 3 neutral, 4 and 5 positive), 0 and 1, -1 to 1, scores on both sides of zero
    (within half a point of it: neutral), and the words for the three classes in some languages.
    """
    values = [number(label) for label in labels]
    known = {v for v in values if v is not None}
    if labels and len(known) and None not in values:
        if known <= {0.0, 1.0}:
            return BINARY
        if known <= {-1.0, 0.0, 1.0}:
            return SIGNS
        if known <= {1.0, 2.0, 3.0, 4.0, 5.0} and max(known) > 2:
            return STARS
        return SIGNED if min(known) < 0 < max(known) else None
    words = {word: name for name, spellings in WORDS.items() for word in spellings}
    found = {label: words.get(label.strip().casefold()) for label in labels}
    return {k: v for k, v in found.items() if v is not None} if labels and all(found.values()) else None


def order(polarity: dict[str, str] | str, labels: Iterable[str]) -> tuple[str, ...]:
    """Classes from the most negative to the most positive: as their names or numbers say, else as the rules stand."""
    if isinstance(polarity, str):
        return tuple(sorted(set(labels), key=float))
    names = list(dict.fromkeys(polarity.values()))
    return tuple(n for n in CLASSES if n in names) if set(names) <= set(CLASSES) else tuple(names)


def choose(
    polarity: dict[str, str] | str | None,
    labels: Sequence[str],
    *,
    source: str,
    otherwise: dict[str, str] | str | None = None,
) -> dict[str, str] | str:
    """The polarity to use for a file's labels.

    Args:
        polarity: the user's, if any; otherwise: what the model was tuned with, used where it fits.

    Raises:
        DataError: none is given, and the labels do not tell one.
    """
    if polarity is not None:
        return polarity
    if otherwise is not None and covers(otherwise, labels):
        return otherwise
    if (found := usual(labels)) is not None:
        return found
    some = ", ".join(repr(label) for label in sorted(labels)[:8]) + (", ..." if len(labels) > 8 else "")
    raise DataError(
        f"cannot tell which labels are negative and which are positive: {some}",
        where=source,
        expected="stars 1 to 5, 0 and 1, scores on both sides of zero, or negative, neutral, positive",
        remedy="say it: --polarity 'LABEL=negative,OTHER=positive' (ranges too: '<3=negative,>=3=positive')",
    )


def apply(polarity: dict[str, str] | str, labels: Sequence[str], rows: Sequence[int], *, source: str) -> list[str]:
    """The class of each label.

    Raises:
        DataError: a label that no rule fits, with its row.
    """
    out, known = [], {}
    for label, row in zip(labels, rows, strict=True):
        if label not in known:
            value = number(label)
            if isinstance(polarity, str):
                known[label] = None if value is None else f"{value:g}"
            else:
                known[label] = class_of(polarity, label)
        name = known[label]
        if name is None:
            rules = KEEP + ", which takes numbers" if isinstance(polarity, str) else describe(polarity)
            raise DataError(
                f"no rule of `polarity` fits the label {label!r}",
                where=f"{source}:{row}",
                expected=f"a label for one of: {rules}",
                remedy="add a rule for it, such as --polarity '...,LABEL=neutral'",
            )
        out.append(name)
    return out


def describe(polarity: dict[str, str] | str) -> str:
    """
    >>> describe(STARS)
    '1, 2 → negative; 3 → neutral; 4, 5 → positive'
    """
    if isinstance(polarity, str):
        return "numbers as classes, in order"
    rules: dict[str, list[str]] = {}
    for rule, name in polarity.items():
        rules.setdefault(name, []).append(rule)
    return "; ".join(f"{', '.join(found)} → {name}" for name, found in rules.items())
