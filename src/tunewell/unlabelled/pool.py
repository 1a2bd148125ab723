"""The pool: texts without labels, each once, none of which is measured on.

A text of validation or test in the pool would be learned from before it is asked about, so the pool is refused. A text
of the training rows is left out: its label is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.data.split import text_key
from tunewell.errors import DataError
from tunewell.folder import fingerprint

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.data.columns import Columns
    from tunewell.recipe import Recipe

SHOWN = 10  # rows named in an error
LEAST = 2  # texts


@dataclass(frozen=True)
class Pool:
    """Texts without labels.

    Attributes:
        rows: canonical rows without `label`: text, text_pair (of pairs), row (from 1, its place in the file), source.
        read: rows of the file. left_out: reason -> rows of it that are not used.
        fingerprint: of the texts, in their order.
    """

    rows: Dataset
    source: str
    read: int
    left_out: dict[str, int] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    @property
    def texts(self) -> list[str]:
        return list(self.rows["text"])

    @property
    def pairs(self) -> list[str] | None:
        return list(self.rows["text_pair"]) if "text_pair" in self.rows.column_names else None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def fingerprint(self) -> str:
        return fingerprint("pool", self.texts, self.pairs)


def read_pool(recipe: Recipe, columns: Columns, splits: Mapping[str, Dataset]) -> Pool:
    """Read the recipe's `unlabelled`.

    Args:
        columns: of the labelled file; the pool's text is in the column of the same name, else found as in other files.
        splits: canonical train, validation and test.

    Raises:
        DataError: no file, no text in it, fewer than two texts left, or texts of validation or test among them.
    """
    from datasets import Dataset

    from tunewell.data.columns import LABELS
    from tunewell.data.load import load

    assert recipe.unlabelled is not None
    file = load(recipe.unlabelled, encoding=recipe.encoding)
    names = list(file.dataset.column_names)
    notices = [*file.notices]
    taken = _columns(file.dataset, columns, file.source, notices)
    for label in dict.fromkeys((*columns.label, *(n for n in LABELS if n in names))):
        if label in names and label not in taken:
            notices.append(f"labels in its column {label!r} are not read")
            break
    texts = [_strings(file.dataset[name][:], name, file.source, file.objects) for name in taken]
    keys = _keys(*texts)
    measured = {
        key: (name, f"{source}:{row}")
        for name in ("validation", "test")
        for key, source, row in zip(
            _keys_of(splits[name], len(taken)), splits[name]["source"][:], splits[name]["row"][:], strict=True
        )
    }
    train = set(_keys_of(splits["train"], len(taken)))
    left_out = dict.fromkeys(("empty", "a training row", "the same as another", "beyond unlabelled_samples"), 0)
    kept, seen, shared = [], set[str](), []
    for i, key in enumerate(keys):
        if not key:
            left_out["empty"] += 1
        elif key in measured:
            shared.append((i + 1, *measured[key]))
        elif key in train:
            left_out["a training row"] += 1
        elif key in seen:
            left_out["the same as another"] += 1
        else:
            seen.add(key)
            kept.append(i)
    if shared:
        _refuse(shared, file.source)
    if len(kept) < LEAST:
        why = ", ".join(f"{n:,} {reason}" for reason, n in left_out.items() if n)
        raise DataError(
            f"{'no text is' if not kept else 'a single text is'} left of {len(keys):,} rows" + (f": {why}" * bool(why)),
            where=file.source,
            expected="texts without labels that are not among the training rows",
            remedy="add texts to the pool, or leave `unlabelled` out",
        )
    if len(kept) > recipe.unlabelled_samples:
        chosen = np.random.default_rng(recipe.seed).permutation(len(kept))[: recipe.unlabelled_samples]
        left_out["beyond unlabelled_samples"] = len(kept) - len(chosen)
        kept = [kept[i] for i in np.sort(chosen)]
    rows: dict[str, Any] = {
        name: [part[i] for i in kept] for name, part in zip(("text", "text_pair"), texts, strict=False)
    }
    rows |= {"row": [i + 1 for i in kept], "source": [file.source] * len(kept)}
    left_out = {reason: n for reason, n in left_out.items() if n}
    if left_out:
        notices.append("left out: " + ", ".join(f"{n:,} {reason}" for reason, n in left_out.items()))
    return Pool(Dataset.from_dict(rows), file.source, len(keys), left_out, tuple(notices))


def _columns(dataset: Dataset, columns: Columns, source: str, notices: list[str]) -> list[str]:
    """The pool's column of texts, and that of second texts where the task is one of pairs."""
    from tunewell.data.columns import PAIRS, text_column

    names = list(dataset.column_names)
    text, pair = columns.text, columns.text_pair
    if text not in names:
        text = text_column(dataset, source=source, besides=[pair, *columns.label])
        notices.append(f"text column: {text!r}")
    if pair is None:
        return [text]
    if pair not in names:
        found = next((b for a, b in PAIRS if a == text and b in names), None)
        if found is None:
            raise DataError(
                f"no column `{pair}` (the second text of a pair)", where=source, expected="one of: " + ", ".join(names)
            )
        pair = found
    return [text, pair]


def _strings(cells: list[Any], name: str, source: str, objects: Mapping[str, int]) -> list[str]:
    bad = objects.get(name) or next((i for i, c in enumerate(cells, 1) if isinstance(c, (dict, list))), None)
    if bad:
        raise DataError(
            f"`{name}` holds an object or a list where a text is wanted",
            where=f"{source}:{bad}",
            expected="a text in each row",
        )
    return ["" if c is None else str(c) for c in cells]


def _keys(texts: list[str], pairs: list[str] | None = None) -> list[str]:
    """What makes rows the same; empty where a text is missing."""
    if pairs is None:
        return [text_key(t) for t in texts]
    both = ((text_key(a), text_key(b)) for a, b in zip(texts, pairs, strict=True))
    return [f"{a}\n{b}" if a and b else "" for a, b in both]


def _keys_of(rows: Dataset, columns: int) -> list[str]:
    return _keys(*([rows["text"][:], rows["text_pair"][:]] if columns == 2 else [rows["text"][:]]))


def _refuse(shared: list[tuple[int, str, str]], source: str) -> None:
    few = ", ".join(f"{row} ({name}, {other})" for row, name, other in shared[:SHOWN])
    more = f" and {len(shared) - SHOWN:,} more" if len(shared) > SHOWN else ""
    among = " and ".join(dict.fromkeys(name for _, name, _ in shared))
    raise DataError(
        f"{len(shared):,} rows of the pool are rows of {among}: {few}{more}",
        where=f"{source}:{shared[0][0]}",
        expected="a pool that shares no text with validation and test, else their scores mean nothing",
        remedy="take these rows out of the pool",
    )
