"""What a decoder knows of language: bits per byte on general text, before and after.

Bits per byte are the model's surprise, −log₂ p, over the bytes of the text, so that models with other
vocabularies can be compared. Lower is better; retention is before / after.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import RecipeError, nearest
from tunewell.retention.measurement import Measurement, Measurements, items_hash

if TYPE_CHECKING:
    from tunewell.retention.suite import Half

KNOWN = {"news": "General text: news stories", "posts": "General text: forum posts"}
TEXTS, CHARACTERS, LEAST = 100, 400, 200  # of each probe and half; shorter texts are left out

Surprise = Callable[[Sequence[str]], np.ndarray]
"""Texts -> (n,) nats of each, all its tokens after the first summed."""


@dataclass(frozen=True)
class LanguageSuite:
    """Probes of one half: name -> texts."""

    half: Half
    probes: dict[str, tuple[str, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.probes)

    def counted(self) -> LanguageSuite:
        """The suite without probes that count for nothing: all of it, there are none."""
        return self

    def measure(self, surprise: Surprise) -> Measurements:
        """Measure a model, given as texts -> nats."""
        started = time.perf_counter()
        out = Measurements(self.half)
        for name, texts in self.probes.items():
            arrays = {
                "nats": np.asarray(surprise(texts), dtype=np.float64),
                "bytes": np.array([len(t.encode()) for t in texts], dtype=np.float64),
            }
            title = KNOWN.get(name, name)
            items = items_hash(name, texts)
            out[name] = Measurement(name, title, "bits per byte", "bits", 0.0, True, items, arrays)
        out.seconds = round(time.perf_counter() - started, 3)
        return out


def load_language_suite(
    probes: Sequence[str] = ("auto",), probe_files: Sequence[str] = (), *, half: Half = "report", seed: int = 42
) -> LanguageSuite:
    """Make a suite for decoders.

    Args:
        probes: names out of news, posts; "auto" for all, "none" for none.
        probe_files: the user's own texts: a file with one text a line, or a data file with a text column.

    Raises:
        RecipeError: an unknown probe. DataError: a file that cannot be used. AssetError: data cannot be fetched.
    """
    from pathlib import Path

    from tunewell.data.general import general_texts
    from tunewell.retention.probes.similarity import halve

    for name in probes:
        if name not in (*KNOWN, "auto", "none"):
            raise RecipeError(
                f"unknown probe `{name}` for a decoder",
                where="probes",
                expected=", ".join((*KNOWN, "auto", "none")),
                remedy=nearest(name, KNOWN),
            )
    if "none" in probes and len(probes) > 1:
        raise RecipeError(
            "`none` cannot be combined with other probes", where="probes", expected="none, or names of probes"
        )
    chosen = list(KNOWN) if "auto" in probes else [p for p in probes if p != "none"]
    made = {name: _texts(name, half, seed) for name in chosen}
    for file in probe_files:
        texts = general_texts(file, 2 * TEXTS, seed=seed)
        made[Path(file).stem] = tuple(t[:CHARACTERS] for t in halve(texts, half, seed))
    return LanguageSuite(half, made)


def _texts(name: str, half: Half, seed: int) -> tuple[str, ...]:
    """The beginnings of texts that neither general text for distillation nor the other half uses."""
    from tunewell.data.packaged import lee_stories, newsgroups
    from tunewell.retention.probes.similarity import halve
    from tunewell.retention.probes.topics import sample

    whole: list[Any] = lee_stories("even") if name == "news" else [text for text, _ in newsgroups("even")]
    texts = [t for t in halve(list(dict.fromkeys(whole)), half, seed) if len(t) >= LEAST]
    return tuple(t[:CHARACTERS] for t in sample(texts, TEXTS, seed))


def surprise_of(model: Any, tokenizer: Any, *, max_length: int = 256, batch_size: int = 16) -> Surprise:
    """A decoder as what a LanguageSuite measures; fp32, the texts cut at `max_length` tokens."""

    def surprise(texts: Sequence[str]) -> np.ndarray:
        import torch

        from tunewell.models.embed import like_length
        from tunewell.tasks.generation.loss import IGNORED, by_row, shifted

        # a start token only where the tokenizer puts one itself: chat models have one that begins a turn
        rows = [list(tokenizer(t, verbose=False)["input_ids"])[:max_length] for t in texts]
        out = np.zeros(len(rows))
        training = model.training
        model.eval()
        try:
            for index in like_length(np.array([len(r) for r in rows]), batch_size, 2048):
                width = max(len(rows[i]) for i in index)
                ids = torch.zeros((len(index), width), dtype=torch.long)
                mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
                for j, i in enumerate(index):
                    n = len(rows[i])
                    ids[j, :n] = labels[j, :n] = torch.tensor(rows[i])
                    mask[j, :n] = 1
                with torch.inference_mode():
                    logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits
                    nats, _, _ = by_row(*shifted(logits, labels.to(model.device)))
                out[index] = nats.cpu().numpy()
        finally:
            model.train(training)
        return out

    return surprise
