"""Explain texts: encode, choose a target and a method, score words, measure whether it is true."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import DataError, ModelError, RecipeError, nearest
from tunewell.explain import tokens
from tunewell.explain.auto import SAMPLE, choose
from tunewell.explain.faithfulness import Faithfulness, measure
from tunewell.explain.records import Explanation, Tried
from tunewell.explain.scorer import Scorer
from tunewell.explain.segment import Item, items_of, need_words
from tunewell.explain.tokens import CANDIDATES, Attribution
from tunewell.predict import decide
from tunewell.tasks.spec import scores_of

if TYPE_CHECKING:
    from tunewell.predict import Predictor

BUDGET = 20.0  # seconds
CHUNK = 64  # texts explained at a time
BY_LIKELIHOOD = ("occlusion", "lime", "shapley", "random")  # methods that read answers alone


def explain_texts(
    predictor: Predictor,
    texts: Sequence[str],
    text_pairs: Sequence[str] | None = None,
    *,
    method: str = "auto",
    target: str | None = None,
    budget: float = BUDGET,
    seed: int = 42,
) -> list[Explanation]:
    """Which words decided, for each of n texts; see `explained`, which yields them one by one."""
    return list(explained(predictor, texts, text_pairs, method=method, target=target, budget=budget, seed=seed))


def explained(
    predictor: Predictor,
    texts: Sequence[str],
    text_pairs: Sequence[str] | None = None,
    *,
    method: str = "auto",
    target: str | None = None,
    budget: float = BUDGET,
    seed: int = 42,
    candidates: Sequence[str] = CANDIDATES,
) -> Iterator[Explanation]:
    """Explanations of n texts, in their order, as they are ready.

    Args:
        texts: without empty ones. text_pairs: second texts, for a model of pairs.
        method: a name of `tokens.METHODS`, or "auto": the most faithful on (at most 16 of) these texts.
        target: the label to explain; by default the likeliest one of each text.
        budget: seconds that `auto` may take for trying methods and explaining all texts; a soft limit.
        seed: of sampled methods and random orders.

    Raises:
        DataError: no or empty texts, missing pairs, a label that the model does not know.
        RecipeError: no such method. ModelError: a method that cannot be used on this model.
    """
    check(predictor, texts, text_pairs, method, target)
    scorer = scorer_of(predictor)
    if predictor.scorer is not None:
        candidates = [name for name in candidates if name in BY_LIKELIHOOD]
    wanted = target_of(predictor, target)
    tried: list[Tried] = []
    ready: dict[int, tuple[Attribution, Faithfulness]] = {}
    if method == "auto":
        sample = np.sort(np.random.default_rng(seed).permutation(len(texts))[:SAMPLE])
        items = _encode(predictor, texts, text_pairs, sample)
        targets = _targets(scorer.logits(items), wanted)
        method, tried, found, faith = choose(
            scorer,
            items,
            targets,
            budget=budget,
            n_all=len(texts),
            seed=seed,
            candidates=candidates,
        )
        ready = {int(i): pair for i, pair in zip(sample, zip(found, faith, strict=True), strict=True)}
    for start in range(0, len(texts), CHUNK):
        index = np.arange(start, min(start + CHUNK, len(texts)))
        items = _encode(predictor, texts, text_pairs, index)
        logits = scorer.logits(items)
        targets = _targets(logits, wanted)
        todo = [k for k, i in enumerate(index) if int(i) not in ready]
        if todo:
            some, few = [items[k] for k in todo], targets[todo]
            made = tokens.method(method).attribute(scorer, some, few, seed=seed)
            true = measure(scorer, some, few, [a.scores for a in made], seed=seed)
            ready |= {int(index[k]): pair for k, pair in zip(todo, zip(made, true, strict=True), strict=True)}
        for k, i in enumerate(map(int, index)):
            pair = text_pairs[i] if text_pairs is not None else None
            yield _explanation(
                predictor, scorer, items[k], logits[k], int(targets[k]), method, *ready.pop(i), tried, texts[i], pair
            )


def scorer_of(predictor: Predictor) -> Scorer:
    """The model as explanations see it."""
    if predictor.scorer is None:
        return Scorer(predictor.model, predictor.tokenizer, predictor.spec)
    from tunewell.explain.answers.likelihood import LikelihoodScorer

    return LikelihoodScorer(predictor)


def check(
    predictor: Predictor, texts: Sequence[str], text_pairs: Sequence[str] | None, method: str, target: str | None
) -> None:
    """Name the user's mistakes before the model is asked."""
    if method != "auto":
        tokens.method(method)
        if predictor.scorer is not None and method not in BY_LIKELIHOOD:
            raise ModelError(
                f"`{method}` reads a head, and this model has none: its classes are as likely as their names",
                where="method",
                expected="auto, " + ", ".join(BY_LIKELIHOOD),
            )
    target_of(predictor, target)
    if not len(texts):
        raise DataError("there is no text to explain", expected="one text or more")
    predictor.need_pairs(texts, text_pairs)
    for i, text in enumerate(texts):
        if not text.strip():
            raise DataError(
                "an empty text has no words to explain", where=f"text {i + 1}", expected="a text with words"
            )
        need_words(predictor.tokenizer, text, where=f"text {i + 1}", pair=None if text_pairs is None else text_pairs[i])


def target_of(predictor: Predictor, target: str | None) -> int | None:
    """The output of a label; None for each text's likeliest.

    Raises:
        RecipeError: not a label of the model.
    """
    if target is None:
        return None
    labels = predictor.labels
    if not labels:
        raise RecipeError(
            f"`{target}`: this model predicts a value and has no labels", where="target", remedy="leave it out"
        )
    if target not in labels:
        raise RecipeError(
            f"no label `{target}`",
            where="target",
            expected=", ".join(labels[:12]) + (" …" if len(labels) > 12 else ""),
            remedy=nearest(target, labels),
        )
    return labels.index(target)


def _encode(predictor: Predictor, texts: Sequence[str], pairs: Sequence[str] | None, index: np.ndarray) -> list[Item]:
    return items_of(
        predictor.tokenizer,
        [texts[i] for i in index],
        [pairs[i] for i in index] if pairs is not None else None,
        predictor.max_length,
        first=int(index[0]),
    )


def _targets(logits: np.ndarray, wanted: int | None) -> np.ndarray:
    """Targets (n,) given logits (n, C)."""
    return logits.argmax(axis=1) if wanted is None else np.full(len(logits), wanted)


def _explanation(
    predictor: Predictor,
    scorer: Scorer,
    item: Item,
    logits: np.ndarray,
    target: int,
    name: str,
    found: Attribution,
    faith: Faithfulness,
    tried: Sequence[Tried],
    text: str,
    pair: str | None,
) -> Explanation:
    spec = scorer.spec
    scores = predictor.calibrated(scores_of(spec, logits[None]))
    answer: Any = decide(spec, scores)[0]
    return Explanation(
        text=text,
        text_pair=pair,
        words=item.words,
        scores=_floats(found.scores),
        spans=item.spans,
        part=item.part,
        method=name,
        unit=tokens.method(name).unit,
        prediction=tuple(answer) if isinstance(answer, list) else answer,
        target=None if spec.regression else spec.labels[target],
        probability=None if spec.regression else float(scores[0, target]),
        score=float(scorer.score(logits, target)),
        faithfulness=faith,
        convergence_delta=found.delta,
        expected_sum=found.total,
        low=None if found.low is None else _floats(found.low),
        high=None if found.high is None else _floats(found.high),
        cut=item.cut,
        tried=tuple(tried),
    )


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
