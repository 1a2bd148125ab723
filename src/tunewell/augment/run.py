"""`tunewell augment` as a story: rows, copies of them changed, filters, a file that says where each row came from."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tunewell.augment.copies import Copy, copies_of, new, resolved
from tunewell.augment.filters import add, agreeing, near
from tunewell.augment.filters import kept as kept_of
from tunewell.augment.names import AUTO_SPACED, MLM, NAMES, TRANSLATORS, mistakes
from tunewell.errors import DataError, RecipeError, nearest

__all__ = ["NAMES", "Augmented", "augment"]


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
    operations: Sequence[str] = AUTO_SPACED,
    copies: int = 1,
    share: float = 0.1,
    text: str | None = None,
    label: str | None = None,
    only: Sequence[str] = (),
    mlm: str = MLM,
    translators: Sequence[str] = TRANSLATORS,
    similar: float = 0.0,
    agree: bool = False,
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
        translators: of `backtranslate`: a model into another language, and one back.
        similar: keep a copy only where the cosine of its embedding by `model` and the original's is at least this, and
            not 1.
        agree: keep a copy only where a linear probe, fitted to all rows on embeddings by `model`, gives its label.
        run: a tuned model; keep a copy only where it still gives the row's label.
        test: files whose texts no copy may equal.

    Raises:
        DataError, RecipeError: unusable data, an unknown operation, shares out of range, unknown classes.
    """
    from tunewell.data.columns import LABELS, text_column
    from tunewell.data.load import load

    echo = echo or (lambda line: print(line, file=sys.stderr, flush=True))
    _check(operations, copies, share, similar, translators)
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
    usable = [
        i for i, r in enumerate(rows)
        if isinstance(r[words], str) and r[words].strip() and r[labels] is not None and str(r[labels]).strip()
    ]  # fmt: skip
    chosen = [i for i in usable if not only or str(rows[i][labels]) in only]
    taboo = [t for path in test for t in _texts(path, str(words), encoding)]
    texts = [str(rows[i][words]) for i in chosen]
    operations = resolved(operations, texts)
    made = copies_of(
        texts, operations, copies=copies, share=share, mlm=mlm, translators=translators, seed=seed, echo=echo
    )
    made = [Copy(chosen[c.at], c.by, c.text) for c in made]
    left_out: dict[str, int] = {}
    kept = new(made, [str(r[words]) for r in rows], left_out, taboo)
    kept = _filtered(kept, rows, usable, str(words), str(labels), similar, agree, model, run, left_out, seed)
    out = [{**r, "augmented_by": "", "augmented_from": i} for i, r in enumerate(rows, 1)]
    out += [{**rows[c.at], words: c.text, "augmented_by": c.by, "augmented_from": c.at + 1} for c in kept]
    return Augmented(out, len(made), left_out)


def _check(operations: Sequence[str], copies: int, share: float, similar: float, translators: Sequence[str]) -> None:
    if problems := mistakes(operations):
        raise RecipeError("; ".join(problems), where="operations")
    if len(translators) != 2:
        raise RecipeError(
            f"{len(translators)} models are named",
            where="translators",
            expected="two models: one into another language and one back",
        )
    if copies < 1:
        raise RecipeError(f"`copies: {copies}` is not possible", where="copies", expected="1 or more")
    for name, value in (("share", share), ("similar", similar)):
        if not 0 <= value <= 1 or (name == "share" and value == 0):
            raise RecipeError(f"`{name}: {value:g}` is not possible", where=name, expected="between 0 and 1")


def _filtered(
    kept: list[Copy], rows: list[dict[str, Any]], usable: list[int], words: str, label: str, similar: float,
    agree: bool, model: str, run: str | None, left_out: dict[str, int], seed: int,
) -> list[Copy]:  # fmt: skip
    """Copies that still mean the same: near in embedding, and of the same label to a probe or to a tuned model."""
    if (similar > 0 or agree) and kept:
        kept = _by_embeddings(kept, rows, usable, words, label, similar, agree, model, left_out, seed)
    if run is not None and kept:
        from tunewell.predict import Predictor

        answers = Predictor.load(run).predict([c.text for c in kept])
        same = [str(a) == str(rows[c.at][label]) for a, c in zip(answers, kept, strict=True)]
        left_out["another label to the tuned model"] = same.count(False)
        kept = [c for c, good in zip(kept, same, strict=True) if good]
    return kept


def _by_embeddings(
    kept: list[Copy], rows: list[dict[str, Any]], usable: list[int], words: str, label: str, similar: float,
    agree: bool, model: str, left_out: dict[str, int], seed: int,
) -> list[Copy]:  # fmt: skip
    import numpy as np

    from tunewell.models.embed import embed
    from tunewell.models.load import load_encoder

    encoder = load_encoder(model)

    def vectors(texts: list[str]) -> np.ndarray:
        return embed(encoder.model, encoder.tokenizer, texts)

    b = vectors([c.text for c in kept])
    used = usable if agree else sorted({c.at for c in kept})
    own, place = vectors([str(rows[i][words]) for i in used]), {i: k for k, i in enumerate(used)}
    good, why = near(own[[place[c.at] for c in kept]], b, similar)
    add(left_out, why)
    kept, b = kept_of(kept, good), b[good]
    if agree:
        names = sorted({str(rows[i][label]) for i in used})
        if len(names) < 2:
            raise DataError(
                "all rows have the same label, so that no probe can tell others",
                where=label,
                expected="at least two classes",
                remedy="leave `--agree` out",
            )
        ids = {name: k for k, name in enumerate(names)}
        targets = np.array([ids[str(rows[i][label])] for i in used])
        wanted = np.array([ids[str(rows[c.at][label])] for c in kept], dtype=np.int64)
        good, why = agreeing(own, targets, b, wanted, classes=len(names), seed=seed)
        add(left_out, why)
        kept = kept_of(kept, good)
    return kept


def _texts(path: str, text: str, encoding: str) -> list[str]:
    from tunewell.data.columns import text_column
    from tunewell.data.load import load

    file = load(path, encoding=encoding)
    name = text if text in file.dataset.column_names else text_column(file.dataset, source=file.source)
    return [t for t in file.dataset[name][:] if isinstance(t, str)]
