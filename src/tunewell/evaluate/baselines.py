"""Cheap alternatives that a tuned model must beat: the majority, TF-IDF under a linear model, the base model frozen.

All are trained on the training rows; what must be chosen is chosen on validation, without validation rows by
cross-validation on the training rows.

Shapes: n rows, C classes, H hidden size.
"""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.evaluate.linear import LinearProbe, choose, fit_linear_probe, outputs_of
from tunewell.evaluate.metrics import kind_of, score

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.models.load import Encoder

__all__ = ["Baseline", "LinearProbe", "TfidfFeatures", "fit_linear_probe", "pair_features", "run_baselines", "unspaced"]

MAX_ROWS = 20_000  # training rows that a baseline sees at most
MAX_CHARACTERS = 40_000_000  # in those rows
CHARACTERS_FOR_NGRAMS = 3_000_000  # above, character n-grams of spaced text are left out: words tell enough
MAX_PARAMETERS = 2_000_000  # TF-IDF features · classes
TFIDF_CS = (0.3, 1.0, 3.0, 10.0, 50.0)
TFIDF_TOLERANCE = 1e-4  # closer fits answer the same
TFIDF_ALPHAS = (0.1, 0.3, 1.0, 3.0, 10.0)
# Scripts written without spaces between words, by the first word of their Unicode names.
UNSPACED = frozenset({"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"})


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline's answers.

    Attributes:
        name: "majority", "mean", "tfidf" or "linear-probe".
        title: for people, with what was left out, if anything.
        scores: split (validation, test) -> (n, C) probabilities or (n,) values.
        seconds: fitting and predicting.
    """

    name: str
    title: str
    scores: dict[str, np.ndarray]
    seconds: float


def run_baselines(
    spec: Any,
    splits: dict[str, Dataset],
    *,
    encoder: Encoder | None = None,
    embeddings: dict[str, np.ndarray] | None = None,
    seed: int = 42,
    train_total: int | None = None,
) -> dict[str, Baseline]:
    """Fit and score every baseline.

    Args:
        spec: a TaskSpec.
        splits: canonical datasets train, validation and maybe test.
        encoder: the base model, to embed the texts when `embeddings` are not given.
        embeddings: split -> (n, H) of the frozen base model, in the rows' order; (n, 2, H) for pairs.
            Without encoder and embeddings there is no linear probe.
        seed: of the sample taken from more than 20,000 training rows (40 million characters).
        train_total: rows that `splits["train"]` is itself a sample of, for the titles.

    Returns:
        name -> Baseline: "majority" (regression: "mean"), "tfidf", "linear-probe".
    """
    from tunewell.tasks import targets

    total = train_total or len(splits["train"])
    rows = _sample(splits["train"], seed)
    if len(rows) < len(splits["train"]):
        splits = {**splits, "train": splits["train"].select(rows)}
        embeddings = {**embeddings, "train": embeddings["train"][rows]} if embeddings is not None else None
    y = {name: targets(spec, dataset) for name, dataset in splits.items()}
    seen = len(splits["train"])
    left_out = f" ({seen:,} of {total:,} training rows)" if seen < total else ""
    found = [_constant(spec, y), _tfidf(spec, splits, y, seed, left_out)]
    if embeddings is not None or encoder is not None:
        found.append(_probe(spec, splits, y, encoder, embeddings, seed, left_out))
    return {baseline.name: baseline for baseline in found}


def _sample(train: Dataset, seed: int) -> np.ndarray:
    """Rows of a seeded sample within MAX_ROWS and MAX_CHARACTERS, in order."""
    order = np.random.default_rng(seed).permutation(len(train))[:MAX_ROWS]
    columns = [c for c in ("text", "text_pair") if c in train.column_names]
    few = order[:500]
    characters = sum(len(text) for c in columns for text in train.select(few)[c]) / max(1, len(few))
    return np.sort(order[: max(1000, int(MAX_CHARACTERS / max(1.0, characters)))])


# ---------------------------------------------------------------- the three


def _constant(spec: Any, y: dict[str, np.ndarray]) -> Baseline:
    """The same answer for every row: shares of the classes in the training rows, or their mean."""
    started = time.perf_counter()
    regression = kind_of(spec) == "regression"
    if kind_of(spec) == "single-label":
        answer = np.bincount(y["train"], minlength=len(spec.labels)) / len(y["train"])
    else:
        answer = np.mean(y["train"], axis=0, dtype=np.float64)
    scores = {s: np.repeat(answer[None], len(y[s]), axis=0).astype(np.float32) for s in y if s != "train"}
    name, title = ("mean", "the mean") if regression else ("majority", "the most frequent answer")
    return Baseline(name, title, scores, time.perf_counter() - started)


def _tfidf(spec: Any, splits: dict[str, Dataset], y: dict[str, np.ndarray], seed: int, left_out: str) -> Baseline:
    started = time.perf_counter()
    kind = kind_of(spec)
    judged = y["validation"] if len(y["validation"]) else y["train"]
    texts = {s: (d["text"][:], d["text_pair"][:] if spec.pair else None) for s, d in splits.items()}
    features = TfidfFeatures(*texts["train"], max_features=MAX_PARAMETERS // max(1, len(spec.labels)))
    x = {s: features.train if s == "train" else features(*texts[s]) for s in splits if len(splits[s])}
    x.setdefault("validation", features.train[:0])
    model = choose(
        kind,  # type: ignore[arg-type]
        x["train"],
        outputs_of(kind, y["train"], len(spec.labels)),  # type: ignore[arg-type]
        x["validation"],
        lambda scores: score(spec.metric, spec, scores, judged),
        grid=TFIDF_ALPHAS if kind == "regression" else TFIDF_CS,
        seed=seed,
        tolerance=TFIDF_TOLERANCE,
    )
    scores = {s: model.scores(x[s]) for s in x if s != "train"}
    title = f"TF-IDF of {features.title} + {_head(kind)}{left_out}"
    return Baseline("tfidf", title, scores, time.perf_counter() - started)


def _probe(
    spec: Any,
    splits: dict[str, Dataset],
    y: dict[str, np.ndarray],
    encoder: Encoder | None,
    embeddings: dict[str, np.ndarray] | None,
    seed: int,
    left_out: str,
) -> Baseline:
    started = time.perf_counter()
    if embeddings is None:
        embeddings = {s: _embed(encoder, d, spec.pair) for s, d in splits.items()}
    judged = y["validation"] if len(y["validation"]) else y["train"]
    x = {s: pair_features(v) if np.ndim(v) == 3 else v for s, v in embeddings.items()}
    probe = fit_linear_probe(
        x["train"],
        y["train"],
        x["validation"],
        y["validation"],
        seed=seed,
        n_classes=len(spec.labels) or None,
        objective=lambda scores: score(spec.metric, spec, scores, judged),
    )
    scores = {s: probe.scores(x[s]) for s in splits if s != "train"}
    title = f"base model, frozen + {_head(kind_of(spec))}{left_out}"
    return Baseline("linear-probe", title, scores, time.perf_counter() - started)


def _embed(encoder: Any, dataset: Dataset, pair: bool) -> np.ndarray:
    from tunewell.models.embed import embed

    columns = ("text", "text_pair") if pair else ("text",)
    parts = [embed(encoder.model, encoder.tokenizer, list(dataset[c])) for c in columns]
    return np.stack(parts, axis=1) if pair else parts[0]


def _head(kind: str) -> str:
    return "ridge regression" if kind == "regression" else "logistic regression"


# ---------------------------------------------------------------- features


def pair_features(vectors: np.ndarray) -> np.ndarray:
    """Embeddings of pairs (n, 2, H) as one row each (n, 4H + 1): u, v, |u − v|, u · v and their cosine.

    The first four after Conneau et al. (2017, InferSent); the cosine since sentence encoders are made for it.
    """
    u, v = np.asarray(vectors[:, 0], np.float64), np.asarray(vectors[:, 1], np.float64)
    norms = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
    cosine = np.sum(u * v, axis=1) / np.maximum(norms, 1e-12)
    return np.concatenate([u, v, np.abs(u - v), u * v, cosine[:, None]], axis=1)


def unspaced(texts: Sequence[str]) -> bool:
    """Whether most letters of these texts (the first 2,000) are of scripts without spaces between words.

    >>> unspaced(["今天天气很好", "OK"]), unspaced(["fine weather today"])
    (True, False)
    """
    letters = [c for text in texts[:2000] for c in text[:200] if c.isalpha()]
    without = sum(ord(c) > 0x0DFF and unicodedata.name(c, "").split(" ")[0] in UNSPACED for c in letters)
    return 2 * without > len(letters)


class TfidfFeatures:
    """TF-IDF features learnt from training texts; called with texts it gives sparse rows (n, F), float32.

    Words and pairs of words, and character n-grams of 2 to 5 within words; for scripts without spaces
    character n-grams of 1 to 3; for long texts words only. Of pairs: both texts' features, their
    absolute difference, and the cosine of each kind of feature.

    Args:
        texts: training texts; `pairs` their second texts, or None.
        max_features: in all; the most frequent stay.

    Attributes:
        train: features of the training texts.
        title: of what they are made.
    """

    def __init__(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, max_features: int = 200_000
    ) -> None:
        from sklearn.feature_extraction.text import CountVectorizer

        corpus = [*texts, *(pairs or [])]
        words = {"ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"}
        kinds: list[Any]
        if unspaced(corpus):
            kinds, self.title = [CountVectorizer(analyzer="char", ngram_range=(1, 3))], "1 to 3 characters"
        elif sum(map(len, corpus)) > CHARACTERS_FOR_NGRAMS:
            kinds, self.title = [CountVectorizer(**words)], "words"
        else:
            kinds, self.title = [CountVectorizer(**words), _CharactersInWords(2, 5)], "words and characters"
        most = min(100_000, max(2000, max_features // (len(kinds) * (3 if pairs else 1))))
        self.parts: list[_Weighted] = []
        found: list[Any] = []
        for counter in [*kinds, CountVectorizer(analyzer="char")]:
            if len(self.parts) == len(kinds):
                break  # single characters only stand in where texts hold no words at all
            try:
                part = _Weighted(counter, corpus, most)
            except ValueError:  # empty vocabulary
                continue
            self.parts.append(part)
            found.append(part.train)
        self.train = _joined(found, len(texts), bool(pairs))

    def __call__(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Any:
        corpus = [*texts, *(pairs or [])]
        return _joined([part(corpus) for part in self.parts], len(texts), bool(pairs))


def _joined(parts: list[Any], n: int, pair: bool) -> Any:
    """Features of n texts, of n texts and then their n second texts, as n sparse rows."""
    from scipy.sparse import csr_array, hstack

    blocks = []
    for part in parts:
        u, v = part[:n], part[n:]
        blocks.append(u)
        if pair:
            cosine = csr_array(np.asarray(u.multiply(v).sum(axis=1), np.float32).reshape(-1, 1))
            blocks += [v, abs(u - v), cosine]
    return csr_array(hstack(blocks, format="csr"))


class _Weighted:
    """Counts of one kind of feature as TF-IDF: those that occur at least twice, the `most` frequent of them.

    With under 1,000 texts those that occur once stay too. `train` holds the features of the corpus.
    """

    def __init__(self, counter: Any, corpus: Sequence[str], most: int) -> None:
        from sklearn.feature_extraction.text import TfidfTransformer

        self.counter = counter
        counts = counter.fit_transform(corpus).astype(np.float32)
        total = np.asarray(counts.sum(axis=0)).ravel()
        kept = np.flatnonzero(total >= (2 if len(corpus) >= 1000 else 1))
        self.kept = np.sort(kept[np.argsort(-total[kept], kind="stable")[:most]])
        if not len(self.kept):
            raise ValueError("empty vocabulary")
        self.weigh = TfidfTransformer(sublinear_tf=True)
        self.train = self._rows(self.weigh.fit_transform(counts[:, self.kept]))

    def __call__(self, texts: Sequence[str]) -> Any:
        return self._rows(self.weigh.transform(self.counter.transform(texts).astype(np.float32)[:, self.kept]))

    @staticmethod
    def _rows(matrix: Any) -> Any:
        from scipy.sparse import csr_array

        return csr_array(matrix, dtype=np.float32)


class _CharactersInWords:
    """Counts of the character n-grams within words, as scikit-learn's `char_wb` gives them, several times faster.

    Each distinct word is taken apart once: texts × words @ words × n-grams.
    """

    def __init__(self, shortest: int, longest: int) -> None:
        from sklearn.feature_extraction.text import CountVectorizer

        self.grams = CountVectorizer(analyzer="char_wb", ngram_range=(shortest, longest))

    def fit_transform(self, texts: Sequence[str]) -> Any:
        words, counts = self._words(texts)
        return counts @ self.grams.fit_transform(words)

    def transform(self, texts: Sequence[str]) -> Any:
        words, counts = self._words(texts)
        return counts @ self.grams.transform(words)

    @staticmethod
    def _words(texts: Sequence[str]) -> tuple[Sequence[str], Any]:
        from sklearn.feature_extraction.text import CountVectorizer

        words = CountVectorizer(analyzer=lambda text: text.lower().split())
        counts = words.fit_transform(texts)
        return words.get_feature_names_out(), counts
