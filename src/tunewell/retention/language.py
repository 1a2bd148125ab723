"""What a decoder knows, before and after: language, grammar, following instructions, and how far it has moved.

Bits per byte are the model's surprise, −log₂ p, over the bytes of the text, so that models with other
vocabularies can be compared. Lower is better; retention is before / after.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import RecipeError, nearest
from tunewell.retention.measurement import Measurement, Measurements, items_hash
from tunewell.retention.probes.speaker import Speaker, SpokenProbe

if TYPE_CHECKING:
    from tunewell.retention.suite import Half

TEXT = {"news": "General text: news stories", "posts": "General text: forum posts"}
DRIFT = ("agreement", "kl")
KNOWN = (*TEXT, "grammar", "instructions", *DRIFT)
TEXTS, CHARACTERS, LEAST = 100, 400, 200  # of each probe and half; shorter texts are left out


@dataclass(frozen=True)
class LanguageSuite:
    """Probes of one half."""

    half: Half
    probes: tuple[SpokenProbe, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(p.name for p in self.probes)

    def counted(self) -> LanguageSuite:
        """The suite without probes that count for nothing."""
        return LanguageSuite(self.half, tuple(p for p in self.probes if p.counted))

    def measure(self, speaker: Any) -> Measurements:
        """Measure a model: a `Speaker`, or the writer of an encoder-decoder."""
        started = time.perf_counter()
        out = Measurements(self.half)
        for p in self.probes:
            found = p.arrays(speaker)
            out[p.name] = Measurement(p.name, p.title, p.metric, p.kind, p.chance, p.counted, p.items, found)
        out.seconds = round(time.perf_counter() - started, 3)
        return out


def load_language_suite(
    probes: Sequence[str] = ("auto",), probe_files: Sequence[str] = (), *, half: Half = "report", seed: int = 42
) -> LanguageSuite:
    """Make a suite for decoders.

    Args:
        probes: names out of news, posts, grammar, instructions, agreement, kl, and `lm_eval:TASK`; "auto" for all
            but the last, "none" for none. The drift probes (agreement, kl) count towards the mean only when named.
        probe_files: the user's own texts: a file with one text a line, or a data file with a text column.

    Raises:
        RecipeError: an unknown probe. DataError: a file that cannot be used. AssetError: data cannot be fetched.
    """
    from pathlib import Path

    from tunewell.data.general import general_texts
    from tunewell.retention.probes.lm_eval import PREFIX
    from tunewell.retention.probes.similarity import halve

    names = list(dict.fromkeys(probes))
    for name in names:
        if name not in (*KNOWN, "auto", "none") and not name.startswith(PREFIX):
            raise RecipeError(
                f"unknown probe `{name}` for a decoder",
                where="probes",
                expected=", ".join((*KNOWN, f"{PREFIX}TASK", "auto", "none")),
                remedy=nearest(name, KNOWN),
            )
    if "none" in names and len(names) > 1:
        raise RecipeError(
            "`none` cannot be combined with other probes", where="probes", expected="none, or names of probes"
        )
    chosen = [*KNOWN, *(n for n in names if n.startswith(PREFIX))] if "auto" in names else names
    made = [_make(name, half, seed, named=name in names) for name in chosen if name != "none"]
    for file in probe_files:
        stem = Path(file).stem
        if stem in {p.name for p in made}:
            raise RecipeError(f"two probes are called `{stem}`", where=f"probe_files: {file}", remedy="rename the file")
        texts = general_texts(file, 2 * TEXTS, seed=seed)
        made.append(bits(stem, stem, [t[:CHARACTERS] for t in halve(texts, half, seed)]))
    return LanguageSuite(half, tuple(made))


def _make(name: str, half: Half, seed: int, *, named: bool) -> SpokenProbe:
    from tunewell.retention.probes import agreement, following, grammar, lm_eval

    if name in TEXT:
        return bits(name, TEXT[name], _texts(name, half, seed))
    if name == "grammar":
        return grammar.grammar(half, seed)
    if name == "instructions":
        return following.instructions(half, seed)
    if name in DRIFT:
        half_of_each = agreement.PROMPTS // 2
        texts = [t for source in TEXT for t in _texts(source, half, seed)[:half_of_each]]
        return agreement.drift_of(name, texts, counted=named)
    return lm_eval.lm_eval_probe(name, half)


def bits(name: str, title: str, texts: Sequence[str]) -> SpokenProbe:
    """Bits per byte on texts."""
    size = np.array([len(t.encode()) for t in texts], dtype=np.float64)

    def arrays(speaker: Speaker) -> dict[str, np.ndarray]:
        return {"nats": np.asarray(speaker(texts), dtype=np.float64), "bytes": size}

    return SpokenProbe(name, title, "bits per byte", "bits", tuple(texts), items_hash(name, tuple(texts)), arrays)


def _texts(name: str, half: Half, seed: int) -> tuple[str, ...]:
    """The beginnings of texts that neither general text for distillation nor the other half uses."""
    from tunewell.data.packaged import lee_stories, newsgroups
    from tunewell.retention.probes.similarity import halve
    from tunewell.retention.probes.topics import sample

    whole: list[Any] = lee_stories("even") if name == "news" else [text for text, _ in newsgroups("even")]
    texts = [t for t in halve(list(dict.fromkeys(whole)), half, seed) if len(t) >= LEAST]
    return tuple(t[:CHARACTERS] for t in sample(texts, TEXTS, seed))


def surprise_of(
    model: Any, tokenizer: Any, *, max_length: int = 256, batch_size: int = 16, bf16: bool = False
) -> Speaker:
    """A decoder as what a LanguageSuite measures; the texts cut at `max_length` tokens."""
    return Speaker(model, tokenizer, max_length=max_length, batch_size=batch_size, bf16=bf16)
