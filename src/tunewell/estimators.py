"""Tuned models with scikit-learn's manners: fit, predict, clone, grid search, pipelines, pickling.

The work is that of `tunewell run` without its report: rows go straight from memory into the same
stages (split, tune, choose inside the retention budget), in a temporary folder that is gone afterwards.

Shapes: n rows, C classes.
"""

# ruff: noqa: N803  (X is scikit-learn's name)

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from tunewell.data.memory import InputError, kind_of, rows_of, target_of, texts_of
from tunewell.errors import ModelError
from tunewell.recipe import Recipe
from tunewell.recipe_file import validate

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tunewell.predict import Predictor
    from tunewell.results import Choice, Retention, Training
    from tunewell.stages.prepare import Prepared
    from tunewell.tasks import TaskSpec

__all__ = ["InputError", "KeepWarning", "TextClassifier", "TextRegressor"]

NOT_RECIPE_KEYS = {"random_state": "seed", "verbose": None}  # our parameter -> the recipe's key


def _default(key: str) -> Any:
    """A recipe key's default: it is written in recipe.py and nowhere else."""
    value = Recipe.model_fields[key].default
    return tuple(value) if isinstance(value, list) else value


class KeepWarning(UserWarning):
    """No candidate kept as much of the base model as `keep` asks for; the nearest one was taken."""


