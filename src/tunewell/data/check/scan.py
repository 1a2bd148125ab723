"""One pass over the rows, in batches: what later findings need, as arrays of a few bytes a row.

Shapes: N rows over all splits, train first.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.data.split import text_key
from tunewell.results import Example
from tunewell.shown import cut

if TYPE_CHECKING:
    from datasets import Dataset

BATCH = 5_000
SHOWN, SHOWN_CHARS = 5, 160  # examples a finding, characters an example

PATTERNS: dict[str, re.Pattern[str]] = {
    "broken-characters": re.compile(
        "\ufffd|Ã[\u0080-\u00bf©¨ª«®]|â€[\u0080-\u2122œ™]|Â[\u00a0-\u00bf]|[\x00-\x08\x0b\x0c\x0e-\x1f]"
    ),
    "html": re.compile(
        r"</?[a-z][a-z0-9]{0,9}(?:\s[^<>]{0,200})?/?>|&(?:amp|lt|gt|quot|nbsp|#\d{2,5});", re.IGNORECASE
    ),
    "email": re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})*\.[A-Za-z]{2,10}\b"),
    "phone": re.compile(
        r"(?<![\w.@/#-])(?:\+\d{1,3}[ .-]?)?(?:\(\d{2,4}\)[ .-]?)?\d{2,4}(?:[ .-]\d{2,4}){2,4}(?![\w-])|\+\d{9,14}\b"
    ),
    "card": re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)"),
}


@dataclass
class Hits:
    """How many rows a pattern is found in, and the first of them."""

    count: int = 0
    rows: list[int] = field(default_factory=list)

    def add(self, row: int) -> None:
        self.count += 1
        if len(self.rows) < SHOWN:
            self.rows.append(row)


@dataclass
class Scan:
    """What one pass found.

    Attributes:
        keys: (N,) hash of the normalised text (and second text).
        tokens: (N,) tokens before any cut, 0 without a tokenizer.
        bounds: split -> (first, last + 1) in the concatenation.
        hits: pattern -> rows.
    """

    splits: dict[str, Dataset]
    bounds: dict[str, tuple[int, int]]
    keys: np.ndarray
    tokens: np.ndarray
    hits: dict[str, Hits]

    def split_of(self, row: int) -> str:
        return next(name for name, (a, b) in self.bounds.items() if a <= row < b)

    def rows(self, split: str) -> slice:
        return slice(*self.bounds[split])

    def get(self, row: int) -> dict[str, Any]:
        name = self.split_of(row)
        return self.splits[name][int(row - self.bounds[name][0])]

    def example(self, row: int, note: str = "", mask: Callable[[str], str] | None = None) -> Example:
        """A row as evidence, with file:row."""
        found = self.get(row)
        text = found["text"] + (f" ⇔ {found['text_pair']}" if "text_pair" in found else "")
        text = mask(text) if mask else text
        return Example(where=f"{found['source']}:{found['row']}", text=cut(text, SHOWN_CHARS), note=note)

    def label_note(self, row: int) -> str:
        label = self.get(row)["label"]
        return ", ".join(label) if isinstance(label, list) else f"{label:g}" if isinstance(label, float) else str(label)


def digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def batches(dataset: Dataset) -> Iterator[tuple[int, dict[str, list]]]:
    """(first row, columns) of batches of a split."""
    for start in range(0, len(dataset), BATCH):
        yield start, dataset[start : start + BATCH]


def scan(splits: dict[str, Dataset], tokenizer: Any = None, progress: Callable[[int], None] | None = None) -> Scan:
    """Pass over all rows once. Memory: some 20 bytes a row and one batch."""
    total = sum(len(d) for d in splits.values())
    keys, tokens = np.empty(total, dtype=np.uint64), np.zeros(total, dtype=np.int32)
    hits = {name: Hits() for name in PATTERNS}
    bounds, first = {}, 0
    for name, dataset in splits.items():
        bounds[name] = (first, first + len(dataset))
        for start, batch in batches(dataset):
            texts, pairs = batch["text"], batch.get("text_pair")
            at = first + start
            for i, text in enumerate(texts):
                key = text_key(text) if pairs is None else f"{text_key(text)}\x1f{text_key(pairs[i])}"
                keys[at + i] = digest(key)
                whole = text if pairs is None else f"{text}\n{pairs[i]}"
                for pattern, regex in PATTERNS.items():
                    found = regex.search(whole)
                    if found and (pattern != "card" or luhn(found.group())):
                        hits[pattern].add(at + i)
            if tokenizer is not None:
                tokens[at : at + len(texts)] = token_counts(tokenizer, texts, pairs)
            if progress is not None:
                progress(len(texts))
        first += len(dataset)
    return Scan(splits, bounds, keys, tokens, hits)


def token_counts(tokenizer: Any, texts: list[str], pairs: list[str] | None) -> list[int]:
    """Tokens of each text (or pair) with the special ones, uncut. Fast tokenizers skip all but the ids."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is not None and hasattr(fast, "encode_batch_fast"):
        fast.no_truncation()  # both are set anew by the next call of `tokenizer`
        fast.no_padding()
        inputs = texts if pairs is None else list(zip(texts, pairs, strict=True))
        return [len(encoded) for encoded in fast.encode_batch_fast(inputs)]
    return [len(ids) for ids in tokenizer(texts, pairs, truncation=False, verbose=False)["input_ids"]]


def luhn(digits: str) -> bool:
    """Whether the check digit of a payment card is right (ISO/IEC 7812: every second digit doubled, sum ends in 0)."""
    numbers = [int(d) for d in digits if d.isdigit()][::-1]
    total = sum(numbers[0::2]) + sum(d * 2 - 9 if d > 4 else d * 2 for d in numbers[1::2])
    return total % 10 == 0 and len(set(numbers)) > 1
