"""Is an exported model still the same? Its answers beside the source model's, on real rows, and its speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunewell.data.cells import Rows
from tunewell.predict import THRESHOLD
from tunewell.results import Record

ROWS = 200
REPEATS = 3
SPREAD = 1e-6  # a spread below it is rounding, relative to the largest value where that is above 1
# when a model comes without rows of its own
SAMPLE = (
    "The meal was cold and nobody apologised.",
    "Arrived two days early, works as described!",
    "ok",
    "I have asked three times for the invoice; could someone please send it, or at least answer?",
    "房间干净，服务员很热情。",
    "It is what it is. " * 20,
    "URGENT!!! call 555-0100 now",
    "naïve café, 100 % – “quoted”",
)


def scores_by(
    source: Any,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    names: Sequence[str],
    answer: Callable[[dict[str, np.ndarray]], np.ndarray],
) -> np.ndarray:
    """Probabilities (n, C) or values (n,) of another runtime, encoded and batched as the source model's are.

    Args:
        source: the predictor whose tokenizer and task are used. names: the inputs that `answer` takes.
        answer: inputs (B, T) int64 by name -> logits (B, C).
    """
    from tunewell.models.embed import encode, like_length
    from tunewell.tasks.spec import scores_of

    tokenizer = source.tokenizer
    encoded = encode(tokenizer, texts, pairs, source.max_length)
    lengths = np.array([len(ids) for ids in encoded["input_ids"]])
    logits = np.empty((len(lengths), source.spec.outputs), dtype=np.float32)
    for index in like_length(lengths, 64):
        rows = {k: [encoded[k][i] for i in index] for k in encoded if k in tokenizer.model_input_names}
        batch = tokenizer.pad(rows, return_tensors="np")
        logits[index] = answer({name: np.asarray(batch[name], dtype=np.int64) for name in names})
    return scores_of(source.spec, logits)


class Parity(Record):
    """Two models over the same rows.

    Attributes:
        rows: compared; real: whether they are the run's own test rows.
        largest: largest absolute difference of a probability (of a value, relative to its size where above 1).
        same: share of the same answers, see `agreement`; None for values.
        off: root mean square difference of a value, in standard deviations of the source's values; None for classes.
        several: whether rows may have several labels.
        source_rows_per_second, rows_per_second: of source and export, one row at a time and in batches of 32, one
            after the other on this machine.
    """

    rows: int
    real: bool
    largest: float
    same: float | None
    off: float | None = None
    several: bool = False
    source_rows_per_second: dict[str, float]
    rows_per_second: dict[str, float]

    def lines(self) -> list[str]:
        """What to tell."""
        which = "test rows" if self.real else "sample texts"
        same = "" if self.off is None else f", {self.off:.2%} of the values' spread on average"
        if self.same is not None:
            same = f", {self.same:.1%} the same labels" if self.several else f", the same answer on {self.same:.1%}"
        out = [f"compared on {self.rows:,} {which}: largest difference {self.largest:.2g}{same}"]
        for size, rate in self.rows_per_second.items():
            before = self.source_rows_per_second[size]
            out.append(f"{size}: {rate:,.0f} rows/s against {before:,.0f} in PyTorch ({rate / before:.2f} times)")
        return out


Answer = Callable[[Sequence[str], Sequence[str] | None], np.ndarray]


def agreement(a: np.ndarray, b: np.ndarray, *, several: bool) -> float:
    """Share of the same answers of two sets of probabilities (n, C).

    With one label a row, the rows on which both have the same likeliest one. With several, each label of each row is
    a decision: of those that either gives, how many both do, 2 |A and B| / (|A| + |B|) (Dice, 1945; 1 where none is
    given). That is the same share where each row has one label, and labels that neither gives do not make it larger.

    >>> a = np.array([[0.9, 0.8], [0.9, 0.1]])
    >>> agreement(a, np.array([[0.9, 0.2], [0.9, 0.1]]), several=True)  # three labels and two, two of them shared
    0.8
    """
    if not several:
        return float((a.argmax(1) == b.argmax(1)).mean())
    ours, theirs = a >= THRESHOLD, b >= THRESHOLD
    given = int(ours.sum() + theirs.sum())
    return 2 * int((ours & theirs).sum()) / given if given else 1.0


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square difference of values (n,), in standard deviations of the first; infinite where those are 0
    and the others differ by more than rounding.

    >>> round(apart(np.array([0.0, 2.0]), np.array([0.1, 1.9])), 12)  # 0.1 with a spread of 1
    0.1
    """
    difference = float(np.sqrt(np.mean((a.astype(np.float64) - b) ** 2)))
    spread = float(np.std(a, dtype=np.float64))
    if spread > SPREAD * max(1.0, float(np.abs(a).max())):
        return difference / spread
    return 0.0 if difference <= SPREAD * max(1.0, float(np.abs(a).max())) else float("inf")


def compare(source: Answer, export: Answer, run: Path, *, pair: bool, classes: bool, several: bool = False) -> Parity:
    """Measure an export.

    Args:
        source, export: texts, pairs -> probabilities (n, C) or values (n,).
        run: a run folder, whose test rows are taken when it has them.
        classes: probabilities, not values. several: of several labels a row.
    """
    texts, pairs, real = rows_of(run, pair)
    a, b = source(texts, pairs), export(texts, pairs)
    difference = np.abs(a - b) / (1.0 if classes else np.maximum(1.0, np.abs(a)))
    before, after = speed([source, export], texts, pairs)
    return Parity(
        rows=len(texts),
        real=real,
        largest=float(difference.max()),
        same=agreement(a, b, several=several) if classes else None,
        off=None if classes else apart(a, b),
        several=several,
        source_rows_per_second=before,
        rows_per_second=after,
    )


def rows_of(run: Path, pair: bool) -> tuple[list[str], list[str] | None, bool]:
    """Up to ROWS test rows of a run, evenly over its file; else sample texts."""
    path = run / "predictions.csv"
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            rows: list[dict[str, Any]] = list(Rows(file))
        step = max(1, len(rows) // ROWS)
        some = rows[::step][:ROWS]
        if some and (not pair or "text_pair" in some[0]):
            return [r["text"] for r in some], [r["text_pair"] for r in some] if pair else None, True
    return list(SAMPLE), list(SAMPLE[::-1]) if pair else None, False


def speed(answers: Sequence[Answer], texts: list[str], pairs: list[str] | None) -> tuple[dict[str, float], ...]:
    """Rows a second of each, one by one and in batches of 32; the best of three turns, which they take in turn."""
    out: tuple[dict[str, float], ...] = tuple({} for _ in answers)
    for label, size, n in (("one by one", 1, min(len(texts), 32)), ("batches of 32", 32, min(len(texts), 128))):
        best = [float("inf")] * len(answers)
        for _ in range(REPEATS):
            for i, answer in enumerate(answers):
                started = time.perf_counter()
                for at in range(0, n, size):
                    stop = min(at + size, n)
                    answer(texts[at:stop], pairs[at:stop] if pairs is not None else None)
                best[i] = min(best[i], time.perf_counter() - started)
        for i, rates in enumerate(out):
            rates[label] = round(n / best[i], 2)
    return out
