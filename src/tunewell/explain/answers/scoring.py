"""What scorers of answers have in common: an output is a log-probability, and that is what faithfulness watches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tunewell.errors import ModelError
from tunewell.explain.scorer import Scorer

if TYPE_CHECKING:
    import torch

FOR_ANSWERS = ("gradient_x_input", "integrated_gradients", "occlusion", "smoothgrad", "lime", "shapley", "random")


class AnswerScorer(Scorer):
    """Outputs that are log-probabilities; a score is one of them as it is."""

    @property
    def by_size(self) -> bool:
        return False

    @property
    def unit(self) -> str:
        return "log-probability"

    def log_odds(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return logits.gather(1, targets[:, None]).squeeze(1)

    def score(self, logits: np.ndarray, target: int) -> np.ndarray:
        return np.asarray(logits, dtype=np.float64)[..., target]

    def probability(self, logits: np.ndarray, target: int) -> np.ndarray:
        return self.score(logits, target)

    def refuse(self, method: str) -> None:
        """Make sure that a method is one for answers.

        Raises:
            ModelError: it reads a classifier's own layers.
        """
        if method not in FOR_ANSWERS:
            raise ModelError(
                f"`{method}` is for classifiers, not for answers",
                where="method",
                expected="auto, " + ", ".join(FOR_ANSWERS),
            )
