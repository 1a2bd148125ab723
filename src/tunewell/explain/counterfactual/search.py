"""Counterfactuals of texts: what a run's model would have to read to answer otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import ModelError
from tunewell.explain.counterfactual.records import Changed, Counterfactual, Edit
from tunewell.explain.counterfactual.removal import left, margin, margins_of, turning_sets
from tunewell.explain.scorer import Scorer
from tunewell.explain.segment import Item, items_of

if TYPE_CHECKING:
    from tunewell.explain.counterfactual.replacement import Proposer
    from tunewell.predict import Predictor

MOST, ROWS = 4, 1500  # words taken out, and texts read for it
CHECKED = 5  # changes that are read anew as texts until one holds
PLACES = 12  # words that are replaced: those whose removal brings the answer nearest to turning


def counterfactuals(
    predictor: Predictor, texts: Sequence[str], text_pairs: Sequence[str] | None = None, **options: Any
) -> list[Counterfactual]:
    """How the answers to n texts could be turned; see `counterfactual_rows`, which yields them one by one."""
    return list(counterfactual_rows(predictor, texts, text_pairs, **options))


def counterfactual_rows(
    predictor: Predictor,
    texts: Sequence[str],
    text_pairs: Sequence[str] | None = None,
    *,
    target: str | None = None,
    most: int = MOST,
    rows: int = ROWS,
    mask_model: str | None = None,
) -> Iterator[Counterfactual]:
    """How the answers to n texts could be turned, in their order, as they are ready.

    Args:
        predictor: of classes, one or several a row. texts: without empty ones. text_pairs: second texts of pairs.
        target: the answer that is wanted; by default any other than the model's. A text that has it is turned away
            from it.
        most: words that may be taken out. rows: texts that the model may read for one text.
        mask_model: masked language model (asset, folder or hub id) that proposes words to put in; None for none.

    Raises:
        DataError: no or empty texts, missing pairs. RecipeError: a label that the model does not know.
        ModelError: the model predicts values; `mask_model` is no masked language model.
    """
    from tunewell.explain.texts import check, scorer_of, target_of

    if predictor.spec.regression:
        raise ModelError(
            "predicts a value, which has no other side to turn to",
            where=predictor.source,
            expected="a run with classes",
            remedy="`tunewell explain` tells which words raise and lower the value",
        )
    check(predictor, texts, text_pairs, "auto", target)
    wanted, scorer, proposer = target_of(predictor, target), scorer_of(predictor), None
    if mask_model is not None:
        from tunewell.explain.counterfactual.replacement import Proposer

        proposer = Proposer(mask_model)
    for i, text in enumerate(texts):
        pairs = [text_pairs[i]] if text_pairs is not None else None
        item = items_of(predictor.tokenizer, [text], pairs, predictor.max_length, first=i)[0]
        yield _one(predictor, scorer, item, wanted, most, rows, proposer)


def _one(
    predictor: Predictor,
    scorer: Scorer,
    item: Item,
    wanted: int | None,
    most: int,
    rows: int,
    proposer: Proposer | None,
) -> Counterfactual:
    before = scorer.forwards
    logits = scorer.logits([item])[0].astype(np.float64)
    prediction, scores = read(predictor, *_texts(item))
    given = [predictor.labels.index(a) for a in (prediction if scorer.spec.multi_label else [prediction])]
    label = max(given or range(len(predictor.labels)), key=lambda j: logits[j]) if wanted is None else wanted
    coming = None if label in given else label  # wanted and not there; or a row without any label, the nearest one
    reading = _Reading(predictor, label, coming)
    probability = float(scores[label])
    margins = margins_of(scorer, item, label, coming)
    without = None
    for out in islice(turning_sets(margins, len(item.words), most=most, rows=rows), CHECKED):
        if without := reading.change(item, [(int(w), None) for w in np.flatnonzero(out)], prediction):
            break
    instead = None
    if proposer is not None:
        nearest = np.argsort(margins(list(np.eye(len(item.words), dtype=bool))), kind="stable")[:PLACES]
        instead = _replaced(scorer, predictor, reading, item, [int(w) for w in nearest], proposer, prediction)
    return Counterfactual(
        text=item.texts[0],
        text_pair=item.texts[1] if len(item.texts) > 1 else None,
        prediction=prediction,
        label=predictor.labels[label],
        probability=probability,
        without=without,
        instead=instead,
        asked=scorer.forwards - before,
    )


def read(predictor: Predictor, text: str, pair: str | None) -> tuple[Any, np.ndarray]:
    """The answer to a text, and (C,) the probabilities of the labels."""
    from tunewell.predict import decide

    scores = predictor.scores([text], None if pair is None else [pair])
    answer = decide(predictor.spec, scores)[0]
    return tuple(answer) if isinstance(answer, list) else answer, scores[0]


class _Reading:
    """The run's answers to changed texts, and whether they have turned."""

    def __init__(self, predictor: Predictor, label: int, coming: int | None) -> None:
        self.predictor, self.label, self.coming = predictor, label, coming

    def turned(self, answer: Any, before: Any) -> bool:
        name = self.predictor.labels[self.label]
        if self.predictor.spec.multi_label:
            return (name in answer) == (self.coming is not None)
        return answer == name if self.coming is not None else answer != before

    def change(self, item: Item, words: Sequence[tuple[int, str | None]], before: Any) -> Changed | None:
        """A change read anew; None where the answer stays, or it leaves a text empty."""
        texts = list(_texts(item))
        for part, text in enumerate(texts):
            mine = [(w, instead) for w, instead in words if item.part[w] == part]
            if text is None or not mine:
                continue
            if mine[0][1] is None:
                texts[part] = left(text, [item.spans[w] for w, _ in mine])
            else:
                for w, instead in sorted(mine, reverse=True):
                    start, end = item.spans[w]
                    text = text[:start] + str(instead) + text[end:]
                texts[part] = text
            if not str(texts[part]).strip():
                return None
        answer, scores = read(self.predictor, str(texts[0]), texts[1])
        if not self.turned(answer, before):
            return None
        edits = tuple(Edit(item.words[w], *item.spans[w], item.part[w], instead) for w, instead in words)
        return Changed(edits, str(texts[0]), texts[1], answer, float(scores[self.label]))


def _replaced(
    scorer: Scorer, predictor: Predictor, reading: _Reading, item: Item, places: Sequence[int], proposer: Proposer,
    before: Any,
) -> Changed | None:  # fmt: skip
    """The likeliest word in its place that turns the answer."""
    from dataclasses import replace

    proposals = proposer(item, places)
    if not proposals:
        return None
    firsts, seconds = [], []
    for p in proposals:
        texts = list(_texts(item))
        start, end = item.spans[p.word]
        text = str(texts[item.part[p.word]])
        texts[item.part[p.word]] = text[:start] + p.instead + text[end:]
        firsts.append(str(texts[0]))
        seconds.append(texts[1])
    pairs = [str(s) for s in seconds] if len(item.texts) > 1 else None
    changed = items_of(predictor.tokenizer, firsts, pairs, predictor.max_length)
    turned = margin(scorer, scorer.logits(changed).astype(np.float64), reading.label, reading.coming) < 0
    for i in np.flatnonzero(turned)[:CHECKED]:
        if found := reading.change(item, [(proposals[i].word, proposals[i].instead)], before):
            return replace(found, likely=proposals[i].likely)
    return None


def _texts(item: Item) -> tuple[str, str | None]:
    return item.texts[0], item.texts[1] if len(item.texts) > 1 else None
