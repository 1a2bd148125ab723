"""Words replaced by what a masked language model expects in their place (contextual augmentation; Kobayashi, 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tunewell.augment.operations import split, words_of

DEFAULT = "splade-tiny"
CANDIDATES = 8
BATCH = 32


class Masked:
    """A masked language model that proposes words.

    Args:
        name: asset, folder or hub id.

    Raises:
        ModelError: the model has no masked-language-model head.
    """

    def __init__(self, name: str = DEFAULT) -> None:
        from transformers import AutoModelForMaskedLM

        from tunewell.models.heads import load_saved
        from tunewell.models.load import locate

        self.name = name
        self.model, self.tokenizer = load_saved(AutoModelForMaskedLM, locate(name), "a masked-language-model head")

    def __call__(self, texts: Sequence[str], share: float, rng: np.random.Generator) -> list[str]:
        """Each text with about `share` of its words replaced, one at least; a text without words stays as it is."""
        pieces = [split(t) for t in texts]
        picked = []
        for p in pieces:
            places = words_of(p)
            picked.append(rng.permutation(places)[: max(1, round(share * len(places)))].tolist() if places else [])
        most = max((len(p) for p in picked), default=0)
        for turn in range(most):  # one word after the other, so that each sees what was put in before
            rows = [i for i, p in enumerate(picked) if len(p) > turn]
            for start in range(0, len(rows), BATCH):
                some = rows[start : start + BATCH]
                words = self._propose([(pieces[i], picked[i][turn]) for i in some], rng)
                for i, word in zip(some, words, strict=True):
                    if word is not None:
                        pieces[i][picked[i][turn]] = word
        return ["".join(p) for p in pieces]

    def _propose(self, jobs: list[tuple[list[str], int]], rng: np.random.Generator) -> list[str | None]:
        import torch

        mask = self.tokenizer.mask_token
        texts = ["".join([*p[:at], _around(p[at], mask), *p[at + 1 :]]) for p, at in jobs]
        batch: Any = self.tokenizer(texts, return_tensors="pt", padding=True, truncation=True)
        with torch.inference_mode():
            logits = self.model(**batch).logits.float()
        out: list[str | None] = []
        for row, (pieces, at) in enumerate(jobs):
            places = (batch["input_ids"][row] == self.tokenizer.mask_token_id).nonzero().flatten().tolist()
            if not places:  # beyond the window
                out.append(None)
                continue
            scores = logits[row, places[0]]
            best = scores.topk(min(CANDIDATES * 4, len(scores)))
            core = pieces[at].strip(".,;:!?\"'()")
            words, weights = [], []
            for score, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                word = str(self.tokenizer.convert_ids_to_tokens(token)).lstrip("Ġ▁")
                if word.isalpha() and word.casefold() != core.casefold() and not word.startswith("##"):
                    words.append(word)
                    weights.append(score)
                if len(words) == CANDIDATES:
                    break
            if not words:
                out.append(None)
                continue
            p = np.exp(np.array(weights) - max(weights))
            word = str(rng.choice(words, p=p / p.sum()))
            if core[:1].isupper():
                word = word.capitalize()
            out.append(_around(pieces[at], word))
        return out


def _around(piece: str, word: str) -> str:
    """A word in the punctuation of another.

    >>> _around('"fine,', "good")
    '"good,'
    """
    core = piece.strip(".,;:!?\"'()")
    return piece.replace(core, word, 1) if core else word
