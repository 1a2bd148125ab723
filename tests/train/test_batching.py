"""Batches of like length: every row once, the same number in every epoch, within the budget, little padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewell.train.batching import JITTER, Collator, LikeLengthBatches


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=150),
    st.integers(1, 20),
    st.integers(32, 2000),
    st.integers(0, 9),
)
def test_promises(lengths, rows, tokens, seed):
    batches = LikeLengthBatches(np.array(lengths), rows=rows, tokens=tokens, seed=seed)
    first = list(batches)
    assert sorted(i for b in first for i in b) == list(range(len(lengths)))
    assert len(first) == len(batches)
    assert list(batches) == first  # the same epoch again
    batches.set_epoch(1)
    assert len(list(batches)) == len(first)
    widest = (1 + JITTER) / (1 - JITTER)
    for batch in first:
        assert len(batch) <= rows
        padded = len(batch) * max(lengths[i] for i in batch)
        assert len(batch) == 1 or padded <= tokens * widest * widest + len(batch)


def test_epochs_differ_and_padding_is_small():
    lengths = np.random.default_rng(0).integers(5, 120, 640)
    batches = LikeLengthBatches(lengths, rows=16, tokens=16 * 128, seed=3)
    first = list(batches)
    batches.set_epoch(1)
    assert list(batches) != first
    cells = sum(len(b) * max(lengths[b]) for b in first)
    at_random = np.random.default_rng(1).permutation(640).reshape(-1, 16)
    assert cells / lengths.sum() < 1.1 < sum(16 * lengths[b].max() for b in at_random) / lengths.sum()


def test_collator_pads_both_sides():
    rows = [{"input_ids": [5, 6, 7], "labels": 1}, {"input_ids": [8], "labels": 0}]
    right = Collator(0, float_labels=False)(rows)
    assert right["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert right["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert right["labels"].dtype == torch.int64
    left = Collator(9, float_labels=True, padding_side="left")(rows)
    assert left["input_ids"].tolist() == [[5, 6, 7], [9, 9, 8]]
    assert left["labels"].dtype == torch.float32


@pytest.mark.parametrize(
    ("lengths", "longest", "side", "width"),
    [
        ((3, 5), 64, "right", 6),
        ((8,), 64, "right", 8),
        ((17, 2), 64, "right", 24),
        ((17, 2), 19, "right", 19),  # a model with 19 positions
        ((17, 2), None, "right", 17),
        ((17, 2), 64, "left", 17),  # positions count from the left
    ],
)
def test_batches_are_as_wide_as_a_multiple_where_the_model_has_room(lengths, longest, side, width):
    collate = Collator(7, float_labels=False, padding_side=side, longest=longest)
    batch = collate([{"input_ids": [1] * n, "labels": 0} for n in lengths])
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (len(lengths), width)
    assert batch["attention_mask"].sum(1).tolist() == list(lengths)
    assert (batch["input_ids"][batch["attention_mask"] == 0] == 7).all()
