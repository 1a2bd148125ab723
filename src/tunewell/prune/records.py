"""What `tunewell prune` leaves: prune.json, which the page is made from."""

from __future__ import annotations

from tunewell.results import Comparison, Estimate, Record


class MapPoint(Record):
    """One row on the data map."""

    row: int  # its place in the file, from 1
    label: str
    text: str
    variability: float
    confidence: float
    correctness: float
    forgetting: float
    el2n: float
    kept: bool


class Tried(Record):
    """A method that `auto` has tried: a linear probe on the rows that it keeps, scored on held-out rows."""

    method: str
    score: Estimate
    difference: Comparison | None  # to `random`; None for random itself


class Pruning(Record):
    """Which rows were kept, and how they were chosen."""

    source: str
    output: str
    task: str
    model: str
    seed: int
    metric: str
    asked: str  # the method that was asked for
    method: str  # the one that chose
    keep_share: float
    balance: str
    duplicates: str
    rows: int
    kept: int
    left_out: dict[str, int]  # reason -> rows
    epochs: int
    tunings: int
    classes: dict[str, tuple[int, int]]  # label -> rows, kept rows; empty where rows have several labels
    tried: tuple[Tried, ...] = ()  # of `auto`
    judged_on: int = 0  # rows on which `auto` was decided
    points: tuple[MapPoint, ...] = ()  # a seeded sample
    hardest: tuple[MapPoint, ...] = ()
    ambiguous: tuple[MapPoint, ...] = ()
    command: str = ""  # that tunes on what was kept
