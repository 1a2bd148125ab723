"""Batches of like length, the same number of them in every epoch, and their padding.

Rows are sorted by length with a little seeded jitter and cut into batches of `rows` rows, fewer
where a batch of long rows would pass the token budget; then the batches are shuffled. Members and
order change with the epoch, the number of batches does not, so the schedule is known beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

# Batches are padded to multiples, since libraries of matrix products keep what they make for every new shape.
SHORT, WIDTHS = 16, (2, 8)  # up to SHORT tokens to even numbers, beyond to multiples of eight
JITTER = 0.05  # rows change places with rows within about this share of their length


class LikeLengthBatches:
    """A batch sampler over rows of known lengths.

    Args:
        lengths: (n,) tokens of each row.
        rows: rows a batch.
        tokens: padded tokens a batch at the most; a single longer row stands alone.
        seed: with the epoch, decides members and order.

    >>> batches = LikeLengthBatches(np.array([5, 9, 5, 9]), rows=2, tokens=100, seed=0)
    >>> len(batches), sorted(sum(batches, []))
    (2, [0, 1, 2, 3])
    """

    def __init__(self, lengths: np.ndarray, *, rows: int, tokens: int, seed: int) -> None:
        self.lengths = np.maximum(np.asarray(lengths, dtype=np.int64), 1)
        self.rows, self.tokens, self.seed, self.epoch = rows, tokens, seed, 0
        self.bounds = self._bounds()

    def _bounds(self) -> list[int]:
        """Where the sorted rows are cut; the same in every epoch."""
        ordered = np.sort(self.lengths)
        bounds, start, n = [0], 0, len(ordered)
        while start < n:
            stop = min(start + self.rows, n)
            # jitter can bring a longer row in, so the budget is held against a length with that margin
            while stop > start + 1 and (stop - start) * ordered[stop - 1] > self.tokens:
                stop -= 1
            bounds.append(stop)
            start = stop
        return bounds

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __iter__(self) -> Iterator[list[int]]:
        generator = np.random.default_rng([self.seed, self.epoch])
        noise = generator.uniform(1 - JITTER, 1 + JITTER, len(self.lengths))
        order = np.lexsort((generator.random(len(self.lengths)), self.lengths * noise))
        for i in generator.permutation(len(self)):
            yield order[self.bounds[i] : self.bounds[i + 1]].tolist()


class RandomBatches:
    """Batches drawn at random, for rows that are not padded; the order is that of `transformers.Trainer`.

    Args:
        n: rows. rows: rows a batch. seed: with the epoch, decides the order.

    >>> batches = RandomBatches(5, rows=2, seed=0)
    >>> len(batches), sorted(sum(batches, []))
    (3, [0, 1, 2, 3, 4])
    """

    def __init__(self, n: int, *, rows: int, seed: int) -> None:
        self.n, self.rows, self.seed, self.epoch = n, rows, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.n // self.rows)

    def __iter__(self) -> Iterator[list[int]]:
        import torch

        order = torch.randperm(self.n, generator=torch.Generator().manual_seed(self.seed + self.epoch)).tolist()
        for start in range(0, self.n, self.rows):
            yield order[start : start + self.rows]


class Collator:
    """Pads encoded rows to the longest of their batch; labels as the loss wants them.

    Args:
        pad_token_id: id to pad with.
        float_labels: labels are float32 (regression, multi-label) and not class ids.
        longest: tokens that a row may have at the most. Named, batches padded on the right are widened a little,
            up to it.
    """

    def __init__(
        self, pad_token_id: int, *, float_labels: bool, padding_side: str = "right", longest: int | None = None
    ) -> None:
        self.pad_token_id, self.float_labels, self.padding_side = pad_token_id, float_labels, padding_side
        self.longest = longest if padding_side == "right" else None

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        import torch

        width = max(len(row["input_ids"]) for row in rows)
        if self.longest is not None:
            step = WIDTHS[width > SHORT]
            width = max(width, min(-(-width // step) * step, self.longest))
        shape = (len(rows), width)
        ids = np.full(shape, self.pad_token_id, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        types = np.zeros(shape, dtype=np.int64) if "token_type_ids" in rows[0] else None
        for i, row in enumerate(rows):
            n = len(row["input_ids"])
            place = slice(0, n) if self.padding_side == "right" else slice(width - n, width)
            ids[i, place], mask[i, place] = row["input_ids"], 1
            if types is not None:
                types[i, place] = row["token_type_ids"]
        batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        if types is not None:
            batch["token_type_ids"] = torch.from_numpy(types)
        if "labels" in rows[0]:
            labels = np.asarray([row["labels"] for row in rows], dtype=np.float32 if self.float_labels else np.int64)
            batch["labels"] = torch.from_numpy(labels)
        if "row" in rows[0]:
            batch["row"] = torch.from_numpy(np.asarray([row["row"] for row in rows], dtype=np.int64))
        return batch
