"""Question answering as a task: rows, windows, loss, answers, figures, baselines."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.strategies import AUTO, FEWSHOT
from tunewell.tasks.base import FOR_WRITERS, NOT_IN_OTHER_WORDS, REWRITES, UNDER_A_HEAD, refuse_strategies
from tunewell.tasks.question_answering.found import found_on
from tunewell.tasks.question_answering.spans import Answerer, Found, best_threshold

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from tunewell.evaluate.answers import Figures
    from tunewell.recipe import Recipe
    from tunewell.results import CheckReport, Estimate, Evaluation
    from tunewell.stages.job import Job
    from tunewell.stages.prepare import Prepared
    from tunewell.tasks.base import Inputs
    from tunewell.tasks.question_answering.windows import Window
    from tunewell.tasks.records import Baseline

METRICS = ("f1", "exact_match", "has_answer_f1", "has_answer_exact_match", "no_answer_accuracy")
LONGEST = 384  # tokens of a window by default: longer ones cost more than a second window
MODEL_ROLE = "a question-answering head"


@dataclass(frozen=True)
class QuestionAnswering:
    """The interface of `tasks.base.Task`."""

    name: str = "question-answering"
    title: str = "The span of a context that answers a question"
    pipeline: str = "question-answering"
    keeps_by: tuple[str, ...] = ()
    defaults: dict[str, Any] = field(default_factory=lambda: {"learning_rate": 1e-4})

    # ------------------------------------------------------------ rows

    def prepare(self, recipe: Recipe, *, echo: Callable[[str], None]) -> Prepared:
        from tunewell.data.columns import Columns
        from tunewell.data.load import load
        from tunewell.evaluate.answers import headline
        from tunewell.tasks.question_answering.rows import canonical, resolve
        from tunewell.tasks.rows import load_files, prepare_rows
        from tunewell.tasks.spec import TaskSpec

        files = load_files(recipe, lambda path: load(path, encoding=recipe.encoding))
        roles = resolve(recipe, files["train"])
        spec = TaskSpec(self.name, metric=headline(recipe.metric, METRICS, self.name), pair=True)
        columns = Columns(roles.question, roles.context, (roles.answers,), roles.group, self.name, False, None)
        return prepare_rows(
            recipe,
            files,
            lambda file: canonical(file, resolve(recipe, file)),
            spec=spec,
            columns=columns,
            features=_features(),
            needs="a question, a context and an answer in it",
            echo=echo,
        )

    def kind(self, job: Job) -> str:
        share = sum(not cell for cell in job.splits["train"]["label"]) / len(job.splits["train"])
        return f", {share:.0%} of the questions without an answer" if share else ", every question has an answer"

    def max_length(self, job: Job) -> int:
        from tunewell.models.load import window
        from tunewell.stages.prepare import choose_max_length

        limit = window(job.encoder.model, job.tokenizer)
        if job.recipe.max_length is None:
            limit = min(limit, LONGEST)
        return choose_max_length(job.recipe, job.splits, job.tokenizer, limit, True)

    def preflight(self, job: Job) -> None:
        from tunewell.errors import ModelError, RecipeError

        recipe = job.recipe
        for key in ("loss", "class_weight", "label_smoothing_factor"):
            if getattr(recipe, key) != type(recipe).model_fields[key].default:
                raise RecipeError(
                    f"`{key}` does not go with {self.name}",
                    where=key,
                    expected="cross-entropy of first and last token; leave it out",
                )
        refuse_strategies(job, ("lpft", AUTO), "fits a head of classes or scores first")
        refuse_strategies(job, ("prompt", "mixup", FEWSHOT), "answers with classes")
        refuse_strategies(job, FOR_WRITERS, UNDER_A_HEAD)
        refuse_strategies(job, REWRITES, NOT_IN_OTHER_WORDS.format(what="a span of its context"))
        if not job.tokenizer.is_fast:
            raise ModelError(
                "has no fast tokenizer, which tells the characters of each token",
                where=recipe.model,
                expected="a model with tokenizer.json",
            )

    def check(self, job: Job, *, alone: bool = False) -> CheckReport:
        from tunewell.tasks.checking import check_texts
        from tunewell.tasks.question_answering.checks import findings

        unreachable = {}
        for name in job.splits:
            rows = job.splits[name]
            reached = [not starts for starts in rows["starts"]]
            for w, first, last in self._placed(job, rows):
                if first and last - first + 1 <= job.recipe.max_answer_length:
                    reached[w.row] = True
            unreachable[name] = [i for i, r in enumerate(reached) if not r]
        columns = job.prepared.columns
        roles = {"question": columns.text, "context": columns.text_pair or "", "answers": ", ".join(columns.label)}
        own = findings(job.splits, unreachable, job.recipe.max_answer_length)
        return check_texts(job, own, roles, None)

    # ------------------------------------------------------------ model

    def fresh_model(self, job: Job) -> Any:
        from transformers import AutoModelForQuestionAnswering

        from tunewell.models.heads import load_with_head

        recipe = job.recipe
        return load_with_head(
            AutoModelForQuestionAnswering,
            recipe.model,
            seed=recipe.seed,
            revision=recipe.revision,
            trust_remote_code=recipe.trust_remote_code,
        )

    def load_tuned(self, job: Job, folder: Path) -> Any:
        from transformers import AutoModelForQuestionAnswering

        from tunewell.models.heads import load_saved

        return load_saved(AutoModelForQuestionAnswering, folder, MODEL_ROLE)[0]

    def base_model(self, job: Job) -> Any:
        return job.encoder.model

    def measurable(self, job: Job) -> bool:
        return True

    def watchable(self, job: Job) -> bool:
        return True

    def suite(self, job: Job, half: str) -> Any:
        from tunewell.retention.suite import load_suite

        return load_suite(job.recipe.probes, job.recipe.probe_files, half=half, seed=job.recipe.seed)

    def probed(self, job: Job, model: Any, *, bf16: bool = False) -> Callable[..., Any]:
        from tunewell.stages.probe import embedder

        return embedder(model, job.tokenizer, bf16=bf16)

    def _placed(self, job: Job, rows: Dataset) -> list[tuple[Window, int, int]]:
        """All windows of some rows with the first and last token of the first reference answer."""
        from tunewell.tasks.question_answering.windows import place, windows

        out = []
        starts, labels = rows["starts"], rows["label"]
        cut = windows(
            job.tokenizer,
            list(rows["text"]),
            list(rows["text_pair"]),
            max_length=job.max_length,
            doc_stride=job.recipe.doc_stride,
        )
        for w in cut:
            if starts[w.row]:
                start = starts[w.row][0]
                first, last = place(w, start, start + len(labels[w.row][0]))
            else:
                first = last = 0
            out.append((w, first, last))
        return out

    def inputs(self, job: Job) -> Inputs:
        from datasets import Dataset

        from tunewell.tasks.base import Inputs

        placed = self._placed(job, job.splits["train"])
        encoded: dict[str, list] = {"input_ids": [w.ids for w, _, _ in placed]}
        if placed[0][0].types is not None:
            encoded["token_type_ids"] = [w.types for w, _, _ in placed]
        encoded["labels"] = [[first, last] for _, first, last in placed]
        job.echo(f"tune: {len(placed):,} windows of at most {job.max_length} tokens")
        longest = max(len(w.ids) for w, _, _ in placed)
        return Inputs(Dataset.from_dict(encoded), _collator(job.tokenizer), span_loss, longest)

    # ------------------------------------------------------------ answers

    def _threshold(self, job: Job, found: Sequence[Found]) -> float | None:
        """Tuned on validation for the highest F1; None where training and validation have no unanswerable question."""
        if all(cell for name in ("train", "validation") for cell in job.splits[name]["label"]):
            return None
        rows = job.splits["validation"]
        spans = row_scores(rows, [_text(f.spans[0], c) if f.spans else "" for f, c in _pairs(found, rows)])
        empty = row_scores(rows, [""] * len(rows))
        return best_threshold(np.array([f.gap for f in found]), spans[:, 1], empty[:, 1])

    def validate(self, job: Job, model: Any) -> float:
        return self._validation(job, model, bf16=job.bf16, n_boot=1).headline.value or 0.0

    def validation(self, job: Job, model: Any) -> Evaluation:
        return self._validation(job, model, bf16=False, n_boot=500)

    def _validation(self, job: Job, model: Any, *, bf16: bool, n_boot: int) -> Evaluation:
        from tunewell.evaluate.answers import evaluation

        found = found_on(job, model, "validation", bf16=bf16)
        figures = _figures(job.splits["validation"], found, self._threshold(job, found))
        return evaluation(figures, split="validation", metric=job.spec.metric, seed=job.recipe.seed, n_boot=n_boot)

    def finish(self, job: Job, model: Any) -> None:
        """Nothing: the threshold stands in task.json."""

    def describe(self, job: Job) -> dict[str, Any]:
        columns, recipe = job.prepared.columns, job.recipe
        model = self.load_tuned(job, job.folder / "model")
        threshold = self._threshold(job, found_on(job, model, "validation"))
        return {
            "spec": job.spec.to_dict(),
            "columns": {"question": columns.text, "context": columns.text_pair, "answers": list(columns.label)},
            "max_length": job.max_length,
            "doc_stride": recipe.doc_stride,
            "max_answer_length": recipe.max_answer_length,
            "n_best_size": recipe.n_best_size,
            "threshold": threshold,
            "base_model": recipe.model,
        }

    # ------------------------------------------------------------ baselines and evaluation

    def baselines(self, job: Job) -> None:
        """They are fast enough to be made when the tuned model is evaluated; what is announced here is which."""
        job.echo("baselines: sentence that shares most with the question" + self._nothing(job))

    def _nothing(self, job: Job) -> str:
        return ", no answer" if not all(job.splits["train"]["label"]) else ""

    def base(self, baselines: dict[str, Estimate]) -> Estimate | None:
        """The base model as it is, where it brings a head for answers; an encoder alone answers nothing."""
        return baselines.get("base-model")

    def _baselines(self, job: Job) -> list[Baseline]:
        from tunewell.models.heads import brings_head
        from tunewell.tasks.question_answering.overlap import Overlap

        rows = job.splits["test"]
        questions, contexts = list(rows["text"]), list(rows["text_pair"])
        out = []
        started = time.perf_counter()
        overlap = Overlap(list(job.splits["train"]["text_pair"]))
        validation = job.splits["validation"]
        tuned_on = overlap.find(list(validation["text"]), list(validation["text_pair"]))
        found, threshold = overlap.find(questions, contexts), self._threshold(job, tuned_on)
        title = "sentence that shares most with the question"
        out.append(_baseline("overlap", title, rows, found, threshold, started))
        if threshold is not None:
            started = time.perf_counter()
            out.append(_baseline("no-answer", "no answer", rows, [Found((), 0.0)] * len(rows), 0.0, started))
        if brings_head(job.model_path, "ForQuestionAnswering"):
            started = time.perf_counter()
            model = self.fresh_model(job)
            threshold = self._threshold(job, found_on(job, model, "validation"))
            found = found_on(job, model, "test")
            out.append(_baseline("base-model", "base model as it is", rows, found, threshold, started))
        return out

    def evaluate(self, job: Job) -> Evaluation:
        from tunewell.evaluate.answers import evaluation
        from tunewell.results import write_whole
        from tunewell.tasks.question_answering.spans import describe
        from tunewell.tasks.records import SAMPLES, write_evaluation, write_samples, write_table

        seed, metric, rows = job.recipe.seed, job.spec.metric, job.splits["test"]
        answerer = load_answerer(job.folder.path, batch_size=job.recipe.per_device_eval_batch_size)
        threshold = answerer.threshold
        found = found_on(job, answerer.model, "test")
        validation = job.splits["validation"]
        on_validation = found_on(job, answerer.model, "validation")
        baselines = self._baselines(job)
        held = evaluation(_figures(validation, on_validation, threshold), split="validation", metric=metric, seed=seed)
        tuned = write_evaluation(job, _figures(rows, found, threshold), held, baselines)
        answers = [describe(f, c, threshold) for f, c in _pairs(found, rows)]
        scored = row_scores(rows, [a["prediction"] for a in answers])
        header = ["row", "source", "id", "question", "label", "prediction", "probability", "start", "end", "f1"]
        write_table(
            job.folder / "predictions.csv",
            header,
            (
                [r["row"], r["source"], r["id"], r["text"], r["label"], a["prediction"], a["probability"],
                 a["start"], a["end"], float(s[1])]
                for r, a, s in zip(rows, answers, scored, strict=True)
            ),
        )  # fmt: skip
        lines = (
            json.dumps({"id": r["id"], "nbest": a["nbest"]}, ensure_ascii=False)
            for r, a in zip(rows, answers, strict=True)
        )
        write_whole(job.folder / "nbest.jsonl", "\n".join(lines) + "\n")
        worst = np.argsort(scored[:, 1], kind="stable")
        shown = [*worst[: SAMPLES // 2], *worst[::-1][: SAMPLES // 2]]
        write_samples(
            job.folder / "samples.json",
            ["tuned", *(b.title for b in baselines if b.name == "overlap")],
            [_sample(rows[int(i)], answers[int(i)]["prediction"], baselines[0].answers[int(i)]) for i in shown],
        )
        return tuned

    def evaluate_file(self, path: Path, data: str, options: dict[str, Any]) -> Evaluation:
        from datasets import Dataset

        from tunewell.data.load import load
        from tunewell.errors import DataError
        from tunewell.evaluate.answers import evaluation
        from tunewell.recipe import Recipe
        from tunewell.tasks.question_answering.rows import canonical, resolve

        answerer = load_answerer(path)
        label = options.get("label")
        named = {"question": options.get("text"), "context": options.get("text_pair")}
        recipe = Recipe(**{k: v for k, v in named.items() if v}, **({"answers": label[0]} if label else {}))
        file = load(data, encoding=options.get("encoding", "auto"))
        made, _, _ = canonical(file, resolve(recipe, file))
        if not made:
            raise DataError("no row with a question and a context", where=data, expected="at least one")
        rows = Dataset.from_list(made, features=_features())
        found = answerer.find(list(rows["text"]), list(rows["text_pair"]))
        figures = _figures(rows, found, answerer.threshold)
        return evaluation(figures, split="test", metric="f1", seed=options.get("seed", 42))


def load_answerer(path: Path, *, batch_size: int = 64) -> Answerer:
    """A run folder, or a plain Transformers folder with a question-answering head.

    Raises:
        ModelError: no such folder, or no such head.
    """
    from transformers import AutoModelForQuestionAnswering

    from tunewell.models.heads import load_saved
    from tunewell.models.load import window
    from tunewell.predict import read_task

    folder = path / "model" if (path / "model" / "config.json").is_file() else path
    described = read_task(path if folder != path else path.parent)
    model, tokenizer = load_saved(AutoModelForQuestionAnswering, folder, MODEL_ROLE)
    if described is None or described["spec"]["name"] != "question-answering":
        return Answerer(
            model, tokenizer, min(LONGEST, window(model, tokenizer)), batch_size=batch_size, source=str(folder)
        )
    return Answerer(
        model,
        tokenizer,
        described["max_length"],
        described["doc_stride"],
        described["max_answer_length"],
        described["n_best_size"],
        described["threshold"],
        batch_size,
        source=str(folder),
        text_column=described["columns"]["question"],
        text_pair_column=described["columns"]["context"],
    )


def span_loss(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    """Mean of the cross-entropies of first and last token, over a row's own tokens: how far it is padded is no matter.

    Outputs with start and end logits (B, T); labels (B, 3): the numbers of the two tokens, and how many tokens the row
    has -> (B,).
    """
    import torch
    import torch.nn.functional as F

    padding = torch.arange(outputs.start_logits.shape[1], device=labels.device) >= labels[:, 2:]

    def one(logits: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits.float().masked_fill(padding, -torch.inf), place, reduction="none")

    return (one(outputs.start_logits, labels[:, 0]) + one(outputs.end_logits, labels[:, 1])) / 2


def row_scores(rows: Dataset, predictions: Sequence[str]) -> np.ndarray:
    """(n, 2): exact match and F1 of each row."""
    from tunewell.tasks.question_answering.score import is_chinese, scores

    return np.array(
        [
            scores(p, references, is_chinese(context))
            for p, references, context in zip(predictions, rows["label"], rows["text_pair"], strict=True)
        ],
        dtype=np.float64,
    ).reshape(-1, 2)


def _figures(rows: Dataset, found: Sequence[Found], threshold: float | None) -> Figures:
    from tunewell.evaluate.answers import Figures, ratio

    scored = row_scores(rows, _answers(found, rows, threshold))
    has = np.array([bool(cell) for cell in rows["label"]])
    nan = np.nan
    metrics = {
        "f1": ratio(scored[:, 1]),
        "exact_match": ratio(scored[:, 0]),
        "has_answer_f1": ratio(np.where(has, scored[:, 1], nan)),
        "has_answer_exact_match": ratio(np.where(has, scored[:, 0], nan)),
        "no_answer_accuracy": ratio(np.where(has, nan, scored[:, 1])),
    }
    answerable = int(has.sum())
    counts = {
        "has_answer_f1": answerable,
        "has_answer_exact_match": answerable,
        "no_answer_accuracy": len(has) - answerable,
    }
    return Figures(lambda w: {name: of(w) for name, of in metrics.items()}, len(has), scored[:, 1], "F1 by row", counts)


def _answers(found: Sequence[Found], rows: Dataset, threshold: float | None) -> list[str]:
    return [_text(f.answer(threshold), context) for f, context in _pairs(found, rows)]


def _text(span: Any, context: str) -> str:
    return "" if span is None else context[span.start : span.end]


def _pairs(found: Sequence[Found], rows: Dataset) -> Any:
    return zip(found, rows["text_pair"], strict=True)


def _baseline(
    name: str, title: str, rows: Dataset, found: Sequence[Found], threshold: float | None, started: float
) -> Baseline:
    from tunewell.tasks.records import Baseline

    figures = _figures(rows, found, threshold)
    return Baseline(name, title, figures, _answers(found, rows, threshold), time.perf_counter() - started)


def _sample(row: dict[str, Any], tuned: str, other: str | None) -> dict[str, Any]:
    nothing = "∅"
    return {
        "where": f"{row['source']}:{row['row']}",
        "input": row["text"],
        "reference": " | ".join(row["label"]) or nothing,
        "answers": [tuned or nothing, other or nothing],
    }


def _collator(tokenizer: Any) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
    from tunewell.tasks.question_answering.spans import pad
    from tunewell.tasks.question_answering.windows import Window

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        import torch

        batch = pad([Window(0, r["input_ids"], r.get("token_type_ids"), []) for r in rows], tokenizer)
        return {**batch, "labels": torch.tensor([[*r["labels"], len(r["input_ids"])] for r in rows])}

    return collate


def _features() -> Any:
    from datasets import Features, List, Value

    text = Value("string")
    return Features(
        {
            "text": text,
            "text_pair": text,
            "label": List(text),
            "starts": List(Value("int64")),
            "moved": Value("int64"),
            "id": text,
            "group": text,
            "row": Value("int64"),
            "source": text,
        }
    )


TASK = QuestionAnswering()
