"""O-LoRA: each task is learned in directions that are orthogonal to those of the tasks before it.

A task is tuned by low-rank adapters ΔW = B A beside frozen weights (LoRA), and
o_lora_weight · Σ over layers and earlier tasks i of Σ |A_i A_tᵀ| is added to its loss (Wang et al., 2023, equations 8
and 9; 0.5 is theirs). Afterwards the adapters are merged into the weights, which is what the sum over all adapters is,
and A_t is kept for the tasks to come: no row is stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewell.sequence.past import Past
from tunewell.strategies.lora import LowRank

if TYPE_CHECKING:
    import torch

    from tunewell.sequence.job import TaskJob
    from tunewell.train.hooks import Tuning, Weights

END = ".lora_A.default.weight"


class OrthogonalLowRank(LowRank):
    name = "o_lora"
    title = "Low-rank adapters in directions orthogonal to those of earlier tasks (O-LoRA)"
    paper = "Wang et al., 2023, Orthogonal subspace learning for language model continual learning"

    def __init__(self, past: Past, recipe: dict[str, Any], *, weight: float = 0.5) -> None:
        super().__init__({**recipe, "lora_variant": "lora"})
        self.past, self.weight = past, weight
        self.before: Weights = past.left.get(self.name, {})

    def prepare(self, tuning: Tuning) -> None:
        super().prepare(tuning)
        self.path = directions_in(tuning.cache)
        self.earlier = {name: a.to(tuning.model.device) for name, a in self.before.items()}

    def extra_loss(self, model: Any, step: int) -> torch.Tensor | None:
        if not self.earlier or not self.weight:
            return None
        return self.weight * overlap(self.earlier, directions(model))

    def finish(self, model: Any) -> None:
        from safetensors.torch import save_file

        from tunewell.results import write_with
        from tunewell.seal import seal

        own = {name: a.detach().cpu().contiguous().clone() for name, a in directions(model).items()}
        super().finish(model)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_with(self.path, lambda temporary: save_file(own, str(temporary)))
        seal(self.path)

    def leave(self, model: Any, job: TaskJob) -> Weights:
        """(tasks · rank, inputs) of each layer: the directions of all tasks so far."""
        import torch
        from safetensors.torch import load_file

        from tunewell.errors import DamagedRecordError
        from tunewell.seal import broken
        from tunewell.stages.tune import place

        folder = job.folder / place(job)
        path = directions_in(folder / "cache")
        if (why := broken(path)) is not None:
            raise DamagedRecordError(
                f"does not count: {why}", where=str(path), expected="the directions that tuning has written",
                remedy=f"delete {folder}; the same command tunes this task again",
            )  # fmt: skip
        own = load_file(str(path))
        return {name: torch.cat([self.before[name], a]) if name in self.before else a for name, a in own.items()}


def directions_in(cache: Path) -> Path:
    return cache / "directions.safetensors"


def directions(model: Any) -> Weights:
    """Layer -> A (rank, inputs) of its adapter."""
    return {n.removesuffix(END): p for n, p in model.named_parameters() if n.endswith(END)}


def overlap(earlier: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Σ over layers of Σ |A_i Aᵀ|, for earlier directions (tasks · rank, inputs) and own ones (rank, inputs).

    >>> import torch
    >>> a = {"w": torch.tensor([[1.0, 0.0], [0.0, 1.0]])}
    >>> overlap(a, {"w": torch.tensor([[3.0, -4.0]])}).item(), overlap({}, a).item()
    (7.0, 0.0)
    """
    import torch

    total = torch.zeros(())
    for name, a in own.items():
        if name in earlier:
            total = total.to(a.device) + (earlier[name] @ a.T).abs().sum()
    return total
