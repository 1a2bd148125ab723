"""Which words stand for a class in the gap of a pattern: given, told by the label's name, or searched.

Shapes: n training rows, V vocabulary, C classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tunewell.errors import RecipeError
from tunewell.tasks.polarity import CLASSES

if TYPE_CHECKING:
    import numpy as np

AUTO = "auto"
USUAL = {"negative": "terrible", "neutral": "okay", "positive": "great"}  # Gao et al. (2021), table 1
CANDIDATES, EXHAUSTIVE, SWEEPS = 20, 20_000, 10
SENTIMENT, ASPECT = "{text} It was {mask}.", "{text} The {text_pair} was {mask}."
TOPIC, PAIRS = "{text} This is about {mask}.", "{text} ? {mask}, {text_pair}"


def usual_pattern(*, ordered: bool, pair: bool) -> str:
    """The pattern of a task: of opinions (Gao et al., 2021, SST), about an aspect, of topics, of pairs (NLI)."""
    if pair:
        return ASPECT if ordered else PAIRS
    return SENTIMENT if ordered else TOPIC


def parse(value: Any) -> Any:
    """
    >>> parse("good=great|fine,bad=awful")
    {'good': ['great', 'fine'], 'bad': ['awful']}
    """
    if isinstance(value, str) and value.strip() != AUTO:
        parts = [part.rpartition("=") for part in value.split(",") if part.strip()]
        value = {label.strip(): words for label, _, words in parts}
    if isinstance(value, dict):
        out = {str(k): v.split("|") if isinstance(v, str) else v for k, v in value.items()}
        if any(not isinstance(words, list) for words in out.values()):
            raise ValueError("write label=word, such as good=great|fine,bad=awful")
        value = {k: [str(w).strip() for w in words if str(w).strip()] for k, words in out.items()}
        if not all(value) or not all(value.values()):
            raise ValueError("write label=word, such as good=great|fine,bad=awful")
    return value


def token_of(tokenizer: Any, word: str) -> int | None:
    """The one token that a word is within a text; None where it is several or unknown."""
    for spelling in (f" {word}", word):  # byte-level vocabularies tell words by the space before them
        ids = tokenizer(spelling, add_special_tokens=False)["input_ids"]
        if len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
            return int(ids[0])
    return None


def given(tokenizer: Any, labels: Sequence[str], words: dict[str, list[str]]) -> list[list[int]]:
    """Token ids of the words that the user gave.

    Raises:
        RecipeError: a class without words, a name that is no class, a word that is not one token, or a word of two
            classes.
    """
    if unknown := [name for name in words if name not in labels]:
        raise RecipeError(
            f"`verbaliser`: {unknown[0]!r} is not a class", where="verbaliser", expected=", ".join(labels)
        )
    if missing := [label for label in labels if label not in words]:
        raise RecipeError(
            f"`verbaliser` has no word for the class {missing[0]!r}",
            where="verbaliser",
            expected="a word for each of " + ", ".join(labels),
        )
    out = []
    for label in labels:
        ids = [token_of(tokenizer, word) for word in words[label]]
        if None in ids:
            raise RecipeError(
                f"`verbaliser`: {words[label][ids.index(None)]!r} is not one token of the base model",
                where="verbaliser",
                expected="words that the vocabulary holds whole",
                remedy="take a shorter, commoner word, or `verbaliser: auto` to have words searched",
            )
        out.append([i for i in ids if i is not None])
    for (one, a), (other, b) in itertools.combinations(zip(labels, out, strict=True), 2):
        if set(a) & set(b):
            raise RecipeError(
                f"`verbaliser`: {one!r} and {other!r} share a word",
                where="verbaliser",
                expected="words of one class each",
            )
    return out


def by_name(tokenizer: Any, labels: Sequence[str]) -> list[list[int]] | None:
    """Words that the labels' names tell: great and terrible for sentiment, else the names themselves; None where a
    name is not one token."""
    names = [USUAL[label] for label in labels] if set(labels) <= set(CLASSES) else list(labels)
    ids = [token_of(tokenizer, name.replace("_", " ").casefold()) for name in names]
    return None if None in ids or len(set(ids)) < len(ids) else [[i] for i in ids if i is not None]


def allowed(tokenizer: Any) -> np.ndarray:
    """(V,) whether a token may be searched: a word of letters, at its beginning."""
    import numpy as np

    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.all_special_ids)
    marked = sum(str(t).startswith(("Ġ", "▁")) for t in tokens) > len(tokens) // 4  # vocabularies that mark beginnings

    def word(i: int, token: str) -> bool:
        if i in special or (marked and not token.startswith(("Ġ", "▁"))):
            return False
        bare = token.lstrip("Ġ▁")
        return len(bare) > 1 and bare.isalpha()

    return np.array([word(i, str(t)) for i, t in enumerate(tokens)])


def search(log_p: np.ndarray, targets: np.ndarray, n_classes: int, *, k: int = CANDIDATES) -> list[int]:
    """One word a class, as LM-BFF searches them (Gao et al., 2021, section 4.1).

    The k candidates of a class are the words of the largest sum of log p over its training rows; of the assignments
    of one candidate to each class, the one with the highest accuracy of the untuned model on the training rows is
    taken, among equals the likeliest. Beyond 20,000 assignments they are improved class by class from the likeliest on
    (the paper prunes k instead, and ranks the best by tuning with each).

    Args:
        log_p: (n, V) log-probabilities at the mask, minus infinity for words that are not allowed.
        targets: (n,) class ids.
    """
    import numpy as np

    totals = np.stack([log_p[targets == c].sum(axis=0) for c in range(n_classes)])  # (C, V)
    candidates = [[int(v) for v in np.argsort(-total, kind="stable")[:k] if np.isfinite(total[v])] for total in totals]

    def worth(words: Iterable[int]) -> tuple[float, float]:
        words = list(words)
        right = (log_p[:, words].argmax(axis=1) == targets).mean()
        return float(right), float(sum(totals[c, w] for c, w in enumerate(words)))

    if np.prod([len(c) for c in candidates], dtype=float) <= EXHAUSTIVE:
        distinct = (words for words in itertools.product(*candidates) if len(set(words)) == n_classes)
        return list(max(distinct, key=worth))
    words: list[int] = []
    for options in candidates:
        words.append(next(w for w in options if w not in words))
    for _ in range(SWEEPS):
        before = list(words)
        for c, options in enumerate(candidates):
            free = [w for w in options if w == words[c] or w not in words]
            words[c] = max(free, key=lambda w: worth([*words[:c], w, *words[c + 1 :]]))
        if words == before:
            break
    return words
