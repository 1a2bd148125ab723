"""`tunewell augment` as a story: rows, copies of them changed, filters, a file that says where each row came from."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunewell.augment.operations import MASKED, OPERATIONS, split, words_of
from tunewell.data.split import text_key
from tunewell.errors import DataError, RecipeError, nearest

NAMES = (*OPERATIONS, MASKED)


@dataclass(frozen=True)
class Augmented:
    """Rows for a training file.

    Attributes:
        rows: the data's own columns, `augmented_by` (empty for the original rows) and `augmented_from` (its row,
            from 1).
        left_out: reason -> copies that were made and not kept.
    """

    rows: list[dict[str, Any]]
    made: int
    left_out: dict[str, int]


def augment(
    data: str,
    *,
    operations: Sequence[str] = ("swap", "delete", "keyboard"),
    copies: int = 1,
    share: float = 0.1,
    text: str | None = None,
    label: str | None = None,
    only: Sequence[str] = (),
    mlm: str = "splade-tiny",
    similar: float = 0.0,
    model: str = "all-MiniLM-L6-v2",
    run: str | None = None,
    test: Sequence[str] = (),
    encoding: str = "auto",
    seed: int = 42,
    echo: Callable[[str], None] | None = None,
) -> Augmented:
    """Changed copies of training rows, each with its origin.

    Args:
        data: a labelled file. operations: taken in turn over the copies; see `operations.OPERATIONS`, and `masked`.
        copies: changed copies of each row. share: of a text's words that an operation touches, one at least.
        only: classes to augment (those with few rows, say); all by default.
        similar: keep a copy only where the cosine of its embedding by `model` and the original's is at least this.
        run: a tuned model; keep a copy only where it still gives the row's label.
        test: files whose texts no copy may equal.

    Raises:
        DataError, RecipeError: unusable data, an unknown operation, shares out of range, unknown classes.
    """
    from tunewell.data.columns import LABELS, text_column
    from tunewell.data.load import load

    echo = echo or (lambda line: print(line, file=sys.stderr, flush=True))
    _check(operations, copies, share, similar)
    file = load(data, encoding=encoding)
    names = list(file.dataset.column_names)
    words = text or text_column(file.dataset, source=file.source, besides=[label])
    labels = label or next((n for n in LABELS if n in names and n != words), None)
    for role, name in (("text", words), ("label", labels)):
        if name is None or name not in names:
            raise DataError(f"no column `{name or role}`", where=file.source, expected="one of: " + ", ".join(names))
    rows = file.dataset.to_list()
    known = Counter(str(r[labels]) for r in rows)
    for name in only:
        if name not in known:
            raise DataError(
                f"no row has the label {name!r}", where=file.source, expected=", ".join(list(known)[:12]),
                remedy=nearest(name, known),
            )  # fmt: skip
    chosen = [i for i, r in enumerate(rows) if isinstance(r[words], str) and r[words].strip()]
    if only:
        chosen = [i for i in chosen if str(rows[i][labels]) in only]
    seen = {text_key(str(r[words])) for r in rows}
    taboo = {text_key(t) for path in test for t in _texts(path, words, encoding)}
    made = _copies([rows[i][words] for i in chosen], operations, copies, share, mlm, seed, echo)
    left_out: Counter[str] = Counter()
    kept: list[tuple[int, str, str]] = []
    for at, name, changed in made:
        key = text_key(changed)
        if not key or key in seen:
            left_out["unchanged, or made twice"] += 1
        elif key in taboo:
            left_out["a test text"] += 1
        else:
            seen.add(key)
            kept.append((chosen[at], name, changed))
    kept = _filtered(kept, rows, words, str(labels), similar, model, run, left_out)
    out = [{**r, "augmented_by": "", "augmented_from": i} for i, r in enumerate(rows, 1)]
    out += [{**rows[i], words: changed, "augmented_by": name, "augmented_from": i + 1} for i, name, changed in kept]
    return Augmented(out, len(made), dict(left_out))


def _check(operations: Sequence[str], copies: int, share: float, similar: float) -> None:
    for name in operations:
        if name not in NAMES:
            raise RecipeError(
                f"unknown operation `{name}`",
                where="operations",
                expected=", ".join(NAMES),
                remedy=nearest(name, NAMES),
            )
    if not operations:
        raise RecipeError("no operation is named", where="operations", expected="some of: " + ", ".join(NAMES))
    if copies < 1:
        raise RecipeError(f"`copies: {copies}` is not possible", where="copies", expected="1 or more")
    for name, value in (("share", share), ("similar", similar)):
        if not 0 <= value <= 1 or (name == "share" and value == 0):
            raise RecipeError(f"`{name}: {value:g}` is not possible", where=name, expected="between 0 and 1")


def _copies(
    texts: list[str], operations: Sequence[str], copies: int, share: float, mlm: str, seed: int,
    echo: Callable[[str], None],
) -> list[tuple[int, str, str]]:  # fmt: skip
    """(place of the original, operation, changed text), copy by copy."""
    rng = np.random.default_rng(seed)
    masked = None
    if MASKED in operations:
        from tunewell.augment.masked import Masked

        echo(f"augment: words proposed by {mlm}")
        masked = Masked(mlm)
    out = []
    for copy in range(copies):
        turn = [operations[(i + copy) % len(operations)] for i in range(len(texts))]
        for name in dict.fromkeys(turn):
            places = [i for i, t in enumerate(turn) if t == name]
            if masked is not None and name == MASKED:
                changed = masked([texts[i] for i in places], share, rng)
            else:
                changed = []
                for i in places:
                    pieces = split(texts[i])
                    times = max(1, round(share * len(words_of(pieces))))
                    changed.append(" ".join("".join(OPERATIONS[name](pieces, times, rng)).split()))
            out += [(i, name, text) for i, text in zip(places, changed, strict=True)]
    return sorted(out, key=lambda item: item[0])


def _filtered(
    kept: list[tuple[int, str, str]], rows: list[dict[str, Any]], words: str, label: str, similar: float, model: str,
    run: str | None, left_out: Counter[str],
) -> list[tuple[int, str, str]]:  # fmt: skip
    """Copies that still mean the same: near in embedding, and of the same label to a tuned model."""
    if similar > 0 and kept:
        from tunewell.models.embed import embed
        from tunewell.models.load import load_encoder
        from tunewell.selection.candidates import unit

        encoder = load_encoder(model)
        a = unit(embed(encoder.model, encoder.tokenizer, [str(rows[i][words]) for i, _, _ in kept]))
        b = unit(embed(encoder.model, encoder.tokenizer, [t for _, _, t in kept]))
        near = (a * b).sum(1) >= similar
        left_out["too unlike its original"] += int((~near).sum())
        kept = [k for k, good in zip(kept, near, strict=True) if good]
    if run is not None and kept:
        from tunewell.predict import Predictor

        answers = Predictor.load(run).predict([t for _, _, t in kept])
        same = [str(a) == str(rows[i][label]) for a, (i, _, _) in zip(answers, kept, strict=True)]
        left_out["another label to the tuned model"] += same.count(False)
        kept = [k for k, good in zip(kept, same, strict=True) if good]
    return kept


def _texts(path: str, text: str, encoding: str) -> list[str]:
    from tunewell.data.columns import text_column
    from tunewell.data.load import load

    file = load(path, encoding=encoding)
    name = text if text in file.dataset.column_names else text_column(file.dataset, source=file.source)
    return [t for t in file.dataset[name][:] if isinstance(t, str)]
