"""What meta-learning found, as it is stored in meta.json."""

from __future__ import annotations

from pathlib import Path

from tunewell.results import Estimate, Record, Retention


class FamilyTask(Record):
    """One task: its role (learn, select, report), rows and classes that episodes are drawn from, rows left out."""

    name: str
    source: str
    role: str
    rows: int
    classes: int
    dropped: dict[str, int]


class OuterStep(Record):
    """A point of the learning: means since the last one, and the accuracy on the tasks that choose."""

    step: int
    loss: float | None = None
    accuracy: float | None = None
    selection: float


class Use(Record):
    """A body put to use on new tasks.

    Attributes:
        body: base, or meta for the one that was learned.
        use: prototypes (no step), head (steps on the head), whole (steps on head and body).
        rate: learning rate of the steps, chosen on the tasks that choose. selection: the accuracy there.
        accuracy: mean over episodes of the reported tasks, Student's interval. tasks: the same, task by task.
    """

    body: str
    use: str
    rate: float | None
    selection: float
    accuracy: Estimate
    tasks: dict[str, Estimate]


class MetaLearning(Record):
    """`meta.json`: an initialisation that was learned over many tasks, and what it is worth on others.

    Attributes:
        ways: classes an episode; None for five, or as many as a task has. shots, queries: rows a class.
        inner_steps: gradient steps on a new task. rate: of the inner steps while learning (0: none).
        steps, best_step: outer steps done, and the one that was taken (0: the base model itself).
        own: how the method's body is put to use. uses: base and learned body in every way.
        gain: learned body less base model, both used in that way, episode by episode.
        gain_best: each in the way that served it best on the tasks that choose, `meta_best` and `base_best`.
        gain_prototypes: learned body in its own way less prototypes on the frozen base model.
        retention: of the base model's abilities, on report halves; None where none is measured.
        keep, kept: the budget, and whether it is met. alpha: how far from the base model to what was learned (1).
        output_dir: the folder.
    """

    method: str
    title: str
    paper: str
    model: str
    seed: int
    ways: int | None
    shots: int
    queries: int
    inner_steps: int
    rate: float
    outer_rate: float
    tasks_per_step: int
    steps: int
    best_step: int
    episodes: int
    tasks: tuple[FamilyTask, ...]
    history: tuple[OuterStep, ...]
    own: str
    uses: tuple[Use, ...]
    gain: Estimate
    gain_best: Estimate
    base_best: str
    meta_best: str
    gain_prototypes: Estimate
    retention: Retention | None
    keep: float | None = None
    kept: bool | None = None
    alpha: float = 1.0
    notices: tuple[str, ...]
    seconds: dict[str, float]
    output_dir: str

    @property
    def model_path(self) -> Path:
        """The learned encoder: a plain Transformers folder, to be named as `model` of a run."""
        return Path(self.output_dir) / "model"

    @property
    def report_path(self) -> Path:
        """The page for people."""
        return Path(self.output_dir) / "meta.html"

    def used(self, body: str, use: str) -> Use:
        """One of `uses`."""
        return next(u for u in self.uses if (u.body, u.use) == (body, use))

    @property
    def accuracy(self) -> Estimate:
        """Of the learned body, used as its method does."""
        return self.used("meta", self.own).accuracy

    @property
    def base_accuracy(self) -> Estimate:
        """Of the base model, used in the same way."""
        return self.used("base", self.own).accuracy

    def names(self, role: str) -> list[str]:
        """Tasks of a role."""
        return [t.name for t in self.tasks if t.role == role]
