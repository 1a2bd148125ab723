"""Predicting with a tuned model: a run folder or any plain Transformers classification folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import DataError, ModelError
from tunewell.models.twice import BF16, FP32, THRESHOLD, faster
from tunewell.tasks import TaskSpec
from tunewell.tasks.spec import scores_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tunewell.data.write_rows import Columns
    from tunewell.results import Calibrator

CALIBRATION, CONFORMAL = "calibration.json", "conformal.npz"  # of a run folder, beside task.json


@dataclass
class Predictor:
    """A tuned model, loaded and ready.

    Attributes:
        spec: the task; labels are in the order of the probabilities.
        text_column, text_pair_column: the columns that the run was trained on, None for a plain folder.
        calibrator: the run's map of probabilities, None for a plain folder; `raw_scores` are those before it.
        run: the run folder, None for a plain folder.
        bf16: None: labels are calculated in bfloat16 where it is faster, close calls again in fp32, and everything
            with a probability in fp32. True: `predict_batch` gives such probabilities too, off by about 0.01 at the
            most; its labels are the same. False: everything in fp32. Values of regression always are.
        again: texts that were read a second time, in fp32, so far.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    spec: TaskSpec
    max_length: int
    text_column: str | None = None
    text_pair_column: str | None = None
    batch_size: int = 64
    source: str = ""
    columns: dict[str, Any] = field(default_factory=dict)
    scorer: Any = None  # of a decoder that tells classes by likelihood: `scores` of texts and second texts
    calibrator: Calibrator | None = None
    run: Path | None = None
    bf16: bool | None = None
    again: int = 0

    # what `tunewell predict` asks of everything that predicts
    usual = ("text", "sentence", "review", "content", "body", "message", "comment")
    usual_pair = ("text_pair", "text_b", "text2", "sentence2", "hypothesis")

    @property
    def pair(self) -> bool:
        return self.spec.pair

    def added(self, taken: Sequence[str]) -> Columns:
        """The columns that predictions add to rows with the columns `taken`."""
        from tunewell.data.write_rows import Columns

        return Columns(taken, self.labels, regression=self.spec.regression, multi_label=self.spec.multi_label)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.spec.labels

    @property
    def task(self) -> str:
        return self.spec.name

    @classmethod
    def load(cls, path: str | Path, *, batch_size: int = 64, task_name: str | None = None) -> Predictor:
        """Load a run folder (its `model/`), one task of a sequence, or a folder written by `save_pretrained`.

        Args:
            task_name: which task of a sequence folder; needed where it has several.

        Raises:
            ModelError: no such folder or task, a run that is not finished, or not a classification model.
        """
        from tunewell.models.load import load_tuned, window

        path = Path(path)
        if not path.exists():
            raise ModelError("no such run or model folder", where=str(path), expected="a run folder or a model folder")
        if any((path / place / "tasks.json").is_file() for place in ("model", "models", ".")):
            from tunewell.sequence.model import load_task

            model, tokenizer, about = load_task(path, task_name)
            columns = about["columns"]
            spec, length = TaskSpec.from_dict(about["spec"]), about["max_length"]
            names = (columns.get("text"), columns.get("text_pair"))
            return cls(model, tokenizer, spec, length, *names, batch_size, str(path), columns)
        if task_name is not None:
            raise ModelError(
                "has one task, without a name", where=str(path), expected="a sequence folder, or no task name"
            )
        if path.is_dir() and (path / "recipe.yaml").is_file() and not (path / "model" / "config.json").is_file():
            raise ModelError(
                "this run has no model yet",
                where=str(path),
                expected="a finished run",
                remedy=f"tunewell run {path / 'recipe.yaml'}",
            )
        folder = path / "model" if (path / "model" / "config.json").is_file() else path
        described = read_task(path if folder != path else path.parent)
        if described is not None and described.get("classify_by") == "likelihood":
            return cls._by_likelihood(folder, described, batch_size)
        model, tokenizer = load_tuned(folder)
        if described is not None and folder == path and not _belongs(described, model):
            described = None
        if described is None:
            spec = _spec_of(model)
            return cls(model, tokenizer, spec, window(model, tokenizer), batch_size=batch_size, source=str(folder))
        columns = described["columns"]
        return cls(
            model,
            tokenizer,
            TaskSpec.from_dict(described["spec"]),
            described["max_length"],
            columns.get("text"),
            columns.get("text_pair"),
            batch_size,
            str(folder),
            columns,
            calibrator=read_calibrator(folder.parent),
            run=folder.parent,
        )

    @classmethod
    def _by_likelihood(cls, folder: Path, described: dict[str, Any], batch_size: int) -> Predictor:
        from tunewell.models.load import load_tokenizer
        from tunewell.tasks.by_likelihood import load_saved
        from tunewell.tasks.likelihood import LabelLikelihood

        spec, columns, length = TaskSpec.from_dict(described["spec"]), described["columns"], described["max_length"]
        model, tokenizer = load_saved(folder), load_tokenizer(str(folder), str(folder))
        scorer = LabelLikelihood(model, tokenizer, spec.labels, length, min(batch_size, 16))
        names = (columns.get("text"), columns.get("text_pair"))
        return cls(model, tokenizer, spec, length, *names, batch_size, str(folder), columns, scorer)

    def scores(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """Probabilities (n, C) after the run's calibration, or predicted values (n,) for regression.

        Raises:
            DataError: see `raw_scores`.
        """
        return self.calibrated(self.raw_scores(texts, pairs))

    def need_head(self, where: str) -> None:
        """Make sure that classes are the outputs of a head, as what reads logits wants it.

        Raises:
            ModelError: they are told by the likelihood of their names.
        """
        if self.scorer is not None:
            raise ModelError(
                "this model has no head: its classes are as likely as their names",
                where=where,
                expected="a run with a classification head",
                remedy="tune it with `classify_by: head`",
            )

    def need_pairs(self, texts: Sequence[str], pairs: Sequence[str] | None, where: str = "text_pair") -> None:
        """Make sure that there is a second text for each text where the model reads pairs, and none where it does not.

        Of a plain model folder it is not known what it reads.

        Raises:
            DataError: they are missing, too many, too few, or not for this run.
        """
        if self.spec.pair and pairs is None:
            raise DataError(
                "this model was tuned on pairs of texts", where=where, expected="a second text for each text"
            )
        if pairs is not None and len(pairs) != len(texts):
            raise DataError(
                f"{len(texts)} texts but {len(pairs)} second texts", where=where, expected="one for each text"
            )
        if pairs is not None and not self.spec.pair and self.run is not None:
            raise DataError(
                "this model was tuned on single texts", where=where, expected="no second texts", remedy="leave them out"
            )

    def calibrated(self, scores: np.ndarray) -> np.ndarray:
        """Probabilities (n, C) as `scores` gives them, of those that the model itself gives."""
        from tunewell.evaluate.calibrators import calibrated

        return scores if self.calibrator is None else calibrated(self.calibrator, scores)

    def raw_scores(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """Probabilities (n, C) of the model itself, or predicted values (n,) for regression.

        Raises:
            DataError: see `need_pairs`.
        """
        from tunewell.models.embed import logits

        self.need_pairs(texts, pairs)
        if not len(texts):
            return np.empty((0,) if self.spec.regression else (0, len(self.labels)), dtype=np.float32)
        if self.scorer is not None:
            return self.scorer.scores(list(texts), pairs)
        return scores_of(
            self.spec,
            logits(
                self.model,
                self.tokenizer,
                list(texts),
                pairs=pairs,
                max_length=self.max_length,
                batch_size=self.batch_size,
            ),
        )

    @property
    def precision(self) -> str:
        """What probabilities of `predict_batch` are calculated in, in words."""
        return BF16 if self.bf16 and self._headed else FP32

    @property
    def _headed(self) -> bool:
        """Whether classes are those of a head in PyTorch, which can be read in bfloat16."""
        return self.scorer is None and not self.spec.regression and not hasattr(self.model, "answer")

    def quick_scores(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """As `scores`, in bfloat16 where it is faster (or where `bf16` asks for it), close calls again in fp32.

        The likeliest label, or the labels above 0.5, are those of `scores`; probabilities are off by about 0.01 at the
        most.

        Raises:
            DataError: see `need_pairs`.
        """
        from tunewell.models.embed import encode
        from tunewell.models.twice import read

        wanted = faster(self.model) if self.bf16 is None and self._headed else bool(self.bf16)
        if not wanted or not self._headed or not len(texts):
            return self.scores(texts, pairs)
        self.need_pairs(texts, pairs)
        encoded = encode(self.tokenizer, texts, pairs, self.max_length)
        scores, again = read(self.model, self.tokenizer, self.spec, encoded, bf16=True, batch_size=self.batch_size)
        self.again += int(again.sum())
        return self.calibrated(scores)

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Any]:
        """Labels (str), lists of labels (multi-label) or values (float), one a text."""
        return decide(self.spec, self.quick_scores(texts, pairs))

    def predict_batch(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """One dict a text: `prediction`, and `probabilities` by label (None for regression)."""
        scores = self.quick_scores(texts, pairs) if self.bf16 else self.scores(texts, pairs)
        decided = decide(self.spec, scores)
        if self.spec.regression:
            return [{"prediction": value, "probabilities": None} for value in decided]
        return [
            {"prediction": answer, "probabilities": dict(zip(self.labels, map(float, row), strict=True))}
            for answer, row in zip(decided, scores, strict=True)
        ]


def load_predictor(
    path: str | Path, *, batch_size: int = 64, task_name: str | None = None, framework: str = "pytorch"
) -> Any:
    """Whatever predicts with a run or model folder: a Predictor for labels, the task's own for answers.

    Args:
        framework: "pytorch" or "tensorflow", which has classes and scores by encoders of the BERT family.

    Raises:
        ModelError: no such folder, not finished, or a model without a head that can predict.
    """
    if framework == "tensorflow":
        from tunewell.backends.tensorflow.answers import in_tensorflow
        from tunewell.extras import need

        need("tensorflow", f"framework: {framework}")
        return in_tensorflow(load_predictor(path, batch_size=batch_size, task_name=task_name), str(path))
    from tunewell.models.heads import brings_head

    path = Path(path)
    folder = path / "model" if (path / "model" / "config.json").is_file() else path
    described = (read_task(path if folder != path else path.parent) or {}) if folder.is_dir() else {}
    name = described.get("spec", {}).get("name", "")
    if folder.is_dir() and (name == "question-answering" or brings_head(str(folder), "ForQuestionAnswering")):
        from tunewell.tasks.question_answering.task import load_answerer

        return load_answerer(path, batch_size=batch_size)
    writes = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "MTModel", "EncoderDecoderModel")
    if folder.is_dir() and (
        name in ("text-generation", "translation")
        or (name != "text-classification" and any(brings_head(str(folder), e) for e in writes))
    ):
        from tunewell.tasks.generation.task import load_writer

        return load_writer(path, batch_size=min(batch_size, 16))
    return Predictor.load(path, batch_size=batch_size, task_name=task_name)


def open_predictor(about: dict[str, Any]) -> Any:
    """What predicts, from its description: `run`, options of `load_predictor` and of `SetPredictor`, and `bf16`."""
    coverage, conformal = about.get("coverage"), about.get("conformal", "lac")
    predictor = load_predictor(about["run"], **{k: about[k] for k in ("batch_size", "task_name", "framework")})
    if about.get("bf16") and isinstance(predictor, Predictor):
        predictor.bf16 = True
    if coverage is None:
        return predictor
    from tunewell.prediction_sets import SetPredictor

    return SetPredictor(predictor, coverage, conformal)


def predict_rows(predictor: Any, rows: dict[str, Any]) -> dict[str, Any]:
    """One block of rows, `texts` and `pairs` (or None), in a process of its own or here.

    Returns:
        `answers`, one a text, and `again`: how many of them were read a second time.
    """
    before = getattr(predictor, "again", 0)
    answers: list[dict[str, Any]] = predictor.predict_batch(rows["texts"], rows["pairs"])
    return {"answers": answers, "again": getattr(predictor, "again", 0) - before}


def decide(spec: TaskSpec, scores: np.ndarray) -> list[Any]:
    """Answers of scores: the likeliest label, all labels above 0.5, or the value."""
    if spec.regression:
        return [float(v) for v in scores]
    if spec.multi_label:
        return [[spec.labels[j] for j in np.flatnonzero(row >= THRESHOLD)] for row in scores]
    return [spec.labels[j] for j in scores.argmax(axis=1)]


def read_task(folder: Path) -> dict[str, Any] | None:
    """task.json of a run folder, None where there is none."""
    try:
        return json.loads((folder / "task.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def read_calibrator(folder: Path) -> Calibrator | None:
    """The map of probabilities of a run folder, None where there is none.

    Raises:
        DamagedRecordError: calibration.json is damaged.
    """
    from tunewell.results import Calibration

    path = folder / CALIBRATION
    return Calibration.load(path).calibrator if path.is_file() else None


def _belongs(described: dict[str, Any], model: Any) -> bool:
    """Whether a task.json found beside a model folder is about this model."""
    known = described.get("spec", {})
    if known.get("name") == "text-regression":
        return model.config.num_labels == 1
    return known.get("labels") == _labels(model)


def _labels(model: Any) -> list[str]:
    return [str(model.config.id2label[i]) for i in range(model.config.num_labels)]


def _spec_of(model: Any) -> TaskSpec:
    problem = getattr(model.config, "problem_type", None)
    if problem == "regression" or (problem is None and model.config.num_labels == 1):
        return TaskSpec("text-regression", metric="r2")
    multi = problem == "multi_label_classification"
    return TaskSpec("text-classification", tuple(_labels(model)), multi, "f1_micro" if multi else "f1_macro")
