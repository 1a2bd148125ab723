"""One run at work: its locked folder, its rows, and the base model, each loaded when first needed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from tunewell.errors import TunewellError
from tunewell.folder import RunFolder
from tunewell.recipe import AUTO_MODEL, Recipe
from tunewell.results import write_whole
from tunewell.stages.keys import Keys, keys_for
from tunewell.stages.prepare import Prepared, prepare

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.models.load import Encoder
    from tunewell.rank.records import Ranking
    from tunewell.stages.prompting import Prompt
    from tunewell.tasks import TaskSpec
    from tunewell.tasks.base import Task
    from tunewell.train.tune import Scale
    from tunewell.unlabelled.pool import Pool

Echo = Callable[[str], None]
T = TypeVar("T")
ROWS_EMBEDDED = 20_000  # training rows embedded at most, for baselines and label suspects


def silent(line: str) -> None:
    """An `echo` that says nothing."""


def with_defaults(recipe: Recipe, task: Task) -> Recipe:
    """The recipe with the task's own defaults in the keys that the user did not set."""
    own = {key: value for key, value in task.defaults.items() if key not in recipe.model_fields_set}
    if (recipe.keep or recipe.keep_worst) and recipe.strategy is None and task.keeps_by:
        own["strategy"] = list(task.keeps_by)
    return recipe.model_copy(update=own) if own else recipe


