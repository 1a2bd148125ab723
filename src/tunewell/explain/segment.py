"""Words of a text, and which tokens each is made of.

In scripts that put spaces between words, a word is a run of letters, digits and marks, with apostrophes,
hyphens and dots inside it ("don't", "well-known", "3.5"); other signs ("!!", "...", an emoji) stand for
themselves. Chinese, Japanese and Thai write no spaces, so there the words are the tokenizer's own tokens:
single characters for a BERT vocabulary, pieces of several for a SentencePiece one. Words that share a token
(an unknown "😀great" that is one token) are shown as one.

Shapes: W words, T tokens.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import DataError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

JOINERS = frozenset("'’-.‑·")
UNSPACED = (  # first and last code point of scripts written without spaces
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x2FDF), (0x3040, 0x31FF),
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x20000, 0x3FFFF),
)  # fmt: skip
WINDOW_TOO_SMALL = "the window leaves no room for a word"


@dataclass(frozen=True)
class Item:
    """A text (or pair) as the model reads it.

    Attributes:
        ids: (T,) token ids, special tokens included. types: (T,) token type ids, or None.
        word_of: (T,) the word that a token belongs to; −1 for special tokens, which are never removed.
        words: W words as they stand in the text. spans: their (start, end) characters in their text.
        part: 0 for words of the first text, 1 for those of the second.
        cut: words beyond the model's window, which it never saw.
        texts: the text, and the second one of a pair, as they were given.
        cache: logits of subsets of the words, by their bits; see `Scorer.without`.
    """

    ids: np.ndarray
    types: np.ndarray | None
    word_of: np.ndarray
    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    part: tuple[int, ...]
    cut: int = 0
    texts: tuple[str, ...] = ()
    cache: dict[bytes, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    @property
    def key(self) -> int:
        """A number made from the tokens alone, so that random draws do not depend on a text's neighbours."""
        import zlib

        return zlib.crc32(self.ids.astype(np.int64).tobytes())

    def to_words(self, values: np.ndarray) -> np.ndarray:
        """Sums (W,) of token values (T,) over each word."""
        inside = self.word_of >= 0
        return np.bincount(self.word_of[inside], weights=values[inside], minlength=len(self.words))


def unspaced(character: str) -> bool:
    """Whether a character is of a script that is written without spaces."""
    point = ord(character)
    return any(low <= point <= high for low, high in UNSPACED) and unicodedata.category(character)[0] in "LNM"


def units(text: str) -> list[tuple[int, int]]:
    """Words of a text as (start, end) characters; single characters in scripts without spaces.

    >>> text = "It's 很好!"
    >>> [text[a:b] for a, b in units(text)]
    ["It's", '很', '好', '!']
    """
    return spans_of(text, [i for i, c in enumerate(text) if unspaced(c)])


def spans_of(text: str, starts: Sequence[int] = ()) -> list[tuple[int, int]]:
    """Words of a text as (start, end) characters.

    Args:
        starts: first characters of tokens, where runs without spaces are cut.

    >>> text = "don't go, 很好!!"
    >>> [text[a:b] for a, b in spans_of(text, [10, 11])]
    ["don't", 'go', ',', '很', '好', '!!']
    """
    kinds = [_kind(c) for c in text]
    cuts = set(starts)
    spans: list[tuple[int, int]] = []
    i = 0
    while i < len(text):
        if kinds[i] == " ":
            i += 1
            continue
        j = i + 1
        while j < len(text) and _goes_on(text, kinds, i, j, cuts):
            j += 1
        spans.append((i, j))
        i = j
    return spans


def _kind(character: str) -> str:
    """One of " " (space), "c" (letter without spaces around it), "w" (of a word), "m" (mark), "s" (any other sign)."""
    if unspaced(character):
        return "c"
    category = unicodedata.category(character)
    if category[0] == "Z" or category == "Cc":
        return " "
    if category[0] == "M" or category == "Cf":
        return "m"
    return "w" if category[0] in "LN" else "s"


def _goes_on(text: str, kinds: list[str], first: int, j: int, cuts: set[int]) -> bool:
    """Whether character j belongs to the word that starts at `first`."""
    kind = kinds[j]
    if kind == "m":
        return True
    if kinds[first] == "c":
        return kind == "c" and j not in cuts
    if kinds[first] in "wm":
        inside = text[j] in JOINERS and j + 1 < len(text) and kinds[j + 1] == "w" and kinds[j - 1] in "wm"
        return kind == "w" or inside
    return kind == "s"


