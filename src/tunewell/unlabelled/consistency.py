"""Consistency: what the model answers to a text, it shall answer to the text slightly changed (FixMatch; Sohn et al.,
2020, here with texts; UDA: Xie et al., 2020).

At each step beside the task's batch, on texts u of the pool:

    weight · 1/B Σ over u of 1(max q_u ≥ τ) · H(argmax q_u, p(· | strong(u))),   q_u = p(· | u), no gradient

The weak view is the text as it is, read without dropout; the strong one has words swapped, left out or misspelt, by
the operations of `tunewell augment`. A row that the model is not sure of counts for nothing, so that the term begins
small and grows with what is known.

Shapes: B texts, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from tunewell.train.hooks import Tuning

THRESHOLD = 0.95  # of the paper
TIMES = 2  # texts of the pool over rows of the task's batch; the paper takes 7 images
STRONG, SHARE = ("swap", "delete", "keyboard"), 0.2  # operations, and the share of words that each touches
PASS = 32  # texts a pass through the model at most


def consistency_loss(weak: torch.Tensor, strong: torch.Tensor, threshold: float) -> tuple[torch.Tensor, torch.Tensor]:
    """FixMatch's term, and which texts count.

    Args:
        weak, strong: (B, C) logits of the two views; no gradient goes into `weak`. threshold: τ.

    Returns:
        Scalar: the sum of the cross-entropies of the texts that count over all B. (B,) booleans.
    """
    from torch.nn import functional

    confidence, guess = weak.detach().float().softmax(-1).max(-1)
    counts = confidence >= threshold
    losses = functional.cross_entropy(strong.float(), guess, reduction="none")
    return (losses * counts).sum() / len(losses), counts


def changed(text: str, rng: np.random.Generator) -> str:
    """The strong view of a text."""
    from tunewell.augment.operations import OPERATIONS, split, words_of

    pieces = split(text)
    for name in rng.permutation(STRONG)[:2]:
        pieces = OPERATIONS[name](pieces, max(1, round(SHARE * len(words_of(pieces)))), rng)
    return " ".join("".join(pieces).split())


class Consistency:
    """A strategy (see `train/hooks.py`) that a recipe does not name: `unlabelled_methods` does."""

    name = "consistency"
    title = "The same answer to a text and to the text slightly changed"
    paper = "Sohn et al., 2020, FixMatch; Xie et al., 2020, Unsupervised data augmentation"
    more_rows = True  # words of the pool are learned too

    def __init__(
        self, texts: Sequence[str], pairs: Sequence[str] | None, *, max_length: int, threshold: float, weight: float
    ) -> None:
        self.texts, self.pairs = texts, pairs
        self.max_length, self.threshold, self.weight = max_length, threshold, weight
        self.seen = self.counted = 0

    def prepare(self, tuning: Tuning) -> None:
        self.tuning, self.rows = tuning, min(len(self.texts), TIMES * tuning.rows)
        tuning.echo(f"consistency: {self.rows} texts of the pool a step")

    def chosen(self, step: int) -> np.ndarray:
        """(B,) the texts of a step: the pool is gone through in an order that each pass draws anew."""
        n, first = len(self.texts), step * self.rows
        places = np.arange(first, first + self.rows)
        orders = {p: np.random.default_rng([self.tuning.seed, p]).permutation(n) for p in set((places // n).tolist())}
        return np.array([orders[p // n][p % n] for p in places.tolist()])

    def batch_loss(self, model: Any, inputs: dict[str, Any], outputs: Any, step: int) -> torch.Tensor | None:
        if not self.weight:
            return None
        rng = np.random.default_rng([self.tuning.seed, step, 1])
        total: Any = 0.0
        places = self.chosen(step)
        for start in range(0, len(places), PASS):
            part = places[start : start + PASS].tolist()
            texts = [self.texts[i] for i in part]
            pairs = None if self.pairs is None else [self.pairs[i] for i in part]
            weak = self._weak(model, texts, pairs)
            strong = model(**self._batch(model, [changed(t, rng) for t in texts], pairs)).logits
            loss, counts = consistency_loss(weak, strong, self.threshold)
            total = total + loss * (len(part) / len(places))
            self.seen, self.counted = self.seen + len(part), self.counted + int(counts.sum())
        return self.weight * total

    def _weak(self, model: Any, texts: list[str], pairs: list[str] | None) -> Any:
        import torch

        training = model.training
        model.eval()
        try:
            with torch.no_grad():
                return model(**self._batch(model, texts, pairs)).logits
        finally:
            model.train(training)

    def _batch(self, model: Any, texts: list[str], pairs: list[str] | None) -> dict[str, Any]:
        from tunewell.models.embed import encode, pad

        encoded = encode(self.tuning.tokenizer, texts, pairs, self.max_length)
        padded = pad(self.tuning.tokenizer, encoded, range(len(texts)))
        return {k: v.to(model.device) for k, v in padded.items()}

    def state(self) -> dict[str, torch.Tensor]:
        import torch

        return {"figures": torch.tensor([self.seen, self.counted])}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        self.seen, self.counted = (int(n) for n in state["figures"])
