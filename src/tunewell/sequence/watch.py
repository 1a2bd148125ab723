"""The task's own batch, seen as it passes through the body: what terms on the new task's inputs work with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback


class Watch(TrainerCallback):
    """Remembers the first pass through the body in each optimiser step.

    Use as a context manager around tuning: the hook is gone afterwards, also after an error.

    Attributes:
        ids, mask: (B, T); hidden: (B, T, H), with its graph.
    """

    def __init__(self) -> None:
        self.ids: Any = None
        self.mask: Any = None
        self.hidden: Any = None
        self._open = False
        self._handle: Any = None

    def attach(self, model: Any) -> None:
        self.detach()
        self._handle = model.base_model.register_forward_hook(self._see, with_kwargs=True)

    def detach(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._handle = self.ids = self.mask = self.hidden = None

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: Any) -> None:
        self.detach()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._open = True

    def _see(self, module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if self._open and module.training:
            self._open = False
            self.ids = args[0] if args else kwargs["input_ids"]
            self.mask, self.hidden = kwargs["attention_mask"], output.last_hidden_state


class Rows:
    """Which rows of a split a batch holds, told by their token ids; equal rows have equal teachers.

    Args:
        encoded: token ids of n rows, not padded.
    """

    def __init__(self, encoded: list[list[int]]) -> None:
        self.place = {np.asarray(ids, dtype=np.int64).tobytes(): i for i, ids in enumerate(encoded)}

    def of(self, ids: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
        """(B,) rows of a padded batch (B, T)."""
        tokens, keep = ids.cpu().numpy(), mask.cpu().numpy().astype(bool)
        own = [np.ascontiguousarray(row[k]).tobytes() for row, k in zip(tokens, keep, strict=True)]
        return np.array([self.place[key] for key in own])