def need_words(tokenizer: Any, text: str, *, where: str, pair: str | None = None) -> None:
    """Make sure that a text (or pair) is more than marks of the tokenizer ("[PAD]", "</s>"), which say nothing.

    Words that the tokenizer does not know (an emoji, to BERT) are words all the same.

    Raises:
        DataError: it is not.
    """
    marks = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    ids: list[int] = []
    for part in (text, pair or ""):
        ids += tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"] if part.strip() else []
    shown = [t for t in ids if t in marks]
    if shown and not any(tokenizer.decode([t]).strip() for t in ids if t not in marks):
        found = list(dict.fromkeys(tokenizer.convert_ids_to_tokens(shown)))
        raise DataError(
            f"has no words, only marks of the tokenizer: {' '.join(found[:5])}",
            where=where,
            expected="a text with words",
        )


def items_of(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    max_length: int,
    *,
    first: int = 0,
) -> list[Item]:
    """Encode texts (or pairs) and find their words; `first` is the number of the first text, for messages.

    Raises:
        ModelError: the tokenizer does not know where its tokens stand in the text.
        DataError: a text without a word that the model can read.
    """
    if not tokenizer.is_fast:
        raise ModelError(
            "its tokenizer cannot tell where tokens stand in the text",
            where=str(getattr(tokenizer, "name_or_path", "")),
            expected="a fast tokenizer (tokenizer.json)",
        )
    encoded = tokenizer(
        list(texts),
        list(pairs) if pairs is not None else None,
        truncation=True,
        max_length=max_length,
        return_offsets_mapping=True,
    )
    return [
        _item(encoded, i, texts[i], pairs[i] if pairs is not None else None, tokenizer.model_input_names, first)
        for i in range(len(texts))
    ]


def _item(encoded: Any, i: int, text: str, pair: str | None, inputs: Sequence[str], first: int) -> Item:
    ids = np.asarray(encoded["input_ids"][i], dtype=np.int64)
    known = "token_type_ids" in encoded and "token_type_ids" in inputs
    types = np.asarray(encoded["token_type_ids"][i], dtype=np.int64) if known else None
    sides, offsets = encoded.sequence_ids(i), encoded["offset_mapping"][i]
    word_of = np.full(len(ids), -1, dtype=np.int64)
    words: list[str] = []
    spans: list[tuple[int, int]] = []
    part: list[int] = []
    cut = 0
    for side, whole in enumerate([text] if pair is None else [text, pair]):
        places = [t for t, s in enumerate(sides) if s == side and offsets[t][1] > offsets[t][0]]
        found = spans_of(whole, [offsets[t][0] for t in places])
        merged, of_token = joined(found, [offsets[t] for t in places])
        end = max((offsets[t][1] for t in places), default=0)
        seen = [k for k, (start, _) in enumerate(merged) if start < end]
        cut += len(merged) - len(seen)
        for t, w in zip(places, of_token, strict=True):
            word_of[t] = w + len(words) if w >= 0 else -1
        spans += merged[: len(seen)]
        part += [side] * len(seen)
        words += [whole[a:b] for a, b in merged[: len(seen)]]
    if not words:
        raise DataError(
            "no word of this text reaches the model" if not cut else WINDOW_TOO_SMALL,
            where=f"text {first + i + 1}",
            expected="letters or signs that the tokenizer knows",
        )
    texts = (text,) if pair is None else (text, pair)
    return Item(ids, types, word_of, tuple(words), tuple(spans), tuple(part), cut, texts)


def joined(spans: list[tuple[int, int]], offsets: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], list[int]]:
    """Words that share a token become one.

    Returns:
        The spans, and for each token the number of its word (−1 for a token of spaces only).
    """
    ends = [b for _, b in spans]
    touched = []
    bound = list(range(len(spans)))  # the first word of the group that a word belongs to
    for start, stop in offsets:
        first = bisect_left(ends, start + 1)
        last = first
        while last + 1 < len(spans) and spans[last + 1][0] < stop:
            last += 1
        if first >= len(spans) or spans[first][0] >= stop:
            touched.append(-1)
            continue
        touched.append(first)
        for k in range(first + 1, last + 1):
            bound[k] = min(bound[k], first)
    group, merged = [], []  # type: list[int], list[tuple[int, int]]
    for k, span in enumerate(spans):
        if bound[k] < k:
            merged[-1] = (merged[-1][0], span[1])
        else:
            merged.append(span)
        group.append(len(merged) - 1)
    return merged, [group[t] if t >= 0 else -1 for t in touched]
