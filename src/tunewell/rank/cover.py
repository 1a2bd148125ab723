"""How well a tokenizer covers the data's language, and how many rows a window cuts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Cover:
    """`lengths` are tokens of each row with special tokens; shares are of all tokens, or of rows."""

    unknown_share: float
    characters_per_token: float
    cut_share: float
    lengths: np.ndarray


def cover(tokenizer: Any, texts: Sequence[str], pairs: Sequence[str] | None, window: int) -> Cover:
    """Measured on the data's own texts.

    Args:
        window: the longest input in tokens that the model takes.
    """
    whole = tokenizer(list(texts), list(pairs) if pairs is not None else None, truncation=False, verbose=False)
    lengths = np.array([len(ids) for ids in whole["input_ids"]], dtype=np.int64)
    every = [*texts, *(pairs or ())]
    plain = tokenizer(every, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    tokens = sum(map(len, plain))
    unknown = tokenizer.unk_token_id
    # some decoders name an ordinary token as their unknown one; byte-level vocabularies know every text
    missing = 0 if unknown is None or unknown == tokenizer.eos_token_id else sum(ids.count(unknown) for ids in plain)
    return Cover(
        missing / max(1, tokens),
        sum(map(len, every)) / max(1, tokens),
        float((lengths > window).mean()),
        lengths,
    )
