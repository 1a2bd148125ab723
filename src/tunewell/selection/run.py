"""`tunewell select` as a story: pool, labels so far, what a model makes of both, the chosen rows, advice."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunewell.data.split import text_key
from tunewell.errors import DataError, RecipeError, nearest
from tunewell.recipe import DEFAULT_MODEL
from tunewell.selection.advice import Advice
from tunewell.selection.candidates import Candidates
from tunewell.selection.labelled import Labelled, read_labelled
from tunewell.selection.methods import METHODS, settle

PASSES = 10  # with dropout, for `bald`
SHOWN = 5


@dataclass(frozen=True)
class Selection:
    """The chosen rows, best first.

    Attributes:
        rows: each with rank, row (its place in the pool's file, from 1), text, label (empty), prediction,
            probability, method, score.
        method: what `auto` came to. labels: classes so far, sorted. pool: rows that could be chosen.
        left_out: reason -> rows of the pool that could not.
        advice: what another batch would bring; None where there are too few labels to say.
    """

    rows: list[dict[str, Any]]
    method: str
    labels: tuple[str, ...]
    pool: int
    left_out: dict[str, int]
    advice: Advice | None = None


def select(
    pool: str,
    *,
    n: int = 100,
    labelled: Sequence[str] = (),
    run: str | None = None,
    model: str = DEFAULT_MODEL,
    method: str = "auto",
    text: str | None = None,
    label: str | None = None,
    test: str | None = None,
    encoding: str = "auto",
    max_length: int = 128,
    seed: int = 42,
    echo: Callable[[str], None] | None = None,
) -> Selection:
    """Choose the n rows of a pool whose labels would teach the most.

    Args:
        pool: a data file with texts. labelled: files with labels so far, see `selection.labelled`.
        run: a run folder: its model says what it is unsure of, and its training rows count as labelled. Without
            one, a linear probe on the base model's embeddings is fitted to `labelled`.
        method: see `selection.methods.METHODS`.
        test: the test file; a pool that shares texts with it is refused.
        max_length: tokens of a text that are read.

    Raises:
        DataError: empty pool, pool that overlaps the test set, fewer rows than n, unusable labels.
        RecipeError: an unknown method, or one that needs what there is not.
    """
    echo = echo or (lambda line: print(line, file=sys.stderr, flush=True))
    if method not in METHODS:
        raise RecipeError(
            f"unknown method `{method}`", where="method", expected=", ".join(METHODS), remedy=nearest(method, METHODS)
        )
    if n < 1:
        raise RecipeError(f"`n: {n}` is not possible", where="n", expected="a whole number above 0")
    known = read_labelled(list(labelled), text=text, label=label, encoding=encoding) if labelled else Labelled()
    for line in known.notices:
        echo(f"labels: {line}")
    predictor = _predictor(run) if run else None
    if run:
        known = _with_training_rows(Path(run), known)
    rows, left_out = _pool(pool, text, encoding, known, test, label)
    if len(rows) < n:
        raise DataError(
            f"{len(rows):,} rows to choose from, {n:,} wanted",
            where=pool,
            expected=f"at least {n:,} rows that are not labelled yet"
            + (f" ({', '.join(f'{v:,} {k}' for k, v in left_out.items())})" if left_out else ""),
            remedy=f"--n {len(rows)} takes them all" if rows else "add rows to the pool",
        )
    echo(f"select: {len(rows):,} rows to choose from, {len(known.texts):,} labelled")
    candidates, classes = _candidates(rows, known, predictor, model, max_length, method, seed, echo)
    name = settle(method, candidates)
    _refuse(name, candidates, bool(labelled), predictor is not None)
    places, scores = METHODS[name].choose(candidates, n, np.random.default_rng(seed))
    p = candidates.probabilities
    out = [
        {
            "rank": rank,
            "row": rows[i][0],
            "text": rows[i][1],
            "label": "",
            "prediction": classes[int(p[i].argmax())] if p is not None else None,
            "probability": round(float(p[i].max()), 4) if p is not None else None,
            "method": name,
            "score": round(float(score), 6),
        }
        for rank, (i, score) in enumerate(zip(places.tolist(), scores.tolist(), strict=True), 1)
    ]
    from tunewell.selection.advice import advice

    found = None
    if len(known.texts) and len(candidates.labelled):
        ids = {c: k for k, c in enumerate(sorted(set(known.labels)))}
        found = advice(candidates.labelled, np.array([ids[c] for c in known.labels]), n, seed)
    return Selection(out, name, tuple(classes), len(rows), left_out, found)


def _pool(
    pool: str, text: str | None, encoding: str, known: Labelled, test: str | None, label: str | None
) -> tuple[list[tuple[int, str]], dict[str, int]]:
    """(row, text) of what can be chosen: each text once, none that is labelled."""
    texts = _texts(pool, text, encoding, label)
    seen = {text_key(t) for t in known.texts}
    forbidden = {text_key(t): i for i, t in _texts(test, None, encoding, label)} if test else {}
    out, left_out, shared = [], dict.fromkeys(("empty", "labelled already", "the same as another"), 0), []
    mine: set[str] = set()
    for row, words in texts:
        key = text_key(words)
        if key in forbidden:
            shared.append((row, forbidden[key]))
        if not key:
            left_out["empty"] += 1
        elif key in seen:
            left_out["labelled already"] += 1
        elif key in mine:
            left_out["the same as another"] += 1
        else:
            mine.add(key)
            out.append((row, words))
    if shared:
        few = ", ".join(f"{row} (row {other} of the test file)" for row, other in shared[:SHOWN])
        raise DataError(
            f"{len(shared):,} rows of the pool are test rows: {few}{' …' if len(shared) > SHOWN else ''}",
            where=pool,
            expected="a pool that shares no text with the test set, else its score means nothing",
            remedy="take these rows out of the pool",
        )
    return out, {k: v for k, v in left_out.items() if v}


def _texts(path: str, text: str | None, encoding: str, label: str | None) -> list[tuple[int, str]]:
    from tunewell.data.columns import text_column
    from tunewell.data.load import load

    file = load(path, encoding=encoding)
    name = text or text_column(file.dataset, source=file.source, besides=[label])
    if name not in file.dataset.column_names:
        raise DataError(
            f"no column `{name}`", where=file.source, expected="one of: " + ", ".join(file.dataset.column_names)
        )
    return [(i, t if isinstance(t, str) else "") for i, t in enumerate(file.dataset[name][:], 1)]


def _predictor(run: str) -> Any:
    from tunewell.predict import Predictor

    predictor = Predictor.load(run)
    if predictor.spec.regression or predictor.spec.multi_label or predictor.spec.pair:
        kind = (
            "pairs of texts"
            if predictor.spec.pair
            else "several labels a row"
            if predictor.spec.multi_label
            else "scores"
        )
        raise RecipeError(
            f"selection by a run of {kind} is not possible",
            where=run,
            expected="a run of classes, one a text",
            remedy="leave --run out: rows are then chosen by their embeddings",
        )
    return predictor


def _with_training_rows(run: Path, known: Labelled) -> Labelled:
    """Labels so far and those that the run learned from, read again from the files of its recipe."""
    from tunewell.recipe_file import load_recipe
    from tunewell.stages.prepare import prepare

    if not (run / "recipe.yaml").is_file():
        return known
    train = prepare(load_recipe(run / "recipe.yaml")).splits["train"]
    seen = {text_key(t) for t in known.texts}
    rows = [i for i, t in enumerate(train["text"][:]) if text_key(t) not in seen]
    some = train.select(rows)
    where = [f"{s}:{r}" for s, r in zip(some["source"][:], some["row"][:], strict=True)]
    return Labelled(known.texts + some["text"][:], known.labels + some["label"][:], known.where + where, known.empty)


def _candidates(
    rows: list[tuple[int, str]], known: Labelled, predictor: Any, model: str, max_length: int, method: str, seed: int,
    echo: Callable[[str], None],
) -> tuple[Candidates, list[str]]:  # fmt: skip
    from tunewell.models.embed import embed
    from tunewell.models.load import load_encoder
    from tunewell.train.tune import use_bf16

    texts, classes = [t for _, t in rows], sorted(set(known.labels))
    if predictor is not None:
        encoder, tokenizer, length = predictor.model, predictor.tokenizer, predictor.max_length
    else:
        loaded = load_encoder(model)
        encoder, tokenizer, length = loaded.model, loaded.tokenizer, max_length
    bf16 = use_bf16(None)
    vectors = embed(encoder, tokenizer, texts, max_length=length, bf16=bf16)
    labelled = (
        embed(encoder, tokenizer, known.texts, max_length=length, bf16=bf16)
        if known.texts
        else np.empty((0, vectors.shape[1]), dtype=np.float32)
    )
    counts = np.array([known.labels.count(c) for c in classes])
    if predictor is not None:
        classes = list(predictor.labels)
        counts = np.array([known.labels.count(c) for c in classes])
        p = predictor.scores(texts)
        q = predictor.scores(known.texts) if known.texts else None
        passes = _passes(predictor, texts, seed) if method == "bald" else None
        return Candidates(vectors, labelled, p, q, passes, counts), classes
    if len(classes) < 2:
        return Candidates(vectors, labelled, counts=counts), classes
    from tunewell.selection.advice import probe

    echo(f"select: a linear probe on {model} learns from {len(known.texts):,} labels of {len(classes)} classes")
    fitted = probe(labelled, np.array([classes.index(c) for c in known.labels]))
    return Candidates(
        vectors, labelled, fitted.predict_proba(vectors), fitted.predict_proba(labelled), None, counts
    ), classes


def _passes(predictor: Any, texts: list[str], seed: int) -> np.ndarray:
    """(T, m, C) probabilities with dropout left on (Gal & Ghahramani, 2016)."""
    import torch

    from tunewell.models.embed import encode, like_length, pad

    model, tokenizer = predictor.model, predictor.tokenizer
    encoded = encode(tokenizer, texts, None, predictor.max_length)
    lengths = np.array([len(ids) for ids in encoded["input_ids"]])
    out = np.empty((PASSES, len(texts), len(predictor.labels)))
    with torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(seed)
        model.eval()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.train()
        for turn in range(PASSES):
            for index in like_length(lengths, 64):
                out[turn, index] = model(**pad(tokenizer, encoded, index)).logits.softmax(-1).numpy()
        model.eval()
    return out


def _refuse(name: str, c: Candidates, labelled: bool, has_run: bool) -> None:
    need = METHODS[name]
    if need.dropout and not has_run:
        raise RecipeError(
            f"`{name}` needs a tuned model", where="method", expected="--run RUN", remedy="or --method margin"
        )
    if need.model and c.probabilities is None:
        raise RecipeError(
            f"`{name}` needs a model that knows the classes",
            where="method",
            expected="labels of two classes or more (--labelled FILE), or --run RUN",
            remedy="--method typiclust begins from nothing",
        )
    if need.labelled and c.labelled_probabilities is None:
        raise RecipeError(f"`{name}` needs labelled rows", where="method", expected="--labelled FILE")
