"""How good written answers are against references.

Units are words, and single characters of Chinese, in lower case, punctuation left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

UNIT = re.compile(r"[\u4e00-\u9fa5]|(?:(?![\u4e00-\u9fa5])[^\W_])+")


def words(text: str) -> list[str]:
    """
    >>> words("Don't stop!"), words("你好, world")
    (['don', 't', 'stop'], ['你', '好', 'world'])
    """
    return UNIT.findall(text.lower())


def exact(prediction: str, reference: str) -> float:
    """1.0 when the texts are the same but for spaces.

    >>> exact(" a  b", "a b"), exact("A b", "a b")
    (1.0, 0.0)
    """
    return float(prediction.split() == reference.split())


def token_f1(prediction: str, reference: str) -> float:
    """F1 of the units in common; where either has none, 1 if both have none.

    >>> round(token_f1("the cat sat", "the dog sat down"), 4)
    0.5714
    """
    a, b = words(prediction), words(reference)
    if not a or not b:
        return float(a == b)
    same = sum((Counter(a) & Counter(b)).values())
    return 2 * same / (len(a) + len(b))


def rouge_l(prediction: str, reference: str) -> float:
    """ROUGE-L (Lin, 2004): F1 of the longest common subsequence of units, no stemming.

    >>> reference = "police kill the gunman"
    >>> rouge_l("police killed the gunman", reference), rouge_l("the gunman kill police", reference)
    (0.75, 0.5)
    """
    a, b = words(prediction), words(reference)
    if not a or not b:
        return float(a == b)
    return 2 * longest_common(a, b) / (len(a) + len(b))


def longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence.

    >>> longest_common("ABCBDAB", "BDCABA")
    4
    """
    row = [0] * (len(b) + 1)
    for x in a:
        left = 0
        for j, y in enumerate(b, 1):
            above = row[j]
            row[j] = left + 1 if x == y else max(above, row[j - 1])
            left = above
    return row[-1]


REFUSALS = re.compile(
    r"\b(?:i(?:'|’)?m sorry|i am sorry|i apologi[sz]e|i can(?:'|’)?t|i cannot|i can not|i(?:'|’)?m (?:not able|unable)|"
    r"i am (?:not able|unable)|i won(?:'|’)?t|as an ai|as a language model|i(?:'|’)?m just an ai)\b"
    r"|抱歉|对不起|我无法|我不能|作为一个?(?:人工智能|AI|语言模型)",
    re.IGNORECASE,
)
BEGINNING = 120  # characters in which a refusal shows itself
RUN = 4  # units of a run that counts as repeated


def refuses(text: str) -> float:
    """1.0 when an answer begins by declining, in English or Chinese; by its wording alone.

    >>> refuses("I'm sorry, but I can't help with that."), refuses("Paris."), refuses("对不起，我不能回答。")
    (1.0, 0.0, 1.0)
    """
    return float(REFUSALS.search(text[:BEGINNING]) is not None)


def repetition(text: str) -> float:
    """Share of an answer's runs of four units that stood there before (rep-4 of Welleck et al., 2020); 0 without any.

    >>> round(repetition("a b c d a b c d"), 2), repetition("one two three")
    (0.2, 0.0)
    """
    units = words(text)
    runs = [tuple(units[i : i + RUN]) for i in range(len(units) - RUN + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
