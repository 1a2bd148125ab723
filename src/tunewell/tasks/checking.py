"""What the data check looks for in every task whose answers are texts; each task adds findings of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunewell.results import CheckReport, Example, Finding
from tunewell.shown import cut

if TYPE_CHECKING:
    from tunewell.stages.job import Job

SHOWN, SHOWN_CHARS = 5, 160


def check_texts(job: Job, findings: Sequence[Finding], columns: dict[str, str], max_length: int | None) -> CheckReport:
    """Leaks, near duplicates, broken characters, personal data, languages and lengths of the inputs
    (and second texts), beside the task's own `findings`.

    Args:
        max_length: None where inputs that are longer are not cut.
    """
    from tunewell.data.check import texts
    from tunewell.data.check.checker import ORDER, complete
    from tunewell.data.check.near_duplicates import near_duplicates
    from tunewell.data.check.scan import scan

    started = time.perf_counter()
    prepared = job.prepared
    seen = scan(job.splits, job.tokenizer)
    found = [*texts.dropped(prepared.accounts), *texts.leakage(seen, near_duplicates(seen)), *texts.patterns(seen)]
    shares, mixed = texts.languages(seen, job.recipe.seed)
    quantiles, cut = texts.lengths(seen, max_length)
    found += [*mixed, *cut, *findings]
    return CheckReport(
        findings=tuple(sorted(found, key=lambda f: (ORDER[f.severity], -f.count))),
        accounts=tuple(complete(account, seen, max_length) for account in prepared.accounts),
        task=job.spec.name,
        columns=columns,
        length_quantiles=quantiles,
        languages=shares,
        max_length=job.max_length,
        rows=sum(len(d) for d in job.splits.values()),
        seconds=round(time.perf_counter() - started, 3),
    )


def example(row: dict[str, Any], text: str, note: str = "") -> Example:
    """A row as evidence, shortened."""
    return Example(where=f"{row['source']}:{row['row']}", text=cut(text, SHOWN_CHARS), note=note)
