"""Shortcuts: a single word that nearly decides the label and means nothing for it, such as the tag of a source.

A word is suspected when, in the training rows, it stands nearly always with one label (lower end of the precision's
interval at least 0.9). It is called a shortcut when the tuned model leans on it (put in front of texts of other
labels, it turns at least 30 % of them) and when the base model sees nothing of the label in it: a linear probe on
the base model's embeddings, fitted on the rows that do not hold the word, gives the word by itself less than 0.7.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tunewell.evaluate.statistics import mean_interval
from tunewell.explain.records import Shortcut
from tunewell.explain.segment import items_of, spans_of
from tunewell.results import Estimate

if TYPE_CHECKING:
    from tunewell.explain.scorer import Scorer

PRECISION, LEAST_ROWS, LEAST_SHARE = 0.9, 10, 0.05  # of the label's rows that must hold the word
TURNED, KNOWN = 0.3, 0.7
TEXTS, SUSPECTS = 48, 12  # texts that a word is tried on; words tried

# words (k), numbers of training rows to fit on -> probabilities (k, C) of each word by itself
Probe = Callable[[Sequence[str], np.ndarray], np.ndarray]


def suspects(texts: Sequence[str], labels: Sequence[str]) -> list[tuple[str, str, int, int]]:
    """Words that nearly always stand with one label.

    Returns:
        (word, label, rows that hold it, those of them with the label), the most frequent first. Words are in lower
        case; a word counts once a row.
    """
    from tunewell.evaluate.statistics import wilson

    counts: dict[str, Counter] = defaultdict(Counter)
    for text, label in zip(texts, labels, strict=True):
        for word in words_of(text):
            counts[word][label] += 1
    totals = Counter(labels)
    out = []
    for word, by_label in counts.items():
        label, right = by_label.most_common(1)[0]
        rows = by_label.total()
        if rows < LEAST_ROWS or right < LEAST_SHARE * totals[label] or totals[label] == len(labels):
            continue
        if wilson(right, rows)[0] >= PRECISION:
            out.append((word, label, rows, right))
    return sorted(out, key=lambda s: (-s[2], s[0]))


def words_of(text: str) -> set[str]:
    """The different words of a text, in lower case."""
    return {text[a:b].lower() for a, b in spans_of(text)}


def find_shortcuts(
    scorer: Scorer,
    max_length: int,
    train: tuple[Sequence[str], Sequence[str]],
    test: tuple[Sequence[str], Sequence[str]],
    probe: Probe,
    *,
    seed: int = 42,
) -> tuple[Shortcut, ...]:
    """Suspects that the model leans on and that mean nothing to the base model.

    Args:
        scorer: the tuned model, of one label a row and single texts. max_length: of its input, in tokens.
        train, test: texts and labels. probe: what the base model sees in words; see `Probe`.
    """
    from tunewell.evaluate.statistics import wilson

    texts, labels = train
    found = suspects(texts, labels)[:SUSPECTS]
    out = []
    for word, label, rows, right in found:
        target = scorer.spec.labels.index(label)
        others = _drawn([t for t, y in zip(*test, strict=True) if y != label and word not in words_of(t)], seed)
        holding = _drawn([t for t, y in zip(*test, strict=True) if y == label and word in words_of(t)], seed)
        turned = _turned(scorer, others, word, target, max_length)
        if not others or turned < TURNED * len(others):
            continue
        without = np.array([i for i, text in enumerate(texts) if word not in words_of(text)])
        known = _known(probe, word, without, labels, target)
        if known is not None and known >= KNOWN:
            continue
        low, high = wilson(right, rows)
        precision = Estimate(value=right / rows, low=low, high=high, n=rows)
        low, high = wilson(turned, len(others))
        out.append(
            Shortcut(
                word,
                label,
                right / Counter(labels)[label],
                precision,
                Estimate(value=turned / len(others), low=low, high=high, n=len(others)),
                _lost(scorer, holding, word, target, max_length),
                known,
            )
        )
    return tuple(out)


def _drawn(texts: Sequence[str], seed: int) -> list[str]:
    return [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))[:TEXTS]]


def _turned(scorer: Scorer, texts: Sequence[str], word: str, target: int, max_length: int) -> int:
    """How many texts that were answered otherwise get the label once the word stands in front."""
    if not texts:
        return 0
    before = scorer.logits(items_of(scorer.tokenizer, texts, None, max_length)).argmax(axis=1)
    after = scorer.logits(items_of(scorer.tokenizer, [f"{word} {t}" for t in texts], None, max_length)).argmax(axis=1)
    return int(((before != target) & (after == target)).sum())


def _lost(scorer: Scorer, texts: Sequence[str], word: str, target: int, max_length: int) -> Estimate:
    """By how much the label's probability falls when the word is taken out of texts that hold it."""
    if not texts:
        return Estimate(value=None)
    items = items_of(scorer.tokenizer, texts, None, max_length)
    whole = scorer.logits(items)
    rest = np.stack(scorer.without([(i, np.array([w.lower() != word for w in i.words])) for i in items]))
    return mean_interval(scorer.probability(whole, target) - scorer.probability(rest, target))


def _known(probe: Probe, word: str, without: np.ndarray, labels: Sequence[str], target: int) -> float | None:
    """What the base model sees of the label in the word; None where the rows without it have too few labels."""
    if len({labels[i] for i in without}) < len(set(labels)):
        return None
    return float(probe([word], without)[0, target])