@dataclass(kw_only=True, repr=False, eq=False)
class _TextEstimator(BaseEstimator):
    """What both estimators share. The parameters stand here once; each estimator adds its own."""

    model: str = _default("model")
    strategy: str | Sequence[str] | None = _default("strategy")
    keep: float | None = _default("keep")
    keep_worst: float | None = _default("keep_worst")
    probes: str | Sequence[str] = "auto"
    probe_files: str | Sequence[str] = ()
    general_text: str | None = _default("general_text")
    general_samples: int = _default("general_samples")
    distill_weight: float = _default("distill_weight")
    average_alphas: Sequence[float] = _default("average_alphas")
    learning_rate: float | str | None = _default("learning_rate")
    head_rate_factor: float = _default("head_rate_factor")
    num_train_epochs: float = _default("num_train_epochs")
    max_steps: int = _default("max_steps")
    per_device_train_batch_size: int = _default("per_device_train_batch_size")
    per_device_eval_batch_size: int = _default("per_device_eval_batch_size")
    gradient_accumulation_steps: int = _default("gradient_accumulation_steps")
    warmup_ratio: float = _default("warmup_ratio")
    lr_scheduler_type: str = _default("lr_scheduler_type")
    weight_decay: float = _default("weight_decay")
    max_grad_norm: float = _default("max_grad_norm")
    max_length: int | None = _default("max_length")
    loss: str = _default("loss")
    metric: str = _default("metric")
    validation_size: float = _default("validation_size")
    early_stopping_patience: int = _default("early_stopping_patience")
    evals_per_epoch: int = _default("evals_per_epoch")
    bf16: bool | None = _default("bf16")
    threads: int | None = _default("threads")
    random_state: int | np.random.RandomState | None = _default("seed")  # noqa: RUF009  (returns a number)
    verbose: int = 0

    # ------------------------------------------------------------ fitting

    def _recipe(self) -> Recipe:
        """The parameters as a validated recipe."""
        values: dict[str, Any] = {}
        for name, value in self.get_params(deep=False).items():
            key = NOT_RECIPE_KEYS.get(name, name)
            if key is not None:
                values[key] = _plain(value)
        if not isinstance(self.random_state, (int, np.integer)):
            values["seed"] = int(check_random_state(self.random_state).randint(2**31))
        size = values["validation_size"]
        if isinstance(size, float) and 0 < size < 1:
            values["test_size"] = (1 - size) / 2  # not used: no test rows are split off
        if values.get("class_weight", "none") is None:
            values["class_weight"] = "none"
        return validate(values, where=type(self).__name__)

    def _tune(self, X: Any, labels: list[Any], task: str, classes: tuple[str, ...] = (), multi: bool = False) -> None:
        """Tune on canonical labels and set the learned attributes."""
        from tunewell.models.load import load_tuned
        from tunewell.stages.job import Job
        from tunewell.stages.search import tune_and_choose

        recipe = self._recipe()
        texts, pairs = texts_of(X)
        if len(texts) != len(labels):
            raise InputError(f"{len(texts)} texts but {len(labels)} labels", where="y", expected="one for each text")
        prepared = _prepared(recipe, texts, pairs, labels, task, classes, multi)
        with (
            _guest(recipe.threads),
            _hushed(not self.verbose),
            tempfile.TemporaryDirectory(prefix="tunewell-", ignore_cleanup_errors=True) as place,
            Job(
                recipe,
                output_dir=Path(place) / "run",
                echo=_say if self.verbose else _silent,
                progress=bool(self.verbose),
                prepared=prepared,
            ) as job,
        ):
            training, choice = tune_and_choose(job)
            self._parts: tuple[Any, Any] | None = load_tuned(job.folder / "model")
        self._files: dict[str, bytes] | None = None
        self.spec_: TaskSpec = job.spec
        self.max_length_: int = job.max_length
        self.training_: Training = training
        self.choice_: Choice = choice
        self.n_iter_: int = training.steps
        self.seed_: int = recipe.seed
        self.base_model_: str = job.recipe.model  # what `model: auto` chose

    def _say_whether_kept(self) -> None:
        if self.choice_.met is False:
            warnings.warn(f"keep is not met: {self.choice_.reason}", KeepWarning, stacklevel=3)

    # ------------------------------------------------------------ what was learned

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "spec_")

    def _load(self) -> tuple[Any, Any]:
        """Model and tokenizer; after unpickling they are made from their files when first needed."""
        check_is_fitted(self)
        if self._parts is None:
            from tunewell.models.load import load_tuned

            assert self._files is not None
            with tempfile.TemporaryDirectory(prefix="tunewell-", ignore_cleanup_errors=True) as place:
                for name, content in self._files.items():
                    (Path(place) / name).write_bytes(content)
                self._parts = load_tuned(place)
            self._files = None
        return self._parts

    @property
    def model_(self) -> PreTrainedModel:
        """The tuned model, a plain Transformers one: `model_.save_pretrained(folder)` writes it."""
        return self._load()[0]

    @property
    def tokenizer_(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        return self._load()[1]

    @property
    def _predictor(self) -> Predictor:
        from tunewell.predict import Predictor

        model, tokenizer = self._load()
        batch_size = self.per_device_eval_batch_size
        return Predictor(model, tokenizer, self.spec_, self.max_length_, batch_size=batch_size)

    def _scores(self, X: Any) -> np.ndarray:
        """Probabilities (n, C), or values (n,)."""
        check_is_fitted(self)
        texts, pairs = texts_of(X)
        if self.spec_.pair != (pairs is not None):
            found, wanted = ("pairs", "single texts") if pairs is not None else ("single texts", "pairs")
            raise InputError(f"X holds {found}, but the model was fitted on {wanted}", where="X", expected=wanted)
        return self._predictor.scores(texts, pairs)

    def retention(self, half: str = "report") -> Retention:
        """What the tuned model still knows of the base model's abilities, probe by probe.

        Args:
            half: "report" (nothing was chosen on it) or "select".

        Returns:
            A record with `mean`, `worst` and `probes`, each with its paired 95 % interval.
        """
        from tunewell.models.load import load_encoder
        from tunewell.retention.forgetting import compare
        from tunewell.retention.suite import load_suite
        from tunewell.stages.probe import embedder

        model, tokenizer = self._load()
        recipe = self._recipe()
        suite = load_suite(recipe.probes, recipe.probe_files, half=half, seed=self.seed_)
        base = load_encoder(self.base_model_)
        before = suite.measure(embedder(base.model, base.tokenizer))
        return compare(before, suite.measure(embedder(model, tokenizer)), seed=self.seed_)

    # ------------------------------------------------------------ manners

    def __getstate__(self) -> dict[str, Any]:
        """Parameters and learned values; the model as the bytes of its safetensors, tokenizer and config files."""
        state = dict(super().__getstate__())
        parts = state.pop("_parts", None)
        if parts is not None:
            with _hushed(), tempfile.TemporaryDirectory(prefix="tunewell-") as place:
                for part in parts:
                    part.save_pretrained(place)
                state["_files"] = {path.name: path.read_bytes() for path in sorted(Path(place).iterdir())}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "spec_" in state:
            self._parts = None
            if not any(name.endswith(".safetensors") for name in self._files or ()):
                raise ModelError("this pickle holds no model", where=type(self).__name__, remedy="fit and pickle again")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.target_tags.required = True
        return tags


@dataclass(kw_only=True, repr=False, eq=False)
class TextClassifier(ClassifierMixin, _TextEstimator):
    """A pretrained encoder tuned to label texts, as a scikit-learn classifier.

    >>> clf = TextClassifier(keep=0.98).fit(texts, labels)          # doctest: +SKIP
    >>> clf.predict(["what a lovely day"]), clf.choice_.reason      # doctest: +SKIP

    X is a list, array or Series of texts, or of (text, second text) pairs (tuples, an array or DataFrame
    of two columns). y holds strings, ints or bools, or a 0/1 matrix (n, C) for several labels a row.

    All parameters are keywords; they mean what the recipe's keys of the same name mean, with the same
    defaults, see the recipe reference. Where scikit-learn has a name of its own, that one is used:

    - model: asset name, local folder or hub id of the base model.
    - strategy: one or several of plain, distill, average; by default plain, or distill and average with `keep`.
    - keep, keep_worst: floors on the mean and the worst retention; a KeepWarning when they are not met.
    - class_weight: None or "balanced".
    - validation_size: share of the rows split off for early stopping and choosing.
    - random_state: int, RandomState or None (another seed at every fit).
    - verbose: 0 says nothing; 1 shows stages and a progress bar on stderr.

    Attributes:
        classes_: (C,) labels in y's own type, in the order of the probabilities; for a 0/1 matrix the names
            of its columns if y is a DataFrame, else 0 … C − 1.
        choice_: candidates with validation scores and retention on the select halves, and why one was chosen.
        training_: what tuning did and took.
        n_iter_: optimiser steps.
        seed_: the seed that was used.
        max_length_: longest input in tokens.
        spec_: the task.

    Raises:
        InputError: X or y is not what is described above; also a ValueError.
        RecipeError: a parameter is out of its range.
    """

    class_weight: str | None = None
    label_smoothing_factor: float = _default("label_smoothing_factor")
    focal_gamma: float = _default("focal_gamma")

    def fit(self, X: Any, y: Any) -> Self:
        """Tune the base model on texts and their labels.

        Args:
            X: n texts or pairs of texts.
            y: (n,) labels, or (n, C) of 0 and 1.
        """
        names = getattr(y, "columns", None)
        y = target_of(y)
        kind = kind_of(y)
        if kind == "multilabel-indicator":
            matrix = np.asarray(y) != 0
            columns = np.asarray(names if names is not None else range(matrix.shape[1]))
            labels = tuple(map(str, columns))
            if len(set(labels)) < len(labels):
                raise InputError("two columns of y have the same name", where="y", expected="one column a label")
            rows: list[Any] = [[labels[j] for j in np.flatnonzero(row)] for row in matrix]
            self._tune(X, rows, "text-classification", labels, multi=True)
            self.classes_: np.ndarray = columns
            self._say_whether_kept()
            return self
        if kind.startswith("continuous"):
            raise InputError(
                f"y holds numbers that are no classes, such as {y[y != np.round(y)][0]:g}",
                where="y",
                expected="strings, whole numbers or bools",
                remedy="TextRegressor learns numbers",
            )
        if kind not in ("binary", "multiclass"):
            raise InputError(
                "y is neither one label a row nor a 0/1 matrix",
                where="y",
                expected="(n,) labels, or (n, C) of 0 and 1",
                remedy="sklearn.preprocessing.MultiLabelBinarizer makes a 0/1 matrix of lists of labels",
            )
        try:
            classes, codes = np.unique(y, return_inverse=True)
        except TypeError:
            kinds = sorted({type(v).__name__ for v in y})
            raise InputError(
                f"y mixes {' and '.join(kinds)}", where="y", expected="labels of one type", remedy="y = [str(v) for …]"
            ) from None
        if len(classes) < 2:
            raise InputError(f"y holds one class only, {classes[0]}", where="y", expected="two classes or more")
        labels = tuple(map(str, classes.tolist()))
        self._tune(X, [labels[i] for i in codes], "text-classification", labels)
        self.classes_ = classes
        self._say_whether_kept()
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n, C) in the order of `classes_`; rows sum to 1 unless several labels a row were learned."""
        return self._scores(X).astype(np.float64)

    def predict(self, X: Any) -> np.ndarray:
        """Labels (n,) in y's type; for several labels a row a matrix (n, C) of 0 and 1."""
        from tunewell.predict import THRESHOLD

        scores = self._scores(X)
        if self.spec_.multi_label:
            return (scores >= THRESHOLD).astype(np.int64)
        return self.classes_[scores.argmax(axis=1)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


@dataclass(kw_only=True, repr=False, eq=False)
class TextRegressor(RegressorMixin, _TextEstimator):
    """A pretrained encoder tuned to give a number for a text, as a scikit-learn regressor.

    X as for TextClassifier; y holds n finite numbers. Labels are standardised while training only: what
    `predict` gives is in y's own units. Parameters and learned attributes are those of TextClassifier,
    without the ones about classes.

    >>> TextRegressor().fit(texts, stars).predict(["what a lovely day"])   # doctest: +SKIP
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Tune the base model on texts and their numbers.

        Args:
            X: n texts or pairs of texts.
            y: (n,) finite numbers.
        """
        y = target_of(y)
        try:
            values = np.asarray(y, dtype=np.float64)
        except (TypeError, ValueError):
            raise InputError("y is not numbers", where="y", expected="n numbers", remedy="TextClassifier") from None
        if values.ndim != 1:
            raise InputError(f"y has the shape {values.shape}", where="y", expected="one number a row, (n,)")
        if not np.isfinite(values).all():
            place = int(np.flatnonzero(~np.isfinite(values))[0])
            raise InputError(f"y[{place}] is {values[place]}", where="y", expected="finite numbers")
        self._tune(X, values.tolist(), "text-regression")
        self._say_whether_kept()
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Numbers (n,) in y's units."""
        return self._scores(X).astype(np.float64)


def _prepared(
    recipe: Recipe,
    texts: list[str],
    pairs: list[str] | None,
    labels: list[Any],
    task: str,
    classes: tuple[str, ...],
    multi: bool,
) -> Prepared:
    """Canonical rows from memory, validation rows split off."""
    from tunewell.data.columns import Columns
    from tunewell.data.split import split
    from tunewell.evaluate.metrics import check_headline
    from tunewell.stages.prepare import Prepared, few_labels
    from tunewell.tasks import TaskSpec

    regression = task == "text-regression"
    metric = recipe.metric
    if metric == "auto":
        metric = "r2" if regression else "f1_micro" if multi else "f1_macro"
    spec = TaskSpec(task, classes, multi, metric, pairs is not None)
    check_headline(spec)
    rows, share = rows_of(texts, pairs, labels), recipe.validation_size
    if share == _default("validation_size") and not regression and few_labels(recipe, labels):
        share = 0.0
    splits = (
        {"train": rows, "validation": rows.select([])}
        if not share
        else split(
            rows,
            validation_size=share,
            test_size=recipe.test_size,
            seed=recipe.seed,
            need_validation=True,
            need_test=False,
            stratify=not regression,
            source="X",
        )
    )
    roles = Columns(
        text="text",
        text_pair="text_pair" if pairs is not None else None,
        label=("label",),
        group=None,
        task=task,
        multi_label=multi,
        label_separator=None,
        notices=(),
    )
    return Prepared(splits, spec, roles, accounts=[], fingerprint="in memory", made=("validation",))


# ---------------------------------------------------------------- a polite guest in the caller's process


def _plain(value: Any) -> Any:
    """A parameter as the recipe takes it: numpy scalars and arrays, tuples and paths as plain values."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (tuple, set, np.ndarray)):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _silent(line: str) -> None:
    pass


@contextlib.contextmanager
def _guest(threads: int | None) -> Iterator[None]:
    """Leaves the caller's random states and thread count as they were."""
    import torch

    python, arrays, count = random.getstate(), np.random.get_state(), torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        if threads:
            torch.set_num_threads(count)
        np.random.set_state(arrays)
        random.setstate(python)


@contextlib.contextmanager
def _hushed(quiet: bool = True) -> Iterator[None]:
    """Datasets and Transformers show no bars and no news meanwhile."""
    import datasets
    from transformers.utils import logging

    mapping, loading = not datasets.are_progress_bars_disabled(), logging.is_progress_bar_enabled()
    verbosity = logging.get_verbosity()
    if quiet:
        datasets.disable_progress_bars()
        logging.disable_progress_bar()
        logging.set_verbosity_error()
    try:
        yield
    finally:
        if mapping:
            datasets.enable_progress_bars()
        if loading:
            logging.enable_progress_bar()
        logging.set_verbosity(verbosity)
