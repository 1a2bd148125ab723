"""What tuning with adapters leaves for gradients afterwards: the adapters and Adam's moments, before they are merged.

A tuned run holds plain weights. Gradients by its adapters, and Adam's view of them (Xia et al., 2024, LESS), need the
two matrices of each layer and the moments of the optimiser, which are gone once the adapters are merged. So they are
written when tuning ends, and, where asked for, at the end of each epoch.

Shapes: r rank, a layer has `in` inputs and `out` outputs.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from tunewell.results import write_with

if TYPE_CHECKING:
    import torch

    from tunewell.recipe import Recipe

FILE = "adapters.safetensors"
ADDED = ("lora", "rslora", "pissa", "olora", "corda", "eva")  # variants whose layer is W x + scale · B A x
PARTS = ("A", "B")
FORMAT = "1"


@dataclass(frozen=True)
class Adapters:
    """Adapters at one moment of tuning.

    Attributes:
        weights: layer -> {"A": (r, in), "B": (out, r)}. scales: layer -> what the product is multiplied by.
        moments: the same keys -> (mean of gradients, mean of their squares) as AdamW keeps them; empty where the
            optimiser keeps none.
        steps: optimiser steps behind them. rate: mean learning rate since the moment before.
        betas, eps: of AdamW. others: other parameters that were tuned beside the adapters, by name.
    """

    weights: dict[str, dict[str, torch.Tensor]]
    scales: dict[str, float]
    moments: dict[str, dict[str, tuple[torch.Tensor, torch.Tensor]]]
    steps: int
    rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    others: dict[str, torch.Tensor] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write what `load` reads."""
        from safetensors.torch import save_file

        tensors = {f"{part}:{layer}": w for layer, both in self.weights.items() for part, w in both.items()}
        for layer, both in self.moments.items():
            for part, (mean, square) in both.items():
                tensors |= {f"mean-{part}:{layer}": mean, f"square-{part}:{layer}": square}
        tensors |= {f"other:{name}": w for name, w in self.others.items()}
        about = {
            "scales": self.scales, "steps": self.steps, "rate": self.rate, "betas": self.betas, "eps": self.eps,
        }  # fmt: skip
        kept = {k: v.detach().cpu().float().contiguous().clone() for k, v in tensors.items()}
        metadata = {"format": FORMAT, "about": json.dumps(about)}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_with(path, lambda place: save_file(kept, str(place), metadata))

    @classmethod
    def load(cls, path: Path) -> Adapters | None:
        """Read what was written; None where there is nothing, or a damaged file."""
        from safetensors import SafetensorError, safe_open

        if not path.is_file():
            return None
        try:
            with safe_open(str(path), "pt") as file:
                about = json.loads(file.metadata()["about"])
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no mapping)
            weights: dict[str, dict[str, Any]] = {}
            moments: dict[str, dict[str, Any]] = {}
            for layer in about["scales"]:
                weights[layer] = {part: tensors[f"{part}:{layer}"] for part in PARTS}
                if f"mean-A:{layer}" in tensors:
                    moments[layer] = {p: (tensors[f"mean-{p}:{layer}"], tensors[f"square-{p}:{layer}"]) for p in PARTS}
            others = {k.removeprefix("other:"): v for k, v in tensors.items() if k.startswith("other:")}
            betas = (float(about["betas"][0]), float(about["betas"][1]))
            return cls(weights, about["scales"], moments, about["steps"], about["rate"], betas, about["eps"], others)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return None


