"""A run folder's records, read for the report; what a run does not have is None or empty."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tunewell.data.cells import Rows
from tunewell.errors import DamagedRecordError, RunFolderError
from tunewell.explain.drift import Drift
from tunewell.explain.records import Explanations
from tunewell.explain.slices import Slices
from tunewell.results import (
    Augmentation,
    BaselineResult,
    Calibration,
    CheckReport,
    Choice,
    Evaluation,
    Record,
    Retention,
    Seeds,
    Summary,
    Training,
)
from tunewell.stages.rates import Rates
from tunewell.stages.rewrite import Rewriting
from tunewell.unlabelled.records import Unlabelled

T = TypeVar("T", bound=Record)
MISTAKES = 20


@dataclass(frozen=True)
class Records:
    folder: Path
    summary: Summary | None
    check: CheckReport | None
    evaluation: Evaluation | None
    baselines: tuple[BaselineResult, ...]
    retention: Retention | None
    choice: Choice | None
    training: Training | None
    recipe: dict[str, Any]
    environment: dict[str, Any]
    mistakes: tuple[dict[str, str], ...]
    samples: dict[str, Any]  # test rows with answers side by side, for tasks whose answers are texts
    audit: dict[str, Any]  # what carries loss, for generated answers
    explanations: Explanations | None = None
    ranking: dict[str, Any] | None = None  # of `model: auto`: candidates with scores and costs
    calibration: Calibration | None = None
    drift: Drift | None = None
    seeds: Seeds | None = None
    slices: Slices | None = None
    augment: Augmentation | None = None
    rates: Rates | None = None
    unlabelled: Unlabelled | None = None
    sdft: Rewriting | None = None


def read(folder: str | Path) -> Records:
    """Read what is there.

    Raises:
        RunFolderError: not a run folder, or a record is damaged.
    """
    folder = Path(folder)
    if not any((folder / name).is_file() for name in ("summary.json", "check.json", "recipe.yaml")):
        raise RunFolderError(
            "is not a run folder", where=str(folder), expected="a folder that `tunewell run` has written"
        )

    def get(name: str, kind: type[T]) -> T | None:
        path = folder / name
        if not path.is_file():
            return None
        try:
            return kind.load(path)
        except DamagedRecordError as error:
            remedy = f"tunewell run {folder / 'recipe.yaml'} makes it again"
            raise DamagedRecordError(error.what, where=error.where, expected=error.expected, remedy=remedy) from error

    baselines: tuple[BaselineResult, ...] = ()
    if (folder / "baselines.json").is_file():
        entries = json.loads((folder / "baselines.json").read_text(encoding="utf-8"))["baselines"]
        baselines = tuple(BaselineResult.model_validate(b) for b in entries)
    evaluation = get("evaluation.json", Evaluation)
    return Records(
        folder,
        get("summary.json", Summary),
        get("check.json", CheckReport),
        evaluation,
        baselines,
        get("retention.json", Retention),
        get("choice.json", Choice),
        get("train/training.json", Training),
        _mapping(folder / "recipe.yaml", yaml.safe_load),
        _mapping(folder / "environment.json", json.loads),
        _mistakes(folder / "predictions.csv", evaluation),
        _mapping(folder / "samples.json", json.loads),
        _mapping(folder / "audit.json", json.loads),
        get("explanations.json", Explanations),
        _mapping(folder / "ranking.json", json.loads) or None,
        get("calibration.json", Calibration),
        get("drift.json", Drift),
        get("seeds.json", Seeds),
        get("slices.json", Slices),
        get("augment.json", Augmentation),
        get("rates.json", Rates),
        get("unlabelled.json", Unlabelled),
        get("sdft.json", Rewriting),
    )


def pipeline_of(records: Records) -> str:
    """What Transformers and the hub call the run's task."""
    from tunewell.tasks import TASKS, task_of

    name = records.summary.task if records.summary else ""
    return str(task_of(name).pipeline) if name in TASKS else "text-classification"


def usage(records: Records, folder: str) -> list[str]:
    """How Transformers alone answers with a run's model, as lines of Python."""
    kind = pipeline_of(records)
    if kind == "question-answering":  # Transformers 5 has no pipeline for it
        return [
            "from transformers import AutoModelForQuestionAnswering, AutoTokenizer",
            "",
            f'model = AutoModelForQuestionAnswering.from_pretrained("{folder}")',
            f'tokenizer = AutoTokenizer.from_pretrained("{folder}")',
            'inputs = tokenizer("a question", "the text that holds the answer", return_tensors="pt")',
            "out = model(**inputs)",
            "first, last = out.start_logits.argmax().item(), out.end_logits.argmax().item()",
            'answer = tokenizer.decode(inputs["input_ids"][0, first : last + 1])',
        ]
    if kind == "text-generation":
        return [
            "from transformers import pipeline",
            "",
            f'answer = pipeline("text-generation", model="{folder}")',
            'answer([{"role": "user", "content": "a prompt"}], max_new_tokens=128, do_sample=False)',
        ]
    if records.recipe.get("classify_by") == "likelihood":
        return [
            "import tunewell",
            "",
            f'tunewell.load_run("{records.folder.resolve().name}").predict(["some text"])',
        ]
    if kind == "translation":
        return [
            "import tunewell",
            "",
            f'tunewell.load_run("{records.folder.resolve().name}").predict(["a source text"])',
        ]
    pair = bool(records.check and "text_pair" in records.check.columns)
    if "prompt" in (
        records.recipe.get("strategy") or []
    ):  # a masked language model, which its pattern turns to classes
        asked = '["first text"], ["second text"]' if pair else '["some text"]'
        return ["import tunewell", "", f'tunewell.load_run("{records.folder.resolve().name}").predict({asked})']
    text = '{"text": "first text", "text_pair": "second text"}' if pair else '"some text"'
    return [
        "from transformers import pipeline",
        "",
        f'answer = pipeline("{kind}", model="{folder}")',
        f"answer({text}, truncation=True)",
    ]


def _mapping(path: Path, parse: Any) -> dict[str, Any]:
    return dict(parse(path.read_text(encoding="utf-8")) or {}) if path.is_file() else {}


def _mistakes(path: Path, evaluation: Evaluation | None) -> tuple[dict[str, str], ...]:
    """Test rows answered wrongly, most sure first; for scores those that are furthest off."""
    if not path.is_file() or evaluation is None or not (evaluation.labels or evaluation.scatter):
        return ()
    scored: list[tuple[float, dict[str, str]]] = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in Rows(file):
            if not evaluation.labels:
                off = float(row["prediction"]) - float(row["label"])
                scored.append((abs(off), row))
            elif row["label"] != row["prediction"]:
                sure = row.get("p_" + row["prediction"]) or row.get("probability")
                # several labels a row: how far the probabilities stand from the truth in all
                scored.append((float(sure) if sure else _apart(row), row))
    scored.sort(key=lambda item: -item[0])
    keys = ("source", "row", "text", "text_pair", "label", "prediction")
    return tuple({**{k: row.get(k) or "" for k in keys}, "sure": f"{value:.3g}"} for value, row in scored[:MISTAKES])


def _apart(row: dict[str, str]) -> float:
    true, answered = set(json.loads(row["label"])), set(json.loads(row["prediction"]))
    wrong = true ^ answered
    return sum(abs(float(row.get("p_" + name) or 0.5) - (name in true)) for name in wrong)
