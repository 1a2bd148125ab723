"""Whether a rewritten answer may stand in the place of its reference: the check of `strategy: sdft`.

Where the reference ends in a final answer ("#### 42", "\\boxed{42}", "The answer is 42."), the rewritten one must end
in the same (Yang et al., 2024). All other answers have nothing that could be extracted; for them the check is our own:
the numbers stay, and the words in common (token F1) are enough. Both must have been ended by the model itself, must
be neither a refusal, nor the question again, nor talk about the request, and of about the reference's length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from tunewell.strategies.sdft import PLACE
from tunewell.tasks.generation.score import exact, refuses, token_f1, words

TAKEN = ""
# why an answer was left as it was, in the order of the checks; their words are in `report.words_sdft`
REASONS = (
    "no-loss", "no-question", "window",  # was not asked for
    "empty", "cut", "refusal", "about", "question", "length", "final", "numbers", "similarity",  # did not pass
    "same", "long",
)  # fmt: skip
SLACK = 20  # characters that a short answer may be longer whatever the ratio says
QUESTION = 0.8  # token F1 with the question from which an answer is the question again
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
LISTED = re.compile(r"^\s*\d+[.)]\s", re.MULTILINE)  # the number of an item is no number of the answer
FINAL = re.compile(
    r"####[ \t]*(?P<hash>[^\n]+)|\\boxed\{(?P<box>[^{}]+)\}"
    r"|\banswer[ \t]*(?:is|:|=)[ \t:]*(?P<said>[^\n]+?)(?=[.!?](?:\s|$)|\n|$)"
    r"|答案(?:是|为|：|:)[ \t]*(?P<zh>[^\n]+?)(?=[。！？]|\n|$)",
    re.IGNORECASE,
)
SHORT = 5  # words of what follows "the answer is", where it is a final answer and not a sentence
ABOUT = re.compile(
    r"\b(?:reference (?:answer|response)|original (?:answer|response)|(?:your|my)(?: own)? (?:response|words|turn)"
    r"|(?:rewritten|rephrased|reworded|revised|paraphrased) (?:answer|response|version))\b"
    r"|参考答案|原答案|我自己的话|改写(?:后|如下|为)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Rules:
    """What the check asks for.

    Attributes:
        least: token F1 with the reference, 0 to 1. ratio: how many times longer or shorter, ≥ 1.
        template: of the request, whose own lines no answer may hold.
    """

    least: float
    ratio: float
    template: str

    @property
    def lines(self) -> list[str]:
        """The template's own lines, without its places."""
        return [line for line in map(str.strip, PLACE.sub("\n", self.template).splitlines()) if len(line) > 3]


def reason(instruction: str, reference: str, written: str, *, ended: bool, rules: Rules) -> str:
    """Why a rewritten answer is not taken, one of REASONS; TAKEN where it is.

    >>> rules = Rules(0.6, 2.0, "{instruction} {answer}")
    >>> reason("Where is it?", "It is in the red box.", "It is inside the red box.", ended=True, rules=rules)
    ''
    >>> reason("Where is it?", "It is in the red box.", "It is in box 7.", ended=True, rules=rules)
    'numbers'
    """
    if not written.strip():
        return "empty"
    if not ended:
        return "cut"
    if refuses(written) and not refuses(reference):
        return "refusal"
    if about(written, (reference, instruction), rules.lines):
        return "about"
    if exact(written, reference):
        return "same"
    asked = token_f1(written, instruction)
    similar = token_f1(written, reference)
    if asked >= QUESTION and asked > similar:
        return "question"
    size, own = len(reference.strip()), len(written.strip())
    if own > rules.ratio * size + SLACK or own * rules.ratio + SLACK < size:
        return "length"
    final = final_answer(reference)
    if final is not None:
        return TAKEN if final_answer(written) == final else "final"
    if not numbers_kept(instruction, reference, written):
        return "numbers"
    return TAKEN if similar >= rules.least else "similarity"


def about(written: str, given: Sequence[str], lines: Sequence[str]) -> bool:
    """Whether an answer talks about being asked to rewrite, or holds a line of the request, which is not in `given`.

    >>> about("Here is my own response: yes", ("yes",), []), about("my own response", ("my own response",), [])
    (True, False)
    """
    text, known = written.casefold(), "\n".join(given).casefold()
    if any(found[0] not in known for found in ABOUT.finditer(text)):
        return True
    return any(line.casefold() in text and line.casefold() not in known for line in lines)


def numbers(text: str) -> set[Decimal]:
    """The numbers of a text, those of list items left out; a comma before three digits parts thousands.

    >>> sorted(map(str, numbers("1. In 1,998 it was 3.50 or 2,5")))
    ['1998', '2.5', '3.50']
    >>> numbers("3.5") == numbers("3.50")
    True
    """
    found = set()
    for number in NUMBER.findall(LISTED.sub(" ", text)):
        if THOUSANDS.fullmatch(number):
            found.add(Decimal(number.replace(",", "")))
        elif len(parts := re.split(r"[.,]", number)) <= 2:
            found.add(Decimal(".".join(parts)))
        else:  # a date or a version: its parts
            found |= {Decimal(part) for part in parts}
    return found


def numbers_kept(instruction: str, reference: str, written: str) -> bool:
    """Whether a text has all numbers of its reference, and no other that does not stand in the instruction either."""
    here, there = numbers(written), numbers(reference)
    return there <= here and here <= there | numbers(instruction)


def final_answer(text: str) -> str | None:
    """What an answer comes to, where it says so: its last number, else its words; None where it does not say.

    >>> final_answer("6 * 7 = 42\\n#### 42"), final_answer("So the answer is 42 apples."), final_answer(r"\\boxed{x}")
    ('42', '42', 'x')
    >>> final_answer("The answer is no, because nobody has asked for it."), final_answer("Paris.")
    (None, None)
    """
    found = None
    for match in FINAL.finditer(text):
        value = match[match.lastgroup or 0]
        plain = match.lastgroup in ("said", "zh")
        if plain and len(words(value)) > SHORT:
            continue
        found = value
    if found is None:
        return None
    values = [Decimal(n.replace(",", "")) for n in re.findall(r"-?\d[\d,]*(?:\.\d+)?", found)]
    return format(values[-1].normalize(), "f") if values else " ".join(words(found)) or found.strip()