class Trace(TrainerCallback):
    """Writes the adapters of a tuning: `adapters.safetensors` when it ends, `epoch-<k>.safetensors` along the way.

    Args:
        folder: where to. each_epoch: also at the end of each epoch, k counted from 1.

    A checkpoint holds the learning rates of the epoch so far, so that a resumed tuning notes the same.
    """

    name, title, paper = "trace", "Learning rates of an epoch, in a checkpoint", ""

    def __init__(self, folder: Path, *, each_epoch: bool = False) -> None:
        self.folder, self.each_epoch = folder, each_epoch
        self.rates: list[float] = [0.0, 0.0]  # their sum since the last note, and their number

    def state(self) -> dict[str, torch.Tensor]:
        import torch

        return {"rates": torch.tensor(self.rates, dtype=torch.float64)}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        self.rates = state["rates"].tolist()

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, *, model: Any = None, optimizer: Any = None, **_: Any
    ) -> None:
        made = {id(p) for name, p in model.named_parameters() if ".lora_" in name}
        for group in optimizer.param_groups:
            if any(id(p) in made for p in group["params"]):
                self.rates = [self.rates[0] + float(group["lr"]), self.rates[1] + 1]
                return

    def on_step_end(
        self, args: Any, state: Any, control: Any, *, model: Any = None, optimizer: Any = None, **_: Any
    ) -> None:
        """The last step of an epoch: before Trainer writes its checkpoint, so that none is of an epoch without a file,
        and a tuning that was stopped within an epoch leaves none of it."""
        if not self.each_epoch or not (float(state.epoch).is_integer() or state.global_step >= state.max_steps):
            return
        self._write(self.path(math.ceil(state.epoch - 1e-3)), state, model, optimizer)
        self.rates = [0.0, 0.0]

    def path(self, epoch: int) -> Path:
        """The file of an epoch, counted from 1."""
        return self.folder / f"epoch-{epoch}.safetensors"

    def on_train_end(
        self, args: Any, state: Any, control: Any, *, model: Any = None, optimizer: Any = None, **_: Any
    ) -> None:
        self._write(self.folder / FILE, state, model, optimizer)

    def _write(self, path: Path, state: Any, model: Any, optimizer: Any) -> None:
        if state.is_world_process_zero and (found := adapters_of(model, optimizer, state.global_step, self.mean_rate)):
            found.save(path)

    @property
    def mean_rate(self) -> float:
        """Of the steps since the last note."""
        return self.rates[0] / self.rates[1] if self.rates[1] else 0.0


def adapters_of(model: Any, optimizer: Any, steps: int, rate: float) -> Adapters | None:
    """The adapters that PEFT has put into a model and the moments of their parameters; None without whole ones."""
    weights: dict[str, dict[str, Any]] = {}
    moments: dict[str, dict[str, Any]] = {}
    scales: dict[str, float] = {}
    own: set[int] = set()
    states = getattr(optimizer, "state", {})
    for name, module in model.named_modules():
        if "default" not in getattr(module, "lora_A", {}):
            continue
        both = {"A": module.lora_A["default"].weight, "B": module.lora_B["default"].weight}
        own |= {id(p) for p in both.values()}
        weights[name], scales[name] = both, float(module.scaling["default"])
        noted = {part: states.get(p, {}) for part, p in both.items()}
        if all("exp_avg" in n and "exp_avg_sq" in n for n in noted.values()):
            moments[name] = {part: (n["exp_avg"], n["exp_avg_sq"]) for part, n in noted.items()}
    if not weights or any(hasattr(w, "device_mesh") for both in weights.values() for w in both.values()):
        return None  # none, or spread over processes
    others = {n: p for n, p in model.named_parameters() if p.requires_grad and id(p) not in own}
    first = optimizer.param_groups[0] if moments else {}
    betas, eps = first.get("betas", (0.9, 0.999)), float(first.get("eps", 1e-8))
    whole = moments if len(moments) == len(weights) else {}
    return Adapters(weights, scales, whole, steps, rate, (float(betas[0]), float(betas[1])), eps, others)


def traces(recipe: Recipe) -> bool:
    """Whether a tuning by this recipe leaves adapters that gradients can be taken by afterwards."""
    plain = recipe.framework == "pytorch" and recipe.optim == "adamw" and not recipe.load_in_4bit
    return plain and "lora" in recipe.strategies and recipe.lora_variant in ADDED
