"""One run as a story: load, check, measure the base, tune, choose inside the budget, measure again, report.

Every stage writes its own file in the run folder and is not repeated while its inputs are unchanged,
so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import inspect
import json
import sys
import time
import types
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewell import processes
from tunewell.data.secrets import stem_of
from tunewell.errors import GateError, ModelError, RunFolderError
from tunewell.explain.of_run import Asked
from tunewell.recipe import Recipe
from tunewell.recipe_file import load_recipe
from tunewell.results import (
    Augmentation,
    BaselineResult,
    Calibration,
    CheckReport,
    Choice,
    Estimate,
    Evaluation,
    Retention,
    Seeds,
    Summary,
    Training,
)

if TYPE_CHECKING:
    import numpy as np

    from tunewell.explain.drift import Drift
    from tunewell.explain.records import Explanations
    from tunewell.explain.slices import Slices
    from tunewell.stages.rates import Rates
    from tunewell.unlabelled.records import Unlabelled


Echo = Callable[[str], None]


class Run(Asked):
    """A finished run folder, read lazily.

    >>> run = tunewell.run(train="reviews.csv", keep=0.98)   # doctest: +SKIP
    >>> run.metrics["f1_macro"].value, run.retention.mean.value   # doctest: +SKIP
    """

    def __init__(self, path: str | Path) -> None:
        self.dir = Path(path)
        if not (self.dir / "summary.json").is_file():
            raise RunFolderError(
                "is not a finished run: summary.json is missing",
                where=str(path),
                expected="a folder that `tunewell run` has finished",
            )

    def __repr__(self) -> str:
        s = self.summary
        return f"Run({str(self.dir)!r}, {s.metric}={s.test.value:.4f}, kept={s.kept})"

    @cached_property
    def summary(self) -> Summary:
        return Summary.load(self.dir / "summary.json")

    @cached_property
    def recipe(self) -> Recipe:
        return load_recipe(self.dir / "recipe.yaml")

    @cached_property
    def evaluation(self) -> Evaluation:
        """The tuned model on the test split."""
        return Evaluation.load(self.dir / "evaluation.json")

    @property
    def metrics(self) -> dict[str, Estimate]:
        """Test metrics by name, each with its 95 % interval."""
        return self.evaluation.metrics

    @cached_property
    def baselines(self) -> tuple[BaselineResult, ...]:
        return read_baselines(self.dir)

    @cached_property
    def retention(self) -> Retention | None:
        """The retention suite on its report halves; None when the recipe measured nothing."""
        path = self.dir / "retention.json"
        return Retention.load(path) if path.is_file() else None

    @cached_property
    def check(self) -> CheckReport:
        return CheckReport.load(self.dir / "check.json")

    @cached_property
    def choice(self) -> Choice:
        return Choice.load(self.dir / "choice.json")

    @cached_property
    def training(self) -> Training:
        return Training.load(self.dir / "train" / "training.json")

    @cached_property
    def explanations(self) -> Explanations | None:
        """Test rows with the words that decided; None when the recipe asked for none."""
        from tunewell.explain.records import Explanations

        path = self.dir / "explanations.json"
        return Explanations.load(path) if path.is_file() else None

    @cached_property
    def calibration(self) -> Calibration | None:
        """Whether probabilities mean what they say, on test; None for tasks whose answers are texts."""
        path = self.dir / "calibration.json"
        return Calibration.load(path) if path.is_file() else None

    @cached_property
    def seeds(self) -> Seeds | None:
        """How far the result depends on the seed; None for a run with one."""
        path = self.dir / "seeds.json"
        return Seeds.load(path) if path.is_file() else None

    @cached_property
    def augmentation(self) -> Augmentation | None:
        """What `augment` brought on validation; None for a run without."""
        path = self.dir / "augment.json"
        return Augmentation.load(path) if path.is_file() else None

    @cached_property
    def rates(self) -> Rates | None:
        """Which learning rates were tried and what came of them; None for a run with one."""
        from tunewell.stages.rates import Rates

        path = self.dir / "rates.json"
        return Rates.load(path) if path.is_file() else None

    @cached_property
    def drift(self) -> Drift | None:
        """What tuning changed inside the model; None where it was not measured."""
        from tunewell.explain.drift import Drift

        path = self.dir / "drift.json"
        return Drift.load(path) if path.is_file() else None

    @cached_property
    def slices(self) -> Slices | None:
        """Kinds of texts on which it errs more than elsewhere; None where they were not looked for."""
        from tunewell.explain.slices import Slices

        path = self.dir / "slices.json"
        return Slices.load(path) if path.is_file() else None

    @cached_property
    def unlabelled(self) -> Unlabelled | None:
        """What texts without labels brought, method by method; None for a run without them."""
        from tunewell.unlabelled.records import Unlabelled

        path = self.dir / "unlabelled.json"
        return Unlabelled.load(path) if path.is_file() else None

    @property
    def report_path(self) -> Path:
        return self.dir / "report.html"

    @property
    def model_path(self) -> Path:
        """A plain Transformers folder."""
        return self.dir / "model"

    @cached_property
    def predictor(self) -> Any:
        """A Predictor for labels; for answers the task's own, with the same `predict`."""
        from tunewell.predict import load_predictor

        return load_predictor(self.dir)

    def predict(self, texts: Sequence[str], text_pairs: Sequence[str] | None = None) -> list[Any]:
        """Labels (lists of labels for multi-label, floats for scores), one a text.

        Questions with contexts as `text_pairs` get answers, empty for "no answer"; sources their translations,
        prompts their answers.
        """
        return self.predictor.predict(texts, text_pairs)

    def predict_proba(self, texts: Sequence[str], text_pairs: Sequence[str] | None = None) -> np.ndarray:
        """Probabilities (n, C) in the order of `predictor.labels`.

        Raises:
            RunFolderError: the run's answers are texts.
        """
        if not hasattr(self.predictor, "scores"):
            raise RunFolderError(
                f"has no classes: its task is {self.summary.task}", where=str(self.dir), remedy="use `predict`"
            )
        return self.predictor.scores(texts, text_pairs)


