"""Online EWC: weights that earlier tasks rest on are held, with one importance a weight for all of them.

Adds online_ewc_weight / 2 · Σ F̃ (θ − θ*)², θ* the weights that the last task left. After task i
F̃ = online_ewc_decay · F̃ + F_i (Schwarz et al., 2018, equation 9, after Kirkpatrick et al., 2017): the memory does not
grow with the tasks, and no row is stored. F_i is the diagonal Fisher information of the task's own likelihood a row,
the answers drawn from the model (the true one, and not the empirical; Kunstner, Balles and Hennig, 2019), on at most
512 of its training rows. Only the body is held: an earlier task's head is its own and stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tunewell.sequence.past import Past

if TYPE_CHECKING:
    import torch

    from tunewell.sequence.job import TaskJob
    from tunewell.train.hooks import Tuning, Weights

ROWS = 512  # of a task that its importances are measured on, at most
BATCH = 32


class OnlineEWC:
    name = "online_ewc"
    title = "Online elastic weight consolidation: weights that earlier tasks rest on are held"
    paper = "Schwarz et al., 2018, Progress & compress; Kirkpatrick et al., 2017"

    def __init__(self, past: Past, *, weight: float = 1.0) -> None:
        self.past, self.weight = past, weight

    def prepare(self, tuning: Tuning) -> None:
        from tunewell.strategies.ewc import in_use
        from tunewell.strategies.quadratic import anchors

        self.importance = {n: in_use(tuning.model, n, f) for n, f in self.past.left.get(self.name, {}).items()}
        self.anchor = {n: a for n, a in anchors(tuning.model).items() if n in self.importance}

    def after_backward(self, model: Any, step: int) -> None:
        from tunewell.strategies.quadratic import pull

        if self.weight and self.importance:
            pull(model, self.anchor, self.weight, self.importance)

    def leave(self, model: Any, job: TaskJob) -> Weights:
        """F̃ after this task, for the next."""
        import numpy as np

        from tunewell.models.embed import encode
        from tunewell.strategies.layers import shared
        from tunewell.strategies.quadratic import padded

        rows = job.splits["train"]
        if len(rows) > ROWS:
            chosen = np.random.default_rng(job.recipe.seed).choice(len(rows), ROWS, replace=False)
            rows = rows.select(sorted(int(i) for i in chosen))
        pairs = list(rows["text_pair"]) if job.spec.pair else None
        encoded = encode(job.tokenizer, list(rows["text"]), pairs, job.max_length)
        batches = padded(job.tokenizer, encoded, BATCH, model.device)
        own = task_fisher(model, batches, [name for name, _ in shared(model)], seed=job.recipe.seed)
        return carried(self.past.left.get(self.name, {}), own, self.past.options["online_ewc_decay"])


def task_fisher(model: Any, batches: Iterable[dict[str, torch.Tensor]], names: Iterable[str], *, seed: int) -> Weights:
    """The diagonal Fisher information of a classifier a row: name -> (shape of the parameter) E[(∂ log p(y) / ∂θ)²].

    The draws of the rows of a batch are independent with scores of mean zero, so the squared gradient of their sum is,
    on average, the sum of their squares.
    """
    import torch

    from tunewell.strategies.likelihood import drawn_likelihood
    from tunewell.strategies.quadratic import squared_gradients

    generator = torch.Generator().manual_seed(seed)

    return squared_gradients(model, batches, names, lambda batch: drawn_likelihood(model(**batch).logits, generator))


def carried(before: Weights, own: Weights, decay: float) -> Weights:
    """decay · before + own; what was not there before counts as 0.

    >>> import torch
    >>> carried({"w": torch.tensor([2.0])}, {"w": torch.tensor([1.0]), "v": torch.tensor([3.0])}, 0.5)
    {'w': tensor([2.]), 'v': tensor([3.])}
    """
    return {name: decay * before[name] + f if name in before else f for name, f in own.items()}