class Job:
    """What the stages share. Use as a context manager: the run folder stays locked until the end.

    Args:
        output_dir: the run folder; None for a job that writes nothing (`tunewell check`).
        echo: called with one line a stage. progress: show bars.
        prepared: rows at hand already (the estimators'); by default those of the files that the recipe names.

    Attributes:
        hooks, callbacks: strategies and Trainer callbacks beside the recipe's (those of a sequence of tasks).
        adapted: weights that the base model begins with instead of its own (those of pretraining).
        rewritten: the answers that process 0 has rewritten, at another process of the run.
        more: what tuning depends on beside recipe, rows and base model; part of its key.
    """

    hooks: Sequence[Any] = ()
    callbacks: Sequence[Any] = ()
    watched: bool = True  # by a monitor, where the recipe does not say
    monitor: Any = None  # the one that watches the tuning at work
    pace: tuple[int, int] | None = None  # steps, and steps between validations, where they are not the recipe's to say
    adapted: Path | None = None
    rewritten: Path | None = None
    more: tuple[Any, ...] = ()

    def __init__(
        self,
        recipe: Recipe,
        *,
        output_dir: str | Path | None,
        echo: Echo = silent,
        progress: bool = True,
        command: str = "",
        prepared: Prepared | None = None,
    ) -> None:
        from tunewell.models.load import locate
        from tunewell.tasks import task_of

        self.echo, self.progress, self.command = echo, progress, command
        self.candidate = ""  # of a search: tunes in a folder of its own
        self.memory: dict[Any, Any] = {}  # what a task keeps of costly answers within a run
        self._folder = None if output_dir is None else RunFolder(output_dir, overwrite=recipe.overwrite_output_dir)
        if self._folder is not None:
            self._folder.say = echo
        try:
            # a model that is not there is told before files are read
            if "model" in recipe.model_fields_set and recipe.model != AUTO_MODEL:
                locate(recipe.model)
            self.prepared: Prepared = prepared or prepare(recipe, echo=echo)
            self.spec: TaskSpec = self.prepared.spec
            self.task: Task = task_of(self.spec.name)
            self.recipe = with_defaults(recipe, self.task)
            self.ranking: Ranking | None = None  # of `model: auto`
            if self.recipe.model == AUTO_MODEL:
                from tunewell.rank.auto import resolve

                folder = None if self._folder is None else self._folder.path
                about = (self.recipe, self.task, self.prepared, folder)
                self.recipe, self.ranking = resolve(*about, echo=echo, progress=progress)
            self.model_path = locate(self.recipe.model)
        except BaseException:
            self.close()
            raise
        self.splits: dict[str, Dataset] = self.prepared.splits
        self.echo(f"task: {self.spec.name}{self.task.kind(self)}; metric {self.spec.metric}")
        if recipe.threads:
            import torch

            torch.set_num_threads(recipe.threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.close(failed=error is not None)

    def close(self, *, failed: bool = False) -> None:
        if self._folder is not None:
            self._folder.close(failed=failed)

    @property
    def folder(self) -> RunFolder:
        assert self._folder is not None, "this job has no folder"
        return self._folder

    def optional(
        self, name: str, key: str, path: Path, make: Callable[[], T], read: Callable[[], T], what: str
    ) -> T | None:
        """A step that tells more of a finished run and stops nothing: what it cannot do is said, and its file goes.

        Args:
            path: its file in the run folder. what: said before the reason.
        """
        try:
            return self.folder.step(name, key, [path.name], make, read)
        except TunewellError as error:
            path.unlink(missing_ok=True)
            self.echo(f"explain: {what}left out: {error.what}")
            return None

    @cached_property
    def keys(self) -> Keys:
        return keys_for(self.recipe, self.prepared.fingerprint, self.model_path, self.more)

    def with_keys(self, candidate: str, **keys: Any) -> Job:
        """The same job under other recipe keys, tuning in train/<candidate>; folder, rows and base model are shared."""
        other = copy.copy(self)
        other.__dict__.pop("keys", None)
        other.recipe, other.candidate = self.recipe.model_copy(update=keys), candidate
        return other

    def with_rows(self, candidate: str, splits: dict[str, Dataset], more: tuple[Any, ...]) -> Job:
        """The same job on other rows; `more` tells them from the run's own."""
        other = self.with_keys(candidate)
        for name in ("places", "vectors"):
            other.__dict__.pop(name, None)
        other.splits, other.more = splits, (*self.more, *more)
        return other

    @cached_property
    def pool(self) -> Pool | None:
        """Texts without labels; None where the recipe names none."""
        from tunewell.unlabelled.pool import read_pool

        if self.recipe.unlabelled is None:
            return None
        found = read_pool(self.recipe, self.prepared.columns, self.splits)
        for line in found.notices:
            self.echo(f"unlabelled: {line}")
        self.echo(f"unlabelled: {len(found):,} texts of {found.read:,} rows in {found.source}")
        return found

    @cached_property
    def pool_vectors(self) -> np.ndarray:
        """Pooled embeddings of the pool by the frozen base model: (m, H); for pairs of texts (m, 2, H)."""
        assert self.pool is not None
        asked = self.with_rows(self.candidate, {"pool": self.pool.rows}, ())
        asked.__dict__["places"] = {"pool": np.arange(len(self.pool))}
        return asked.embed("pool")

    def begin(self) -> None:
        """Write the effective recipe, the environment, the splits and the ranking of base models, if there was one."""
        from tunewell.rank.auto import write
        from tunewell.stages.environment import environment

        write_whole(self.folder / "recipe.yaml", self.recipe.to_yaml())
        write_whole(self.folder / "environment.json", json.dumps(environment(self.command), indent=1) + "\n")
        write(self.folder.path, self.ranking, self.prepared, self.recipe)
        write_whole(self.folder / "split.json", json.dumps(self.prepared.describe()) + "\n")

    # ------------------------------------------------------------ the base model

    @cached_property
    def tokenizer(self) -> Any:
        from tunewell.models.load import load_tokenizer

        return load_tokenizer(self.recipe.model, self.model_path, self.recipe.revision, self.recipe.trust_remote_code)

    @cached_property
    def encoder(self) -> Encoder:
        from tunewell.models.load import load_encoder

        self.echo(f"model: {self.recipe.model}")
        return load_encoder(self.recipe.model, self.recipe.revision, self.recipe.trust_remote_code, decoders=True)

    @cached_property
    def prompt(self) -> Prompt | None:
        """Pattern and words of `strategy: prompt`."""
        from tunewell.stages.prompting import prompt_of

        return prompt_of(self)

    @property
    def input_tokenizer(self) -> Any:
        """What rows are encoded with for tuning and answering: the base model's tokenizer, or with a pattern around."""
        return self.tokenizer if self.prompt is None else self.prompt.tokenizer

    @cached_property
    def max_length(self) -> int:
        """Longest input in tokens of this run."""
        return self.task.max_length(self)

    @cached_property
    def bf16(self) -> bool:
        from tunewell.train.tune import use_bf16

        return self.recipe.framework == "pytorch" and use_bf16(self.recipe.bf16)

    @cached_property
    def places(self) -> dict[str, np.ndarray]:
        """split -> positions of the rows that `vectors` are of: all, or a seeded sample of a long training split."""
        out = {}
        for name, dataset in self.splits.items():
            out[name] = np.arange(len(dataset))
            if name == "train" and len(dataset) > ROWS_EMBEDDED:
                chosen = np.random.default_rng(self.recipe.seed).permutation(len(dataset))[:ROWS_EMBEDDED]
                out[name] = np.sort(chosen)
        return out

    @cached_property
    def vectors(self) -> dict[str, np.ndarray]:
        """split -> pooled embeddings (n, H) by the frozen base model; for pairs of texts (n, 2, H)."""
        return {name: self.embed(name) for name in self.splits}

    def embed(self, split: str) -> np.ndarray:
        """Pooled embeddings of the rows `places` of one split, see `vectors`; computed at each call."""
        from tunewell.models.embed import embed

        rows = self.splits[split].select(self.places[split])
        parts = [
            embed(self.encoder.model, self.tokenizer, rows[c][:], max_length=self.max_length, bf16=self.bf16)
            for c in (["text", "text_pair"] if self.spec.pair else ["text"])
        ]
        return np.stack(parts, axis=1) if self.spec.pair else parts[0]

    # ------------------------------------------------------------ the model in the making

    @property
    def validated(self) -> bool:
        """Whether there are validation rows."""
        return len(self.splits["validation"]) > 0

    def fresh_model(self) -> Any:
        """The base model, under a new head where the task has one."""
        model = self.task.fresh_model(self)
        if self.adapted is not None:
            from tunewell.unlabelled.pretraining import put

            put(model, self.adapted)
        return model

    @cached_property
    def scale(self) -> Scale:
        """How regression labels are scaled while training."""
        from tunewell.tasks import targets
        from tunewell.train.tune import Scale

        return Scale.of(targets(self.spec, self.splits["train"])) if self.spec.regression else Scale()

    def scores(self, model: Any, split: str, *, bf16: bool = False) -> np.ndarray:
        """Scores of a model whose head still answers in scaled labels, in the user's units."""
        from tunewell.models.embed import logits
        from tunewell.tasks.spec import scores_of

        rows = self.splits[split]
        if not len(rows):
            return np.empty((0, self.spec.outputs), np.float32)
        raw = logits(
            model,
            self.input_tokenizer,
            list(rows["text"]),
            pairs=list(rows["text_pair"]) if self.spec.pair else None,
            max_length=self.max_length,
            batch_size=self.recipe.per_device_eval_batch_size,
            bf16=bf16,
        )
        if self.spec.regression:
            raw = raw * self.scale.std + self.scale.mean
        return scores_of(self.spec, raw)

    def targets(self, split: str) -> np.ndarray:
        from tunewell.tasks import targets

        return targets(self.spec, self.splits[split])

    def validate(self, model: Any) -> dict[str, float]:
        """The headline metric of a model in the making on validation."""
        return {self.spec.metric: self.task.validate(self, model)}
