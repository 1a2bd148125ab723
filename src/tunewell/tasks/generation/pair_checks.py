"""What the data check looks for in pairs of source and target."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tunewell.data.split import text_key
from tunewell.results import Finding
from tunewell.tasks.checking import SHOWN, example

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.recipe import Recipe

# {name}, {{name}}, %(name)s, %s, %d, %1, ${name}, <b>, &nbsp;
PLACEHOLDER = re.compile(
    r"\{\{?[^{}\s]*\}?\}|%\(\w+\)[sdif]|%[sdif](?![a-zA-Z])|%\d+(?![\d%])|\$\{\w+\}|<[^<>\s]+/?>|&\w+;"
)
FAR = 3.0  # a length ratio this many times the median is an outlier
LEAST = 20  # characters below which a ratio says nothing
JUDGED = 20_000  # targets whose language is told


def findings(splits: dict[str, Dataset], languages: tuple[str | None, str | None] = (None, None)) -> list[Finding]:
    """Untranslated copies, targets in another language, lengths that do not fit, placeholders that are lost, pairs
    that stand there twice, sources with several targets.

    Args:
        languages: ISO 639-1 codes of source and target; without the second no language is judged.
    """
    out = []
    for name, rows in splits.items():
        sources, targets = list(rows["text"]), list(rows["label"])
        for code, title, places, message, remedy, share in _looked_for(sources, targets, languages):
            if places:
                out.append(
                    Finding(
                        code=code,
                        severity="warning" if len(places) > share * len(rows) else "notice",
                        split=name,
                        title=title,
                        count=len(places),
                        message=f"{len(places):,} rows of {name} ({len(places) / len(rows):.1%}) {message}.",
                        examples=tuple(example(rows[i], sources[i], targets[i][:80]) for i in places[:SHOWN]),
                        remedy=remedy,
                    )
                )
    return out


Looked = tuple[str, str, list[int], str, str, float]  # code, title, places, message, remedy, share of a warning


def _looked_for(sources: list[str], targets: list[str], languages: tuple[str | None, str | None]) -> list[Looked]:
    pairs = list(zip(sources, targets, strict=True))
    copies = [i for i, (s, t) in enumerate(pairs) if text_key(s) == text_key(t) and any(map(str.isalpha, s))]
    ratios = np.array([len(t) / len(s) if min(len(s), len(t)) >= LEAST else np.nan for s, t in pairs])
    middle = float(np.nanmedian(ratios)) if np.isfinite(ratios).any() else 1.0
    odd = np.flatnonzero((ratios > FAR * middle) | (ratios < middle / FAR)).tolist()
    lost = [i for i, (s, t) in enumerate(pairs) if placeholders(s) != placeholders(t)]
    twice, several = _repeated(sources, targets)
    foreign, into = _foreign(targets, languages, set(copies))
    return [
        ("copies", "Untranslated copies", copies, "have a target that is the source again",
         "remove them, unless names and codes are to be kept as they are", 0.05),
        ("wrong-language", "Targets in another language", foreign, f"have a target that is clearly not in {into}",
         "remove them: the model learns to answer in that language", 0.01),
        ("length-ratio", "Lengths that do not fit", odd,
         f"have a target over {FAR:g} times longer or shorter than usual (median ratio {middle:.2f})",
         "look whether the pairs belong together", 0.01),
        ("placeholders", "Placeholders that differ", lost,
         "have other placeholders ({name}, %s, %1, <b>) in the target than in the source",
         "mend the targets: the model learns to lose placeholders", 0.0),
        ("duplicates", "Pairs that stand there more than once", twice, "repeat a pair from above",
         "`duplicates: drop` leaves them out of training", 0.2),
        ("several-translations", "Sources with several translations", several,
         "have a source that is translated otherwise above",
         "choose one translation where the place does not decide it", 0.1),
    ]  # fmt: skip


def languages_of(recipe: Recipe, columns: Sequence[str]) -> tuple[str | None, str | None]:
    """ISO 639-1 codes of source and target: as the recipe says, else as the columns are named, else None."""
    from tunewell.data.languages import code_of

    return (code_of(recipe.source_lang) or code_of(columns[0]), code_of(recipe.target_lang) or code_of(columns[1]))


def placeholders(text: str) -> Counter[str]:
    """The placeholders and tags of a text with their numbers; their order is free.

    >>> sorted(placeholders("%s of %(all)s in {place}, 50 % <b>%1</b>"))
    ['%(all)s', '%1', '%s', '</b>', '<b>', '{place}']
    """
    return Counter(PLACEHOLDER.findall(text))


def _repeated(sources: list[str], targets: list[str]) -> tuple[list[int], list[int]]:
    """Rows whose pair stands above, and rows whose source stands above with other targets only."""
    seen: dict[str, set[str]] = defaultdict(set)
    twice, several = [], []
    for i, (s, t) in enumerate(zip(sources, targets, strict=True)):
        source, target = text_key(s), text_key(t)
        if target in seen[source]:
            twice.append(i)
        elif seen[source]:
            several.append(i)
        seen[source].add(target)
    return twice, several


def _foreign(targets: list[str], languages: tuple[str | None, str | None], copies: set[int]) -> tuple[list[int], str]:
    """Rows whose target is in another language, copies left out; and the language that it should be."""
    from tunewell.data.languages import in_wrong_language

    source, expected = languages
    if expected is None or source == expected:
        return [], ""
    judged = [i for i in range(len(targets)) if i not in copies]
    if len(judged) > JUDGED:
        judged = sorted(np.random.default_rng(0).choice(judged, JUDGED, replace=False).tolist())
    return [judged[i] for i, _ in in_wrong_language([targets[i] for i in judged], expected, source)], expected
