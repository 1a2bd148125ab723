"""What `tunewell prune` leaves: prune.json, which the page is made from.

`Pruning` is of rows with labels, `Selection` of rows with written answers.
"""

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


class ScoredRow(Record):
    """A row with a written answer."""

    row: int  # its place in the file, from 1
    text: str
    answer: str
    score: float | None  # None for `random`, and where there is nothing to score
    kept: bool
    subtask: str = ""  # that it serves best


class Bin(Record):
    """Rows whose score lies between two values."""

    low: float
    high: float
    rows: int
    kept: int


class Selection(Record):
    """Which rows of a pool of instructions or translations were kept, and how they were chosen."""

    source: str
    output: str
    task: str
    model: str
    seed: int
    method: str
    keep_share: float
    duplicates: str
    rows: int
    kept: int
    left_out: dict[str, int]  # reason -> rows
    subtasks: dict[str, tuple[int, int]]  # name -> target rows, kept rows that serve it best; empty without
    target: str = ""  # the file of the target rows
    target_n: int = 0  # its rows
    warm_rows: int = 0  # that the warm-up was tuned on
    rates: tuple[float, ...] = ()  # mean learning rate of each of its epochs
    bins: tuple[Bin, ...] = ()  # how the scores lie; of `perplexity` their base-10 logarithm
    first: tuple[ScoredRow, ...] = ()  # of the order
    last: tuple[ScoredRow, ...] = ()
    command: str = ""  # that tunes on what was kept
