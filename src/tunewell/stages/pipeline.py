"""The stages of one run over one folder: what each needs, what it writes, and when it need not be repeated."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import GateError
from tunewell.folder import RunFolder, file_hash, fingerprint
from tunewell.recipe import Recipe
from tunewell.results import (
    BaselineResult,
    CheckReport,
    Choice,
    Evaluation,
    Retention,
    Summary,
    Training,
    write_whole,
)
from tunewell.stages.prepare import Prepared, choose_max_length, prepare

if TYPE_CHECKING:
    from tunewell.models.load import Encoder

Echo = Callable[[str], None]
TRAINING_KEYS = (
    "max_length",
    "strategy",
    "general_text",
    "general_samples",
    "distill_weight",
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "warmup_ratio",
    "lr_scheduler_type",
    "weight_decay",
    "max_grad_norm",
    "loss",
    "label_smoothing_factor",
    "focal_gamma",
    "class_weight",
    "early_stopping_patience",
    "evals_per_epoch",
    "bf16",
    "seed",
    "threads",
)


@dataclass(frozen=True)
class Base:
    """The base model and what is measured of it on the task's texts."""

    encoder: Encoder
    max_length: int
    embeddings: dict[str, np.ndarray]
    places: dict[str, np.ndarray]  # which rows of each split the embeddings are of


def model_fingerprint(path: str, recipe: Recipe) -> str:
    """Changes when the base model does: names, sizes and times of the files of a folder, else id and revision."""
    folder = Path(path)
    if not folder.is_dir():
        return fingerprint("model", path, recipe.revision)
    files = sorted(p for p in folder.iterdir() if p.is_file())
    return fingerprint("model", [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files])


def load_base(recipe: Recipe, prepared: Prepared, *, vectors: bool = True) -> Base:
    """Load the base model, settle the input length, and embed the task's texts with the frozen model."""
    from tunewell.models.load import load_encoder, window
    from tunewell.stages.measure import base_embeddings
    from tunewell.train.tune import use_bf16

    encoder = load_encoder(recipe.model, recipe.revision, recipe.trust_remote_code)
    max_length = choose_max_length(
        recipe, prepared.splits, encoder.tokenizer, window(encoder.model, encoder.tokenizer), prepared.spec.pair
    )
    if not vectors:
        return Base(encoder, max_length, {}, {})
    embeddings, places = base_embeddings(
        encoder, prepared.splits, prepared.spec, max_length=max_length, bf16=use_bf16(recipe.bf16), seed=recipe.seed
    )
    return Base(encoder, max_length, embeddings, places)


def checked(
    recipe: Recipe, prepared: Prepared, base: Base | None = None, *, echo: Echo = lambda line: None
) -> tuple[CheckReport, Base]:
    """The data check of prepared splits, label suspects by the base model's embeddings."""
    from tunewell.data.check import check

    base = base or load_base(recipe, prepared)
    vectors = {name: _flat(v) for name, v in base.embeddings.items()}
    complete = {name: v for name, v in vectors.items() if len(v) == len(prepared.splits[name])}
    roles = {"text": prepared.columns.text, "label": ", ".join(prepared.columns.label)}
    roles |= {k: v for k in ("text_pair", "group") if (v := getattr(prepared.columns, k))}
    report = check(
        prepared.splits,
        spec=prepared.spec,
        accounts=prepared.accounts,
        columns=roles,
        tokenizer=base.encoder.tokenizer,
        max_length=base.max_length,
        embeddings=complete if "train" in complete else None,
        seed=recipe.seed,
    )
    counts = {s: sum(f.severity == s for f in report.findings) for s in ("error", "warning", "notice")}
    echo("check: " + ", ".join(f"{n} {s}{'s' if n != 1 else ''}" for s, n in counts.items()))
    return report, base


def _flat(vectors: np.ndarray) -> np.ndarray:
    """(n, H) as it is; pairs (n, 2, H) as (n, 2H)."""
    return vectors.reshape(len(vectors), -1)


