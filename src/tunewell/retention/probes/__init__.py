"""Probes: one measured ability each, without training the model itself. One file a kind.

A probe has `name`, `title`, `metric`, `kind`, `chance`, `counted`, the `texts` it needs, and
`arrays(vectors)`, which turns the model's pooled embeddings of those texts into per-item arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Lookup = Callable[[Sequence[str]], np.ndarray]  # texts -> (n, H)


@dataclass(frozen=True)
class Probe:
    """One probe of one half. `arrays` must not depend on anything but the vectors."""

    name: str
    title: str
    metric: str
    kind: str
    texts: tuple[str, ...]
    items: str
    arrays: Callable[[Lookup], dict[str, np.ndarray]]
    chance: float = 0.0
    counted: bool = True