def read_baselines(folder: Path) -> tuple[BaselineResult, ...]:
    path = folder / "baselines.json"
    if not path.is_file():
        return ()
    return tuple(BaselineResult.model_validate(b) for b in json.loads(path.read_text(encoding="utf-8"))["baselines"])


def load_run(path: str | Path) -> Run:
    """Open a finished run folder."""
    return Run(path)


def default_output_dir(recipe: Recipe) -> str:
    """runs/<name of the training file>."""
    stem = stem_of(recipe.train or "run") or "run"
    return str(Path("runs") / stem)


def run(
    recipe: Recipe | str | Path | None = None,
    *,
    echo: Echo | None = None,
    progress: bool = True,
    command: str = "",
    raise_on_gate: bool = True,
    jobs: int | None = None,
    ray: str | None = None,
    **keys: Any,
) -> Run:
    """The main job: tune a model on labelled data and report what was gained, kept, needed, and why.

    Args:
        recipe: a Recipe, the path of a YAML file, or None when everything is given as keys.
        keys: recipe keys; they take precedence over the file's.
        echo: called with one line a stage; by default lines go to stderr. progress: show bars.
        raise_on_gate: raise GateError (the run is complete and saved) when `keep` is not met.
        jobs, ray: with `seeds`, where further seeds are tuned: so many processes side by side; on Ray, "local" or
            the address of a cluster. Results do not depend on it, given `threads`.

    Returns:
        The finished run.

    Raises:
        TunewellError: the user's mistakes, with what was found, where, and what to do.
        GateError: `keep` or `keep_worst` is not met by any candidate.
    """
    from tunewell.stages.baselines import baselines
    from tunewell.stages.check import check
    from tunewell.stages.drift import drift_tuned
    from tunewell.stages.evaluate import evaluate_tuned
    from tunewell.stages.explain import explain_tuned
    from tunewell.stages.job import Job
    from tunewell.stages.preflight import preflight
    from tunewell.stages.probe import probe_base, probe_tuned
    from tunewell.stages.search import tune_and_choose
    from tunewell.stages.seeds import over_seeds
    from tunewell.stages.seeds import preflight as repeatable
    from tunewell.stages.slices import slices_tuned
    from tunewell.stages.tell import summarise, tell
    from tunewell.workers import Workers

    workers = Workers(jobs, ray)
    recipe = (
        recipe
        if isinstance(recipe, Recipe) and not keys
        else load_recipe(
            None if isinstance(recipe, Recipe) else recipe,
            **({**recipe.model_dump(exclude_unset=True), **keys} if isinstance(recipe, Recipe) else keys),
        )
    )
    started = time.perf_counter()
    processes.begin()
    if processes.rank():
        return Run(processes.assist())
    with Job(
        recipe,
        output_dir=recipe.output_dir or default_output_dir(recipe),
        echo=echo or _to_stderr,
        progress=progress,
        command=command,
    ) as job:
        preflight(job)
        repeatable(job, workers)
        processes.refuse(job)
        job.begin()
        check(job)
        baselines(job)
        probe_base(job)
        training, choice = tune_and_choose(job)
        evaluation = evaluate_tuned(job)
        retention = probe_tuned(job)
        seeds = over_seeds(job, training, choice, evaluation, retention, workers)
        explain_tuned(job)
        drift_tuned(job)
        slices_tuned(job)
        summarise(job, training, choice, evaluation, retention, time.perf_counter() - started, seeds)
        job.echo(f"report: {tell(job)}")
        finished = Run(job.folder.path)
    processes.dismiss(finished.dir)
    if finished.summary.kept is False and raise_on_gate:
        raise gate_error(finished)
    return finished


