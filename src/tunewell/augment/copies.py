"""Changed copies of texts, by operations taken in turn."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tunewell.augment.names import AUTO, AUTO_SPACED, AUTO_UNSPACED, BACKTRANSLATE, MASKED, MLM, TRANSLATORS
from tunewell.augment.operations import OPERATIONS, split, words_of
from tunewell.data.split import text_key


@dataclass(frozen=True)
class Copy:
    """A changed text: `at` is the place of its original, `by` the operation."""

    at: int
    by: str
    text: str


def resolved(operations: Sequence[str], texts: Sequence[str]) -> tuple[str, ...]:
    """The operations that `auto` stands for: those that the texts' script allows.

    >>> resolved(["auto"], ["房间很好", "服务员很热情"]), resolved(["ocr"], [])
    (('swap', 'delete'), ('ocr',))
    """
    from tunewell.evaluate.baselines import unspaced

    if tuple(operations) != (AUTO,):
        return tuple(operations)
    return AUTO_UNSPACED if unspaced(texts) else AUTO_SPACED


def copies_of(
    texts: Sequence[str],
    operations: Sequence[str],
    *,
    copies: int,
    share: float,
    mlm: str = MLM,
    translators: Sequence[str] = TRANSLATORS,
    seed: int = 42,
    echo: Callable[[str], None] = lambda line: None,
) -> list[Copy]:
    """`copies` changed copies of each text, in the order of the texts; some may equal their original.

    Args:
        operations: taken in turn over texts and copies. share: of a text's words that an operation touches, one
            at least. mlm: the model of `masked`; translators: those of `backtranslate`, there and back.
    """
    if not texts:
        return []
    rng = np.random.default_rng(seed)
    masked = translate = None
    if MASKED in operations:
        from tunewell.augment.masked import Masked

        echo(f"augment: words proposed by {mlm}")
        masked = Masked(mlm)
    if BACKTRANSLATE in operations:
        from tunewell.augment.translate import BackTranslation

        echo(f"augment: translated by {translators[0]} and back by {translators[1]}")
        translate = BackTranslation(translators, seed)
    out: list[Copy] = []
    times = dict.fromkeys(range(len(texts)), 0)  # how often each text has been translated
    for copy in range(copies):
        turn = [operations[(i + copy) % len(operations)] for i in range(len(texts))]
        for name in dict.fromkeys(turn):
            places = [i for i, t in enumerate(turn) if t == name]
            some = [texts[i] for i in places]
            if masked is not None and name == MASKED:
                changed = masked(some, share, rng)
            elif translate is not None and name == BACKTRANSLATE:
                changed = [""] * len(some)
                for before in sorted({times[i] for i in places}):
                    mine = [k for k, i in enumerate(places) if times[i] == before]
                    for k, text in zip(mine, translate([some[k] for k in mine], before), strict=True):
                        changed[k] = text
                for i in places:
                    times[i] += 1
            else:
                changed = [_by_rule(text, name, share, rng) for text in some]
            out += [Copy(i, name, text) for i, text in zip(places, changed, strict=True)]
    return sorted(out, key=lambda c: c.at)


def _by_rule(text: str, name: str, share: float, rng: np.random.Generator) -> str:
    pieces = split(text)
    times = max(1, round(share * len(words_of(pieces))))
    return " ".join("".join(OPERATIONS[name](pieces, times, rng)).split())


def new(
    made: Sequence[Copy],
    originals: Sequence[str],
    left_out: dict[str, int],
    taboo: Sequence[str] = (),
    pairs: Sequence[str] | None = None,
) -> list[Copy]:
    """Copies that are new: no text among `originals`, none made before, none of `taboo`.

    Args:
        originals: all texts that are there. taboo: texts of validation and test rows.
        left_out: reason -> copies; added to here.
        pairs: second texts of the originals, which stay beside the copies; then a copy is new with its second text.
    """

    def keyed(text: str, i: int) -> tuple[str, str]:
        """Letters in another case make a copy new: not every model is blind to it."""
        return " ".join(unicodedata.normalize("NFKC", text).split()), "" if pairs is None else pairs[i]

    seen = {keyed(t, i) for i, t in enumerate(originals)}
    forbidden = {text_key(t) for t in taboo}
    kept = []
    for copy in made:
        key = keyed(copy.text, copy.at)
        if not text_key(copy.text) or key in seen:
            _count(left_out, "unchanged, or made twice")
        elif text_key(copy.text) in forbidden:
            _count(left_out, "a test text")
        else:
            seen.add(key)
            kept.append(copy)
    return kept


def _count(left_out: dict[str, int], reason: str, n: int = 1) -> None:
    left_out[reason] = left_out.get(reason, 0) + n
