"""Losses by name. Each returns one value a row, so that the trainer decides how rows are averaged.

Shapes: B rows, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tunewell.errors import RecipeError

if TYPE_CHECKING:
    import torch

    from tunewell.tasks import TaskSpec

    Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

FITTING = {
    "single_label_classification": ("cross_entropy", "focal"),
    "multi_label_classification": ("bce", "focal"),
    "regression": ("mse", "mae", "huber"),
}


def loss_for(
    spec: TaskSpec,
    name: str,
    *,
    label_smoothing: float = 0.0,
    focal_gamma: float = 2.0,
    class_weights: torch.Tensor | None = None,
) -> Loss:
    """The loss of a task.

    Args:
        name: "auto", "cross_entropy", "focal" (Lin et al., 2017), "bce", "mse", "mae" or "huber".
        class_weights: (C,) weight of each class; multiplies the loss of its rows (its cells in multi-label).

    Returns:
        A function of logits (B, C) and labels to losses (B,): sums over outputs are means, so that
        a row counts the same however many labels there are.

    Raises:
        RecipeError: the loss does not fit the task.
    """
    import torch.nn.functional as F

    fitting = FITTING[spec.problem_type]
    if name == "auto":
        name = fitting[0]
    if name not in fitting:
        raise RecipeError(
            f"`loss: {name}` does not fit {spec.name}" + (" with several labels a row" if spec.multi_label else ""),
            where="loss",
            expected=" or ".join(fitting),
        )
    if label_smoothing and name != "cross_entropy":
        raise RecipeError(
            f"`label_smoothing_factor` does not go with `loss: {name}`",
            where="label_smoothing_factor",
            expected="loss: cross_entropy",
        )
    if class_weights is not None and spec.regression:
        raise RecipeError("`class_weight: balanced` needs classes", where="class_weight", expected="class_weight: none")

    def row_weights(labels: torch.Tensor) -> torch.Tensor | float:
        return 1.0 if class_weights is None else class_weights.to(labels.device)[labels]

    def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        losses = F.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=label_smoothing)
        return losses * row_weights(labels)

    def focal(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if spec.multi_label:
            losses = F.binary_cross_entropy_with_logits(logits.float(), labels, reduction="none")
            return (_cells(labels) * (1 - (-losses).exp()) ** focal_gamma * losses).mean(1)
        losses = F.cross_entropy(logits.float(), labels, reduction="none")
        return (1 - (-losses).exp()) ** focal_gamma * losses * row_weights(labels)

    def _cells(labels: torch.Tensor) -> torch.Tensor | float:
        return 1.0 if class_weights is None else labels * class_weights.to(labels.device) + (1 - labels)

    def bce(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (_cells(labels) * F.binary_cross_entropy_with_logits(logits.float(), labels, reduction="none")).mean(1)

    def mse(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (logits.float().squeeze(-1) - labels) ** 2

    def mae(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (logits.float().squeeze(-1) - labels).abs()

    def huber(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.huber_loss(logits.float().squeeze(-1), labels, reduction="none")

    return {"cross_entropy": cross_entropy, "focal": focal, "bce": bce, "mse": mse, "mae": mae, "huber": huber}[name]


def balanced_weights(spec: TaskSpec, targets) -> torch.Tensor:
    """Class weights n / (C · count) (as in scikit-learn); multi-label: negatives over positives a label."""
    import numpy as np
    import torch

    if spec.multi_label:
        positives = np.maximum(targets.sum(0), 1)
        return torch.tensor((len(targets) - positives) / positives, dtype=torch.float32)
    counts = np.maximum(np.bincount(targets, minlength=len(spec.labels)), 1)
    return torch.tensor(len(targets) / (len(spec.labels) * counts), dtype=torch.float32)
