"""Tuning with a few labels a class: contrast between texts, the classes' names as further texts, a fitted head.

A head learns little from eight rows a class, but eight rows are 28 pairs of texts that belong together and many more
that do not (SetFit; Tunstall et al., 2022). Here every step compares all texts of its batch with one another, the
supervised contrastive loss of Khosla et al. (2020):

    L = mean over i of −1/|P(i)| Σ over p in P(i) of log( exp(zᵢ·zₚ / τ) / Σ over a ≠ i of exp(zᵢ·zₐ / τ) )

where z is what the last layer of the head is given, at length 1, and P(i) are the other texts of the class of i.
SetFit draws pairs instead and learns each for itself; a batch of 16 texts holds 120 pairs and costs 16 passes.

- The head stands on the sentence embedding (`models.pooled`) and is a logistic regression on it, fitted before tuning
  and again after it; in between it learns along, by the task's own loss.
- Names of classes that are words ("Business", "direct_deposit") are texts of their class: rows of the fit, and part of
  every comparison. Whether they help is measured: cross-validated log loss on the frozen rows decides how much they
  count, or that they are left out.
- Batches hold several classes with two rows or more each, in turn, so that every comparison has both sides.

How many steps, and whether there is contrast, follows the rows (`plan`).

Shapes: B texts, C classes, H size of what the head is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.strategies.lpft import frozen_features, last_linear

if TYPE_CHECKING:
    import torch

    from tunewell.train.hooks import Tuning, Weights

FEW = 64  # labels in the median class up to which there is contrast, and no rows are taken away for validation
LEAST_STEPS, PASSES, PASSES_OF_MANY = 20, 4, 3
TEMPERATURE = 0.1
C = 10.0  # of the logistic regression, on embeddings of length 1
NAME_WEIGHTS = (0, 1, 2, 4)  # how many rows a class's name counts for
FOLDS, JUDGED = 4, 2000  # of the rows on which that is decided, and how many of them at most
WORD = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True)
class Plan:
    """What so many labels a class are tuned with.

    Attributes:
        steps: optimiser steps. contrast: weight of the contrastive term; 0 for none.
    """

    steps: int
    contrast: float


def plan(counts: np.ndarray, rows: int) -> Plan:
    """How to tune: 20 steps or four passes over the rows, whichever is more. Beyond 64 rows in the median class the
    task's own loss has enough to learn from: three passes of it from the fitted head (LP-FT), without contrast.

    Args:
        counts: rows of each class that has some. rows: of a batch.
    """
    few = float(np.median(counts)) <= FEW
    steps = int(np.ceil((PASSES if few else PASSES_OF_MANY) * counts.sum() / rows))
    return Plan(max(LEAST_STEPS, steps), 1.0 if few else 0.0)


class FewShot:
    name = "fewshot"
    title = "Contrast between texts and a fitted head, for few labels"
    paper = (
        "Tunstall et al., 2022, Efficient few-shot learning without prompts; Khosla et al., 2020, Supervised "
        "contrastive learning"
    )
    fits_head = True
    refits = True  # its `finish` comes after others have changed the weights

    def __init__(self, options: dict[str, Any]) -> None:
        self.batch_size = int(options["per_device_eval_batch_size"])
        self.steps = options["fewshot_steps"]
        self.names_wanted = bool(options["fewshot_names"])
        self.weight = 0  # rows that a name counts for
        self.names: Any = None

    # ------------------------------------------------------------ before tuning

    def batches(self, lengths: np.ndarray, labels: np.ndarray, *, rows: int, tokens: int, seed: int) -> ClassBatches:
        """All steps as one pass; see `ClassBatches`."""
        counts = np.bincount(labels)
        batches = ClassBatches(lengths, labels, rows=rows, tokens=tokens, seed=seed)
        self.plan = plan(counts[counts > 0], batches.rows)
        batches.steps = self.steps or self.plan.steps
        return batches

    def prepare(self, tuning: Tuning) -> None:
        import torch

        from tunewell.strategies.quadratic import cached

        self.tuning, self.head = tuning, last_linear(tuning.model)
        self.classes = self.head.out_features
        self.labels = np.asarray(tuning.train["labels"])
        names = self._names()

        def measure() -> Weights:
            features = self._features(tuning.train)
            named = self._features(names) if names is not None else None
            weight = 0 if named is None else name_weight(features, self.labels, named)
            fitted = fit(*with_names(features, self.labels, named, weight), self.classes)
            return {"weight": fitted[0], "bias": fitted[1], "names": torch.tensor(weight)}

        state = cached(tuning, self.name, measure)
        self.weight = int(state["names"])
        self.names = names if self.weight else None
        self._put(state["weight"], state["bias"])
        self.seen: Any = None
        self.handle = self.head.register_forward_pre_hook(self._keep)
        told = "no names of classes" if not self.weight else f"a class's name counts for {self.weight} rows"
        tuning.echo(f"fewshot: {len(self.labels):,} rows, {self.classes} classes, {tuning.steps} steps; {told}")

    def _keep(self, module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        self.seen = inputs[0]

    def _names(self) -> Any:
        """The classes' names as encoded rows; None where they are no words."""
        from datasets import Dataset

        config = self.tuning.model.config
        known: Any = config.id2label
        labels = [str(known[i]) for i in range(self.classes)]
        if not self.names_wanted or (spoken := names_of(labels)) is None:
            return None
        encoded = self.tuning.tokenizer(spoken, truncation=True, max_length=32)
        keep = [c for c in encoded if c != "attention_mask"]
        return Dataset.from_dict({**{c: encoded[c] for c in keep}, "labels": list(range(self.classes))})

    def _features(self, rows: Any) -> np.ndarray:
        found = frozen_features(self.tuning, self.head, rows, self.batch_size).double().numpy()
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)

    def _put(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        import torch

        with torch.no_grad():
            self.head.weight.copy_(weight)
            if self.head.bias is not None:
                self.head.bias.copy_(bias)

    # ------------------------------------------------------------ while tuning, and after it

    def labelled_loss(self, model: Any, outputs: Any, labels: torch.Tensor, step: int) -> torch.Tensor | None:
        """The contrast among a batch and the names of its classes, which are learned as rows of the batch are."""
        import torch

        z, own = self.seen, 0.0
        if not self.plan.contrast:
            return None
        if self.names is not None:
            present = torch.unique(labels).tolist()
            classes = labels.new_tensor(present)
            named = model(**self._padded(present, labels.device))
            own = self.tuning.row_loss(named.logits, classes).sum() / self.tuning.rows
            z, labels = torch.cat([z, self.seen]), torch.cat([labels, classes])
        self.seen = None
        return own + self.plan.contrast * contrast(z, labels, TEMPERATURE)

    def _padded(self, index: Sequence[int], device: Any) -> dict[str, Any]:
        from tunewell.models.embed import pad

        columns = {c: self.names[c] for c in self.names.column_names if c != "labels"}
        columns["attention_mask"] = [[1] * len(ids) for ids in columns["input_ids"]]
        return {k: v.to(device) for k, v in pad(self.tuning.tokenizer, columns, index).items()}

    def finish(self, model: Any) -> None:
        """The head is fitted again, on what tuning has made of the rows."""
        self.handle.remove()
        named = self._features(self.names) if self.names is not None else None
        rows = with_names(self._features(self.tuning.train), self.labels, named, self.weight)
        self._put(*fit(*rows, self.classes))


class ClassBatches:
    """A batch sampler that deals out classes and rows in turn, all steps in one pass.

    A batch holds as many classes as there is room for with two rows each, and as many rows of each as fit.

    Args:
        lengths: (n,) tokens of each row; labels: (n,) class ids. tokens: of a batch, at the lengths' mean.

    >>> batches = ClassBatches(np.full(6, 5), np.array([0, 0, 0, 1, 1, 1]), rows=4, tokens=999, steps=3, seed=0)
    >>> [sorted(np.array([0, 0, 0, 1, 1, 1])[batch].tolist()) for batch in batches]
    [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]]
    """

    def __init__(
        self, lengths: np.ndarray, labels: np.ndarray, *, rows: int, tokens: int, seed: int, steps: int = 1
    ) -> None:
        mean = max(1.0, float(np.mean(lengths)))
        self.rows = int(max(4, min(rows, tokens / mean)))
        self.steps, self.seed, self.epoch = steps, seed, 0
        self.members = [found for c in np.unique(labels) if len(found := np.flatnonzero(labels == c))]

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        generator = np.random.default_rng([self.seed, self.epoch])
        classes = min(len(self.members), max(2, self.rows // 2))
        a_class = max(2, self.rows // classes)
        turn = _turns(len(self.members), generator)
        dealt = [_turns(len(rows), generator) for rows in self.members]
        for _ in range(self.steps):
            chosen = _distinct(turn, classes)
            taken = {c: _distinct(dealt[c], min(a_class, len(self.members[c]))) for c in chosen}
            yield [int(self.members[c][i]) for c in chosen for i in taken[c]]


def _turns(n: int, generator: np.random.Generator) -> Iterator[int]:
    """0 to n − 1 in a new order again and again."""
    while True:
        yield from generator.permutation(n).tolist()


def _distinct(turn: Iterator[int], n: int) -> list[int]:
    """The next n of a turn that differ from one another."""
    found: list[int] = []
    while len(found) < n:
        i = next(turn)
        if i not in found:
            found.append(i)
    return found


def contrast(z: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """The supervised contrastive loss (Khosla et al., 2020, equation 2, `L_out`), a mean over texts with a partner.

    Args:
        z: (B, H), of any length; labels: (B,) class ids.

    Returns:
        A scalar; 0 where no text has a partner.
    """
    import torch
    from torch.nn.functional import normalize

    z = normalize(z.float(), dim=-1)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    log_p = (z @ z.T / temperature).masked_fill(itself, float("-inf")).log_softmax(-1)
    partners = (labels[:, None] == labels[None]) & ~itself
    many = partners.sum(1)
    losses = -log_p.masked_fill(~partners, 0.0).sum(1) / many.clamp(min=1)
    return (losses * (many > 0)).sum() / (many > 0).sum().clamp(min=1)


def names_of(labels: Sequence[str]) -> list[str] | None:
    """Class names as texts; None where they are no words, or not told apart by them.

    >>> names_of(["direct_deposit", "Sci/Tech"]), names_of(["0", "1"]), names_of(["class 1", "class 2"])
    (['direct deposit', 'sci tech'], None, None)
    """
    spoken = [" ".join(re.sub(r"[\W_]+", " ", label).casefold().split()) for label in labels]
    words = [" ".join(WORD.findall(text)) for text in spoken]
    return spoken if all(words) and len(set(words)) == len(words) else None


def with_names(
    features: np.ndarray, labels: np.ndarray, named: np.ndarray | None, weight: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and, `weight` times, the classes' names (C, H) as further rows."""
    if named is None or not weight:
        return features, labels
    return np.concatenate([features, *[named] * weight]), np.concatenate([labels, *[np.arange(len(named))] * weight])


def fit(features: np.ndarray, labels: np.ndarray, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (C, H) and bias (C,) of the logistic regression of rows (n, H), as scikit-learn's at the module's C."""
    import torch

    from tunewell.evaluate.linear import fit_logistic

    found = fit_logistic("single-label", features, np.eye(classes)[labels], C, tolerance=1e-9)
    weight, bias = np.ascontiguousarray(found.weights.T, np.float32), found.bias.astype(np.float32)
    return torch.from_numpy(weight), torch.from_numpy(bias)


def name_weight(features: np.ndarray, labels: np.ndarray, named: np.ndarray) -> int:
    """How many rows a class's name counts for: the one of NAME_WEIGHTS with the least cross-validated log loss.

    Args:
        features: (n, H) frozen rows; labels: (n,); named: (C, H).
    """
    from tunewell.evaluate.calibrators import log_losses
    from tunewell.evaluate.linear import fit_logistic

    few = np.random.default_rng(0).permutation(len(labels))[:JUDGED]
    features, labels = features[few], labels[few]
    fold = np.empty(len(labels), dtype=np.int64)  # rows of a class go to the folds in turn
    fold[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % min(FOLDS, len(labels))
    losses = []
    for weight in NAME_WEIGHTS:
        total = 0.0
        for k in range(int(fold.max()) + 1):
            held = fold == k
            x, y = with_names(features[~held], labels[~held], named, weight)
            model = fit_logistic("single-label", x, np.eye(len(named))[y], C, tolerance=1e-3)
            total += float(log_losses(model.scores(features[held]), labels[held]).sum())
        losses.append(total)
    return NAME_WEIGHTS[int(np.argmin(losses))]
