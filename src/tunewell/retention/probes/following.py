"""Instruction following: does a decoder do what a short prompt asks, where a rule can tell?

The way of IFEval (Zhou et al., 2023, Instruction-Following Evaluation for Large Language Models), on 40 prompts of
our own (data/instructions.jsonl). An answer counts when all rules of its prompt hold. Chance is 0: an empty answer,
and one that has nothing to do with the prompt, fulfils none of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.retention.measurement import items_hash
from tunewell.retention.probes.similarity import halve
from tunewell.retention.probes.speaker import Speaker, SpokenProbe, own_data

if TYPE_CHECKING:
    from tunewell.retention.suite import Half

NAME, TITLE = "instructions", "Instruction following: short prompts with rules"
LONGEST = 48  # tokens of an answer


def prompts() -> list[dict[str, Any]]:
    """`prompt` and `checks` of every item."""
    return [json.loads(line) for line in own_data("instructions.jsonl").splitlines() if line.strip()]


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower())


def _sentences(text: str) -> int:
    return len([s for s in re.split(r"(?<=[.!?])[\"'”’)]*\s+", text.strip()) if _words(s)])


def _has(text: str, wanted: str) -> bool:
    """Whole words only where `wanted` is made of letters or digits."""
    if re.fullmatch(r"[\w -]+", wanted):
        return re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", text.lower()) is not None
    return wanted in text.lower()


def _in_order(text: str, wanted: list[str]) -> bool:
    place = 0
    for word in wanted:
        found = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text.lower()[place:])
        if found is None:
            return False
        place += found.end()
    return True


def _json(text: str, wanted: Any) -> bool:
    inside = re.sub(r"^```(?:json)?\s*|\s*```$", "", text.strip())
    try:
        return bool(json.loads(inside) == wanted)
    except ValueError:
        return False


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines() if line.strip()]


CHECKS: dict[str, Callable[[str, Any], bool]] = {
    "includes": lambda text, any_of: any(_has(text, w) for w in any_of),
    "all_of": lambda text, wanted: all(_has(text, w) for w in wanted),
    "excludes": lambda text, wanted: not any(_has(text, w) for w in wanted),
    "equals": lambda text, any_of: " ".join(_words(text)) in any_of,
    "starts": lambda text, any_of: _words(text)[:1] != [] and _words(text)[0] in any_of,
    "ends": lambda text, any_of: _words(text)[-1:] != [] and _words(text)[-1] in any_of,
    "ends_with": lambda text, any_of: text.rstrip(" \n\"'”’").endswith(tuple(any_of)),
    "words_at_most": lambda text, n: len(_words(text)) <= n,
    "words_at_least": lambda text, n: len(_words(text)) >= n,
    "sentences": lambda text, n: _sentences(text) == n,
    "sentences_at_most": lambda text, n: _sentences(text) <= n,
    "lines": lambda text, n: len(_lines(text)) == n,
    "bullets": lambda text, n: len(_lines(text)) >= n and sum(x.startswith("- ") for x in _lines(text)) == n,
    "numbered": lambda text, n: sum(bool(re.match(r"\d+[.)] ", x)) for x in _lines(text)) == n,
    "count": lambda text, wanted: all(_words(text).count(w) == n for w, n in wanted.items()),
    "commas": lambda text, n: text.count(",") == n,
    "upper": lambda text, yes: text.isupper() == yes,
    "lower": lambda text, yes: text.islower() == yes,
    "order": _in_order,
    "json": _json,
    "quoted": lambda text, yes: (re.fullmatch(r"[\"“].*[\"”]", text.strip(), re.DOTALL) is not None) == yes,
    "brackets": lambda text, yes: (re.search(r"\[[^\[\]]+\]", text) is not None) == yes,
}


def follows(text: str, checks: dict[str, Any]) -> bool:
    """Whether an answer fulfils all rules; an empty one fulfils none.

    >>> follows("It is Paris.", {"includes": ["paris"], "words_at_most": 3}), follows("", {"words_at_most": 3})
    (True, False)
    """
    return bool(text.strip()) and all(CHECKS[name](text, value) for name, value in checks.items())


def instructions(half: Half, seed: int) -> SpokenProbe:
    """One half of the prompts."""
    chosen = halve(prompts(), half, seed)

    def arrays(speaker: Speaker) -> dict[str, np.ndarray]:
        answers = speaker.answers([item["prompt"] for item in chosen], LONGEST)
        right = [follows(a, item["checks"]) for a, item in zip(answers, chosen, strict=True)]
        return {"right": np.array(right, dtype=np.float64), "answer": np.array([a or "∅" for a in answers])}

    texts = tuple(item["prompt"] for item in chosen)
    return SpokenProbe(NAME, TITLE, "accuracy", "accuracy", texts, items_hash(NAME, chosen), arrays)
