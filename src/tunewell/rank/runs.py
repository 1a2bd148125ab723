"""One's own past runs as starting points: intermediate-task transfer (Phang et al., 2018; Pruksachatkun et al., 2020).

A model that was tuned on a related task may be a better start for new labels than the base model; on an unrelated one
it may be worse. Past runs are ranked with the base models that they were tuned from, by what can be read off without
tuning (LogME, a probe, LEEP of the run's own head), and the best of them is held against its base model row by row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import RecipeError
from tunewell.rank.records import Ranked, Skipped, Transfer

if TYPE_CHECKING:
    from tunewell.rank.rows import Sample
    from tunewell.recipe import Recipe
    from tunewell.tasks import TaskSpec

FINISHED = ("summary.json", "meta.json")  # of a run or a sequence; of meta-learning


def past_runs(
    folders: Sequence[str], files: Sequence[str] = ()
) -> tuple[dict[str, str], list[Skipped]]:  # fmt: skip
    """model folder of each finished run -> the base model that it was tuned from; and what is none, with the reason.

    Args:
        folders: run folders, as they were typed. files: sha256 of the new data: a run that has learned from the same
            file would score too high.

    Raises:
        RecipeError: none is a finished run, or one is named twice.
    """
    found: dict[str, str] = {}
    left: list[Skipped] = []
    for folder in folders:
        path = Path(folder).expanduser()
        model = str(path / "model")
        if model in found:
            raise RecipeError(f"`{folder}` is named twice", where="runs", expected="each run once")
        base, why = _base_of(path)
        if not why and set(files) & set(_learned_from(path)):
            why = "has learned from this very file, so that its scores would be too high"
        if why:
            left.append(Skipped(str(folder), why))
        else:
            found[model] = base
    if not found:
        reasons = "; ".join(f"{s.name}: {s.reason}" for s in left[:5])
        raise RecipeError(
            "no past run can be a candidate" if folders else "no past run is named",
            where="runs",
            expected="folders that `tunewell run`, `sequence` or `meta` have finished",
            remedy=reasons or "for example --runs runs/*",
        )
    return found, left


def _base_of(path: Path) -> tuple[str, str]:
    """The base model of a finished run, and why it is no candidate (empty where it is one)."""
    if not path.is_dir():
        return "", "no such folder"
    record = next((path / name for name in FINISHED if (path / name).is_file()), None)
    if record is None:
        return "", "is not a finished run"
    if not (path / "model" / "config.json").is_file():
        return "", "has no model"
    try:
        return str(json.loads(record.read_text(encoding="utf-8"))["model"]), ""
    except (OSError, ValueError, KeyError, TypeError):
        return "", f"its {record.name} is damaged"


def _learned_from(path: Path) -> list[str]:
    """sha256 of the file that a run was tuned on, where it says so."""
    try:
        files = json.loads((path / "split.json").read_text(encoding="utf-8"))["files"]
        return [str(files["train"])]
    except (OSError, ValueError, KeyError, TypeError):
        return []


# ---------------------------------------------------------------- does it help?


def losses(spec: TaskSpec, features: np.ndarray, targets: np.ndarray, *, seed: int) -> np.ndarray:
    """(n,) loss of each row under the cross-validated linear probe: wrong or right, share of wrong labels, or squared
    error in variances of the scores; at the strength of regularisation whose mean is lowest.

    Args:
        features: (n, F). targets: as `tasks.targets` gives them. seed: of the folds, the same for every model.
    """
    from tunewell.evaluate.linear import outputs_of
    from tunewell.rank.scores.linear_probe import ALPHAS, FOLDS, folds_of, ridge_path

    kind: Any = "regression" if spec.regression else "multi-label" if spec.multi_label else "single-label"
    x, y = np.asarray(features, np.float64), outputs_of(kind, targets, spec.outputs)
    fold = folds_of(spec, targets, seed, min(FOLDS, len(targets)))
    answers = np.empty((len(ALPHAS), *y.shape))
    for k in range(int(fold.max()) + 1):
        out = fold == k
        answers[:, out] = ridge_path(x[~out], y[~out], x[out])
    if spec.regression:
        each = (answers[:, :, 0] - y[:, 0]) ** 2 / max(float(np.var(y)), 1e-12)
    elif spec.multi_label:
        each = ((answers > 0.5) != (y > 0.5)).mean(axis=2)
    else:
        each = (answers.argmax(axis=2) != np.asarray(targets)).astype(np.float64)
    return np.asarray(each[int(each.mean(axis=1).argmin())])


def judged(
    order: Sequence[Ranked],
    past: dict[str, str],
    sample: Sample,
    recipe: Recipe,
    echo: Callable[[str], None] = lambda line: None,
) -> Transfer | None:
    """The best past run against the base model that it was tuned from, on the same rows.

    Returns:
        None where one of the two could not be measured, or the task has no linear probe.
    """
    from tunewell.evaluate.statistics import mean_interval, paired_permutation
    from tunewell.rank.candidates import ENCODERS

    best = next((m for m in order if m.name in past), None)
    if best is None or sample.spec.name not in ENCODERS:
        return None
    base = past[best.name]
    if base not in {m.name for m in order}:
        return None
    echo(f"rank: {best.name} against {base}")
    mine, other = (
        losses(sample.spec, features(m, sample, recipe), sample.targets, seed=recipe.seed) for m in (best.name, base)
    )
    gain = mean_interval(other - mine)
    tried = sum(m.name in past for m in order)
    p_value = min(1.0, tried * paired_permutation(other - mine, seed=recipe.seed))
    assert gain.value is not None
    sure = p_value < 0.05 and gain.low is not None and gain.high is not None and gain.low * gain.high > 0
    return Transfer(
        run=best.name,
        base=base,
        gain=gain.value,
        low=gain.low,
        high=gain.high,
        p_value=p_value,
        tried=tried,
        helps=gain.value > 0 if sure else None,
    )


def features(name: str, sample: Sample, recipe: Recipe) -> np.ndarray:
    """(n, F) the mean over layers of a model's features, what the ranking's probe reads."""
    from tunewell.models.load import locate, window
    from tunewell.rank.candidates import kind_at
    from tunewell.rank.features import forward
    from tunewell.rank.labelled import load
    from tunewell.stages.prepare import choose_max_length
    from tunewell.train.tune import use_bf16

    path = locate(name)
    recipe = recipe.model_copy(update={"model": name})
    kind = kind_at(name, path, trust_remote_code=recipe.trust_remote_code, revision=recipe.revision)
    model, tokenizer, _ = load(name, path, kind, sample.spec, recipe)
    pair = sample.spec.pair
    length = choose_max_length(recipe, {"train": sample.rows}, tokenizer, window(model, tokenizer), pair)
    bf16 = use_bf16(recipe.bf16)
    passed = forward(model, tokenizer, sample.rows, pair=pair, max_length=length, bf16=bf16)
    return np.asarray(passed.layers[1:].mean(axis=0))


def advice(transfer: Transfer) -> str:
    """What to do, in one sentence.

    >>> advice(Transfer("runs/a/model", "base", 0.04, 0.02, 0.06, 0.001, 3, True))
    'runs/a/model is read better than base by +4.0 points (+2.0 to +6.0), p = 0.001: start from it'
    """
    t = transfer
    ends = "" if t.low is None or t.high is None else f" ({100 * t.low:+.1f} to {100 * t.high:+.1f})"
    by = f"{100 * t.gain:+.1f} points{ends}, p = {t.p_value:.2g}".replace("-", "−")
    if t.helps:
        return f"{t.run} is read better than {t.base} by {by}: start from it"
    if t.helps is False:
        return f"none of the runs helps: the best, {t.run}, is read worse than {t.base} by {by}"
    return f"no run is surely better than {t.base}: the best, {t.run}, differs by {by}"
