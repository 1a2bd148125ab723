"""One word replaced by another that a masked language model finds likely in its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tunewell.errors import ModelError
from tunewell.explain.segment import Item

PROPOSALS = 40  # words asked for at a place
LIKELY = 0.02  # a word at least this likely, over the likeliest one there, may stand at a place
BATCH = 16


class Proposal(NamedTuple):
    """A word (number `word` of the item) replaced; `likely` as in `records.Changed`."""

    word: int
    instead: str
    likely: float


class Proposer:
    """A masked language model that says which words are likely at a place.

    Args:
        name: asset, folder or hub id.

    Raises:
        ModelError: it has no head for masked words.
    """

    def __init__(self, name: str) -> None:
        from transformers import AutoModelForMaskedLM

        from tunewell.models.heads import load_saved
        from tunewell.models.load import locate, window

        self.model, self.tokenizer = load_saved(
            AutoModelForMaskedLM, locate(name), "a head for masked words (a masked language model)"
        )
        if self.tokenizer.mask_token is None:
            raise ModelError(
                "its tokenizer has no token for a masked word",
                where=name,
                expected="a masked language model such as distilroberta-base",
            )
        self.window = window(self.model, self.tokenizer)

    def __call__(self, item: Item, places: Sequence[int]) -> list[Proposal]:
        """Proposals at some words of a text, the likeliest first."""
        out: list[Proposal] = []
        for at in range(0, len(places), BATCH):
            out += self._some(item, places[at : at + BATCH])
        return sorted(out, key=lambda p: -p.likely)

    def _some(self, item: Item, places: Sequence[int]) -> list[Proposal]:
        import torch

        mask = self.tokenizer.mask_token
        texts = []
        for w in places:
            start, end = item.spans[w]
            text = item.texts[item.part[w]]
            texts.append(text[:start] + mask + text[end:])
        batch: Any = self.tokenizer(
            texts, return_tensors="pt", padding=True, truncation=True, max_length=self.window
        )  # fmt: skip
        with torch.inference_mode():
            logits = self.model(**batch).logits.float()
        out = []
        for row, w in enumerate(places):
            gap = (batch["input_ids"][row] == self.tokenizer.mask_token_id).nonzero().flatten().tolist()
            if len(gap) != 1:  # beyond the window, or the text has a mask of its own
                continue
            best = logits[row, gap[0]].softmax(dim=0).topk(min(PROPOSALS, logits.shape[-1]))
            top = float(best.values[0])
            word = item.words[w]
            for p, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                instead = str(self.tokenizer.decode([token])).strip()
                if not _fits(str(self.tokenizer.convert_ids_to_tokens(token)), instead, word) or p < LIKELY * top:
                    continue
                out.append(Proposal(w, instead.capitalize() if word[:1].isupper() else instead, p / top))
        return out


def _fits(token: str, instead: str, word: str) -> bool:
    """Whether a token is another word and not a piece of one, a sign or the same word in another form."""
    if token.startswith("##") or not instead.isalpha() or not word[:1].isalpha():
        return False
    a, b = instead.casefold(), word.casefold()
    return a != b and not (min(len(a), len(b)) > 3 and (a.startswith(b) or b.startswith(a)))
