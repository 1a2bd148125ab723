"""Which words decided on some test rows, and which matter most for each class; into explanations.json."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np

from tunewell.errors import ModelError
from tunewell.explain.influence.records import Sides
from tunewell.explain.records import Explanation, Explanations
from tunewell.folder import fingerprint
from tunewell.predict import Predictor
from tunewell.stages.evaluate import TESTED
from tunewell.stages.job import Job

# cheap ones, all of them always, so that a run does not depend on how fast the machine is
CANDIDATES = ("gradient_x_input", "attnlrp", "occlusion")
CLASS_ROWS, CLASS_PASSES = 300, 900  # test rows for the words of each class; rows through the model for them
ANSWERS = ("question-answering", "translation", "text-generation")  # explained one by one, when asked for
_BY_HAND = "`tunewell explain` tells which words decided on a text"
TURNING_WORDS, TURNING_ROWS = 3, 400  # words taken out at most to turn an answer; texts read for it
BEHIND_ROWS = 10_000  # training rows looked at for those behind an answer
NEARLY = 0.9  # a method of one pass this close to the best is taken for the words of each class


def explain_tuned(job: Job) -> Explanations | None:
    """Explain `explain` test rows, half of them answered wrongly (most surely first) where there are so many.

    None when the recipe asks for none, or when the model cannot be explained, which is said and stops nothing.
    """
    path = job.folder / "explanations.json"
    if job.recipe.explain and job.recipe.classify_by == "likelihood":
        job.echo(f"explain: not in the report, since every word taken out asks the decoder anew; {_BY_HAND}")
    if not job.recipe.explain or job.recipe.classify_by == "likelihood":
        path.unlink(missing_ok=True)
        return None
    if job.spec.name in ANSWERS:
        path.unlink(missing_ok=True)
        job.echo(f"explain: not in the report for answers; {_BY_HAND}")
        return None

    def make() -> Explanations:
        job.echo("explain: which words decided")
        found = _explain(job)
        found.write(path)
        return found

    key = fingerprint(job.keys.choice, "explain", job.recipe.explain, job.recipe.seed)
    return job.optional("explain", key, path, make, lambda: Explanations.load(path), "")


def _explain(job: Job) -> Explanations:
    from tunewell.explain import tokens
    from tunewell.explain.texts import explained

    started = time.perf_counter()
    predictor = Predictor.load(job.folder / "model")
    rows = job.splits["test"]
    picked = _with_words(job, predictor, _picked(job, predictor, job.recipe.explain))
    some = rows.select(picked)
    pairs = list(some["text_pair"]) if predictor.spec.pair else None
    found = list(
        explained(predictor, list(some["text"]), pairs, seed=job.recipe.seed, budget=math.inf, candidates=CANDIDATES)
    )
    found = _with_stability(predictor, found, list(some["text"]), pairs, job.recipe.seed)
    labelled = tuple(_with_label(e, label) for e, label in zip(found, some["label"], strict=True))
    name = _for_classes(found[0])
    words, n = _class_words(job, predictor, name)
    about = tokens.method(found[0].method)
    behind, n_behind = _behind(job, predictor, list(some["text"]), pairs)
    return Explanations(
        method=found[0].method,
        title=about.title,
        paper=about.paper,
        unit=about.unit,
        tried=found[0].tried,
        explanations=labelled,
        counterfactuals=_turned(predictor, list(some["text"]), pairs),
        behind=behind,
        behind_rows=n_behind,
        class_words=words,
        class_words_method=tokens.method(name).title,
        class_words_rows=n,
        shortcuts=_shortcuts(job, predictor),
        seconds=round(time.perf_counter() - started, 2),
    )


def _picked(job: Job, predictor: Predictor, n: int) -> np.ndarray:
    """Positions of the test rows to show: wrong answers most surely given, then a seeded draw of the others."""
    from tunewell.predict import decide

    rows, spec = job.splits["test"], predictor.spec
    drawn = np.random.default_rng(job.recipe.seed).permutation(len(rows))
    if spec.regression:
        return np.sort(drawn[:n])
    place = np.sort(drawn[:2000])
    few = rows.select(place)
    if TESTED in job.memory:
        scores = job.memory[TESTED][place]
    else:  # evaluated by an earlier process
        scores = predictor.scores(list(few["text"]), list(few["text_pair"]) if spec.pair else None)
    answers = decide(spec, scores)
    wrong = [
        (float(score.max()), i)
        for i, (answer, label, score) in enumerate(zip(answers, few["label"], scores, strict=True))
        if (sorted(answer) != sorted(label) if spec.multi_label else answer != label)
    ]
    first = [int(place[i]) for _, i in sorted(wrong, reverse=True)[: n // 2]]
    rest = [int(i) for i in drawn if int(i) not in set(first)]
    return np.asarray((first + rest)[:n])


def _with_words(job: Job, predictor: Predictor, picked: np.ndarray) -> np.ndarray:
    """Without rows that are nothing but marks of the tokenizer, which have no words to explain."""
    from tunewell.errors import DataError
    from tunewell.explain.segment import need_words

    rows, out = job.splits["test"].select(picked), []
    for place, row in zip(picked, rows, strict=True):
        try:
            need_words(
                predictor.tokenizer, row["text"], where="", pair=row["text_pair"] if predictor.spec.pair else None
            )
            out.append(place)
        except DataError:
            continue
    return np.asarray(out if out else picked)


def _with_label(e: Explanation, label: object) -> Explanation:
    from dataclasses import replace

    text = ", ".join(label) if isinstance(label, list) else f"{label:g}" if isinstance(label, float) else str(label)
    return replace(e, label=text)


def _with_stability(
    predictor: Predictor, found: list[Explanation], texts: list[str], pairs: list[str] | None, seed: int
) -> list[Explanation]:
    """Their stability, if the method takes one pass a text: then it is a small share of what explaining takes."""
    from dataclasses import replace

    from tunewell.explain.auto import BACKWARD, rows_of
    from tunewell.explain.stability import stability

    if rows_of(found[0].method, float(np.mean([len(e.words) for e in found]))) > BACKWARD:
        return found
    steady = stability(predictor, texts, pairs, method=found[0].method, seed=seed)
    return [replace(e, stability=s) for e, s in zip(found, steady, strict=True)]


def _turned(predictor: Predictor, texts: list[str], pairs: list[str] | None) -> tuple:
    """What would turn the answers; a value has no other side."""
    from tunewell.explain.counterfactual.search import counterfactuals

    if predictor.spec.regression:
        return ()
    return tuple(counterfactuals(predictor, texts, pairs, most=TURNING_WORDS, rows=TURNING_ROWS))


def _behind(job: Job, predictor: Predictor, texts: list[str], pairs: list[str] | None) -> tuple[tuple[Sides, ...], int]:
    """Training rows behind the answers, out of all or a seeded draw of many; nothing where the head is not linear."""
    from tunewell.explain.influence.behind import behind

    train = job.splits["train"]
    chosen = np.sort(np.random.default_rng([job.recipe.seed, 2]).permutation(len(train))[:BEHIND_ROWS])
    try:
        found = behind(predictor, texts, pairs, train.select(chosen), job.targets("train")[chosen])
    except ModelError as error:
        job.echo(f"explain: no training rows behind the answers: {error.what}")
        return (), 0
    return tuple(found), len(chosen)


def _for_classes(e: Explanation) -> str:
    """The best method, or AttnLRP where it comes near, since in one pass a text it reads many more texts."""
    gaps = {t.method: t.gap for t in e.tried if t.gap is not None}
    best, quick = gaps[e.method], gaps.get("attnlrp")
    return "attnlrp" if quick is not None and quick >= NEARLY * best > 0 else e.method


def _class_words(job: Job, predictor: Predictor, name: str) -> tuple:
    from tunewell.explain import tokens
    from tunewell.explain.auto import rows_of
    from tunewell.explain.class_words import class_words
    from tunewell.explain.scorer import Scorer
    from tunewell.explain.segment import items_of

    rows = job.splits["test"]
    drawn = np.random.default_rng([job.recipe.seed, 1]).permutation(len(rows))[:CLASS_ROWS]
    some = rows.select(np.sort(drawn))
    pairs = list(some["text_pair"]) if predictor.spec.pair else None
    items = items_of(predictor.tokenizer, list(some["text"]), pairs, predictor.max_length)
    each = rows_of(name, float(np.mean([len(item.words) for item in items])))
    items = items[: max(24, int(CLASS_PASSES / max(each, 1)))]
    scorer = Scorer(predictor.model, predictor.tokenizer, predictor.spec)
    targets = scorer.logits(items).argmax(axis=1)
    found = tokens.method(name).attribute(scorer, items, targets, seed=job.recipe.seed)
    return class_words(
        predictor.spec, [item.words for item in items], [a.scores for a in found], [int(t) for t in targets]
    ), len(items)


def _shortcuts(job: Job, predictor: Predictor) -> tuple:
    """Words that decide without meaning anything; for one label a row and single texts."""
    from tunewell.explain.scorer import Scorer
    from tunewell.explain.shortcuts import find_shortcuts

    if predictor.spec.regression or predictor.spec.multi_label or predictor.spec.pair:
        return ()
    train = job.splits["train"].select(job.places["train"])

    def probe(words: Sequence[str], rows: np.ndarray) -> np.ndarray:
        from sklearn.linear_model import LogisticRegression

        from tunewell.models.embed import embed

        labels = np.asarray(train["label"])[rows]
        fitted = LogisticRegression(max_iter=300).fit(job.vectors["train"][rows], labels)
        found = fitted.predict_proba(embed(job.encoder.model, job.tokenizer, words, max_length=job.max_length))
        return found[:, [list(fitted.classes_).index(label) for label in predictor.labels]]

    scorer = Scorer(predictor.model, predictor.tokenizer, predictor.spec)
    test = job.splits["test"]
    return find_shortcuts(
        scorer,
        predictor.max_length,
        (list(train["text"]), list(train["label"])),
        (list(test["text"]), list(test["label"])),
        probe,
        seed=job.recipe.seed,
    )
