"""What a tuning computes, against what this machine can: operations, their share of the measured peak, energy.

Operations are counted by formula: two for each weight of a linear layer and token (padding counted, it is computed
too), once forward, once for the gradient of the inputs, once for that of the weights; layers below everything that is
trained have no backward pass, frozen ones above it no gradient of their weights. Attention adds 4 · H · T² forward for
a row of T tokens and hidden size H in each layer, and twice that backward. Embeddings, heads, norms, activations and
what strategies compute beside the task's batches are left out. With the operations that torch counts in a step it
agrees within a few percent (tests/train/test_accounting.py).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from tunewell.results import Accounting

POWERCAP = Path("/sys/class/powercap")
SIZE, TRIES = 1536, 4


@dataclass(frozen=True)
class Work:
    """Operations of one token in linear layers, and of one pair of tokens of a row in attention, to train a model."""

    a_token: float
    a_pair: float

    def of(self, cells: int, pairs: int) -> float:
        """Operations of batches with so many tokens (padding counted) and Σ T² over their rows."""
        return self.a_token * cells + self.a_pair * pairs


def work_of(model: Any, kept: int = 0) -> Work:
    """What training one token of a model computes, as its parameters are frozen now; see the head of this file.

    Args:
        kept: so many of the first layers answer from memory (see `train.frozen`) and compute nothing.
    """
    from tunewell.strategies.layers import numbered

    trained = numbered(model, (n for n, p in model.named_parameters() if p.requires_grad))
    embeddings = any(p.requires_grad for p in model.get_input_embeddings().parameters())
    lowest: float = 0 if embeddings else min((d for d in trained.values() if d is not None), default=math.inf)
    modules = dict(model.named_modules())
    inside = [(d, modules[n]) for n, d in numbered(model, modules).items() if d is not None and d > kept]
    a_token = 0.0
    for depth, layer in inside:
        weight = getattr(layer, "weight", None)
        if hasattr(layer, "in_features") and hasattr(layer, "out_features") and isinstance(weight, Tensor):
            back = depth >= lowest
            a_token += 2.0 * layer.in_features * layer.out_features * (1 + back + (back and weight.requires_grad))
    hidden: Any = getattr(model.config, "hidden_size", None) or getattr(model.config, "d_model", 0)
    layers = {depth for depth, _ in inside}
    return Work(a_token, 4.0 * hidden * sum(3 if depth >= lowest else 1 for depth in layers))


@cache
def peak_flops(kind: str, device: str, threads: int) -> float:
    """The best of a few large matrix products on this machine, in operations a second.

    Args:
        kind: bfloat16 or float32. device: of torch. threads: so that another number is measured anew.
    """
    import torch

    a, b = (torch.randn(SIZE, SIZE, device=device).to(getattr(torch, kind)) for _ in range(2))
    best = 0.0
    for _ in range(TRIES):
        started = time.perf_counter()
        a @ b
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        best = max(best, 2 * SIZE**3 / (time.perf_counter() - started))
    return best


class Energy:
    """Joules of the processor packages since it was made, by RAPL; None where they cannot be read.

    They are those of the whole machine, of other programs too.
    """

    def __init__(self, root: Path = POWERCAP) -> None:
        self.counters = [p for p in sorted(root.glob("*-rapl:*")) if p.name.count(":") == 1]
        self.before = self._read()

    def _read(self) -> list[int] | None:
        try:
            return [int((p / "energy_uj").read_text()) for p in self.counters] or None
        except (OSError, ValueError):
            return None

    def joules(self) -> float | None:
        """Energy so far; a counter that has begun anew once is put right."""
        now = self._read()
        if self.before is None or now is None:
            return None
        total = 0
        for path, start, end in zip(self.counters, self.before, now, strict=True):
            if end < start:
                end += int((path / "max_energy_range_uj").read_text())
            total += end - start
        return total / 1e6


def account(
    work: Work, *, cells: int, pairs: int, seconds: float, bf16: bool, device: str, joules: float | None
) -> Accounting:
    """The record of a tuning.

    Args:
        cells: tokens with padding. pairs: Σ T². seconds: of training steps, without validation and preparation.
    """
    import torch

    kind = "bfloat16" if bf16 else "float32"
    flops = work.of(cells, pairs)
    peak = peak_flops(kind, device, torch.get_num_threads())
    rate = flops / seconds if seconds > 0 else 0.0
    return Accounting(
        flops=flops,
        seconds=round(seconds, 3),
        flops_per_second=rate,
        peak_flops_per_second=peak,
        share_of_peak=rate / peak if peak else 0.0,
        joules=joules,
    )
