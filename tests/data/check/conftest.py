"""Splits of made-up rows in which nothing is wrong, to plant faults in."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from tunewell.data.check import check
from tunewell.results import Account, CheckReport
from tunewell.tasks import spec_of

Rows = list[dict[str, Any]]


def words(n: int, seed: int) -> str:
    """`n` random words of 5 letters: two such texts share next to nothing."""
    rng = random.Random(seed)
    return " ".join("".join(rng.choices("bcdfghjklmnpqrstvwxyz", k=5)) for _ in range(n))


def clean(n: int, first: int, classes: tuple[str, ...] = ("bad", "good")) -> Rows:
    return [{"text": words(10, first + i), "label": classes[i % len(classes)]} for i in range(n)]


@pytest.fixture
def rows() -> dict[str, Rows]:
    """40 training, 20 validation and 20 test rows, two balanced classes, no two texts alike."""
    return {"train": clean(40, 0), "validation": clean(20, 1_000), "test": clean(20, 2_000)}


@pytest.fixture
def checked() -> Callable[..., CheckReport]:
    """Check rows given as lists of dicts; `row` and `source` are added. Accounts say that all rows were used."""

    def run(rows: dict[str, Rows], *, task: str = "text-classification", dropped: Any = None, **options) -> CheckReport:
        splits = {
            name: Dataset.from_list([{"row": i + 1, "source": f"{name}.csv", **row} for i, row in enumerate(found)])
            for name, found in rows.items()
        }
        multi = isinstance(rows["train"][0]["label"], list)
        spec = spec_of(splits, task=task, multi_label=multi, pair="text_pair" in rows["train"][0])
        accounts = [
            Account(
                split=name,
                source=f"{name}.csv",
                read=len(found) + sum((dropped or {}).get(name, {}).values()),
                used=len(found),
                dropped=(dropped or {}).get(name, {}),
            )
            for name, found in rows.items()
        ]
        return check(splits, spec=spec, accounts=accounts, columns={"text": "text", "label": "label"}, **options)

    return run


@pytest.fixture
def found() -> Callable[[CheckReport], dict[tuple[str, str], int]]:
    """(code, split) -> count, of all findings."""
    return lambda report: {(f.code, f.split): f.count for f in report.findings}


@pytest.fixture(scope="session")
def make_text() -> Callable[[int, int], str]:
    """The function `words(n, seed)`."""
    return words


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return Path(__file__).resolve().parents[3]
