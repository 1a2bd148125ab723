"""Exact match and F1 of answer spans by the official definitions.

- SQuAD 1.1 and 2.0 (Rajpurkar et al., 2016 and 2018): lower case, punctuation and the articles a, an, the
  removed; F1 over words; the best of the reference answers counts. An unanswerable question is right when
  nothing is answered.
- CMRC 2018 (Cui et al., 2019) for Chinese: every Chinese character is a unit, F1 is over the longest common
  run of units. One difference: the script cuts embedded Latin text with NLTK's tokenizer, here it is cut into
  runs of letters or digits and single other characters.

A row is scored the Chinese way when at least a fifth of its context's letters are Chinese characters.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = frozenset(string.punctuation)
# what the CMRC script leaves out
CHINESE_PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》……·、「」（）－～『』")
CHINESE = re.compile(r"[\u4e00-\u9fa5]")
LATIN = re.compile(r"[^\W_]+|\S")
SHARE = 0.2


def is_chinese(context: str) -> bool:
    """Whether a row is scored by characters.

    >>> is_chinese("范廷颂是越南罗马天主教枢机"), is_chinese("A hotel in 北京, near the airport")
    (True, False)
    """
    letters = sum(map(str.isalpha, context))
    return bool(letters) and len(CHINESE.findall(context)) >= SHARE * letters


def normalised(text: str) -> str:
    """SQuAD's normal form.

    >>> normalised("The  Cat's hat!")
    'cats hat'
    """
    text = "".join(c for c in text.lower() if c not in PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", text).split())


def units(text: str) -> list[str]:
    """CMRC's units: Chinese characters one by one, other text in words; punctuation left out.

    >>> units("1964年，NBA 总决赛")
    ['1964', '年', 'nba', '总', '决', '赛']
    """
    kept = "".join(c for c in text.lower().strip() if c not in CHINESE_PUNCTUATION)
    out: list[str] = []
    rest = ""
    for char in [*kept, ""]:
        if char and not CHINESE.match(char):
            rest += char
            continue
        out += LATIN.findall(rest)
        rest = ""
        if char:
            out.append(char)
    return out


def exact(prediction: str, reference: str, chinese: bool = False) -> float:
    """1.0 when the normal forms are the same."""
    if chinese:
        clean = ["".join(c for c in t.lower().strip() if c not in CHINESE_PUNCTUATION) for t in (prediction, reference)]
        return float(clean[0] == clean[1])
    return float(normalised(prediction) == normalised(reference))


def f1(prediction: str, reference: str, chinese: bool = False) -> float:
    """Overlap of prediction and reference; where either is empty, 1 if both are."""
    a, b = (units(t) if chinese else normalised(t).split() for t in (prediction, reference))
    if not a or not b:
        return float(a == b)
    same = longest_run(a, b) if chinese else sum((Counter(a) & Counter(b)).values())
    if not same:
        return 0.0
    precision, recall = same / len(a), same / len(b)
    return 2 * precision * recall / (precision + recall)


def longest_run(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common contiguous run.

    >>> longest_run("abcde", "xbcdz")
    3
    """
    best, row = 0, [0] * (len(b) + 1)
    for x in a:
        above = row
        row = [0] * (len(b) + 1)
        for j, y in enumerate(b):
            if x == y:
                row[j + 1] = above[j] + 1
                best = max(best, row[j + 1])
    return best


def scores(prediction: str, references: Sequence[str], chinese: bool = False) -> tuple[float, float]:
    """Exact match and F1 against the best reference; without references (unanswerable) against the empty answer."""
    kept = [r for r in references if (units(r) if chinese else normalised(r))] or [""]
    return (
        max(exact(prediction, r, chinese) for r in kept),
        max(f1(prediction, r, chinese) for r in kept),
    )
