"""What tuning changed inside the model: where, how much, and for which texts.

Base and tuned model read the same texts: rows of the task, and general text. Layer by layer:

- how far the weights moved, as ‖tuned − base‖ / ‖base‖ (Frobenius);
- debiased linear CKA of the pooled states (Kornblith et al., 2019; Nguyen et al., 2021): 1 where the geometry of
  the texts stayed the same, about 0 where nothing of it is left;
- the shift of attention's entropy: below 0, attention became narrower;
- at which layer the answer is made: what the tuned model's head says when it reads that layer (logit lens), and how
  well a linear probe reads the labels there, before and after (Alain and Bengio, 2016).

Last, the texts that moved most in the pooled last layer, and a map of them: base and tuned states in the plane of
their two principal axes, so that a text can be seen to move.

Shapes: n texts, L layers, H hidden size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.evaluate.statistics import mean_interval
from tunewell.explain.inside import Inside, look_inside
from tunewell.results import Estimate, Record
from tunewell.retention.probes.drift import debiased_cka

if TYPE_CHECKING:
    from tunewell.predict import Predictor

GROUPS = 20  # of the jackknife
MOVED = 12  # texts listed
FOLDS = 3


class LayerDrift(Record):
    """One layer, the embeddings being 0."""

    layer: int
    weights: float  # relative distance of its weights
    cka_task: Estimate
    cka_general: Estimate | None
    entropy_shift: Estimate | None  # nats, tuned − base, on task rows; None for the embeddings
    decided: float | None  # share of task rows whose answer, read here, is the final one; None for regression
    probe_base: Estimate | None  # accuracy of a linear probe on the labels, by cross-validation
    probe_tuned: Estimate | None


class MovedText(Record):
    """A task row with its cosine distance between base and tuned state, and its place in both maps."""

    text: str
    label: str
    prediction: str
    distance: float
    base: tuple[float, float]
    tuned: tuple[float, float]


class Drift(Record):
    """`drift.json`: what tuning changed."""

    layers: tuple[LayerDrift, ...]
    weights: float  # relative distance of all encoder weights
    texts: tuple[MovedText, ...]  # all that were measured, the furthest moved first
    explained: tuple[float, float]  # share of variance along the two axes of the map
    general_texts: int
    depth: float | None  # mean layer from which on the answer stays what it will be; None for regression
    seconds: float = 0.0


def weight_distances(base: dict[str, Any], tuned: dict[str, Any]) -> dict[int, float]:
    """layer -> ‖tuned − base‖ / ‖base‖; −1 holds the whole encoder, 0 the embeddings, k + 1 the block numbered k.

    Args:
        base, tuned: state dicts of two encoders of one architecture. Weights outside of blocks and embeddings
            (poolers, last norms) count for the whole only.
    """
    moved: dict[int, float] = {}
    size: dict[int, float] = {}
    for name, weights in base.items():
        if name not in tuned or not weights.is_floating_point():
            continue
        block = re.search(r"\.(\d+)\.", f".{name}")
        layer = int(block.group(1)) + 1 if block else 0 if "embed" in name else None
        difference = float((tuned[name].double() - weights.double()).square().sum())
        own = float(weights.double().square().sum())
        for key in (-1, layer):
            if key is not None:
                moved[key] = moved.get(key, 0.0) + difference
                size[key] = size.get(key, 0.0) + own
    return {key: float(np.sqrt(moved[key] / size[key])) if size[key] else 0.0 for key in moved}


def cka(x: np.ndarray, y: np.ndarray, groups: int = GROUPS) -> Estimate:
    """Debiased linear CKA of (n, H₁) and (n, H₂), with the 95 % interval of a grouped jackknife (Tukey, 1958).

    A bootstrap would draw texts twice, which debiased CKA takes for signal.
    """
    n = len(x)
    value = debiased_cka(x, y)
    groups = min(groups, n // 4)
    if groups < 2:
        return Estimate(value=value, n=n)
    part = np.arange(n) % groups
    without = np.array([debiased_cka(x[part != g], y[part != g]) for g in range(groups)])
    half = 1.959964 * float(np.sqrt((groups - 1) / groups * ((without - without.mean()) ** 2).sum()))
    return Estimate(value=value, low=max(-1.0, value - half), high=min(1.0, value + half), n=n)


def decided_from(early: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """When answers are made.

    Args:
        early: (L + 1, n, C) what the head answers at each layer.

    Returns:
        (L + 1,) share of texts whose answer there is the final one, and (n,) the first layer from which on it stays.
    """
    answers = early.argmax(axis=2)
    same = answers == answers[-1]
    stays = np.flip(np.logical_and.accumulate(np.flip(same, axis=0), axis=0), axis=0)
    return same.mean(axis=1), stays.argmax(axis=0)


def plane(base: np.ndarray, tuned: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Base and tuned states (n, H) in the plane of their common two principal axes.

    Returns:
        (n, 2) of each, and the shares of variance along the axes. Signs are fixed: the largest loading is positive.
    """
    both = np.concatenate([base, tuned]).astype(np.float64)
    both -= both.mean(axis=0)
    _, sizes, axes = np.linalg.svd(both, full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2][np.arange(2), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    places = both @ axes.T
    share = sizes[:2] ** 2 / max(float((sizes**2).sum()), 1e-12)
    return places[: len(base)], places[len(base) :], (float(share[0]), float(share[1]))


def probe(states: np.ndarray, labels: Sequence[str], seed: int) -> Estimate | None:
    """Cross-validated accuracy of a linear probe on states (n, H), with Wilson's interval; None for one class or few
    rows of one."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from tunewell.evaluate.statistics import wilson

    names, counts = np.unique(labels, return_counts=True)
    if len(names) < 2 or counts.min() < FOLDS:
        return None
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    right = int((cross_val_predict(linear, states, np.asarray(labels), cv=folds) == np.asarray(labels)).sum())
    low, high = wilson(right, len(labels))
    return Estimate(value=right / len(labels), low=low, high=high, n=len(labels))


def drift(
    base: Any,
    predictor: Predictor,
    rows: Sequence[dict[str, str]],
    general: Sequence[str] = (),
    *,
    seed: int = 42,
    watch: Callable[[str], None] = lambda line: None,
) -> Drift:
    """Compare a base encoder with the tuned model.

    Args:
        base: the base model. predictor: the tuned one; its tokenizer serves both.
        rows: task rows with `text`, `label`, `prediction` and, for pairs, `text_pair`; at least 8.
        general: general texts; none to leave CKA on them out. watch: told what is being done.
    """
    import time

    started = time.perf_counter()
    spec = predictor.spec
    texts = [row["text"] for row in rows]
    pairs = [row["text_pair"] for row in rows] if spec.pair else None
    classes = not spec.regression and not spec.multi_label
    longest = predictor.max_length
    watch("task rows, tuned model")
    head = classes and predictor.scorer is None  # a decoder asked in words has no head for classes
    after = look_inside(predictor.model, predictor.tokenizer, texts, pairs, head=head, max_length=longest)
    watch("task rows, base model")
    before = look_inside(base, predictor.tokenizer, texts, pairs, max_length=longest)
    other: tuple[Inside, Inside] | None = None
    if len(general) >= 8:
        watch("general text")
        other = (
            look_inside(base, predictor.tokenizer, general, max_length=longest),
            look_inside(predictor.model, predictor.tokenizer, general, max_length=longest),
        )
    moved = weight_distances(base.state_dict(), predictor.model.base_model.state_dict())
    shares, stays = decided_from(after.early) if after.early is not None else (None, None)
    labels = [row["label"] for row in rows]
    layers = []
    for k in range(len(after.pooled)):
        watch(f"layer {k} of {len(after.pooled) - 1}")
        layers.append(
            LayerDrift(
                layer=k,
                weights=moved.get(k, 0.0),
                cka_task=cka(before.pooled[k], after.pooled[k]),
                cka_general=cka(other[0].pooled[k], other[1].pooled[k]) if other else None,
                entropy_shift=_shift(before, after, k - 1) if k else None,
                decided=None if shares is None else float(shares[k]),
                probe_base=probe(before.pooled[k], labels, seed) if classes else None,
                probe_tuned=probe(after.pooled[k], labels, seed) if classes else None,
            )
        )
    x, y, explained = plane(before.pooled[-1], after.pooled[-1])
    far = 1.0 - _cosine(before.pooled[-1], after.pooled[-1])
    return Drift(
        layers=tuple(layers),
        weights=moved.get(-1, 0.0),
        texts=tuple(
            MovedText(
                text=texts[i] if pairs is None else f"{texts[i]} ⇔ {pairs[i]}",
                label=labels[i],
                prediction=rows[i]["prediction"],
                distance=float(far[i]),
                base=(round(float(x[i, 0]), 4), round(float(x[i, 1]), 4)),
                tuned=(round(float(y[i, 0]), 4), round(float(y[i, 1]), 4)),
            )
            for i in np.argsort(-far, kind="stable")
        ),
        explained=explained,
        general_texts=len(general) if other else 0,
        depth=None if stays is None else float(stays.mean()),
        seconds=round(time.perf_counter() - started, 2),
    )


def _shift(before: Inside, after: Inside, layer: int) -> Estimate | None:
    """Mean change of attention's entropy with its 95 % t interval."""
    if before.entropy is None or after.entropy is None:
        return None
    return mean_interval(after.entropy[layer] - before.entropy[layer])


def _cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cosine (n,) of rows of (n, H) and (n, H)."""
    sizes = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return np.clip((x * y).sum(axis=1) / np.maximum(sizes, 1e-12), -1.0, 1.0)
