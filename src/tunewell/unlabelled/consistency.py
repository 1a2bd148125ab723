"""Consistency: what the model answers to a text, it shall answer to the text slightly changed (FixMatch; Sohn et al.,
2020, here with texts; UDA: Xie et al., 2020).

At each step beside the task's batch, on texts u of the pool:

    weight · 1/B Σ over u of 1(max q_u ≥ τ) · H(argmax q_u, p(· | strong(u))),   q_u = p(· | u), no gradient

The weak view is the text as it is, read without dropout; the strong one has words swapped, left out or misspelt, by
the operations of `tunewell augment`. A row that the model is not sure of counts for nothing.

FixMatch's τ is 0.95, which a model that has seen a few dozen rows seldom reaches. Where the recipe sets none, τ is that
of FreeMatch (Wang et al., 2023): the running mean of the model's confidence, lower for classes that it seldom gives,

    τ ← λ τ + (1 − λ) mean over u of max q_u,   p̃ ← λ p̃ + (1 − λ) mean over u of q_u,   τ(c) = p̃(c) / max p̃ · τ

which begins at 1/C. λ is 0.9 here and 0.999 in the paper, whose trainings are a thousand times as long.

Shapes: B texts, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from tunewell.train.hooks import Tuning

MEMORY = 0.9  # λ of the running means
TIMES = 2  # texts of the pool over rows of the task's batch; the paper takes 7 images
STRONG, SHARE = ("swap", "delete", "keyboard"), 0.2  # operations, and the share of words that each touches
PASS = 32  # texts a pass through the model at most


def consistency_loss(
    weak: torch.Tensor, strong: torch.Tensor, threshold: float | torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """FixMatch's term, and which texts count.

    Args:
        weak, strong: (B, C) logits of the two views; no gradient goes into `weak`.
        threshold: τ, or (C,) one for each class.

    Returns:
        Scalar: the sum of the cross-entropies of the texts that count over all B. (B,) booleans.
    """
    from torch.nn import functional

    confidence, guess = weak.detach().float().softmax(-1).max(-1)
    counts = confidence >= (threshold if isinstance(threshold, float) else threshold[guess])
    losses = functional.cross_entropy(strong.float(), guess, reduction="none")
    return (losses * counts).sum() / len(losses), counts


class Thresholds:
    """FreeMatch's thresholds, see the head of this file.

    Attributes:
        level: τ. means: (C,) p̃, float64.
    """

    def __init__(self, classes: int) -> None:
        import torch

        self.level, self.means = 1 / classes, torch.full((classes,), 1 / classes, dtype=torch.float64)

    def update(self, weak: torch.Tensor) -> torch.Tensor:
        """Take a batch's logits (B, C) in; returns the (C,) thresholds after it."""
        q = weak.detach().double().softmax(-1).cpu()
        self.level = MEMORY * self.level + (1 - MEMORY) * q.max(-1).values.mean().item()
        self.means = MEMORY * self.means + (1 - MEMORY) * q.mean(0)
        return self.means / self.means.max() * self.level


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
    paper = (
        "Sohn et al., 2020, FixMatch; Wang et al., 2023, FreeMatch; Xie et al., 2020, Unsupervised data augmentation"
    )
    more_rows = True  # words of the pool are learned too
    last = True  # others read what the model's modules saw last: that must be the task's batch

    def __init__(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        *,
        classes: int,
        max_length: int,
        threshold: float | None,
        weight: float,
    ) -> None:
        self.texts, self.pairs, self.weight = texts, pairs, weight
        self.max_length, self.threshold, self.adaptive = max_length, threshold, Thresholds(classes)
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

    def labelled_loss(self, model: Any, outputs: Any, labels: torch.Tensor, step: int) -> torch.Tensor | None:
        if not self.weight:
            return None
        rng = np.random.default_rng([self.tuning.seed, step, 1])
        total: Any = 0.0
        places = self.chosen(step).tolist()
        parts = [places[start : start + PASS] for start in range(0, len(places), PASS)]
        weaks = [self._weak(model, *self._texts(part)) for part in parts]
        threshold: Any = self.threshold
        if threshold is None:
            import torch

            threshold = self.adaptive.update(torch.cat(weaks)).to(model.device)
        for part, weak in zip(parts, weaks, strict=True):
            texts, pairs = self._texts(part)
            strong = model(**self._batch(model, [changed(t, rng) for t in texts], pairs)).logits
            loss, counts = consistency_loss(weak, strong, threshold)
            total = total + loss * (len(part) / len(places))
            self.seen, self.counted = self.seen + len(part), self.counted + int(counts.sum())
        return self.weight * total

    def _texts(self, places: list[int]) -> tuple[list[str], list[str] | None]:
        pairs = None if self.pairs is None else [self.pairs[i] for i in places]
        return [self.texts[i] for i in places], pairs

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

        level = torch.tensor(self.adaptive.level, dtype=torch.float64)
        return {"figures": torch.tensor([self.seen, self.counted]), "level": level, "means": self.adaptive.means}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        self.seen, self.counted = (int(n) for n in state["figures"])
        self.adaptive.level, self.adaptive.means = float(state["level"]), state["means"].double()
