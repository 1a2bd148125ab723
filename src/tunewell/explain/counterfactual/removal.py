"""The fewest words whose removal turns an answer.

Shapes: W words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tunewell.explain.segment import Item

BEAM = 8  # sets of words that are made larger
PAIRS = 600  # so many pairs of words are all tried


def turning_sets(
    margins: Callable[[Sequence[np.ndarray]], np.ndarray], words: int, *, most: int, rows: int
) -> Iterator[np.ndarray]:
    """Sets of words whose removal turns the answer, the smallest first; each is irreducible.

    All single words are tried, and all pairs where there are at most `PAIRS`; beyond that the `BEAM` sets that come
    nearest are made larger by a word. So one word and mostly two are the fewest there are; more need not be.

    Args:
        margins: of texts without the words (W,) True, how far the answer is from turning; below 0 it has turned.
        words: W. most: the largest set. rows: the most texts that may be asked for.

    Yields:
        (W,) bool, True for the words taken out; within a size those that turn the answer most clearly first. Whoever
        is content stops asking.
    """
    spent = 0
    beam = [np.zeros(words, dtype=bool)]
    seen: set[bytes] = set()
    turned: list[np.ndarray] = []
    for size in range(1, min(most, words) + 1):
        if size == 2 and words * (words - 1) // 2 <= PAIRS:
            beam = [one for one in np.eye(words, dtype=bool) if not _within(turned, one)]
        larger = []
        for some in beam:
            for word in np.flatnonzero(~some):
                one = some.copy()
                one[word] = True
                if (key := one.tobytes()) in seen or _within(turned, one):
                    continue
                seen.add(key)
                larger.append(one)
        larger = larger[: max(0, rows - spent)]
        if not larger:
            return
        found = margins(larger)
        spent += len(larger)
        order = np.argsort(found, kind="stable")
        for i in order:
            if found[i] < 0 and not _within(turned, larger[i]):
                turned.append(irreducible(margins, larger[i]) if size > 2 else larger[i])
                yield turned[-1]
        beam = [larger[i] for i in order if found[i] >= 0][:BEAM]


def _within(sets: Sequence[np.ndarray], one: np.ndarray) -> bool:
    """Whether a set holds one of some others."""
    return any(bool((other & one).sum() == other.sum()) for other in sets)


def irreducible(margins: Callable[[Sequence[np.ndarray]], np.ndarray], out: np.ndarray) -> np.ndarray:
    """A set of words without those that may come back while the answer stays turned, one after the other."""
    out = out.copy()
    while out.sum() > 1:
        fewer = []
        for word in np.flatnonzero(out):
            one = out.copy()
            one[word] = False
            fewer.append(one)
        found = margins(fewer)
        best = int(np.argmin(found))
        if found[best] >= 0:
            break
        out = fewer[best]
    return out


def margins_of(scorer: Any, item: Item, label: int, wanted: int | None) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    """The function that `turning_sets` asks, of a text.

    Args:
        label: output of the answer that has to go. wanted: output of the answer that has to come; None for any.
    """

    def margins(sets: Sequence[np.ndarray]) -> np.ndarray:
        logits = np.stack(scorer.without([(item, ~out) for out in sets])).astype(np.float64)
        return margin(scorer, logits, label, wanted)

    return margins


def margin(scorer: Any, logits: np.ndarray, label: int, wanted: int | None) -> np.ndarray:
    """How far answers (n,) are from turning, given logits (n, C); below 0 they have turned."""
    if scorer.spec.multi_label:
        return logits[:, label] if wanted is None else -logits[:, wanted]
    if wanted is None:
        return logits[:, label] - np.delete(logits, label, axis=1).max(axis=1)
    return np.delete(logits, wanted, axis=1).max(axis=1) - logits[:, wanted]


def left(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """A text without some of its characters, and without the gaps that they leave.

    >>> left("a good, long film", [(2, 6)])
    'a, long film'
    """
    out, at = "", 0
    for start, end in sorted(spans):
        out += text[at:start]
        at = end
        if (not out or out[-1].isspace()) and at < len(text) and not text[at].isalnum():
            out = out.rstrip()
            if text[at].isspace() and not out:
                at += 1
    return (out + text[at:]).strip()
