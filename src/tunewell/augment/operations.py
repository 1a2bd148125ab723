"""Operations on one text: a seeded generator in, another text out.

Words are split at spaces; letters of scripts without spaces are words of their own, so that Chinese is augmented
too. Negations and numbers carry labels more than other words and are never touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from tunewell.explain.segment import unspaced

Operation = Callable[[list[str], int, np.random.Generator], list[str]]

PROTECTED = frozenset(
    [
        "no",
        "not",
        "never",
        "none",
        "nobody",
        "nothing",
        "neither",
        "nor",
        "cannot",
        "can't",
        "won't",
        "don't",
        "doesn't",
        "didn't",
        "isn't",
        "aren't",
        "wasn't",
        "weren't",
        "hardly",
        "barely",
        "without",
        "but",
        "however",
        "不",
        "没",
        "无",
        "非",
        "别",
        "未",
        "莫",
        "勿",
    ]
)
KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
CONFUSED = {"o": "0", "0": "o", "l": "1", "1": "l", "i": "l", "s": "5", "5": "s", "b": "6", "g": "9", "e": "c",
            "m": "rn", "w": "vv", "h": "b", "u": "v", "n": "ri", "B": "8", "S": "5", "O": "0", "Z": "2"}  # fmt: skip
_PIECES = re.compile(r"\s+|\S+")


def split(text: str) -> list[str]:
    """Words and the spaces between them, in order; joined they are the text again.

    >>> split("good  day")
    ['good', '  ', 'day']
    >>> "".join(split("天气 fine")) == "天气 fine", split("天气")
    (True, ['天', '气'])
    """
    out: list[str] = []
    for piece in _PIECES.findall(text):
        run = ""
        for c in piece:
            if unspaced(c):
                out += [run, c] if run else [c]
                run = ""
            else:
                run += c
        if run:
            out.append(run)
    return out


def words_of(pieces: list[str]) -> list[int]:
    """Places of words that may be touched: no spaces, no numbers, no negations, no bare punctuation."""
    return [
        i
        for i, p in enumerate(pieces)
        if any(c.isalpha() for c in p)
        and not any(c.isdigit() for c in p)
        and p.strip(".,;:!?\"'()").casefold() not in PROTECTED
    ]


def swap(pieces: list[str], times: int, rng: np.random.Generator) -> list[str]:
    """Two words change places (EDA; Wei & Zou, 2019)."""
    out, places = list(pieces), words_of(pieces)
    for _ in range(times):
        if len(places) > 1:
            i, j = rng.choice(places, 2, replace=False)
            out[i], out[j] = out[j], out[i]
    return out


def delete(pieces: list[str], times: int, rng: np.random.Generator) -> list[str]:
    """Words are left out (EDA); at least half of them stay."""
    places = words_of(pieces)
    gone = rng.permutation(places)[: min(times, len(places) // 2)].tolist()
    for i in gone:  # a space goes with its word
        if i + 1 < len(pieces) and pieces[i + 1].isspace():
            gone.append(i + 1)
    return [p for i, p in enumerate(pieces) if i not in set(gone)]


def keyboard(pieces: list[str], times: int, rng: np.random.Generator) -> list[str]:
    """Slips of the finger: a neighbouring key, a letter twice, one left out, two swapped."""
    return _letters(pieces, times, rng, _slip)


def ocr(pieces: list[str], times: int, rng: np.random.Generator) -> list[str]:
    """Letters that a scanner takes for one another: o and 0, l and 1, m and rn."""
    return _letters(pieces, times, rng, _misread)


def case(pieces: list[str], times: int, rng: np.random.Generator) -> list[str]:
    """Words in capitals, or without any."""
    out = list(pieces)
    for i in rng.permutation(words_of(pieces))[:times]:
        out[i] = out[i].upper() if out[i] != out[i].upper() and rng.random() < 0.5 else out[i].lower()
    return out


def _letters(
    pieces: list[str], times: int, rng: np.random.Generator, change: Callable[[str, np.random.Generator], str]
) -> list[str]:
    out = list(pieces)
    for i in rng.permutation([i for i in words_of(pieces) if len(pieces[i]) > 2])[:times]:
        out[i] = change(out[i], rng)
    return out


def _slip(word: str, rng: np.random.Generator) -> str:
    at = int(rng.integers(1, len(word)))  # the first letter stays, as it mostly does
    kind = int(rng.integers(4))
    if kind == 0 and (near := _near(word[at])):
        return word[:at] + str(rng.choice(list(near))) + word[at + 1 :]
    if kind == 1:
        return word[:at] + word[at] + word[at:]
    if kind == 2 and at + 1 < len(word):
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + word[at + 1 :]


def _near(c: str) -> str:
    """Keys beside one on a QWERTY keyboard, in its case.

    >>> sorted(_near("s"))
    ['a', 'd', 'e', 'w', 'x', 'z']
    """
    for r, row in enumerate(KEYS):
        if (at := row.find(c.lower())) >= 0:
            around = row[max(0, at - 1) : at] + row[at + 1 : at + 2]
            if r > 0:
                around += KEYS[r - 1][at : at + 2]
            if r + 1 < len(KEYS):
                around += KEYS[r + 1][max(0, at - 1) : at + 1]
            return around.upper() if c.isupper() else around
    return ""


def _misread(word: str, rng: np.random.Generator) -> str:
    places = [i for i, c in enumerate(word) if c in CONFUSED]
    if not places:
        return word
    at = int(rng.choice(places))
    return word[:at] + CONFUSED[word[at]] + word[at + 1 :]


OPERATIONS: dict[str, Operation] = {
    "swap": swap,
    "delete": delete,
    "keyboard": keyboard,
    "ocr": ocr,
    "case": case,
}
MASKED = "masked"  # by a model, see masked.py
