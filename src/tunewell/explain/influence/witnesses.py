"""What speaks against the label of each row, by several witnesses, brought into one suspicion.

Shapes: n rows of the training file, C outputs, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunewell.explain.influence.index import FOLDER, Echo, file_hash_of, probabilities
from tunewell.explain.influence.out_of_fold import neighbour_votes, out_of_fold
from tunewell.explain.influence.rows import FileRows
from tunewell.folder import file_hash, fingerprint
from tunewell.results import write_with
from tunewell.seal import DAMAGED_ARRAYS

REPEATS = 3  # divisions into folds that out-of-fold predictions are averaged over
LEAST_OF_A_CLASS = 3  # rows of rarer classes are neither trusted nor suspected
# What reads the tuned model's embeddings has been told the labels that the margins were told: beside them it brings
# little that is new, and on noisy sentiment it took 5 points of recall away (sst2, one seed; see docs/log.md).
ECHO = {"p_tuned": 0.1, "neighbours": 0.1}
FAR = 4.0  # robust deviations from which a residual is flagged


@dataclass(frozen=True)
class Witnesses:
    """The verdicts; see `LabelErrors`.

    Attributes:
        suspicion: (n,) higher is more suspicious.
    """

    suspicion: np.ndarray
    likely: list[Any]
    flagged: np.ndarray
    columns: dict[str, np.ndarray]


@dataclass(frozen=True)
class Passes:
    """Forward passes over all rows of the file.

    Attributes:
        base: (n, F) pooled embeddings by the base model; for pairs those of both texts beside each other.
        tuned: (n, F) the same by the tuned model (of the pair as it reads it).
        features: (n, H) input of the tuned model's head. logits: (n, C).
    """

    base: np.ndarray
    tuned: np.ndarray
    features: np.ndarray
    logits: np.ndarray


def hear(rows: FileRows, *, echo: Echo, progress: bool) -> Witnesses:
    """Ask all witnesses about all rows."""
    from tunewell.train.dynamics import FILE, Dynamics

    passes = forward(rows, echo=echo, progress=progress)
    recorded = Dynamics.load(rows.run / "train" / FILE)
    if recorded is not None and recorded.margin.shape[1] != len(rows.trained):
        recorded = None  # of other rows
    if rows.spec.regression:
        return _values(rows, passes)
    if rows.spec.multi_label:
        return _several(rows, passes)
    return _classes(rows, passes, recorded)


def forward(rows: FileRows, *, echo: Echo, progress: bool) -> Passes:
    """All rows through base and tuned model; kept in the run folder for the next time."""
    path = rows.run / FOLDER / "passes.npz"
    weights = sorted((rows.run / "model").glob("*.safetensors"))
    key = fingerprint("passes", [file_hash(w) for w in weights], file_hash_of(rows), len(rows))
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["key"]) == key:
                return Passes(*(file[name] for name in ("base", "tuned", "features", "logits")))
    except DAMAGED_ARRAYS:
        pass
    made = _forward(rows, echo, progress)

    def save(place: Path) -> None:
        with place.open("wb") as out:
            np.savez(out, key=np.array(key), **vars(made))

    write_with(path, save)
    return made


def _forward(rows: FileRows, echo: Echo, progress: bool) -> Passes:
    import sys

    from tqdm import tqdm

    from tunewell.explain.influence.gradients import Projector
    from tunewell.models.embed import embed, encode, like_length, pad
    from tunewell.models.load import load_encoder
    from tunewell.predict import Predictor
    from tunewell.train.tune import use_bf16

    predictor = Predictor.load(rows.run)
    recipe, length, n = rows.recipe, predictor.max_length, len(rows)
    bf16 = use_bf16(recipe.bf16)
    echo(f"label errors: {n:,} rows through the base model and the tuned one")
    encoder = load_encoder(recipe.model, recipe.revision, recipe.trust_remote_code)
    parts = [
        embed(encoder.model, encoder.tokenizer, texts, max_length=length, bf16=bf16)
        for texts in (rows.texts, rows.pairs)
        if texts is not None
    ]
    base = np.concatenate([*parts, *([np.abs(parts[0] - parts[1])] if len(parts) == 2 else [])], axis=1)
    del encoder
    model, tokenizer = predictor.model, predictor.tokenizer
    encoded = encode(tokenizer, rows.texts, rows.pairs, length)
    lengths = np.fromiter((len(ids) for ids in encoded["input_ids"]), dtype=np.int64, count=n)
    with Projector(model) as projector, tqdm(total=n, file=sys.stderr, disable=not progress, leave=False) as bar:
        features = np.empty((n, projector.head.in_features), dtype=np.float32)
        logits = np.empty((n, int(model.config.num_labels or 1)), dtype=np.float32)
        for index in like_length(lengths, 64):
            inputs = {k: v.to(model.device) for k, v in pad(tokenizer, encoded, index).items()}
            found = projector.run(inputs, None, predictor.spec, gradients=False)
            features[index], logits[index] = found.features, found.logits
            bar.update(len(index))
    tuned = embed(model, tokenizer, rows.texts, pairs=rows.pairs, max_length=length, bf16=bf16)
    return Passes(base, tuned, features, logits)


def _repeated(rows: FileRows, x: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Out-of-fold predictions averaged over several divisions into folds."""
    seeds = range(rows.recipe.seed, rows.recipe.seed + REPEATS)
    return np.mean([out_of_fold(rows.spec, x, targets, seed=seed) for seed in seeds], axis=0)


