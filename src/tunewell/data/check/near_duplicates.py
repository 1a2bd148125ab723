"""Near duplicates by MinHash (Broder, 1997) with banding, every candidate checked by its true Jaccard similarity.

A text is the set of its character 4-grams after normalisation, which serves Chinese as it serves
English. 32 hashes in 8 bands of 4 find a pair of similarity 0.8 with probability 0.98 and one of
0.9 with 0.9999. Shingling and hashing are vectorised over a batch of rows, so that a million short
rows take minutes and about 64 bytes a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from tunewell.data.split import text_key

if TYPE_CHECKING:
    from tunewell.data.check.scan import Scan

GRAM, HASHES, BANDS = 4, 32, 8
SIMILAR = 0.8  # Jaccard similarity from which two texts count as near duplicates
LEAST_CHARS = 16  # shorter texts are alike by chance
READ_CHARS = 1_000  # characters read of a text
MAX_PAIRS = 300_000  # candidates checked at most


def shingles(text: str) -> np.ndarray:
    """Sorted distinct hashes (uint64) of the character 4-grams of a normalised text."""
    points = np.frombuffer(text[:READ_CHARS].encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    return np.unique(_grams(points))


def _grams(points: np.ndarray) -> np.ndarray:
    """Hash of each window of 4 code points (21 bits each, mixed)."""
    if len(points) < GRAM:
        points = np.pad(points, (0, GRAM - len(points)))
    out = np.zeros(len(points) - GRAM + 1, dtype=np.uint64)
    for i in range(GRAM):
        out = (out ^ points[i : len(points) - GRAM + 1 + i]) * np.uint64(0x9E3779B97F4A7C15)
        out ^= out >> np.uint64(29)
    return out


def _multipliers(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    odd = rng.integers(1, 2**63, HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return odd, rng.integers(0, 2**63, HASHES, dtype=np.uint64)


def band_hashes(texts: list[str], seed: int = 0) -> np.ndarray:
    """(n, BANDS) uint64: rows with an equal entry in a column are candidates. Texts are normalised ones."""
    parts = [t[:READ_CHARS].ljust(GRAM) for t in texts]
    points = np.frombuffer("".join(parts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    lengths = np.array([len(p) for p in parts])
    grams = _grams(points)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    # windows that run over the end of their text repeat the text's first window instead
    owner = np.repeat(np.arange(len(parts)), lengths)[: len(grams)]
    over = np.arange(len(grams)) > ends[owner] - GRAM
    grams = np.where(over, grams[starts[owner]], grams)
    starts = np.minimum(starts, len(grams) - 1)
    odd, add = _multipliers(seed)
    rows = HASHES // BANDS
    out = np.zeros((len(parts), BANDS), dtype=np.uint64)
    for h in range(HASHES):
        mixed = grams * odd[h] + add[h]
        mixed ^= mixed >> np.uint64(31)
        least = np.minimum.reduceat(mixed * np.uint64(0xD6E8FEB86659FD93), starts)
        band = h // rows
        out[:, band] = (out[:, band] ^ least) * np.uint64(0x9E3779B97F4A7C15)
        out[:, band] ^= out[:, band] >> np.uint64(32)
    return out


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """|a ∩ b| / |a ∪ b| of two sorted sets of hashes."""
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / max(1, len(a) + len(b) - common)


def near_duplicates(scan: Scan, progress: Callable[[int], None] | None = None) -> list[tuple[int, int, float]]:
    """Pairs (row, row, similarity) of near duplicates, rows in the concatenation, lower row first.

    Of rows with the same normalised text only the first takes part. Within a crowd of like texts
    each row is paired with the one before it, so that n like rows give about n pairs and not n².
    """
    _, first = np.unique(scan.keys, return_index=True)
    distinct = np.sort(first)
    bands = np.empty((len(distinct), BANDS), dtype=np.uint64)
    long_enough = np.zeros(len(distinct), dtype=bool)
    at = 0
    for texts in _texts(scan, distinct):
        bands[at : at + len(texts)] = band_hashes(texts)
        long_enough[at : at + len(texts)] = [len(t) >= LEAST_CHARS for t in texts]
        at += len(texts)
        if progress is not None:
            progress(len(texts))
    return _checked(scan, distinct, _candidates(bands, long_enough))


def _candidates(bands: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """(m, 2) positions that share a band, each with its neighbour in the sorted band, without repeats."""
    rows = np.flatnonzero(usable)
    found = []
    for b in range(BANDS):
        column = bands[rows, b]
        order = np.argsort(column, kind="stable")
        same = column[order][1:] == column[order][:-1]
        found.append(np.stack([rows[order[:-1][same]], rows[order[1:][same]]], axis=1))
    pairs = np.unique(np.concatenate(found), axis=0) if found else np.empty((0, 2), dtype=np.int64)
    return pairs[:MAX_PAIRS]


def _checked(scan: Scan, distinct: np.ndarray, pairs: np.ndarray) -> list[tuple[int, int, float]]:
    wanted = np.unique(pairs)
    sets: dict[int, np.ndarray] = {}
    out = []
    block = 20_000  # rows whose shingles are held at a time
    order = np.argsort(pairs[:, 0], kind="stable")
    if len(wanted) <= block:
        for position, text in zip(wanted, _each(scan, distinct[wanted]), strict=True):
            sets[int(position)] = shingles(text)
    for i in order:
        a, b = int(pairs[i, 0]), int(pairs[i, 1])
        x, y = (sets[p] if p in sets else shingles(_text(scan, int(distinct[p]))) for p in (a, b))
        similarity = jaccard(x, y)
        if similarity >= SIMILAR:
            low, high = sorted((int(distinct[a]), int(distinct[b])))
            out.append((low, high, similarity))
    return out


def _text(scan: Scan, row: int) -> str:
    found = scan.get(row)
    return text_key(found["text"] + " " + found.get("text_pair", ""))


def _each(scan: Scan, rows: np.ndarray) -> Iterator[str]:
    for texts in _texts(scan, rows):
        yield from texts


def _texts(scan: Scan, rows: np.ndarray, size: int = 5_000) -> Iterable[list[str]]:
    """Normalised texts of ascending rows, in batches."""
    for name, (start, stop) in scan.bounds.items():
        mine = rows[(rows >= start) & (rows < stop)] - start
        for i in range(0, len(mine), size):
            batch = scan.splits[name][mine[i : i + size].tolist()]
            pairs = batch.get("text_pair")
            yield [text_key(t if pairs is None else f"{t} {pairs[j]}") for j, t in enumerate(batch["text"])]
