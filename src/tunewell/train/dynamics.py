"""What tuning thought of each training row, epoch by epoch: the raw material of data maps and of AUM.

The logits are at hand in the training loop, so no further pass is needed. They are those of the
training pass itself (dropout on, before the step that learns from the row), as in Pleiss et al., 2020, Identifying
Mislabeled Data using the Area Under the Margin Ranking, and Swayamdipta et al., 2020, Dataset Cartography.

Shapes: E epochs, n training rows, B rows of a batch, C outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import TrainerCallback

if TYPE_CHECKING:
    import torch

FILE = "dynamics.npz"


@dataclass(frozen=True)
class Dynamics:
    """What was recorded; cells of rows that an epoch did not reach are NaN (−1 in `other`).

    Attributes:
        margin: (E, n) logit of the given label minus the largest other one; for several labels a row the smallest
            signed logit among the labels; for regression prediction − label, in the units of the labels' deviation.
        confidence: (E, n) probability of the given label (of the worst judged label; NaN for regression).
        other: (E, n) the likeliest class besides the given one (the worst judged label); −1 for regression.
    """

    margin: np.ndarray
    confidence: np.ndarray
    other: np.ndarray

    @property
    def epochs(self) -> int:
        return len(self.margin)

    @property
    def aum(self) -> np.ndarray:
        """(n,) area under the margin: the mean margin over epochs (Pleiss et al., 2020)."""
        return _mean(self.margin)

    @property
    def mean_confidence(self) -> np.ndarray:
        """(n,) mean probability of the given label: "confidence" of a data map (Swayamdipta et al., 2020)."""
        return _mean(self.confidence)

    @property
    def variability(self) -> np.ndarray:
        """(n,) its standard deviation over epochs: "variability" of a data map."""
        return np.sqrt(_mean((self.confidence - self.mean_confidence) ** 2))

    @classmethod
    def load(cls, path: Path) -> Dynamics | None:
        """Read what was recorded; None when there is nothing, or a damaged file."""
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(file["margin"], file["confidence"], file["other"])
        except (OSError, ValueError, KeyError, EOFError):
            return None


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over epochs of the cells that are there; NaN where none is."""
    there = np.isfinite(values)
    count = there.sum(axis=0)
    return np.where(count, np.where(there, values, 0).sum(axis=0) / np.maximum(count, 1), np.nan)


class RecordDynamics(TrainerCallback):
    """Keeps margin and confidence of each row in each epoch and writes them when tuning ends.

    Args:
        rows: n. epochs: E at the most. kind: `problem_type` of the task. path: the file to write.

    Checkpoints hold what there is so far (`state`, as of a strategy), so that a resumed tuning notes the same.
    """

    name, title, paper = "dynamics", "What tuning thought of each row, in a checkpoint", ""

    def __init__(self, rows: int, epochs: int, kind: str, path: Path) -> None:
        self.kind, self.path, self.epoch = kind, path, 0
        self.margin = np.full((epochs, rows), np.nan, dtype=np.float32)
        self.confidence = np.full((epochs, rows), np.nan, dtype=np.float32)
        self.other = np.full((epochs, rows), -1, dtype=np.int32)

    def gather(self) -> None:
        """The cells of all processes at each; every one has seen other rows."""
        from tunewell import processes

        if processes.together():
            arrays = self.margin, self.confidence, self.other
            self.margin, self.confidence, self.other = processes.merged(arrays, np.isfinite(self.margin))

    def state(self) -> dict[str, torch.Tensor]:
        import torch

        return {k: torch.from_numpy(getattr(self, k)) for k in ("margin", "confidence", "other")}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        for key, tensor in state.items():
            setattr(self, key, tensor.numpy().copy())

    def add(self, rows: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Note a batch: rows (B,) are places among the training rows, logits (B, C)."""
        place = rows.cpu().numpy()
        epoch = min(self.epoch, len(self.margin) - 1)
        margin, confidence, other = judge(self.kind, logits.detach().float(), labels)
        self.margin[epoch, place], self.confidence[epoch, place], self.other[epoch, place] = margin, confidence, other

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.epoch = int((state.epoch or 0) + 1e-3)  # a resumed epoch begins at a fraction

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._write(state)

    def _write(self, state: Any) -> None:
        from tunewell.results import write_with

        self.gather()
        margin, confidence, other = self.margin, self.confidence, self.other
        if state.is_world_process_zero:

            def save(path: Path) -> None:
                with path.open("wb") as file:
                    np.savez(file, margin=margin, confidence=confidence, other=other)

            write_with(self.path, save)


def judge(kind: str, logits: torch.Tensor, labels: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Margin, confidence and the rival of each row of a batch, see `Dynamics`.

    >>> import torch
    >>> margin, confidence, other = judge(
    ...     "single_label_classification", torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([2]))
    >>> float(margin[0]), int(other[0])
    (-1.0, 0)
    """
    import torch

    if kind == "regression":
        off = (logits.squeeze(-1) - labels).cpu().numpy()
        return off, np.full_like(off, np.nan), np.full(len(off), -1, dtype=np.int32)
    if kind == "multi_label_classification":
        signed = logits * (2 * labels.float() - 1)
        worst, other = signed.min(dim=-1)
        return worst.cpu().numpy(), torch.sigmoid(worst).cpu().numpy(), other.cpu().numpy()
    given = logits.gather(1, labels[:, None]).squeeze(1)
    best, other = logits.scatter(1, labels[:, None], -torch.inf).max(dim=-1)
    confidence = torch.softmax(logits, dim=-1).gather(1, labels[:, None]).squeeze(1)
    return (given - best).cpu().numpy(), confidence.cpu().numpy(), other.cpu().numpy()
