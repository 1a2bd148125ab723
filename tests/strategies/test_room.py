"""The whole loop with layers computed again, and with batches that fit: the same weights as said by hand."""

from __future__ import annotations

import json

import pytest
import torch

from tunewell.train import room


def same(one, other) -> bool:
    return all(torch.equal(one.weights[k], other.weights[k]) for k in one.weights)


@pytest.mark.parametrize("names", [["plain"], ["distill", "average"], ["lora"], ["sam"]], ids=lambda n: "+".join(n))
def test_activation_checkpointing_changes_nothing_but_memory(small_job, names):
    one = small_job(*names, folder="a")
    other = small_job(*names, folder="b", activation_checkpointing=True)
    assert same(one, other)
    assert not getattr(other.model, "is_activation_checkpointing", False)


def test_too_little_memory_means_smaller_batches(small_job, monkeypatch, tmp_path):
    """Room for some rows: the tuning is the one with so many rows and batches a step, and says so."""
    by_hand = small_job("plain", folder="a", per_device_train_batch_size=2, gradient_accumulation_steps=4)
    seen = []
    own = room.kept_bytes
    monkeypatch.setattr(room, "kept_bytes", lambda *asked: seen.append(own(*asked)) or seen[-1])
    trainable = sum(p.numel() for p in by_hand.model.parameters())
    monkeypatch.setattr(
        room, "free_bytes", lambda device: (room.A_WEIGHT * trainable + 3 * room.BESIDE * seen[-1]) / room.USABLE
    )
    found = small_job("plain", folder="b", per_device_train_batch_size=8, auto_find_batch_size=True)
    chosen = [json.loads(p.read_text()) for p in tmp_path.rglob(room.CHOSEN)]
    assert chosen == [{"rows": 2, "of": 8}]
    assert same(by_hand, found)
