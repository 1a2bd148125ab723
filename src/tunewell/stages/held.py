"""Several tunings of one run, held side by side until one is chosen: `strategy: auto`, `augment`, `unlabelled`.

Each tuning has a folder of its own, train/<name>, and goes on from its checkpoint when it was stopped. After each, the
tuned model and its variants are candidates, measured on validation and the select halves. Once one is chosen its
weights are saved as those of every run are, and the records of its tuning stand where those of every run stand.
"""

from __future__ import annotations

import shutil
from typing import Any

from tunewell.results import Candidate, Choice, Comparison, Training, write_with
from tunewell.retention.budget import choose as choose_by_budget
from tunewell.stages.choose import CHOSEN, encoder_weights, measuring, save, score_candidates, tuned_and_base
from tunewell.stages.job import Job
from tunewell.stages.tune import place, strategies_of, tune
from tunewell.train.hooks import hooks

RECORD = "train/training.json"
OUTPUTS = [*CHOSEN, RECORD]


class Tunings:
    """The tunings of a run so far, and the candidates that have come of them.

    Attributes:
        beside: seconds that belong to tuning and stand in no training (teachers, pretraining).
        candidates: in the order in which they were made. trainings: name of a tuning -> its record.
        owners: of each candidate, the job that tuned it and its place among that job's candidates.
    """

    def __init__(self, job: Job, *, wanted: bool = True) -> None:
        """`wanted`: candidates are measured on the select halves too, not on validation alone."""
        self.job = job
        self.options = measuring(job, wanted)
        self.candidates: list[Candidate] = []
        self.trainings: dict[str, Training] = {}
        self.owners: list[tuple[Job, int]] = []
        self.beside = 0.0
        self._scores: dict[int, Any] = {}  # of candidates that were compared, on the validation rows

    @property
    def seconds(self) -> float:
        """What all tunings have taken."""
        return self.beside + sum(t.seconds for t in self.trainings.values())

    def tune(self, child: Job) -> Training:
        """Tune a child (`Job.with_keys`) under its name."""
        self.trainings[child.candidate] = training = tune(child)
        return training

    def score(self, child: Job, names: tuple[str, ...]) -> list[Candidate]:
        """Measure what has come of a child's tuning.

        Args:
            names: what its candidates are called after.
        """
        model, base = tuned_and_base(child)
        found, _ = score_candidates(
            model, recipe=self.job.recipe, base=base, strategies=strategies_of(child), names=names, **self.options
        )
        self.candidates += found
        self.owners += [(child, i) for i in range(len(found))]
        return found

    def model(self, at: int) -> Any:
        """The model of a candidate."""
        owner, number = self.owners[at]
        model, base = tuned_and_base(owner)
        if number:
            tuned = encoder_weights(model)
            variants = [w for others in hooks(strategies_of(owner), "variants") for _, w in others(base, tuned)]
            model.base_model.load_state_dict(variants[number - 1])
        return model

    def compare(self, at: int, other: int) -> Comparison:
        """Two candidates on the validation rows, paired; `difference` is that of the first less that of the other.

        For tasks of classes and scores.
        """
        from tunewell.evaluate.statistics import compare

        task: Any = self.job.task
        for i in (at, other):
            if i not in self._scores:
                self._scores[i] = task.scores(self.job, self.model(i), "validation")
        ours, theirs = self._scores[at], self._scores[other]
        return compare(self.job.spec, ours, theirs, self.job.targets("validation"), seed=self.job.recipe.seed)

    def settle(self, choice: Choice, outputs: list[str] | None = None) -> Training:
        """Save the chosen model and the records of its tuning; the time is that of all tunings.

        Args:
            outputs: of the step, beside those of every such choice.
        """
        job = self.job
        at = next(i for i, c in enumerate(choice.candidates) if c.chosen)
        owner, _ = self.owners[at]
        save(job, self.model(at))
        processor = sum(t.cpu_seconds for t in self.trainings.values())
        training = self.trainings[owner.candidate].taking(self.seconds, cpu_seconds=processor)
        training.write(job.folder / RECORD)
        job.folder.steps.pop("tune", None)  # the record is that of several tunings now
        self._history(owner)
        choice.write(job.folder / "choice.json")
        job.folder.mark("choose", job.keys.choice, [*OUTPUTS, *(outputs or [])])
        return training

    def _history(self, owner: Job) -> None:
        """The log and the dynamics of the chosen tuning stand where those of every run stand.

        Rows that were added stand behind the run's own, whose dynamics alone are kept there.
        """
        from tunewell.train.dynamics import FILE, Dynamics

        source, target = self.job.folder / place(owner), self.job.folder / "train"
        if (source / "metrics.jsonl").is_file():
            shutil.copyfile(source / "metrics.jsonl", target / "metrics.jsonl")
        noted = Dynamics.load(source / FILE)
        if noted is not None:
            own = noted.first(len(self.job.splits["train"]))
            write_with(target / FILE, own.save)


def best_of(job: Job, candidates: list[Candidate]) -> Choice:
    """The best of one tuning's candidates, by the rule of every run."""
    return choose_by_budget(candidates, keep=job.recipe.keep, keep_worst=job.recipe.keep_worst)


def joined(sides: list[Choice], chosen: int) -> Choice:
    """One choice among the candidates of several tunings: that of the tuning `chosen`."""
    candidates = tuple(
        c if i == chosen else c.model_copy(update={"chosen": False}) for i, s in enumerate(sides) for c in s.candidates
    )
    return sides[chosen].model_copy(update={"candidates": candidates})


def finished(job: Job, outputs: list[str] | None = None) -> tuple[Training, Choice] | None:
    """What an earlier run of the same job has chosen; None where it has to be done."""
    if not job.folder.done("choose", job.keys.choice, [*OUTPUTS, *(outputs or []), "model/config.json"]):
        return None
    return Training.load(job.folder / RECORD), Choice.load(job.folder / "choice.json")
