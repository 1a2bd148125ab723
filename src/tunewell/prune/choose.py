"""Which rows are kept: an order by one score, a share in each class, no duplicates.

Shapes: n rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.prune.scores import Scores

Balance = Literal["share", "equal", "none"]
# method -> (the score that decides, whether high ones are kept)
ORDERS: dict[str, tuple[str, bool]] = {
    "el2n": ("el2n", True),
    "forgetting": ("forgetting", True),
    "ambiguous": ("variability", True),
    "easy": ("confidence", True),
    "hard": ("confidence", False),
}
RANDOM, AUTO = "random", "auto"
METHODS = (*ORDERS, RANDOM, AUTO)
BALANCES: tuple[Balance, ...] = ("share", "equal", "none")
NEAR, EXACT, KEEP = "near", "exact", "keep"
DUPLICATES = (NEAR, EXACT, KEEP)


def order_of(method: str, scores: Scores, seed: int) -> np.ndarray:
    """(n,) places of the rows, those to keep first; rows of equal score in a seeded order, rows without one last."""
    shuffled = np.random.default_rng(seed).permutation(len(scores))
    if method == RANDOM:
        return shuffled
    name, high = ORDERS[method]
    values = getattr(scores, name)[shuffled]
    key = np.where(np.isfinite(values), -values if high else values, np.inf)
    return shuffled[np.argsort(key, kind="stable")]


def quotas(total: int, sizes: Sequence[int], rooms: Sequence[int], balance: Balance) -> list[int]:
    """How many rows each class gives.

    Args:
        total: rows wanted in all. sizes: rows of each class; rooms: those of them that may be kept.
        balance: `share`: the same share of each class, by largest remainders; `equal`: as many of each as there are.
            What a class cannot give, the others do.

    >>> quotas(10, [16, 4], [16, 4], "share"), quotas(10, [16, 4], [16, 4], "equal")
    ([8, 2], [6, 4])
    >>> quotas(10, [16, 4], [16, 1], "share")
    [9, 1]
    """
    total = min(total, sum(rooms))
    wanted = np.array(sizes, np.float64) / max(1, sum(sizes)) * total
    if balance == "equal":
        wanted = np.full(len(sizes), total / max(1, len(sizes)))
    given = np.minimum(np.floor(wanted + 1e-9), rooms).astype(np.int64)
    while given.sum() < total:  # one at a time to whoever is furthest below what it should give
        open_ = np.flatnonzero(given < rooms)
        given[open_[np.argmax((wanted - given)[open_])]] += 1
    return given.tolist()


def choose(
    order: np.ndarray, labels: Sequence[Any] | None, keep: int, *, usable: np.ndarray, balance: Balance = "share"
) -> np.ndarray:
    """(n,) booleans: the first rows of an order, class by class.

    Args:
        order: (n,) places, those to keep first. labels: n classes; None where there are none to balance.
        keep: rows wanted. usable: (n,) rows that may be kept at all.
    """
    kept = np.zeros(len(order), dtype=bool)
    order = order[usable[order]]
    if labels is None or balance == "none":
        kept[order[:keep]] = True
        return kept
    names = sorted(set(labels))
    group = np.array([{name: k for k, name in enumerate(names)}[label] for label in labels])
    sizes = np.bincount(group, minlength=len(names)).tolist()
    rooms = np.bincount(group[usable], minlength=len(names)).tolist()
    for k, quota in enumerate(quotas(keep, sizes, rooms, balance)):
        kept[order[group[order] == k][:quota]] = True
    return kept


def groups_of(rows: Dataset, kind: str) -> np.ndarray:
    """(n,) numbers: rows with the same one are duplicates of one label.

    Args:
        rows: canonical rows. kind: `near` takes texts whose character 4-grams overlap by 0.8 too, see
            `data.check.near_duplicates`; `exact` the same normalised text only; `keep` none.
    """
    n = len(rows)
    if kind == KEEP or not n:
        return np.arange(n)
    from tunewell.data.check.near_duplicates import near_duplicates
    from tunewell.data.check.scan import scan

    seen = scan({"train": rows})
    _, first, same = np.unique(seen.keys, return_index=True, return_inverse=True)
    pairs: list[tuple[int, int]] = list(zip(first[same.ravel()].tolist(), range(n), strict=True))
    if kind == NEAR:
        pairs += [(a, b) for a, b, _ in near_duplicates(seen)]
    labels = [str(label) for label in rows["label"]]
    return _joined(n, ((a, b) for a, b in pairs if labels[a] == labels[b]))


def places_of(allowed: np.ndarray, order: np.ndarray | None = None) -> np.ndarray:
    """(n,) an order, by default that of the file, with the rows that are not allowed behind the others.

    >>> places_of(np.array([False, True, True]), np.array([2, 0, 1])).tolist()
    [2, 1, 0]
    """
    order = np.arange(len(allowed)) if order is None else order
    return np.concatenate([order[allowed[order]], order[~allowed[order]]])


def same_file(one: str, other: str | None) -> bool:
    """Whether two sources of data are one, also under two names of one file.

    >>> same_file("pool.jsonl", "pool.jsonl"), same_file("org/data", "org/other"), same_file("a.csv", None)
    (True, False, False)
    """
    if other is None or one == other:
        return one == other
    first, second = Path(one).expanduser(), Path(other).expanduser()
    try:
        return first.samefile(second)
    except (OSError, ValueError):  # one is no file
        return False


def _joined(n: int, pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """(n,) the least member of each row's group, where pairs belong together.

    >>> _joined(5, [(0, 1), (3, 4), (1, 3)]).tolist()
    [0, 0, 2, 0, 0]
    """
    parent = list(range(n))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return np.array([root(i) for i in range(n)], dtype=np.int64)


def first_of_each(order: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(n,) booleans: of each group the row that comes first in an order.

    >>> first_of_each(np.array([2, 0, 1]), np.array([0, 1, 0])).tolist()
    [False, True, True]
    """
    usable = np.zeros(len(order), dtype=bool)
    _, first = np.unique(groups[order], return_index=True)
    usable[order[first]] = True
    return usable