def gate_error(finished: Run) -> GateError:
    """Why the budget was not met, with the frontier."""
    retention, recipe = finished.retention, finished.recipe
    lines = [
        f"  {c.name}: validation {finished.summary.metric} {c.score.value:.4f}, retention {c.retention_mean.value:.4f}"
        for c in finished.choice.candidates
        if c.retention_mean is not None and c.retention_mean.value is not None and c.score.value is not None
    ]
    wanted = ", ".join(f"{k} {v:g}" for k, v in (("keep", recipe.keep), ("keep_worst", recipe.keep_worst)) if v)
    measured = (
        f"retention {retention.mean.value:.4f} (worst {retention.worst.value:.4f})"
        if retention is not None and retention.mean.value is not None
        else "that there is nothing to keep: the base model does no better than chance on every probe"
    )
    return GateError(
        f"the budget is not met: wanted {wanted}, the report halves say {measured};\n  on the select halves:\n"
        + "\n".join(lines),
        where=str(finished.dir),
        remedy="raise distill_weight, lower learning_rate, add smaller average_alphas, or lower keep; "
        f"the run is complete, see {finished.report_path}",
    )


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# ---------------------------------------------------------------- single steps


def check_only(recipe: Recipe, *, echo: Echo = lambda line: None) -> CheckReport:
    """Load and check the data that a recipe names; nothing is written."""
    from tunewell.stages.check import check_rows
    from tunewell.stages.job import Job

    with Job(recipe, output_dir=None, echo=echo) as job:
        return check_rows(job, alone=True)


def tune_only(recipe: Recipe, *, echo: Echo | None = None, progress: bool = True, command: str = "") -> Path:
    """Tune and save the model, without baselines and report; returns the model folder.

    With `keep` the base model is probed too, since the budget needs it. `tunewell run` on the same
    folder goes on from here.
    """
    from tunewell.stages.job import Job
    from tunewell.stages.preflight import preflight
    from tunewell.stages.search import tune_and_choose

    with Job(
        recipe,
        output_dir=recipe.output_dir or default_output_dir(recipe),
        echo=echo or _to_stderr,
        progress=progress,
        command=command,
    ) as job:
        preflight(job)
        job.begin()
        tune_and_choose(job)
        return job.folder / "model"


