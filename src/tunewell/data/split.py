"""Splits that do not leak: seeded, stratified by label, grouped by author or document and by text."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.tasks import TaskSpec

LEAST_ROWS = 10


def text_key(text: str) -> str:
    """What makes two texts the same: letters in normal form and without case, any space as one space.

    >>> text_key("  Ｈello\\tWORLD ")
    'hello world'
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def split(
    dataset: Dataset,
    *,
    validation_size: float,
    test_size: float,
    seed: int,
    need_validation: bool = True,
    need_test: bool = True,
    stratify: bool = True,
    source: str = "data",
) -> dict[str, Dataset]:
    """Cut canonical rows into train, validation and test.

    Rows with the same normalised text, and rows of the same `group`, stay together. With `stratify`
    the shares are held within each class (for several labels a row: within each row's rarest label,
    a greedy form of iterative stratification, Sechidis et al., 2011); a class with few units goes to
    train first. Seeded; n log n.

    Raises:
        DataError: too few rows, or too few groups, to cut.
    """
    units = _units(dataset)
    n_units = int(units.max()) + 1 if len(units) else 0
    if len(dataset) < LEAST_ROWS or n_units < 3:
        what = f"{len(dataset)} rows" if len(dataset) < LEAST_ROWS else f"{n_units} separate groups or texts"
        raise DataError(
            f"only {what} to split",
            where=source,
            expected=f"at least {LEAST_ROWS} rows with different texts",
            remedy="name files for `validation` and `test`, or add rows",
        )
    shares = {"validation": validation_size if need_validation else 0.0, "test": test_size if need_test else 0.0}
    sizes = np.bincount(units, minlength=n_units)
    strata = _strata(dataset, units, n_units) if stratify else np.zeros(n_units, dtype=np.int64)
    place = _assign(sizes, strata, shares, np.random.default_rng(seed))
    out = {}
    for i, name in enumerate(("train", "validation", "test")):
        if name == "train" or shares[name]:
            rows = np.flatnonzero(place[units] == i)
            if not len(rows):
                raise DataError(
                    f"no row is left for {name}",
                    where=source,
                    expected="more rows, or more groups",
                    remedy="name a file for it, or change validation_size and test_size",
                )
            out[name] = dataset.select(rows)
    return out


def _units(dataset: Dataset) -> np.ndarray:
    """(n,) number of the unit that each row belongs to: rows joined by text or by group, transitively."""
    texts, pairs = dataset["text"][:], dataset["text_pair"][:] if "text_pair" in dataset.column_names else None
    keys: dict[bytes, int] = {}  # 16 bytes a text, whatever its length
    by_text = np.fromiter(
        (
            keys.setdefault(
                _digest(text_key(t) if pairs is None else f"{text_key(t)}\x1f{text_key(pairs[i])}"), len(keys)
            )
            for i, t in enumerate(texts)
        ),
        dtype=np.int64,
        count=len(dataset),
    )
    if "group" not in dataset.column_names:
        return by_text
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    _, by_group = np.unique(np.asarray(dataset["group"][:], dtype=object).astype(str), return_inverse=True)
    n_texts, n_groups = len(keys), int(by_group.max()) + 1
    graph = coo_matrix((np.ones(len(by_text)), (by_text, n_texts + by_group)), shape=(n_texts + n_groups,) * 2)
    _, component = connected_components(graph, directed=False)
    _, units = np.unique(component[by_text], return_inverse=True)
    return units


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _strata(dataset: Dataset, units: np.ndarray, n_units: int) -> np.ndarray:
    """(n_units,) stratum of each unit: the rarest label among its rows."""
    column: Sequence[Any] = dataset["label"][:]
    cells = [list(c) if isinstance(c, list) else [c] for c in column]
    counts = Counter(label for cell in cells for label in cell)
    order = {label: i for i, (label, _) in enumerate(sorted(counts.items(), key=lambda item: (item[1], str(item[0]))))}
    rarest = np.array([min((order[label] for label in cell), default=len(order)) for cell in cells], dtype=np.int64)
    out = np.full(n_units, len(order) + 1, dtype=np.int64)
    np.minimum.at(out, units, rarest)
    return out


def _assign(sizes: np.ndarray, strata: np.ndarray, shares: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    """(n_units,) 0 for train, 1 for validation, 2 for test, filling each stratum's shares in seeded order.

    Rounding is carried from stratum to stratum, so that many small classes add up to the shares.
    """
    place = np.zeros(len(sizes), dtype=np.int64)
    debt = {1: 0.0, 2: 0.0}
    order = rng.permutation(len(sizes))
    order = order[np.argsort(strata[order], kind="stable")]
    starts = np.flatnonzero(np.r_[True, np.diff(strata[order]) != 0])
    for start, stop in zip(starts, np.r_[starts[1:], len(order)], strict=True):
        members = order[start:stop]
        total, left = int(sizes[members].sum()), len(members)
        at = 0
        for number, name in ((2, "test"), (1, "validation")):
            wanted = shares[name] * total + debt[number] if shares[name] else 0.0
            taken = 0
            # one unit of a class stays in train at least
            while at < len(members) and left > 1 and taken + sizes[members[at]] / 2 <= wanted:
                place[members[at]] = number
                taken += int(sizes[members[at]])
                at, left = at + 1, left - 1
            debt[number] = wanted - taken if shares[name] else 0.0
    return place


def check_labels(splits: dict[str, Dataset], spec: TaskSpec) -> None:
    """Refuse a label that stands in validation or test but not in train.

    Raises:
        DataError: with the label and its first row.
    """
    if spec.regression:
        return
    known = set(spec.labels)
    for name in ("validation", "test"):
        dataset = splits[name]
        for i, cell in enumerate(dataset["label"][:]):
            for label in cell if spec.multi_label else [cell]:
                if label not in known:
                    row = dataset[i]
                    raise DataError(
                        f"label {label!r} is in {name} but in no training row",
                        where=f"{row['source']}:{row['row']}",
                        expected="labels that can be learned: "
                        + ", ".join(list(spec.labels)[:12])
                        + (" …" if len(spec.labels) > 12 else ""),
                        remedy="correct the label, add training rows of it, or take these rows out",
                    )
