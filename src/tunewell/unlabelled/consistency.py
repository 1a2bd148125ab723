"""Consistency: what the model answers to a text, it shall answer to the text slightly changed (FixMatch; Sohn et al.,
2020, here with texts; UDA: Xie et al., 2020).

At each step beside the task's batch, on texts u of the pool:

    weight · 1/B Σ over u of 1(max q_u ≥ τ) · H(argmax q_u, p(· | strong(u))),   q_u = p(· | u), no gradient

`unlabelled_consistency: soft` takes UDA's term in place of this one, and `unlabelled_tsa` its annealing: see `uda.py`.

The weak view is the text as it is, read without dropout; the strong one has words swapped, left out or misspelt, by
the operations of `tunewell augment`. A row that the model is not sure of counts for nothing.

Left alone a model that has learned little agrees with itself on one class. Three things hold against that:

- q is aligned to the classes of the labelled rows, q̂(c) ∝ q(c) · share(c) / p̃(c), where p̃ is the running mean of q
  (ReMixMatch; Berthelot et al., 2020): a class that is given too often counts for less.
- FixMatch's τ is 0.95, which a model that has seen a few dozen rows seldom reaches. Where the recipe sets none, τ is
  the running mean of max q̂, which begins at 1/C (FreeMatch; Wang et al., 2023).
- The weight climbs over the first half of the steps as exp(−5 (1 − t)²), t from 0 to 1 (Laine & Aila, 2017).

A running mean keeps 0.9 of itself at a step, where the papers keep 0.999 of it over trainings a thousand times as long.

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


class Running:
    """What the model has answered of late: see the head of this file.

    Attributes:
        level: the running mean of confidence, τ where none is set. means: (C,) p̃, float64.
        shares: (C,) of the classes among the labelled rows.
    """

    def __init__(self, shares: Sequence[float]) -> None:
        import torch

        self.shares = torch.tensor(shares, dtype=torch.float64)
        self.level, self.means = 1 / len(shares), torch.full((len(shares),), 1 / len(shares), dtype=torch.float64)

    def update(self, weak: torch.Tensor) -> torch.Tensor:
        """Take a batch's logits (B, C) in; returns the logits of the aligned probabilities."""
        logits = weak.detach().double().cpu()
        self.means = MEMORY * self.means + (1 - MEMORY) * logits.softmax(-1).mean(0)
        aligned = logits.log_softmax(-1) + self.shares.clamp(min=1e-9).log() - self.means.clamp(min=1e-9).log()
        self.level = MEMORY * self.level + (1 - MEMORY) * aligned.softmax(-1).max(-1).values.mean().item()
        return aligned.to(weak.device, weak.dtype)


def climb(step: int, steps: int) -> float:
    """Share of the weight at a step: exp(−5 (1 − t)²) over the first half of the steps, then 1.

    >>> [round(climb(s, 20), 4) for s in (0, 5, 10, 19)]
    [0.0067, 0.2865, 1.0, 1.0]
    """
    t = min(1.0, 2 * step / max(1, steps))
    return float(np.exp(-5 * (1 - t) ** 2))


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
        shares: Sequence[float],
        max_length: int,
        threshold: float | None,
        weight: float,
        soft: bool = False,
        tsa: str = "none",
    ) -> None:
        self.texts, self.pairs, self.weight = texts, pairs, weight
        self.max_length, self.threshold, self.running = max_length, threshold, Running(shares)
        self.soft, self.tsa, self.step = soft, tsa, 0
        self.seen = self.counted = 0  # texts of the pool
        self.rows_seen = self.rows_counted = 0  # labelled rows, where they are annealed

    def prepare(self, tuning: Tuning) -> None:
        self.tuning, self.rows = tuning, min(len(self.texts), TIMES * tuning.rows)
        tuning.echo(f"consistency: {self.rows} texts of the pool a step")

    def chosen(self, step: int) -> np.ndarray:
        """(B,) the texts of a step: the pool is gone through in an order that each pass draws anew."""
        n, first = len(self.texts), step * self.rows
        places = np.arange(first, first + self.rows)
        orders = {p: np.random.default_rng([self.tuning.seed, p]).permutation(n) for p in set((places // n).tolist())}
        return np.array([orders[p // n][p % n] for p in places.tolist()])

    def begin_step(self, model: Any, step: int) -> None:
        self.step = step

    def row_losses(self, model: Any, outputs: Any, labels: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        """The task's losses under training-signal annealing."""
        from tunewell.unlabelled.uda import annealed, tsa_threshold

        if self.tsa == "none":
            return losses
        threshold = tsa_threshold(self.tsa, self.step, self.tuning.steps, outputs.logits.shape[-1])
        losses, counts = annealed(losses, outputs.logits, labels, threshold)
        self.rows_seen, self.rows_counted = self.rows_seen + len(counts), self.rows_counted + int(counts.sum())
        return losses

    def labelled_loss(self, model: Any, outputs: Any, labels: torch.Tensor, step: int) -> torch.Tensor | None:
        import torch

        from tunewell.unlabelled.uda import soft_loss

        if not self.weight:
            return None
        rng = np.random.default_rng([self.tuning.seed, step, 1])
        total: Any = 0.0
        places = self.chosen(step).tolist()
        parts = [places[start : start + PASS] for start in range(0, len(places), PASS)]
        aligned = self.running.update(torch.cat([self._weak(model, *self._texts(part)) for part in parts]))
        threshold = self.running.level if self.threshold is None else self.threshold
        for part, weak in zip(parts, aligned.split(PASS), strict=True):
            texts, pairs = self._texts(part)
            strong = model(**self._batch(model, [changed(t, rng) for t in texts], pairs)).logits
            loss, counts = (soft_loss if self.soft else consistency_loss)(weak, strong, threshold)
            total = total + loss * (len(part) / len(places))
            self.seen, self.counted = self.seen + len(part), self.counted + int(counts.sum())
        return self.weight * climb(step, self.tuning.steps) * total

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

        level = torch.tensor(self.running.level, dtype=torch.float64)
        figures = torch.tensor([self.seen, self.counted, self.rows_seen, self.rows_counted])
        return {"figures": figures, "level": level, "means": self.running.means}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        self.seen, self.counted, self.rows_seen, self.rows_counted = (int(n) for n in state["figures"])
        self.running.level, self.running.means = float(state["level"]), state["means"].double()
