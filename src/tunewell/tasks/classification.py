"""Classes and scores: one or several labels a text, or a number; by encoders, and by decoders under a head or by
the likelihood of the classes' names (`by_likelihood`)."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.tasks import by_likelihood, few_labels
from tunewell.tasks.base import FOR_WRITERS, NOT_IN_OTHER_WORDS, REWRITES, UNDER_A_HEAD, refuse_strategies

if TYPE_CHECKING:
    from tunewell.recipe import Recipe
    from tunewell.results import CheckReport, Estimate, Evaluation
    from tunewell.stages.job import Job
    from tunewell.stages.prepare import Prepared
    from tunewell.tasks.base import Inputs

EMBEDDED_ALONE = 2_000  # training rows up to which `tunewell check` embeds them
SCORES, ABOUT = "cache/baseline-scores.npz", "cache/baselines.json"


@dataclass(frozen=True)
class Classification:
    """The interface of `tasks.base.Task` for text-classification and text-regression."""

    name: str
    title: str
    pipeline: str = "text-classification"
    keeps_by: tuple[str, ...] = ()
    defaults: dict[str, Any] = field(default_factory=dict)

    def prepare(self, recipe: Recipe, *, echo: Callable[[str], None]) -> Prepared:
        from tunewell.stages.prepare import prepare_labelled

        return prepare_labelled(recipe, echo=echo)

    def kind(self, job: Job) -> str:
        if job.spec.regression:
            return ""
        if job.spec.ordered:
            return f", {len(job.spec.labels)} classes in order: {' < '.join(job.spec.labels[:7])}"
        return ", several labels a row" if job.spec.multi_label else f", {len(job.spec.labels)} classes"

    def max_length(self, job: Job) -> int:
        from tunewell.models.load import window
        from tunewell.stages.prepare import choose_max_length

        if by_likelihood.chosen(job):
            return by_likelihood.max_length(job)
        limit = window(job.encoder.model, job.tokenizer)
        return choose_max_length(job.recipe, job.splits, job.input_tokenizer, limit, job.spec.pair)

    def preflight(self, job: Job) -> None:
        from tunewell.errors import RecipeError
        from tunewell.stages.calibrate import refuse
        from tunewell.train.losses import loss_for

        recipe = job.recipe
        what = "a score" if job.spec.regression else "the name of a class"
        refuse_strategies(job, REWRITES, NOT_IN_OTHER_WORDS.format(what=what))
        by_likelihood.preflight(job)
        if not by_likelihood.chosen(job):
            refuse_strategies(job, FOR_WRITERS, UNDER_A_HEAD)
        few_labels.preflight(job)
        if job.prompt is not None:  # its pattern and words, before anything is written
            job.fresh_model()
        refuse(job)
        loss_for(job.spec, recipe.loss, label_smoothing=recipe.label_smoothing_factor)
        if recipe.class_weight == "balanced" and job.spec.regression:
            raise RecipeError(
                "`class_weight: balanced` needs classes", where="class_weight", expected="class_weight: none"
            )

    def check(self, job: Job, *, alone: bool = False) -> CheckReport:
        """In a run the base model's embeddings of up to 20,000 training rows are needed anyway, so label suspects
        come from them; alone only a small set is embedded, and a larger one is judged by TF-IDF features, which
        take seconds.
        """
        from tunewell.data.check import check as check_data
        from tunewell.tasks.polarity import describe

        columns = job.prepared.columns
        roles = {"text": columns.text, "label": ", ".join(columns.label)}
        roles |= {k: v for k in ("text_pair", "group") if (v := getattr(columns, k))}
        if columns.polarity is not None:
            roles["polarity"] = describe(columns.polarity)
        vectors = None
        if not job.spec.multi_label and not (alone and len(job.splits["train"]) > EMBEDDED_ALONE):
            found = job.embed("train") if alone else job.vectors["train"]
            vectors = found.reshape(len(found), -1)
        return check_data(
            job.splits,
            spec=job.spec,
            accounts=job.prepared.accounts,
            columns=roles,
            tokenizer=job.tokenizer,
            max_length=job.max_length,
            embeddings=vectors,
            embedded=job.places["train"],
            seed=job.recipe.seed,
        )

    def baselines(self, job: Job) -> None:
        """Cached under the rows, the base model and the seed."""
        from tunewell.evaluate.baselines import run_baselines
        from tunewell.folder import fingerprint
        from tunewell.results import write_whole
        from tunewell.stages.prompting import zero_shot

        asked = (job.prompt.pattern, job.prompt.words) if job.prompt is not None else ()

        def make() -> None:
            splits = {**job.splits, "train": job.splits["train"].select(job.places["train"])}
            results = run_baselines(job.spec, splits, embeddings=job.vectors, seed=job.recipe.seed)
            if job.prompt is not None:
                results["zero-shot"] = zero_shot(job)
            buffer = io.BytesIO()
            scores = {name: r.scores["test"] for name, r in results.items()}
            about: list[dict[str, Any]] = [
                {"name": name, "title": r.title, "seconds": r.seconds} for name, r in results.items()
            ]
            if (named := by_likelihood.zero_shot(job)) is not None:
                scores[named["name"]] = named.pop("scores")
                about.append(named)
            np.savez(buffer, **scores)  # type: ignore[arg-type]
            write_whole(job.folder / SCORES, buffer.getvalue())
            write_whole(job.folder / ABOUT, json.dumps(about))
            job.echo("baselines: " + ", ".join(a["title"] for a in about))

        key = fingerprint(job.keys.data, job.recipe.seed, job.recipe.classify_by, *asked)
        job.folder.step("baselines", key, [SCORES, ABOUT], make, lambda: None)

    def base(self, baselines: dict[str, Estimate]) -> Estimate | None:
        """The base model frozen under a linear probe."""
        return baselines.get("linear-probe")

    def measurable(self, job: Job) -> bool:
        return True

    def watchable(self, job: Job) -> bool:
        return True

    def suite(self, job: Job, half: str) -> Any:
        from tunewell.retention.language import load_language_suite
        from tunewell.retention.suite import load_suite

        if by_likelihood.chosen(job):
            return load_language_suite(job.recipe.probes, job.recipe.probe_files, half=half, seed=job.recipe.seed)  # type: ignore[arg-type]
        return load_suite(job.recipe.probes, job.recipe.probe_files, half=half, seed=job.recipe.seed)

    def probed(self, job: Job, model: Any, *, bf16: bool = False) -> Callable[..., Any]:
        from tunewell.retention.language import surprise_of
        from tunewell.stages.probe import embedder

        if by_likelihood.chosen(job):
            return surprise_of(model, job.tokenizer, bf16=bf16)
        return embedder(model, job.tokenizer, bf16=bf16)

    def base_model(self, job: Job) -> Any:
        return by_likelihood.load_base(job) if by_likelihood.chosen(job) else job.encoder.model

    def load_tuned(self, job: Job, folder: Path) -> Any:
        from tunewell.models.load import load_tuned

        if by_likelihood.chosen(job):
            return by_likelihood.load_saved(folder)
        return load_tuned(folder)[0]

    def fresh_model(self, job: Job) -> Any:
        from tunewell.models.load import load_classifier
        from tunewell.models.pooled import pooled
        from tunewell.stages.prompting import prompted_model
        from tunewell.strategies import FEWSHOT

        if job.prompt is not None:
            return prompted_model(job)

        if by_likelihood.chosen(job):
            return by_likelihood.load_base(job)
        model = load_classifier(
            job.recipe.model,
            job.spec,
            seed=job.recipe.seed,
            revision=job.recipe.revision,
            trust_remote_code=job.recipe.trust_remote_code,
        )
        return pooled(model) if FEWSHOT in job.recipe.strategies else model

    def inputs(self, job: Job) -> Inputs | None:
        return by_likelihood.inputs(job) if by_likelihood.chosen(job) else None

    def scores(self, job: Job, model: Any, split: str, *, bf16: bool = False) -> np.ndarray:
        """(n, C) probabilities, or (n,) values, of a model in the making on one split."""
        if by_likelihood.chosen(job):
            return by_likelihood.scores(job, model, split, bf16=bf16)
        return job.scores(model, split, bf16=bf16)

    def validate(self, job: Job, model: Any) -> float:
        from tunewell.evaluate.metrics import score

        scores = self.scores(job, model, "validation", bf16=job.bf16)
        return score(job.spec.metric, job.spec, scores, job.targets("validation"))

    def validation(self, job: Job, model: Any) -> Evaluation:
        from tunewell.evaluate.metrics import evaluate
        from tunewell.results import Estimate, Evaluation

        if not job.validated:
            metric = job.spec.metric
            return Evaluation(split="validation", metric=metric, metrics={metric: Estimate(value=None)}, n=0)
        return evaluate(
            job.spec,
            self.scores(job, model, "validation"),
            job.targets("validation"),
            split="validation",
            seed=job.recipe.seed,
            n_boot=500,
        )

    def finish(self, job: Job, model: Any) -> None:
        """A regression head answers in scaled labels until now."""
        from tunewell.stages.choose import fold_scale

        if job.spec.regression:
            fold_scale(model, job.scale.mean, job.scale.std)

    def describe(self, job: Job) -> dict[str, Any]:
        columns, prompt = job.prepared.columns, job.prompt
        return {
            "spec": job.spec.to_dict(),
            "columns": {
                "text": columns.text,
                "text_pair": columns.text_pair,
                "label": list(columns.label),
                "group": columns.group,
                "label_separator": columns.label_separator,
                **({} if columns.polarity is None else {"polarity": columns.polarity}),
            },
            "max_length": job.max_length,
            "base_model": job.recipe.model,
            "classify_by": job.recipe.classify_by,
            **(
                {}
                if prompt is None
                else {"prompt": {"pattern": prompt.pattern, "words": prompt.spoken(job.spec.labels)}}
            ),
        }

    def evaluate(self, job: Job) -> Evaluation:
        from tunewell.stages.evaluate import evaluate_labels

        return evaluate_labels(job)

    def evaluate_file(self, path: Path, data: str, options: dict[str, Any]) -> Evaluation:
        from tunewell.stages.evaluate import evaluate_labelled_file

        return evaluate_labelled_file(path, data, **options)


@dataclass(frozen=True)
class Sentiment(Classification):
    """Opinions as classes in order or as scores; once the rows are read, it is one of the two tasks above."""


CLASSIFICATION = Classification("text-classification", "Classes, one or several a text")
REGRESSION = Classification("text-regression", "A number for a text")
SENTIMENT = Sentiment("sentiment", "How negative or positive a text is, as a whole or about an aspect")