def evaluate_run(
    path: str | Path,
    data: str | None = None,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    label: Sequence[str] | None = None,
    encoding: str = "auto",
    seed: int = 42,
    task_name: str | None = None,
    polarity: dict[str, str] | str | None = None,
    echo: Echo = lambda line: None,
) -> Evaluation:
    """A tuned model measured on a file; on its own test split when no file is given.

    Args:
        path: a run folder, a sequence folder or a plain model folder; data: any format that `train` takes.
        task_name: which task of a sequence.
        polarity: of sentiment: which labels of the file are which class; told by the labels when missing.
        echo: called with one line where labels were taken for something else than the run's own.

    Raises:
        TunewellError: no such run, or rows whose labels the model does not know.
    """
    from tunewell.stages.evaluate import evaluate_file

    path = Path(path)
    if data is None:
        if not (path / "evaluation.json").is_file():
            raise RunFolderError(
                "has no evaluation of its own",
                where=str(path),
                expected="a finished run, or a data file to evaluate on",
                remedy=f"tunewell evaluate {path} DATA",
            )
        return Evaluation.load(path / "evaluation.json")
    return evaluate_file(
        path,
        data,
        text=text,
        text_pair=text_pair,
        label=label,
        encoding=encoding,
        seed=seed,
        task_name=task_name,
        polarity=polarity,
        echo=echo,
    )


def probe_models(
    models: Sequence[str],
    *,
    probes: Sequence[str] = ("auto",),
    probe_files: Sequence[str] = (),
    half: str = "report",
    seed: int = 42,
    echo: Echo = lambda line: None,
) -> Any:
    """The retention suite on one model (its Measurements) or on two side by side (Retention).

    Args:
        models: one or two of: asset, folder, hub id, run folder; the first is the base.
    """
    from tunewell.models.load import load_encoder, locate
    from tunewell.retention.forgetting import compare
    from tunewell.retention.language import load_language_suite, surprise_of
    from tunewell.retention.suite import load_suite
    from tunewell.stages.probe import embedder
    from tunewell.tasks.generation.models import kind_at, load_decoder

    places = [str(n) if (n := Path(name) / "model").joinpath("config.json").is_file() else name for name in models]
    suite: Any
    kind = kind_at(locate(places[0]))
    if kind == "encoder-decoder":
        raise ModelError(
            "is an encoder-decoder, whose probes go along its own translations inside a run",
            where=models[0],
            expected="an encoder or a decoder",
            remedy="tunewell run, and its report or retention.json",
        )
    if decoders := kind == "decoder":
        suite = load_language_suite(list(probes), list(probe_files), half=half, seed=seed)  # type: ignore[arg-type]
    else:
        suite = load_suite(list(probes), list(probe_files), half=half, seed=seed)
    measured = []
    for name, place in zip(models, places, strict=True):
        echo(f"probe: {name}")
        if decoders:
            measured.append(suite.measure(surprise_of(*load_decoder(place))))
        else:
            encoder = load_encoder(place)
            measured.append(suite.measure(embedder(encoder.model, encoder.tokenizer)))
    return measured[0] if len(measured) == 1 else compare(measured[0], measured[1], seed=seed)


class _CallableModule(types.ModuleType):
    """`tunewell.run` is this module, since Python binds a submodule to its package; calling it is calling `run`."""

    def __call__(self, *args: Any, **keys: Any) -> Run:
        return run(*args, **keys)


_CallableModule.__call__.__doc__ = run.__doc__
__signature__ = inspect.signature(run)
sys.modules[__name__].__class__ = _CallableModule
