"""Retention suites: which probes, which half, measured on a model in one pass over their texts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tunewell.errors import RecipeError, nearest
from tunewell.retention.measurement import Measurement, Measurements

if TYPE_CHECKING:
    import numpy as np

    from tunewell.retention.probes import Probe

Half = Literal["select", "report"]
COUNTED = ("similarity", "wordsim353", "simlex999", "topics")
DRIFT = ("neighbours", "cka")
KNOWN = (*COUNTED, *DRIFT)


@dataclass(frozen=True)
class Suite:
    """Probes of one half. `select` halves serve choices, `report` halves only what is shown."""

    half: Half
    probes: tuple[Probe, ...] = field(default=())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(p.name for p in self.probes)

    @property
    def texts(self) -> list[str]:
        """All texts that the probes need, each once."""
        return list(dict.fromkeys(text for probe in self.probes for text in probe.texts))

    def counted(self) -> Suite:
        """The suite without probes that count for nothing."""
        return Suite(self.half, tuple(p for p in self.probes if p.counted))

    def measure(self, embedder: Callable[[Sequence[str]], np.ndarray]) -> Measurements:
        """Measure a model, given as texts -> embeddings (n, H). Each text is embedded once."""
        started = time.perf_counter()
        texts = self.texts
        vectors = embedder(texts) if texts else None
        place = {text: i for i, text in enumerate(texts)}
        out = Measurements(self.half)

        def lookup(wanted: Sequence[str]) -> np.ndarray:
            assert vectors is not None
            return vectors[[place[text] for text in wanted]]

        for p in self.probes:
            out[p.name] = Measurement(p.name, p.title, p.metric, p.kind, p.chance, p.counted, p.items, p.arrays(lookup))
        out.seconds = round(time.perf_counter() - started, 3)
        return out


def load_suite(
    probes: Sequence[str] = ("auto",), probe_files: Sequence[str] = (), *, half: str = "report", seed: int = 42
) -> Suite:
    """Make a suite.

    Args:
        probes: names out of similarity, wordsim353, simlex999, topics, neighbours, cka; "auto" for all,
            "none" for none. The drift probes (neighbours, cka) count towards the mean only when named.
        probe_files: the user's own probes.
        half: "select" or "report".

    Raises:
        RecipeError: an unknown probe. DataError: a probe file that does not fit. AssetError: data cannot be fetched.
    """
    names = list(dict.fromkeys(probes))
    for name in names:
        if name not in (*KNOWN, "auto", "none"):
            hint = nearest(name, KNOWN)
            raise RecipeError(
                f"unknown probe `{name}`", where="probes", expected=", ".join((*KNOWN, "auto", "none")), remedy=hint
            )
    if "none" in names and len(names) > 1:
        raise RecipeError(
            "`none` cannot be combined with other probes", where="probes", expected="none, or names of probes"
        )
    chosen = list(KNOWN) if "auto" in names else [n for n in names if n != "none"]
    made = [_make(name, half, seed, named=name in names) for name in chosen]
    from tunewell.retention.probes.own_file import own_probe

    for path in probe_files:
        probe = own_probe(path, half, seed)
        if probe.name in {p.name for p in made}:
            raise RecipeError(
                f"two probes are called `{probe.name}`", where=f"probe_files: {path}", remedy="rename the file"
            )
        made.append(probe)
    return Suite(half, tuple(made))  # type: ignore[arg-type]


def _make(name: str, half: str, seed: int, *, named: bool) -> Probe:
    from tunewell.retention.probes import drift, similarity, topics

    if name == "similarity":
        return similarity.sentences(half, seed)
    if name == "wordsim353":
        return similarity.words(name, "Word relatedness (wordsim353)", half, seed)
    if name == "simlex999":
        return similarity.words(name, "Word similarity (simlex999)", half, seed)
    if name == "topics":
        return topics.reuters(half, seed)
    return drift.drift_probe(name, half, seed, counted=named)
