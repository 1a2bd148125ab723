"""What every stage returns and the report reads: frozen records, JSON in and out.

The report, the model card and the command line read these and never a model. A number that can be
shown is an `Estimate`: a value with its 95 % interval and the number of items behind it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from tunewell.errors import DamagedRecordError, RunFolderError

Severity = Literal["error", "warning", "notice"]


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write a file whole or not at all: a temporary file beside it, synced, then renamed over it.

    Raises:
        RunFolderError: the folder cannot be written or the disk is full; nothing half-written stays.
    """
    path = Path(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def cannot_write(path: str | Path, error: OSError) -> RunFolderError:
    """The user's view of a failed write: disk full, no permission."""
    return RunFolderError(
        f"cannot write: {error.strerror or error}",
        where=str(path),
        expected="a folder that can be written, with free disk space",
        remedy="free some space, mend the permissions, or name another --output_dir",
    )


def write_with(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` make a file or folder under a temporary name, then put it in place."""
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


class Record(BaseModel):
    """Base of all records: frozen, strict about its keys, written whole."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    def write(self, path: str | Path) -> None:
        """Write this record as indented JSON."""
        write_whole(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a record that `write` wrote.

        Raises:
            DamagedRecordError: cut short, or written by another version.
        """
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise DamagedRecordError(
                f"is damaged or of another version: {place + ': ' if place else ''}{first['msg']}",
                where=str(path),
                expected=f"a {cls.__name__} record as `tunewell run` writes it",
                remedy="delete the file; the same `tunewell run` makes it again",
            ) from None


class Estimate(Record):
    """A measured value with its 95 % interval.

    `low` and `high` are None where no interval is defined (n = 1); `value` is None where the
    figure itself is undefined (a correlation with a constant).
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0

    @property
    def standard_error(self) -> float | None:
        """By the width of the interval, taken as normal; None without one.

        >>> round(Estimate(value=0.5, low=0.402, high=0.598).standard_error, 4)
        0.05
        """
        return None if self.low is None or self.high is None else (self.high - self.low) / (2 * 1.96)


# ---------------------------------------------------------------- data


class Example(Record):
    """One row shown as evidence: `where` is file:row (1-based record number, header not counted)."""

    where: str
    text: str
    note: str = ""


class Finding(Record):
    """One thing that `check` found."""

    code: str  # stable kebab-case name, e.g. "near-duplicates"
    severity: Severity
    title: str  # short, for a table
    message: str  # one or two sentences with the figures
    count: int
    split: str = ""  # "train", "validation", "test", "train/test", ...
    examples: tuple[Example, ...] = ()
    remedy: str = ""


class Account(Record):
    """Where the rows of one split went. `read == used + sum(dropped.values())` always holds."""

    split: str
    source: str
    read: int
    used: int
    dropped: dict[str, int] = {}  # reason -> rows
    truncated: int = 0  # used rows longer than the model's window
    tokens: int = 0  # tokens in the used rows before truncation
    tokens_cut: int = 0  # tokens beyond the window


class CheckReport(Record):
    """All findings, the account of rows, and what was inferred from the data."""

    findings: tuple[Finding, ...]
    accounts: tuple[Account, ...]
    task: str
    columns: dict[str, str]  # role -> column name
    class_counts: dict[str, dict[str, int]] = {}  # split -> label -> rows
    label_summary: dict[str, float] = {}  # regression: min, max, mean, std of the labels
    length_quantiles: dict[str, float] = {}  # "0.5" -> tokens
    languages: dict[str, float] = {}  # ISO 639-1 code or script name -> share
    max_length: int = 0
    rows: int = 0
    seconds: float = 0.0

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity == "error")


# ---------------------------------------------------------------- evaluation


class PerClass(Record):
    label: str
    precision: float
    recall: float
    f1: float
    support: int
    predicted: int


class CalibrationBin(Record):
    low: float
    high: float
    confidence: float
    accuracy: float
    n: int


class Evaluation(Record):
    """A model (or baseline) measured on one split."""

    split: str
    metric: str  # name of the headline metric, a key of `metrics`; higher is better
    metrics: dict[str, Estimate]
    n: int
    labels: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()  # [true][predicted]
    per_class: tuple[PerClass, ...] = ()
    calibration: tuple[CalibrationBin, ...] = ()
    scatter: tuple[tuple[float, float], ...] = ()  # regression: at most 500 (true, predicted)

    @property
    def headline(self) -> Estimate:
        return self.metrics[self.metric]


class Comparison(Record):
    """The tuned model against another on the same rows: `difference` is tuned − other."""

    metric: str
    difference: Estimate
    test: str  # "McNemar, exact", "paired permutation", ...
    p_value: float | None
    better: bool | None  # True: beyond chance better; False: beyond chance worse; None: cannot tell


class BaselineResult(Record):
    """A cheap alternative on the test split, and how the tuned model compares."""

    name: str  # "majority", "tfidf", "linear-probe"
    title: str
    evaluation: Evaluation
    seconds: float
    comparison: Comparison | None = None


# ---------------------------------------------------------------- trust


class Calibrator(Record):
    """A map of probabilities, fitted on validation; see `evaluate.calibrators`."""

    method: Literal["none", "temperature", "isotonic"]
    temperature: float = 1.0
    knots: tuple[float, ...] = ()  # isotonic: probabilities, rising, and what they become
    values: tuple[float, ...] = ()
    n: int = 0  # validation rows
    multi_label: bool = False


class Coverage(Record):
    """Prediction sets with one promise, measured on test."""

    method: str  # "lac", "aps"; for regression "distance"
    coverage: float  # promised
    threshold: float
    measured: Estimate  # share of test rows whose set holds the truth
    size: float  # mean number of labels in a set, or the interval's width
    single: float = 0.0  # share of sets with one label
    empty: float = 0.0

    @property
    def below(self) -> bool:
        """Whether the truth is in the sets less often than promised, beyond chance."""
        return self.measured.high is not None and self.measured.high < self.coverage


class RiskPoint(Record):
    """When this share of the rows is answered, the surest first, `risk` of the answers are wrong."""

    coverage: float
    threshold: float  # the least sure answer among them
    risk: Estimate


class Abstention(Record):
    """Risk against coverage on test."""

    aurc: Estimate
    best: float  # of the order with all wrong answers last
    error: float  # with every row answered: what a random order gets
    points: tuple[RiskPoint, ...]
    curve: tuple[tuple[float, float], ...]  # (coverage, risk)


class Calibration(Record):
    """`calibration.json`: whether probabilities mean what they say, before and after a map fitted on validation."""

    asked: str  # the recipe's `calibrate`
    calibrator: Calibrator
    reason: str
    validation: dict[str, Estimate] = {}  # method -> cross-validated log loss
    before: dict[str, Estimate] = {}  # on test: ece, ece_equal_mass, ece_debiased, log_loss, brier
    after: dict[str, Estimate] = {}
    bins_before: tuple[CalibrationBin, ...] = ()  # of equal mass
    bins_after: tuple[CalibrationBin, ...] = ()
    sets: tuple[Coverage, ...] = ()
    abstention: Abstention | None = None


# ---------------------------------------------------------------- retention


class ProbeResult(Record):
    """One probe before and after. `retention` follows (after − chance) / (before − chance)."""

    name: str
    title: str
    metric: str
    chance: float
    before: Estimate
    after: Estimate
    retention: Estimate
    counted: bool = True  # part of the suite's mean and worst
    note: str = ""


class ForgottenItem(Record):
    """An item of a probe that the base model did better on."""

    text: str
    text_pair: str = ""
    truth: str  # the topic, or where people rank the pair (0 lowest, 1 highest)
    answer: str = ""  # the tuned model's topic
    before: float | None = None  # where the base model ranks the pair
    after: float | None = None  # where the tuned model does


class Forgotten(Record):
    """What one probe shows to be lost: topics right before and wrong now; pairs ranked worse by 0.1 or more."""

    name: str
    title: str
    kind: str  # "accuracy" or "spearman"
    n: int
    lost: int
    gained: int
    items: tuple[ForgottenItem, ...] = ()


class Retention(Record):
    """A retention suite: probe by probe, their mean and their worst, with paired intervals."""

    half: Literal["select", "report"]
    probes: tuple[ProbeResult, ...]
    mean: Estimate
    worst: Estimate
    worst_probe: str
    seconds: float = 0.0
    forgotten: tuple[Forgotten, ...] = ()  # item by item, on the report halves


class Candidate(Record):
    """A model that could be chosen: scored on validation and on the select halves only."""

    name: str  # "distill, alpha 0.75"
    strategy: tuple[str, ...]
    parameters: dict[str, float]
    score: Estimate  # headline metric on validation
    retention_mean: Estimate | None
    retention_worst: Estimate | None
    probes: dict[str, float] = {}
    meets: bool | None  # None: no budget was set
    chosen: bool = False


class Choice(Record):
    """How the final model was chosen among the candidates."""

    keep: float | None
    keep_worst: float | None
    met: bool | None  # None: no budget was set
    candidates: tuple[Candidate, ...]
    reason: str
    stopped: dict[str, str] = {}  # of a search: candidates that were not tuned to the end, and why
    costs: dict[str, float] = {}  # of a search: tuning time of each candidate over that of plain tuning

    @property
    def chosen(self) -> Candidate:
        return next(c for c in self.candidates if c.chosen)


# ---------------------------------------------------------------- training and run


class MonitorRecord(Record):
    """What was read while tuning, see `tunewell.train.monitor`; the readings themselves stand in the history."""

    mode: Literal["watch", "stop", "rollback"]
    statistic: str  # "cosine" (embeddings) or "kl" (next-token probabilities)
    texts: int
    readings: int
    seconds: float
    share: float  # of tuning's time
    floor: float | None  # None: nothing was held to it
    estimate: float | None  # of the weights that tuning left
    ended_at: int | None = None  # step at which a reading below the floor ended tuning
    back_to: int | None = None  # step whose weights `rollback` put back


class GuardEvent(Record):
    """One act of the guard: what it saw at a step, the peak rate before and after, and where it went back to."""

    step: int
    what: str  # "not finite", "blown up", "fell back", "stuck", "oscillating", "creeping" or "gradient"
    rate_before: float
    rate_after: float
    back_to: int | None = None


class GuardRecord(Record):
    """What the guard did and read, see `tunewell.train.guard`."""

    mode: Literal["watch", "act"]
    events: tuple[GuardEvent, ...] = ()
    factor: float = 1.0  # of the peak rate, for all that was done
    signs: tuple[str, ...] = ()  # of the loss curve: "too high", "too low"


class Accounting(Record):
    """What tuning computed against what the machine can, see `tunewell.train.accounting`."""

    flops: float  # of the task's own batches, padding counted
    seconds: float  # of training steps
    flops_per_second: float
    peak_flops_per_second: float  # measured: the best of a few large matrix products in the same precision
    share_of_peak: float
    joules: float | None = None  # of the whole machine's processors while tuning; None where it cannot be read


class Training(Record):
    """What tuning did and what it took."""

    strategy: tuple[str, ...]
    steps: int
    epochs: float
    best_step: int
    best_score: float | None
    stopped_early: bool
    learning_rate: float
    precision: str  # "bf16" or "fp32"
    examples: int
    tokens: int  # tokens seen in training, padding not counted
    padding_share: float  # padding / (tokens + padding)
    seconds: float  # tuning with teachers and monitors
    peak_memory_mb: float
    parameters: int
    trainable_parameters: int
    nonfinite_steps: tuple[int, ...] = ()
    stopped: str = ""  # of a search: why this candidate was not tuned to the end
    forecast_seconds: float | None = None  # `seconds` as foretold after the first steps; None of short tunings
    cpu_seconds: float = 0.0  # processor time, all threads; of the last process only when tuning was resumed
    monitor: MonitorRecord | None = None
    guard: GuardRecord | None = None
    accounting: Accounting | None = None
    history: tuple[dict[str, Any], ...] = ()  # the trainer's log: step, epoch, loss, learning_rate, eval_*
    planned_steps: int = 0  # `steps` are fewer where tuning ended early; 0 in records of earlier versions
    eval_steps: int = 0  # from one validation to the next
    framework: str = "pytorch"
    parity: dict[str, float] | None = None  # before, after: largest difference of a logit from PyTorch's

    def taking(self, seconds: float, **more: Any) -> Training:
        """The same with the time of more than this one tuning, which its forecast was not of."""
        forecast = self.forecast_seconds if seconds == self.seconds else None
        return self.model_copy(update={"seconds": seconds, "forecast_seconds": forecast, **more})


class Augmentation(Record):
    """`augment.json`: a run tuned with and without changed copies of its rows, see `tunewell.stages.augment`."""

    operations: tuple[str, ...]
    factor: int  # copies asked for of each row
    rows: int  # training rows of the run's own
    made: int
    kept: int  # copies that were learned from by the tuning with copies
    by: dict[str, int]  # operation -> copies kept
    left_out: dict[str, int]  # reason -> copies that were not
    steps: int  # planned, of both tunings
    eval_steps: int
    without: Estimate  # headline metric on validation, of the best candidate of each side
    augmented: Estimate | None  # None where no copy was left
    comparison: Comparison | None  # with − without, paired on validation
    helps: bool  # whether the run's model has learned from the copies
    why: str  # a code, see `tunewell.report.augment`
    seconds: dict[str, float]  # of each tuning


class SeedResult(Record):
    """One tuning of a run with several seeds."""

    seed: int
    test: Estimate
    validation: float | None
    retention: float | None  # mean over the report halves; None where nothing was measured
    steps: int
    seconds: float
    failed: bool = False  # no better than the constant answer


class Seeds(Record):
    """How far a result depends on the seed, see `tunewell.stages.seeds`; `test.n` is a number of seeds."""

    metric: str
    results: tuple[SeedResult, ...]  # the first is the run's own
    test: Estimate
    sd: float
    retention: Estimate | None
    retention_sd: float | None
    failed: int
    floor: float | None  # test score that a start must be above, else it has failed


class Summary(Record):
    """`summary.json`: the figures that scripts read."""

    task: str
    metric: str
    test: Estimate
    base: Estimate | None  # the base model frozen under a linear probe
    baselines: dict[str, Estimate]
    retention: dict[str, Any] | None
    keep: float | None
    kept: bool | None
    strategy: tuple[str, ...]
    model: str
    seed: int
    n_train: int
    seconds: dict[str, float]
    peak_memory_mb: float
    verdict: tuple[str, ...] = ()
    augment: dict[str, Any] | None = None  # of `augment`: copies, gain on validation, whether they were kept
    seeds: dict[str, Any] | None = None  # of `seeds`: mean and standard deviation over them, failed starts
    unlabelled: dict[str, Any] | None = None  # of `unlabelled`: method in use (None: none), texts, with and without
    sdft: dict[str, Any] | None = None  # of `strategy: sdft`: training rows, rewritten ones, why others were kept
    ranked: dict[str, Any] | None = None  # of `model: auto`: chosen, why, candidates with their scores
    merged: dict[str, Any] | None = None  # of `tunewell merge`: of which runs, and how
    restored: dict[str, Any] | None = None  # of `tunewell restore`: from which run, alpha, before and after
