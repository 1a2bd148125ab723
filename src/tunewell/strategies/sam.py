"""Sharpness-aware minimisation: gradients from the worst point nearby (Foret et al., 2021).

Each batch's gradient g is taken twice: at θ, and at θ + ρ g / ‖g‖, where the second one is what the
optimiser sees. It leads to flatter minima, from which less is lost by moving, for twice the time. With
accumulation each batch climbs by its own gradient (m-sharpness); both passes use the same dropout masks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any


class SharpnessAware:
    name = "sam"
    title = "Sharpness-aware minimisation"
    paper = "Foret et al., 2021, Sharpness-aware minimization for efficiently improving generalization"

    def __init__(self, options: dict[str, Any]) -> None:
        self.rho = float(options["sam_rho"])

    def perturb(self, model: Any) -> Callable[[], None] | None:
        import torch

        moved = [p for p in model.parameters() if p.grad is not None]
        if not self.rho or not moved:
            return None
        norm = float(torch.nn.utils.get_total_norm([p.grad for p in moved]))
        if not math.isfinite(norm) or norm == 0:
            return None
        with torch.no_grad():
            before = [p.detach().clone() for p in moved]
            for p in moved:
                p.add_(p.grad, alpha=self.rho / norm)

        def back() -> None:
            with torch.no_grad():
                for p, old in zip(moved, before, strict=True):
                    p.copy_(old)

        return back
