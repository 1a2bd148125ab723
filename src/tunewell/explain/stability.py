"""Does an explanation stay when nothing that matters has changed? The same text padded, and reworded a little.

After Alvarez-Melis and Jaakkola (2018, On the Robustness of Interpretability Methods): inputs that lie close together
and get the same answer should get the same explanation. They take the largest ratio of the change of an explanation
to that of the input, over small noise. Texts have no small noise, so here the neighbours are rewordings that keep the
meaning (CHANGES), and what is told is how far the words' scores keep their order and their size.

Words are matched one by one in the order of the text, whatever their case; where a word became two ("don't", "do
not") their sums are compared. A rewording counts only if the model's answer stays, and if the model sees another text
at all (an uncased one does not see capitals). Values have no label that could turn: there every rewording counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

import numpy as np

from tunewell.errors import ModelError
from tunewell.explain import tokens
from tunewell.explain.checklist import contractions, punctuation
from tunewell.explain.segment import Item, items_of
from tunewell.explain.spearman import spearman

if TYPE_CHECKING:
    from tunewell.explain.scorer import Scorer
    from tunewell.predict import Predictor

FEWEST = 3  # matched words: the order of fewer says nothing
PADDING = 8  # tokens of padding at least


@dataclass(frozen=True)
class Reworded:
    """An explanation of a reworded text beside the first one.

    Attributes:
        change: a name of `CHANGES`. text: the reworded text.
        correlation: Spearman's, of the scores of matched words, −1 to 1; None for fewer than 3.
        difference: the largest difference of a matched word's score, as a share of the largest score of the text.
    """

    change: str
    text: str
    correlation: float | None
    difference: float


@dataclass(frozen=True)
class Stability:
    """How far the explanation of one text stays.

    Attributes:
        padding: the largest difference of a word's score when the text is padded to twice its tokens, as a share of
            the largest; None where the model's window leaves no room.
        variants: how many rewordings count. turned: how many turned the answer, and do not.
        correlation: mean Spearman's correlation over rewordings, −1 to 1; None without any of three words.
        difference: the largest of their differences, as a share of the largest score; None without any.
        reworded: the rewordings that count.
    """

    padding: float | None
    variants: int
    turned: int
    correlation: float | None
    difference: float | None
    reworded: tuple[Reworded, ...] = ()


# ---------------------------------------------------------------- rewordings: text -> text, None where impossible


def first_letter(text: str) -> str | None:
    """The first letter in the other case.

    >>> first_letter("Nice hotel"), first_letter("nice hotel"), first_letter("很好")
    ('nice hotel', 'Nice hotel', None)
    """
    changed = text[:1].swapcase() + text[1:]
    return changed if changed != text and len(changed) == len(text) else None


def quotes(text: str) -> str | None:
    """Straight apostrophes become curly, or the other way round.

    >>> quotes("it's"), quotes("it’s"), quotes("it is")
    ('it’s', "it's", None)
    """
    return text.replace("'", "’") if "'" in text else text.replace("’", "'") if "’" in text else None


def spaces(text: str) -> str | None:
    """Every space twice.

    >>> spaces("so it is"), spaces("so")
    ('so  it  is', None)
    """
    return text.replace(" ", "  ") if " " in text else None


def _seedless(change: Callable[[str, np.random.Generator], str | None]) -> Callable[[str], str | None]:
    return lambda text: change(text, np.random.default_rng(0))


CHANGES: dict[str, Callable[[str], str | None]] = {
    "punctuation": _seedless(punctuation),
    "contractions": _seedless(contractions),
    "case": first_letter,
    "quotes": quotes,
    "spaces": spaces,
}


# ---------------------------------------------------------------- comparing


def stability(
    predictor: Predictor,
    texts: Sequence[str],
    text_pairs: Sequence[str] | None = None,
    *,
    method: str = "integrated_gradients",
    target: str | None = None,
    seed: int = 42,
) -> list[Stability]:
    """How far the explanations of n texts stay; the first text of a pair is reworded.

    It explains a text once more and padded, and its rewordings, without measuring their faithfulness.

    Args:
        method: a name of `tokens.METHODS`. target: a label; by default the likeliest one of each text.

    Raises:
        DataError, RecipeError, ModelError: as `explain_texts`.
    """
    from tunewell.explain.texts import check, scorer_of, target_of

    if not hasattr(predictor, "scorer"):
        raise ModelError(
            "answers by texts, which have no label that could stay",
            where="stability",
            expected="a run for classes or scores",
        )
    check(predictor, texts, text_pairs, method, target)
    scorer, wanted = scorer_of(predictor), target_of(predictor, target)
    items = items_of(predictor.tokenizer, texts, text_pairs, predictor.max_length)
    logits = scorer.logits(items)
    targets = logits.argmax(axis=1) if wanted is None else np.full(len(items), wanted)
    explain = tokens.method(method).attribute
    first = [a.scores for a in explain(scorer, items, targets, seed=seed)]
    padded = _padded(predictor, scorer, texts, text_pairs, method, targets, seed)

    who, names, others = _reworded(predictor, items, text_pairs)
    counted: list[list[Reworded]] = [[] for _ in items]
    turned = [0] * len(items)
    if others:
        same = _stays(predictor, logits[who], scorer.logits(others))
        for i, stays in zip(who, same, strict=True):
            turned[i] += not stays
        rest = [k for k, stays in enumerate(same) if stays]
        some, mine = [others[k] for k in rest], np.array([who[k] for k in rest], dtype=np.int64)
        after = explain(scorer, some, targets[mine], seed=seed) if rest else []
        for k, i, item, a in zip(rest, mine, some, after, strict=True):
            counted[i].append(Reworded(names[k], item.texts[0], *compared(items[i], first[i], item, a.scores)))
    return [
        summed(None if p is None else _share(p, f), c, t)
        for p, f, c, t in zip(padded, first, counted, turned, strict=True)
    ]


def summed(padding: float | None, reworded: Sequence[Reworded], turned: int) -> Stability:
    """The figures of one text.

    >>> summed(0.0, [Reworded("case", "A b c", 1.0, 0.1), Reworded("spaces", "a  b c", 0.5, 0.3)], 1).correlation
    0.75
    """
    ranks = [r.correlation for r in reworded if r.correlation is not None]
    return Stability(
        padding=padding,
        variants=len(reworded),
        turned=turned,
        correlation=float(np.mean(ranks)) if ranks else None,
        difference=max((r.difference for r in reworded), default=None),
        reworded=tuple(reworded),
    )


def compared(one: Item, scores: np.ndarray, other: Item, others: np.ndarray) -> tuple[float | None, float]:
    """Spearman's correlation of the scores of matched words, and their largest difference as a share.

    Args:
        scores: (W,) of the words of `one`. others: those of `other`.
    """
    a, b = ([(part, _plain(word)) for part, word in zip(i.part, i.words, strict=True)] for i in (one, other))
    left: list[float] = []
    right: list[float] = []
    for kind, a0, a1, b0, b1 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind == "equal":
            left += list(scores[a0:a1])
            right += list(others[b0:b1])
        elif kind == "replace":
            left.append(float(scores[a0:a1].sum()))
            right.append(float(others[b0:b1].sum()))
    x, y = np.array(left), np.array(right)
    largest = float(np.abs(scores).max()) or 1.0
    return (
        spearman(x, y) if len(x) >= FEWEST else None,
        float(np.abs(x - y).max()) / largest if len(x) else 0.0,
    )


def _plain(word: str) -> str:
    return word.casefold().replace("’", "'")


def _share(padded: np.ndarray, first: np.ndarray) -> float:
    return float(np.abs(padded - first).max()) / (float(np.abs(first).max()) or 1.0)


def _reworded(
    predictor: Predictor, items: Sequence[Item], pairs: Sequence[str] | None
) -> tuple[list[int], list[str], list[Item]]:
    """Which text each rewording is of, what was changed, and what the model reads; without those that read the same."""
    who, names, texts = [], [], []
    for i, item in enumerate(items):
        for name, change in CHANGES.items():
            new = change(item.texts[0])
            if new is not None and new.strip() and new != item.texts[0]:
                who.append(i)
                names.append(name)
                texts.append(new)
    if not texts:
        return [], [], []
    seconds = [pairs[i] for i in who] if pairs is not None else None
    found = items_of(predictor.tokenizer, texts, seconds, predictor.max_length)
    keep = [k for k, (i, item) in enumerate(zip(who, found, strict=True)) if not np.array_equal(item.ids, items[i].ids)]
    return [who[k] for k in keep], [names[k] for k in keep], [found[k] for k in keep]


def _stays(predictor: Predictor, before: np.ndarray, after: np.ndarray) -> list[bool]:
    """Whether answers stay, given logits (n, C) of both."""
    from tunewell.predict import decide
    from tunewell.tasks.spec import scores_of

    spec = predictor.spec
    if spec.regression:
        return [True] * len(before)
    one, other = (decide(spec, predictor.calibrated(scores_of(spec, logits))) for logits in (before, after))
    return [(sorted(a) == sorted(b)) if spec.multi_label else a == b for a, b in zip(one, other, strict=True)]


def _padded(
    predictor: Predictor,
    scorer: Scorer,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    method: str,
    targets: np.ndarray,
    seed: int,
) -> list[np.ndarray | None]:
    """Scores of the texts padded to twice their tokens, so far as the window goes; None where it is full."""
    fresh = items_of(predictor.tokenizer, texts, pairs, predictor.max_length)  # nothing remembered
    room = [i for i, item in enumerate(fresh) if len(item.ids) < predictor.max_length]
    out: list[np.ndarray | None] = [None] * len(fresh)
    if not room or predictor.scorer is not None:  # a decoder asked in words pads as it likes
        return out
    with scorer.padded(lambda longest: min(longest + max(longest, PADDING), predictor.max_length)):
        found = tokens.method(method).attribute(scorer, [fresh[i] for i in room], targets[room], seed=seed)
    for i, a in zip(room, found, strict=True):
        out[i] = a.scores
    return out
