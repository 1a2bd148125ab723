"""What a task is to a run: one plain object behind which the stages do not look.

A task says how files become rows, how rows become model input, what the loss is, which models it can be
learned by, how answers are made, measured and compared, and what the report shows. The stages keep the
order, the folder and the choice inside the budget, which are the same for all tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tunewell.strategies import AUTO, FEWSHOT, SDFT, STRATEGIES

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from tunewell.recipe import Recipe
    from tunewell.results import CheckReport, Estimate, Evaluation
    from tunewell.stages.job import Job
    from tunewell.stages.prepare import Prepared

    Collate = Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]
    ModelLoss = Callable[[Any, Any], torch.Tensor]


@dataclass(frozen=True)
class Inputs:
    """What the training loop takes from a task that encodes its own rows.

    Attributes:
        rows: encoded training rows with `input_ids`; one row may become several (windows of a long context).
        collate: rows -> a batch with `labels`.
        loss: model outputs and `labels` -> one value a row; the trainer decides how rows are averaged.
        tokens_a_row: the token budget of a batch is this times the rows of a batch; at least the longest
            row, where every batch is to hold the same number of rows.
        tokens: made from the model when tuning starts, where the loss is one of tokens and not of rows.
    """

    rows: Dataset
    collate: Collate
    loss: ModelLoss
    tokens_a_row: int
    tokens: Callable[[Any], TokenLoss] | None = None


@dataclass(frozen=True)
class TokenLoss:
    """A loss that is a mean over all tokens of an optimiser step, however these are spread over batches.

    Attributes:
        collate: rows -> a batch with `labels`.
        learn: (what is to be called, the bare model, a batch) -> outputs and the sum of -log p, in nats.
        count: labels -> how many tokens carry loss.
        random: batches are drawn at random, since padding is no matter; otherwise rows of like length are together.
    """

    collate: Collate
    learn: Callable[[Any, Any, dict[str, torch.Tensor]], tuple[Any, torch.Tensor]]
    count: Callable[[torch.Tensor], torch.Tensor]
    random: bool


class Task(Protocol):
    """See the head of this file. `job` is the run at work (`stages.job.Job`).

    Attributes:
        name: as in `task: ...`; pipeline: the name that Transformers and the hub give to it.
        keeps_by: the strategies that keep what the base model knows when the user names none; empty for the recipe's.
        defaults: recipe keys that this task sets otherwise than the recipe when the user does not.
    """

    name: str
    title: str
    pipeline: str
    keeps_by: tuple[str, ...]
    defaults: dict[str, Any]

    def prepare(self, recipe: Recipe, *, echo: Callable[[str], None]) -> Prepared:
        """Files to canonical splits, with every row accounted for."""
        ...

    def kind(self, job: Job) -> str:
        """What follows the task's name in the first line, such as ", 3 classes"."""
        ...

    def max_length(self, job: Job) -> int:
        """Longest input in tokens."""
        ...

    def preflight(self, job: Job) -> None:
        """Refuse what cannot work, before anything is written."""
        ...

    def check(self, job: Job, *, alone: bool = False) -> CheckReport:
        """What is wrong with the data.

        Args:
            alone: nothing but the check is wanted, so what only the rest of a run needs is not computed.
        """
        ...

    def baselines(self, job: Job) -> None:
        """Score the cheap alternatives on test; the answers are cached in the run folder."""
        ...

    def base(self, baselines: dict[str, Estimate]) -> Estimate | None:
        """Which of the baselines' headline figures stands for the base model in summary.json."""
        ...

    def measurable(self, job: Job) -> bool:
        """Whether there are probes for this kind of model."""
        ...

    def watchable(self, job: Job) -> bool:
        """Whether the monitor can read this kind of model while it is tuned."""
        ...

    def suite(self, job: Job, half: str) -> Any:
        """The retention suite for this kind of model."""
        ...

    def probed(self, job: Job, model: Any, *, bf16: bool = False) -> Callable[..., Any]:
        """What the suite measures: the model as a function of texts; in fp32, or in bfloat16 where that serves."""
        ...

    def base_model(self, job: Job) -> Any:
        """The base model as the suite is to see it."""
        ...

    def load_tuned(self, job: Job, folder: Path) -> Any:
        """The saved model, loaded afresh."""
        ...

    def fresh_model(self, job: Job) -> Any:
        """The base model, under a new head where the task has one."""
        ...

    def inputs(self, job: Job) -> Inputs | None:
        """Encoded training rows, collator and loss; None for the loop's own (classes and scores)."""
        ...

    def validate(self, job: Job, model: Any) -> float:
        """The headline metric on validation, quick: for early stopping."""
        ...

    def validation(self, job: Job, model: Any) -> Evaluation:
        """Validation with intervals: for choosing among candidates."""
        ...

    def finish(self, job: Job, model: Any) -> None:
        """Last change of the chosen weights before they are saved, such as folding a scale in."""
        ...

    def describe(self, job: Job) -> dict[str, Any]:
        """What task.json holds, enough to predict with the saved model."""
        ...

    def evaluate(self, job: Job) -> Evaluation:
        """The tuned model on test against the baselines; writes evaluation, validation, baselines, predictions."""
        ...

    def evaluate_file(self, path: Path, data: str, options: dict[str, Any]) -> Evaluation:
        """The tuned model at `path` on another file (`tunewell evaluate`)."""
        ...


FOR_CLASSES = ("lpft", "mas", "prompt", "mixup", FEWSHOT, AUTO)  # need labels or an encoder's sentence embeddings

FOR_WRITERS, UNDER_A_HEAD = ("rehearse",), "learns general text, which takes a decoder that writes"
REWRITES = (SDFT,)
NOT_IN_OTHER_WORDS = "lets the base model say answers in its own words, and {what} has no others"


def refuse_strategies(job: Job, refused: Sequence[str], why: str) -> None:
    """Refuse strategies that have no meaning for a task.

    Raises:
        RecipeError: one of them is in the recipe.
    """
    from tunewell.errors import RecipeError

    for name in job.recipe.strategies:
        if name in refused:
            raise RecipeError(
                f"`strategy: {name}` {why}, and does not go with {job.spec.name}",
                where="strategy",
                expected=", ".join(s for s in STRATEGIES if s not in refused),
            )
