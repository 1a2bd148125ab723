"""What tuning a candidate would cost here: a measured training step, extrapolated; memory by a formula.

Memory while tuning, beside the process itself: weights, gradients and AdamW's two moments at four bytes each, so
16 bytes a parameter, and the activations that the backward pass needs. These are counted in the measured step (the
tensors that autograd keeps, weights left out) and scaled to the largest batch that tuning makes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from tunewell.recipe import Recipe

BYTES_A_PARAMETER = 16


@dataclass(frozen=True)
class Step:
    """One training step: `seconds`, `tokens` of its batch with padding, bytes of activations kept for `backward`."""

    seconds: float
    tokens: int
    activation_bytes: int


def measured_step(
    model: Any, batch: dict[str, Any], loss: Callable[[Any, dict[str, Any]], torch.Tensor], *, bf16: bool
) -> Step:
    """Time a training step after one that warms up. The learning rate is zero: the weights stay as they are.

    Args:
        batch: padded tensors with `input_ids` (B, T). loss: model and batch -> one value.
    """
    import torch

    from tunewell.train.room import keeping
    from tunewell.train.vocabulary import only_used_rows

    device = model.device
    batch = {k: v.to(device) for k, v in batch.items()}
    used = np.unique(batch["input_ids"].cpu().numpy())
    model.train()
    try:
        with only_used_rows(model, used):
            optimiser = torch.optim.AdamW(
                [p for p in model.parameters() if p.requires_grad], lr=0.0, weight_decay=0.0, fused=True
            )

            def step() -> float:
                started = time.perf_counter()
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                    value = loss(model, batch)
                value.backward()
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                return time.perf_counter() - started

            with keeping(model) as kept:
                step()
            seconds = step()
    finally:
        model.eval()
    return Step(seconds, int(batch["input_ids"].numel()), sum(kept.values()))


def steps_of(recipe: Recipe, rows: int) -> int:
    """Optimiser steps that a recipe takes on so many training rows.

    >>> from tunewell.recipe import Recipe
    >>> steps_of(Recipe(num_train_epochs=3), 1000), steps_of(Recipe(max_steps=50), 1000)
    (189, 50)
    """
    if recipe.max_steps > 0:
        return recipe.max_steps
    batches = -(-rows // min(recipe.per_device_train_batch_size, rows))
    return math.ceil(recipe.num_train_epochs * -(-batches // recipe.gradient_accumulation_steps))


def tuning_seconds(
    recipe: Recipe, step: Step, *, rows: int, validation_rows: int, tokens_a_row: float, tokens_per_second: float
) -> float:
    """Expected time of plain tuning: training in proportion to its tokens, and validation after each epoch."""
    a_step = min(recipe.per_device_train_batch_size, rows) * recipe.gradient_accumulation_steps * tokens_a_row
    training = steps_of(recipe, rows) * step.seconds * a_step / step.tokens
    measurements = max(1.0, recipe.num_train_epochs) * recipe.evals_per_epoch
    if recipe.max_steps > 0:
        measurements = 1.0
    return training + measurements * validation_rows * tokens_a_row / max(tokens_per_second, 1e-9)


def memory_mb(recipe: Recipe, step: Step, *, parameters: int, max_length: int, rows: int) -> float:
    """Expected peak in MB, see the head of this file."""
    from tunewell.train.tune import TOKENS_A_ROW

    batch = min(recipe.per_device_train_batch_size, rows)
    largest = max(max_length, batch * min(max_length, TOKENS_A_ROW))
    return (BYTES_A_PARAMETER * parameters + step.activation_bytes * largest / step.tokens) / 2**20