# ---------------------------------------------------------------- one label a row


def _classes(rows: FileRows, passes: Passes, recorded: Any) -> Witnesses:
    from tunewell.data.check.suspects import confident_joint_suspects

    spec, targets = rows.spec, rows.targets()
    n, trained = len(targets), rows.split == "train"
    every = np.arange(n)
    base, tuned = (_repeated(rows, x, targets) for x in (passes.base, passes.tuned))
    near = neighbour_votes(spec, passes.tuned, targets)
    answered = probabilities(spec, passes.logits)
    margin = own_margin(passes.logits, targets)
    if recorded is not None:
        seen = recorded.aum
        margin[rows.trained] = np.where(np.isfinite(seen), seen, margin[rows.trained])
    witnesses = {
        "p_base": base[every, targets],
        "p_tuned": tuned[every, targets],
        "neighbours": near[every, targets],
        "margin": margin,
    }
    agrees = {
        "p_base": base.argmax(axis=1) == targets,
        "p_tuned": tuned.argmax(axis=1) == targets,
        "neighbours": near.argmax(axis=1) == targets,
        "margin": margin > 0,
    }
    chance = float(np.bincount(targets).max() / n)
    weights = {name: lift(agrees[name], chance) for name in witnesses}
    heard = {name: weight * (ECHO.get(name, 1.0) if recorded is not None else 1.0) for name, weight in weights.items()}
    suspicion = combine(witnesses, trained, heard)
    mean = weights["p_base"] * base + (weights["p_tuned"] + weights["margin"]) * tuned + weights["neighbours"] * near
    held = ~trained
    mean[held] += weights["margin"] * (answered[held] - tuned[held])  # its own answer where it had not seen the row
    mean /= sum(weights.values())
    likely = [spec.labels[int(k)] for k in mean.argmax(axis=1)]
    flagged = np.zeros(n, dtype=bool)
    flagged[confident_joint_suspects(mean, targets)] = True
    lonely = np.bincount(targets, minlength=len(spec.labels))[targets] < LEAST_OF_A_CLASS
    suspicion[lonely], flagged[lonely] = np.median(suspicion), False  # nothing to compare with
    columns = {**witnesses, "self_influence": self_influence(rows, passes, targets)}
    if recorded is not None:
        for name, values in (("confidence", recorded.mean_confidence), ("variability", recorded.variability)):
            columns[name] = np.full(n, np.nan)
            columns[name][rows.trained] = values
    return Witnesses(suspicion, likely, flagged, columns)


def lift(agrees: np.ndarray, chance: float) -> float:
    """How much a witness is worth: its agreement with the labels, 0 at chance, 1 when it always agrees.

    Never quite 0, so that a table without any good witness still has an order.

    >>> round(lift(np.array([True, True, True, False]), 0.5), 3)
    0.5
    """
    return max(0.01, (float(agrees.mean()) - chance) / max(1e-9, 1 - chance))


