"""Label suspects: rows whose label a simple model, which has not seen them, finds unlikely.

Classes: confident learning (Northcutt, Jiang & Chuang, 2021). Out-of-fold probabilities from a
logistic regression on the base model's embeddings (TF-IDF without them); a class's threshold is the
mean probability of that class over the rows that carry it; a row is suspect when another class
passes its own threshold with the highest probability among those that do. Ranked by the margin
between the given label's probability and the highest other. Scores: out-of-fold residuals beyond
4 robust standard deviations (1.4826 · MAD).
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.data.check.scan import SHOWN, Scan
from tunewell.results import Finding

if TYPE_CHECKING:
    from tunewell.tasks import TaskSpec

MOST_ROWS, FOLDS, FAR = 20_000, 5, 4.0
TFIDF_CHARS = 1_000  # characters of a text that TF-IDF features are made of


def confident_joint_suspects(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rows whose label is off-diagonal in the confident joint, most suspicious first.

    Args:
        probabilities: (n, C) out-of-fold. labels: (n,) class ids.

    Returns:
        Row numbers, ordered by the normalised margin p(given) − max p(other), lowest first.
    """
    n, c = probabilities.shape
    thresholds = np.array([probabilities[labels == k, k].mean() if (labels == k).any() else np.inf for k in range(c)])
    above = np.where(probabilities >= thresholds - 1e-12, probabilities, -np.inf)
    confident = np.where(np.isfinite(above.max(axis=1)), above.argmax(axis=1), labels)
    given = probabilities[np.arange(n), labels]
    others = probabilities.copy()
    others[np.arange(n), labels] = -np.inf
    margin = given - others.max(axis=1)
    suspects = np.flatnonzero(confident != labels)
    return suspects[np.argsort(margin[suspects], kind="stable")]


def suspects(
    scan: Scan,
    spec: TaskSpec,
    targets: np.ndarray,
    vectors: np.ndarray | None,
    seed: int,
    embedded: np.ndarray | None = None,
) -> list[Finding]:
    """The finding for the training rows; none where there is too little to learn from.

    Args:
        targets: of all training rows. vectors: (n, H) embeddings of the rows `embedded` (None: of all);
            without vectors TF-IDF features of at most MOST_ROWS rows are used.
    """
    n = len(targets)
    if vectors is not None:
        rows = np.arange(n) if embedded is None else embedded
    else:
        rows = np.arange(n) if n <= MOST_ROWS else np.sort(np.random.default_rng(seed).permutation(n)[:MOST_ROWS])
    if spec.multi_label or len(rows) < 50:
        return []
    sampled = "" if len(rows) == n else f" of a sample of {len(rows):,}"
    features = "the base model's embeddings" if vectors is not None else "TF-IDF features"
    y = targets[rows]
    x = vectors if vectors is not None else _tfidf(scan, rows)
    if spec.regression:
        found, notes = _far_residuals(x, y, seed)
    else:
        found, notes = _unlikely_labels(x, y, spec, seed)
    if not len(found):
        return []
    start = scan.bounds["train"][0]
    share = len(found) / len(rows)
    return [
        Finding(
            code="label-suspects",
            severity="warning" if share > 0.02 else "notice",
            split="train",
            title="Labels to look at",
            count=len(found),
            message=f"{len(found):,} training rows{sampled} ({share:.1%}) have a label that a simple model on "
            f"{features}, which did not see them, finds unlikely"
            + ("" if spec.regression else " (confident learning)")
            + ". Some are hard, not wrong.",
            examples=tuple(
                scan.example(int(start + rows[i]), note) for i, note in zip(found[:SHOWN], notes[:SHOWN], strict=True)
            ),
            remedy="read the most suspicious ones first and correct those that are wrong",
        )
    ]


def _tfidf(scan: Scan, rows: np.ndarray) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    chosen = scan.splits["train"].select(rows)
    texts = [t[:TFIDF_CHARS] for t in chosen["text"][:]]
    if "text_pair" in chosen.column_names:
        texts = [f"{a}\n{b[:TFIDF_CHARS]}" for a, b in zip(texts, chosen["text_pair"][:], strict=True)]
    return TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 4), min_df=2, max_features=50_000, sublinear_tf=True, dtype=np.float32
    ).fit_transform(texts)


def _unlikely_labels(x: Any, y: np.ndarray, spec: TaskSpec, seed: int) -> tuple[np.ndarray, list[str]]:
    from scipy.sparse import issparse
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    sizes = np.bincount(y, minlength=len(spec.labels))
    usable = sizes[y] >= FOLDS  # rarer classes cannot be judged
    if len(np.unique(y[usable])) < 2:
        return np.array([], dtype=int), []
    kept = np.flatnonzero(usable)
    classes, ids = np.unique(y[kept], return_inverse=True)
    # TF-IDF rows have unit length already; embeddings are brought to a common scale
    logistic = LogisticRegression(max_iter=200, C=1.0)
    model = logistic if issparse(x) else make_pipeline(StandardScaler(), logistic.set_params(C=0.05))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed % 2**32)
        probabilities = cross_val_predict(model, x[kept], ids, cv=folds, method="predict_proba")
    found = confident_joint_suspects(probabilities, ids)
    notes = []
    for i in found[:SHOWN]:
        likely = int(probabilities[i].argmax())
        notes.append(
            f"label {spec.labels[classes[ids[i]]]} ({probabilities[i, ids[i]]:.0%}), rather "
            f"{spec.labels[classes[likely]]} ({probabilities[i, likely]:.0%})"
        )
    return kept[found], notes


def _far_residuals(x: Any, y: np.ndarray, seed: int) -> tuple[np.ndarray, list[str]]:
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler

    folds = KFold(FOLDS, shuffle=True, random_state=seed % 2**32)
    predicted = cross_val_predict(make_pipeline(MaxAbsScaler(), Ridge(alpha=1.0)), x, y, cv=folds)
    residuals = y - predicted
    centre = np.median(residuals)
    scale = 1.4826 * np.median(np.abs(residuals - centre))
    if scale <= 0:
        return np.array([], dtype=int), []
    z = np.abs(residuals - centre) / scale
    found = np.flatnonzero(z > FAR)
    found = found[np.argsort(-z[found], kind="stable")]
    return found, [f"label {y[i]:g}, expected about {predicted[i]:.2f}" for i in found[:SHOWN]]
