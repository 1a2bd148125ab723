"""Labels that people gave: data files, files of `tunewell select` filled in, exports of Label Studio and Argilla."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tunewell.data.split import text_key
from tunewell.errors import DataError, nearest


@dataclass
class Labelled:
    """Texts with the label that they were given, each text once; and what was found on the way.

    Attributes:
        where: file:row of each. empty: rows that nobody has labelled yet.
    """

    texts: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    where: list[str] = field(default_factory=list)
    empty: int = 0
    notices: list[str] = field(default_factory=list)


def read_labelled(
    paths: list[str], *, text: str | None = None, label: str | None = None, encoding: str = "auto"
) -> Labelled:
    """Labels of one file or several; where a text is labelled twice, the later row counts.

    Raises:
        DataError: a file cannot be read, holds no label, or a label looks misspelt (named, with its row).
    """
    out = Labelled()
    place: dict[str, int] = {}
    changed = 0
    for path in paths:
        rows, empty = _read(path, text, label, encoding)
        out.empty += empty
        for where, words, given in rows:
            key = text_key(words)
            if key in place:
                at = place[key]
                changed += out.labels[at] != given
                out.labels[at], out.where[at] = given, where
            else:
                place[key] = len(out.texts)
                out.texts.append(words)
                out.labels.append(given)
                out.where.append(where)
    if not out.texts:
        raise DataError(
            "no row has a label",
            where=", ".join(paths),
            expected="at least one filled in" + (f"; {out.empty:,} are still empty" if out.empty else ""),
            remedy="label some rows, or leave --labelled out to begin from nothing",
        )
    if out.empty:
        out.notices.append(f"{out.empty:,} rows without a label yet, left out")
    if changed:
        out.notices.append(f"{changed:,} texts were labelled again; the later label counts")
    _misspelt(out)
    return out


def _misspelt(found: Labelled) -> None:
    """Refuse a label that stands once and is all but another that stands often."""
    counts = Counter(found.labels)
    often = [name for name, count in counts.items() if count >= 5]
    for name, count in counts.items():
        if count == 1 and len(name) >= 4 and (near := nearest(name, [o for o in often if abs(len(o) - len(name)) < 3])):
            similar = near.split("`")[1]
            if _one_edit(name.casefold().strip(), similar.casefold().strip()):
                raise DataError(
                    f"the label {name!r} stands once and is almost {similar!r}, which stands {counts[similar]:,} times",
                    where=found.where[found.labels.index(name)],
                    expected="labels spelt alike",
                    remedy=f"correct it to {similar!r}",
                )


def _one_edit(a: str, b: str) -> bool:
    """Whether two words differ by one letter added, left out, changed or swapped with its neighbour, or by case."""
    if a == b:
        return True
    if len(a) > len(b):
        a, b = b, a
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))
    swapped = a[at : at + 2] == b[at : at + 2][::-1] and a[at + 2 :] == b[at + 2 :]
    return swapped or (a[at + 1 :] == b[at + 1 :] if len(a) == len(b) else a[at:] == b[at + 1 :])


def _read(path: str, text: str | None, label: str | None, encoding: str) -> tuple[list[tuple[str, str, str]], int]:
    from tunewell.data.annotated import the_label
    from tunewell.data.columns import TEXTS, text_column
    from tunewell.data.load import load

    file = load(path, encoding=encoding)
    names = list(file.dataset.column_names)
    label_column = (
        label
        or the_label(file.labels, file.source)
        or next((n for n in ("label", "labels", "choice", "sentiment", "category") if n in names), None)
    )
    if label_column is None or label_column not in names:
        raise DataError(
            f"no column `{label or 'label'}`",
            where=file.source,
            expected="a column with the labels: " + ", ".join(names),
            remedy="name it: --label COLUMN",
        )
    besides = [label_column, "row", "rank", "prediction", "probability", "score", "method"]
    text_name = text or next((n for n in TEXTS if n in names), None) or text_column(
        file.dataset, source=file.source, besides=besides
    )  # fmt: skip
    if text_name not in names:
        raise DataError(f"no column `{text_name}`", where=file.source, expected="one of: " + ", ".join(names))
    rows, empty = [], 0
    for i, (words, given) in enumerate(zip(file.dataset[text_name][:], file.dataset[label_column][:], strict=True), 1):
        where = f"{file.source}:{i}"
        if not isinstance(words, str) or not words.strip():
            if given not in (None, ""):
                raise DataError("a label without its text", where=where, expected=f"a text in `{text_name}`")
            continue
        if given is None or not str(given).strip():
            empty += 1
            continue
        if isinstance(given, list):
            if len(given) != 1:
                raise DataError(f"{len(given)} labels", where=where, expected="one choice a text")
            given = given[0]
        rows.append((where, words, str(given).strip()))
    return rows, empty