def combine(witnesses: dict[str, np.ndarray], trained: np.ndarray, weights: dict[str, float]) -> np.ndarray:
    """Weighted mean over the witnesses of the row's rank, 0 (trusted) to 1 (suspicious).

    Ranks are taken among the rows that the model was tuned on and among the others by themselves: a margin means
    something else for a row that was learned.

    Args:
        witnesses: (n,) each, high where the label fits. trained: (n,) booleans. weights: of each witness, see `lift`.

    >>> combine({"p": np.array([0.9, 0.1, 0.5])}, np.array([True, True, True]), {"p": 1.0}).round(2).tolist()
    [0.17, 0.83, 0.5]
    """
    from scipy.stats import rankdata

    total = np.zeros(len(trained))
    for name, values in witnesses.items():
        for group in (trained, ~trained):
            if group.any():
                total[group] += weights[name] * (1 - (rankdata(values[group]) - 0.5) / group.sum())
    return total / sum(weights[name] for name in witnesses)


def own_margin(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(n,) logit of the given label minus the largest other one."""
    every = np.arange(len(targets))
    others = logits.astype(np.float64)
    given = others[every, targets].copy()
    others[every, targets] = -np.inf
    return given - others.max(axis=1)


def self_influence(rows: FileRows, passes: Passes, targets: np.ndarray) -> np.ndarray:
    """(n,) see `tracin.self_influence`."""
    from tunewell.explain.influence import tracin
    from tunewell.explain.influence.index import Index

    nothing = np.empty((len(targets), 0), dtype=np.float32)
    return tracin.self_influence(Index(rows.spec, passes.features, passes.logits, targets, nothing, {}, rows.rows))


# ---------------------------------------------------------------- several labels a row


def _several(rows: FileRows, passes: Passes) -> Witnesses:
    """Each label of each row is judged by itself; a row is as suspicious as its worst one."""
    spec, targets = rows.spec, rows.targets()
    base, tuned = (_repeated(rows, x, targets) for x in (passes.base, passes.tuned))
    p = np.clip((base + tuned + neighbour_votes(spec, passes.tuned, targets)) / 3, 0, 1)
    doubt = np.where(targets > 0, 1 - p, p)
    wrong = doubtful_cells(p, targets)
    worst = doubt.argmax(axis=1)
    better = np.where(wrong, 1 - targets, targets)
    likely = [[spec.labels[j] for j in np.flatnonzero(row > 0)] for row in better]
    every = np.arange(len(targets))
    columns = {
        "p_base": np.where(targets > 0, base, 1 - base)[every, worst],
        "p_tuned": np.where(targets > 0, tuned, 1 - tuned)[every, worst],
        "self_influence": self_influence(rows, passes, targets),
    }
    return Witnesses(doubt.max(axis=1), likely, np.asarray(wrong.any(axis=1)), columns)


def doubtful_cells(p: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(n, C) cells that confident learning takes for wrong, label by label.

    A label that is given (not given) is doubted when the probability of its absence (presence) reaches the mean of
    that probability over the rows where it is absent (present), and is above a half.
    """
    given = targets > 0
    present = np.array([p[given[:, c], c].mean() if given[:, c].any() else np.inf for c in range(p.shape[1])])
    absent = np.array([(1 - p[~given[:, c], c]).mean() if (~given[:, c]).any() else np.inf for c in range(p.shape[1])])
    return np.where(given, (1 - p >= absent) & (p < 0.5), (p >= present) & (p > 0.5))


# ---------------------------------------------------------------- scores


def _values(rows: FileRows, passes: Passes) -> Witnesses:
    """Residuals of predictions that have not seen the row, in robust standard deviations."""
    targets = rows.targets().astype(np.float64)
    held = rows.split != "train"
    base, tuned = (_repeated(rows, x, targets.astype(np.float32)) for x in (passes.base, passes.tuned))
    expected = (base + tuned) / 2
    expected[held] = (expected[held] + passes.logits[held, 0]) / 2
    residual = targets - expected
    centre = np.median(residual)
    scale = 1.4826 * float(np.median(np.abs(residual - centre))) or float(residual.std()) or 1.0
    far = np.abs(residual - centre) / scale
    columns = {"residual": residual, "deviations": far}
    return Witnesses(far, [round(float(v), 6) for v in expected], far > FAR, columns)
