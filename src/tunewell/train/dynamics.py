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

from tunewell.seal import DAMAGED_ARRAYS

if TYPE_CHECKING:
    import torch

FILE = "dynamics.npz"
CELLS = ("margin", "confidence", "other", "error")


@dataclass(frozen=True)
class Dynamics:
    """What was recorded; cells of rows that an epoch did not reach are NaN (−1 in `other`).

    Attributes:
        margin: (E, n) logit of the given label minus the largest other one; for several labels a row the smallest
            signed logit among the labels; for regression prediction − label, in the units of the labels' deviation.
        confidence: (E, n) probability of the given label (of the worst judged label; NaN for regression).
        other: (E, n) the likeliest class besides the given one (the worst judged label); −1 for regression.
        error: (E, n) ‖p − y‖₂, the length of the error vector of the probabilities (Paul et al., 2021); for regression
            |prediction − label|. NaN in files of earlier versions.
    """

    margin: np.ndarray
    confidence: np.ndarray
    other: np.ndarray
    error: np.ndarray

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

    def first(self, n: int) -> Dynamics:
        """Those of the first n rows."""
        return Dynamics(*(getattr(self, k)[:, :n] for k in CELLS))

    def save(self, path: Path) -> None:
        """Write what `load` reads."""
        with path.open("wb") as file:
            np.savez(file, **{k: getattr(self, k) for k in CELLS})

    @classmethod
    def load(cls, path: Path) -> Dynamics | None:
        """Read what was recorded; None when there is nothing, or a damaged file."""
        try:
            with np.load(path, allow_pickle=False) as file:
                error = file["error"] if "error" in file else np.full_like(file["margin"], np.nan)
                return cls(file["margin"], file["confidence"], file["other"], error)
        except DAMAGED_ARRAYS:
            return None


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over epochs of the cells that are there; NaN where none is."""
    there = np.isfinite(values)
    count = there.sum(axis=0)
    return np.where(count, np.where(there, values, 0).sum(axis=0) / np.maximum(count, 1), np.nan)


class RecordDynamics(TrainerCallback):
    """Keeps margin, confidence and error of each row in each epoch and writes them when tuning ends.

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
        self.error = np.full((epochs, rows), np.nan, dtype=np.float32)

    def gather(self) -> None:
        """The cells of all processes at each; every one has seen other rows."""
        from tunewell import processes

        if processes.together():
            arrays = self.margin, self.confidence, self.other, self.error
            merged = processes.merged(arrays, np.isfinite(self.margin))
            self.margin, self.confidence, self.other, self.error = merged

    def state(self) -> dict[str, torch.Tensor]:
        import torch

        return {k: torch.from_numpy(getattr(self, k)) for k in CELLS}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        for key, tensor in state.items():
            setattr(self, key, tensor.numpy().copy())

    def add(self, rows: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Note a batch: rows (B,) are places among the training rows, logits (B, C)."""
        place = rows.cpu().numpy()
        epoch = min(self.epoch, len(self.margin) - 1)
        margin, confidence, other = judge(self.kind, logits.detach().float(), labels)
        self.margin[epoch, place], self.confidence[epoch, place], self.other[epoch, place] = margin, confidence, other
        self.error[epoch, place] = error_norm(self.kind, logits.detach().float(), labels)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.epoch = int((state.epoch or 0) + 1e-3)  # a resumed epoch begins at a fraction

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._write(state)

    def _write(self, state: Any) -> None:
        from tunewell.results import write_with

        self.gather()
        if state.is_world_process_zero:
            write_with(self.path, Dynamics(self.margin, self.confidence, self.other, self.error).save)


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


def error_norm(kind: str, logits: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """(B,) ‖p − y‖₂ of each row of a batch, see `Dynamics`: 0 where the label is certain, √2 where another one is.

    >>> import torch
    >>> norms = error_norm("single_label_classification", torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
    >>> [round(float(norm), 4) for norm in norms]
    [0.7071]
    """
    import torch

    if kind == "regression":
        return (logits.squeeze(-1) - labels).abs().cpu().numpy()
    if kind == "multi_label_classification":
        return (torch.sigmoid(logits) - labels.float()).norm(dim=-1).cpu().numpy()
    given = torch.nn.functional.one_hot(labels, logits.shape[-1])
    return (torch.softmax(logits, dim=-1) - given).norm(dim=-1).cpu().numpy()
