"""All checks of one set of splits, and the account of rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.data.check import labels, suspects, texts
from tunewell.data.check.near_duplicates import near_duplicates
from tunewell.data.check.scan import Scan, scan
from tunewell.results import Account, CheckReport, Finding

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.tasks import TaskSpec

ORDER = {"error": 0, "warning": 1, "notice": 2}


def check(
    splits: dict[str, Dataset],
    *,
    spec: TaskSpec,
    accounts: Sequence[Account],
    columns: dict[str, str],
    tokenizer: Any = None,
    max_length: int | None = None,
    embeddings: np.ndarray | None = None,
    embedded: np.ndarray | None = None,
    seed: int = 42,
    progress: Callable[[int], None] | None = None,
) -> CheckReport:
    """Check canonical splits. No row is changed or dropped.

    Args:
        accounts: one a split, from loading; completed here with tokens and truncation.
        columns: role -> column name, for the report.
        tokenizer, max_length: the model's, to say what is cut.
        embeddings: (n, H) of training rows by the base model, for label suspects; without them TF-IDF is used.
        embedded: (n,) the training rows that these are of; None for all.
        progress: called with the number of rows done, twice a row in all.

    Returns:
        Findings, errors first; accounts that add up; what was inferred.
    """
    from tunewell.tasks import targets

    started = time.perf_counter()
    seen = scan(splits, tokenizer, progress)
    by_class: dict[str, dict[str, int]] = {}
    figures: dict[str, float] = {}
    findings = texts.dropped(accounts)
    if spec.regression:
        figures = labels.summary(splits)
    else:
        by_class = labels.counts(splits, spec.multi_label)
        findings += labels.classes(by_class)
    findings += labels.groups(splits)
    findings += texts.duplicates(seen, labels.codes(splits), spec.regression)
    findings += texts.leakage(seen, near_duplicates(seen, progress))
    findings += texts.patterns(seen)
    shares, mixed = texts.languages(seen, seed)
    quantiles, cut = texts.lengths(seen, max_length)
    doubtful = suspects.suspects(seen, spec, targets(spec, splits["train"]), embeddings, seed, embedded)
    findings += [*mixed, *cut, *doubtful]
    return CheckReport(
        findings=tuple(sorted(map(_one_row, findings), key=lambda f: (ORDER[f.severity], -f.count))),
        accounts=tuple(complete(account, seen, max_length) for account in accounts),
        task=spec.name,
        columns=columns,
        class_counts=by_class,
        label_summary=figures,
        length_quantiles=quantiles,
        languages=shares,
        max_length=max_length or 0,
        rows=sum(len(d) for d in splits.values()),
        seconds=round(time.perf_counter() - started, 3),
    )


def _one_row(finding: Finding) -> Finding:
    """A message about one row in the singular: "1 row of train repeats …"."""
    if not finding.message.startswith("1 rows "):
        return finding
    verbs = {"are": "is", "have": "has", "repeat": "repeats", "share": "shares", "hold": "holds"}
    words = finding.message.split(" ")
    i = next((i for i, word in enumerate(words) if word in verbs), 0)
    return finding.model_copy(
        update={"message": " ".join(["1", "row", *words[2:i], verbs.get(words[i], words[i]), *words[i + 1 :]])}
    )


def complete(account: Account, seen: Scan, max_length: int | None) -> Account:
    """The account with tokens and what is cut of them; its rows must add up."""
    if account.read != account.used + sum(account.dropped.values()):
        raise AssertionError(f"the account of {account.split} does not add up: {account}")
    tokens = seen.tokens[seen.rows(account.split)]
    over = np.maximum(0, tokens - max_length) if max_length else np.zeros(1, dtype=int)
    return account.model_copy(
        update={"truncated": int((over > 0).sum()), "tokens": int(tokens.sum()), "tokens_cut": int(over.sum())}
    )