class Pipeline:
    """The stages over a locked run folder. Use as a context manager; call the stages in order."""

    def __init__(
        self, recipe: Recipe, *, output_dir: str | Path, echo: Echo, progress: bool, command: str = ""
    ) -> None:
        self.recipe, self.echo, self.progress, self.command = recipe, echo, progress, command
        self.folder = RunFolder(output_dir, overwrite=recipe.overwrite_output_dir)
        self._base: Base | None = None
        self._model: Any = None
        self._started = time.perf_counter()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.folder.close()

    # ------------------------------------------------------------ load, check

    def load(self) -> None:
        """Read the data, make the splits, find the model; write the effective recipe."""
        from tunewell.models.load import locate
        from tunewell.stages.environment import environment

        if self.recipe.threads:
            import torch

            torch.set_num_threads(self.recipe.threads)
        self.model_path = locate(self.recipe.model)
        self.prepared = prepare(self.recipe, echo=self.echo)
        self.spec, self.splits = self.prepared.spec, self.prepared.splits
        kind = "several labels a row" if self.spec.multi_label else f"{len(self.spec.labels)} classes"
        self.echo(
            f"task: {self.spec.name}" + ("" if self.spec.regression else f", {kind}") + f"; metric {self.spec.metric}"
        )
        self.model_key = model_fingerprint(self.model_path, self.recipe)
        self.data_key = fingerprint(self.prepared.fingerprint, self.model_key, self.recipe.max_length)
        training = {k: getattr(self.recipe, k) for k in TRAINING_KEYS if k != "strategy"}
        training["strategies"] = [s for s in self.recipe.strategies if s != "average"]
        general = self.recipe.general_text
        training["general_hash"] = file_hash(general) if general and Path(general).exists() else general
        self.tune_key = fingerprint(self.data_key, training)
        probe_files = [file_hash(f) if Path(f).exists() else f for f in self.recipe.probe_files]
        self.probe_key = fingerprint(
            self.model_key, self.recipe.probes, self.recipe.probe_files, probe_files, self.recipe.seed
        )
        self.choice_key = fingerprint(
            self.tune_key,
            self.probe_key,
            self.recipe.strategies,
            self.recipe.keep,
            self.recipe.keep_worst,
            self.recipe.average_alphas,
        )
        write_whole(self.folder / "recipe.yaml", self.recipe.to_yaml())
        write_whole(self.folder / "environment.json", json.dumps(environment(self.command), indent=1) + "\n")
        write_whole(self.folder / "split.json", json.dumps(self.prepared.describe()) + "\n")

    @property
    def base(self) -> Base:
        """The base model and its embeddings, loaded when a stage first needs them."""
        if self._base is None:
            self.echo(f"model: {self.recipe.model}")
            self._base = load_base(self.recipe, self.prepared)
        return self._base

    def check(self) -> None:
        """What is wrong with the data. With `strict`, an error ends the run here."""

        def make() -> CheckReport:
            report, _ = checked(self.recipe, self.prepared, self.base, echo=self.echo)
            report.write(self.folder / "check.json")
            return report

        path = self.folder / "check.json"
        self.checked = self.folder.step("check", self.data_key, ["check.json"], make, lambda: CheckReport.load(path))
        if self.recipe.strict and self.checked.errors:
            first = self.checked.errors[0]
            raise GateError(
                f"the check found {len(self.checked.errors)} errors, the first: {first.title}: {first.message}",
                where=str(self.recipe.train),
                remedy=first.remedy or "see check.json in the run folder",
            )

    # ------------------------------------------------------------ the base model

    def baselines(self) -> None:
        """Cheap alternatives, scored on test; compared with the tuned model later."""
        from tunewell.evaluate.baselines import run_baselines

        def make() -> None:
            base, splits = self.base, dict(self.splits)
            splits["train"] = splits["train"].select(base.places["train"])
            arrays, about = {}, []
            for name, result in run_baselines(
                self.spec, splits, embeddings=base.embeddings, seed=self.recipe.seed
            ).items():
                arrays[name] = result.scores["test"]
                about.append({"name": name, "title": result.title, "seconds": result.seconds})
            _write_arrays(self.folder / "cache" / "baseline-scores.npz", arrays)
            write_whole(self.folder / "cache" / "baselines.json", json.dumps(about))
            self.echo("baselines: " + ", ".join(b["name"] for b in about))

        self.folder.step(
            "baselines",
            fingerprint(self.data_key, self.recipe.seed),
            ["cache/baseline-scores.npz", "cache/baselines.json"],
            make,
            lambda: None,
        )

    @property
    def measures(self) -> bool:
        return self.recipe.probes != ["none"] or bool(self.recipe.probe_files)

    def _suite(self, half: str) -> Any:
        from tunewell.retention.suite import load_suite

        return load_suite(self.recipe.probes, self.recipe.probe_files, half=half, seed=self.recipe.seed)

    def _probe(self, half: str, *, model: Any = None, name: str, key: str) -> Any:
        """Measurements of one half on the base model (model None) or another."""
        from tunewell.retention.suite import Measurements
        from tunewell.stages.measure import embedder

        path = self.folder / "probes" / f"{name}-{half}.npz"

        def make() -> Any:
            chosen = model if model is not None else self.base.encoder.model
            measured = self._suite(half).measure(embedder(chosen, self._tokenizer()))
            measured.save(path)
            self.echo(f"probe: {name}, {half} half")
            return measured

        return self.folder.step(
            f"probe-{name}-{half}", key, [f"probes/{name}-{half}.npz"], make, lambda: Measurements.load(path)
        )

    def _tokenizer(self) -> Any:
        if self._base is not None:
            return self._base.encoder.tokenizer
        from tunewell.models.load import load_tokenizer

        return load_tokenizer(self.recipe.model, self.model_path, self.recipe.revision, self.recipe.trust_remote_code)

    def probe_base(self) -> None:
        """What the base model knows, on both halves of the suite."""
        if self.measures:
            for half in ("select", "report"):
                self._probe(half, name="before", key=self.probe_key)

    # ------------------------------------------------------------ tune, choose

    def _fresh_model(self) -> Any:
        from tunewell.models.load import load_classifier

        return load_classifier(
            self.recipe.model,
            self.spec,
            seed=self.recipe.seed,
            revision=self.recipe.revision,
            trust_remote_code=self.recipe.trust_remote_code,
        )

    def _scale(self) -> Any:
        from tunewell.tasks import targets
        from tunewell.train.tune import Scale

        return Scale.of(targets(self.spec, self.splits["train"])) if self.spec.regression else Scale()

    def _max_length(self) -> int:
        if self._base is None:
            self._base = load_base(self.recipe, self.prepared, vectors=False)
        return self._base.max_length

    def _scores(self, model: Any, split: str, *, bf16: bool = False) -> np.ndarray:
        """Scores of a model whose head is not folded yet, in the user's units."""
        from tunewell.models.embed import logits
        from tunewell.tasks.spec import scores_of

        dataset, scale = self.splits[split], self._scale()
        pairs = list(dataset["text_pair"]) if self.spec.pair else None
        raw = logits(
            model,
            self._tokenizer(),
            list(dataset["text"]),
            pairs=pairs,
            max_length=self._max_length(),
            batch_size=self.recipe.per_device_eval_batch_size,
            bf16=bf16,
        )
        if self.spec.regression:
            raw = raw * scale.std + scale.mean
        return scores_of(self.spec, raw)

    def tune(self) -> None:
        """Tune, going on from the last whole checkpoint; write the tuned weights."""
        from safetensors.torch import save_file

        from tunewell.evaluate.metrics import score
        from tunewell.strategies import strategy_class
        from tunewell.tasks import targets
        from tunewell.train.tune import clear_checkpoints, tune, use_bf16

        folder = self.folder / "train"
        self.strategies = [strategy_class(name)(self.recipe.model_dump()) for name in self.recipe.strategies]
        outputs = ["train/training.json", "train/tuned.safetensors"]
        if not self.folder.done("tune", self.tune_key, outputs):
            marker = folder / "inputs"
            if folder.exists() and (not marker.is_file() or marker.read_text() != self.tune_key):
                shutil.rmtree(folder)  # half a tuning with other settings
            write_whole(marker, self.tune_key)
            model, scale = self._fresh_model(), self._scale()
            bf16 = use_bf16(self.recipe.bf16)
            truth = targets(self.spec, self.splits["validation"])
            learned = targets(self.spec, self.splits["train"])
            if self.spec.regression:
                learned = ((learned - scale.mean) / scale.std).astype(np.float32)

            def validate(candidate: Any) -> dict[str, float]:
                return {
                    self.spec.metric: score(
                        self.spec.metric, self.spec, self._scores(candidate, "validation", bf16=bf16), truth
                    )
                }

            self.echo(
                f"tune: {' + '.join(self.recipe.strategies)}, {len(self.splits['train']):,} rows, "
                f"at most {self._max_length()} tokens each, {'bf16' if bf16 else 'fp32'}"
            )
            training = tune(
                model,
                self._tokenizer(),
                self.spec,
                self.splits["train"],
                recipe=self.recipe,
                max_length=self._max_length(),
                targets=learned,
                validate=validate,
                strategies=self.strategies,
                folder=folder,
                echo=self.echo,
                progress=self.progress,
            )
            _write_with(
                folder / "tuned.safetensors",
                lambda p: save_file({k: v.contiguous().clone() for k, v in model.state_dict().items()}, str(p)),
            )
            training.write(folder / "training.json")
            self.folder.mark("tune", self.tune_key)
            clear_checkpoints(folder)
            self._model = model
        self.training = Training.load(folder / "training.json")

    def choose(self) -> None:
        """Choose among the tuned model and its variants; save the chosen one as a plain Transformers folder."""
        from safetensors.torch import load_file

        from tunewell.evaluate.metrics import evaluate
        from tunewell.stages.choose import choose, encoder_weights, fold_scale
        from tunewell.stages.measure import embedder
        from tunewell.tasks import targets

        if self.folder.done("choose", self.choice_key, ["choice.json", "model/config.json", "task.json"]):
            self.choice = Choice.load(self.folder / "choice.json")
            return
        model = self._fresh_model()
        base = encoder_weights(model)
        if self._model is not None:
            model = self._model
        else:
            model.load_state_dict(load_file(str(self.folder / "train" / "tuned.safetensors")))
        wants = self.measures and (self.recipe.keep or self.recipe.keep_worst or "average" in self.recipe.strategies)
        suite = self._suite("select") if wants else None
        before = self._probe("select", name="before", key=self.probe_key) if wants else None
        truth = targets(self.spec, self.splits["validation"])
        self.choice = choose(
            model,
            recipe=self.recipe,
            base=base,
            strategies=self.strategies,
            suite=suite,
            before=before,
            evaluate=lambda m: evaluate(
                self.spec, self._scores(m, "validation"), truth, split="validation", seed=self.recipe.seed, n_boot=500
            ),
            embedder=lambda m: embedder(m, self._tokenizer()),
            echo=self.echo,
        )
        scale = self._scale()
        if self.spec.regression:
            fold_scale(model, scale.mean, scale.std)
        self._save_model(model.eval())
        self.choice.write(self.folder / "choice.json")
        self.folder.mark("choose", self.choice_key)
        self._model = None

    def _save_model(self, model: Any) -> None:
        """model/ and task.json; the folder appears whole or not at all."""
        from tunewell.stages.evaluate import column_roles

        tokenizer = self._tokenizer()
        limit = tokenizer.model_max_length
        tokenizer.model_max_length = self._max_length()

        def save(path: Path) -> None:
            path.mkdir()
            model.save_pretrained(path)
            tokenizer.save_pretrained(path)

        try:
            _write_with(self.folder / "model", save)
        finally:
            tokenizer.model_max_length = limit
        described = {
            "spec": self.spec.to_dict(),
            "columns": column_roles(self.prepared.columns),
            "max_length": self._max_length(),
            "base_model": self.recipe.model,
        }
        write_whole(self.folder / "task.json", json.dumps(described, ensure_ascii=False, indent=1) + "\n")

    # ------------------------------------------------------------ measure again, tell

    def evaluate(self) -> None:
        """The chosen model on test, against each baseline; predictions; the round trip of the saved folder."""
        from tunewell.evaluate.metrics import evaluate
        from tunewell.evaluate.statistics import compare
        from tunewell.predict import Predictor
        from tunewell.stages.evaluate import round_trip, write_predictions
        from tunewell.tasks import targets

        spec, seed = self.spec, self.recipe.seed

        def make() -> Evaluation:
            predictor = Predictor.load(self.folder / "model", batch_size=self.recipe.per_device_eval_batch_size)
            scores = {}
            for name in ("validation", "test"):
                dataset = self.splits[name]
                pairs = list(dataset["text_pair"]) if spec.pair else None
                scores[name] = predictor.scores(list(dataset["text"]), pairs)
            difference = round_trip(self.folder / "model", self.splits["test"], scores["test"])
            self.echo(f"round trip: the saved model gives its predictions again (largest difference {difference:.1e})")
            truth = targets(spec, self.splits["test"])
            tuned = evaluate(spec, scores["test"], truth, split="test", seed=seed)
            results = []
            arrays = np.load(self.folder / "cache" / "baseline-scores.npz", allow_pickle=False)
            for about in json.loads((self.folder / "cache" / "baselines.json").read_text(encoding="utf-8")):
                other = arrays[about["name"]]
                results.append(
                    BaselineResult(
                        **about,
                        evaluation=evaluate(spec, other, truth, split="test", seed=seed),
                        comparison=compare(spec, scores["test"], other, truth, metric=spec.metric, seed=seed),
                    )
                )
            write_predictions(self.folder / "predictions.csv", self.splits["test"], spec, scores["test"])
            evaluate(
                spec, scores["validation"], targets(spec, self.splits["validation"]), split="validation", seed=seed
            ).write(self.folder / "validation.json")
            dump = [r.model_dump(mode="json") for r in results]
            write_whole(self.folder / "baselines.json", json.dumps({"baselines": dump}, indent=1) + "\n")
            tuned.write(self.folder / "evaluation.json")
            return tuned

        self.evaluation = self.folder.step(
            "evaluate",
            fingerprint(self.choice_key, self.folder.steps.get("baselines")),
            ["evaluation.json", "validation.json", "baselines.json", "predictions.csv"],
            make,
            lambda: Evaluation.load(self.folder / "evaluation.json"),
        )

    def probe_tuned(self) -> None:
        """What the chosen model still knows, on the report halves, which nothing was chosen on."""
        from tunewell.models.load import load_tuned
        from tunewell.retention.forgetting import compare

        self.retention: Retention | None = None
        if not self.measures:
            (self.folder / "retention.json").unlink(missing_ok=True)
            return

        def make() -> Retention:
            before = self._probe("report", name="before", key=self.probe_key)
            after = self._probe("report", model=load_tuned(self.folder / "model")[0], name="after", key=self.choice_key)
            retention = compare(before, after, seed=self.recipe.seed)
            retention.write(self.folder / "retention.json")
            return retention

        path = self.folder / "retention.json"
        self.retention = self.folder.step(
            "retention", self.choice_key, ["retention.json"], make, lambda: Retention.load(path)
        )

    def summarise(self, seconds: float) -> None:
        """summary.json: the figures that scripts read."""
        from tunewell.report.build import verdict
        from tunewell.run import read_baselines

        recipe, retention = self.recipe, self.retention
        baselines = read_baselines(self.folder.path)
        kept = None
        if (recipe.keep or recipe.keep_worst) and retention is not None:
            kept = (
                bool(self.choice.met)
                and _above(retention.mean.value, recipe.keep)
                and _above(retention.worst.value, recipe.keep_worst)
            )
        earlier = self.folder / "summary.json"
        if self.folder.done("summary", self.choice_key, ["summary.json"]):
            seconds = Summary.load(earlier).seconds["total"]
        summary = Summary(
            task=self.spec.name,
            metric=self.spec.metric,
            test=self.evaluation.headline,
            base=next((b.evaluation.headline for b in baselines if b.name == "linear-probe"), None),
            baselines={b.name: b.evaluation.headline for b in baselines},
            retention=None
            if retention is None
            else {
                "mean": retention.mean.model_dump(),
                "worst": retention.worst.model_dump(),
                "probes": {
                    p.name: {
                        "before": p.before.value,
                        "after": p.after.value,
                        "retention": p.retention.value,
                        "low": p.retention.low,
                        "high": p.retention.high,
                    }
                    for p in retention.probes
                },
            },
            keep=recipe.keep,
            kept=kept,
            strategy=recipe.strategies,
            model=recipe.model,
            seed=recipe.seed,
            n_train=len(self.splits["train"]),
            seconds={"train": round(self.training.seconds, 2), "total": round(seconds, 2)},
            peak_memory_mb=round(self.training.peak_memory_mb, 1),
        )
        summary.write(earlier)
        summary = summary.model_copy(update={"verdict": verdict(self.folder.path, lang=recipe.lang)})
        summary.write(earlier)
        self.folder.mark("summary", self.choice_key)

    def report(self) -> None:
        """The page for people and the model card."""
        from tunewell.export.card import write_card
        from tunewell.report.build import build

        write_card(self.folder.path)
        self.echo(f"report: {build(self.folder.path, lang=self.recipe.lang)}")


def _above(value: float | None, floor: float | None) -> bool:
    return floor is None or (value is not None and value >= floor)


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    import io

    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_whole(path, buffer.getvalue())


def _write_with(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` make a file or folder under a temporary name, then put it in place."""
    from tunewell.results import cannot_write

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mktemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        write(temporary)
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)
