"""What a probe leaves behind: per-item arrays, from which figures and paired intervals are worked out at any time.

A probe's kind says how its figure comes from the arrays (n items):

    spearman    cosine (n,), gold (n,)    rank correlation of the model's cosines with human scores
    accuracy    right (n,)                share of right answers
    neighbours  vectors (n, H)            against the base model: share of the nearest neighbours kept
    cka         vectors (n, H)            against the base model: debiased linear CKA
    bits        nats (n,), bytes (n,)     surprise on general text in bits per byte; lower is better
    agreement   ids (n, T, 1), logs       against the base model: share of places with the same likeliest token
    kl          ids (n, T, K), logs       against the base model: KL(base ‖ tuned) of the next token, nats a token
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunewell.errors import DataError
from tunewell.results import write_whole

RELATIVE = ("neighbours", "cka", "agreement", "kl")  # kinds that exist only in comparison with the base model
NEIGHBOURS = 10


@dataclass(frozen=True)
class Measurement:
    """One probe on one model.

    Attributes:
        items: hash of the probe's items; only measurements of the same items are compared.
        chance: the figure of a model that knows nothing.
        counted: part of the suite's mean and worst.
    """

    name: str
    title: str
    metric: str
    kind: str
    chance: float
    counted: bool
    items: str
    arrays: dict[str, np.ndarray]

    @property
    def n(self) -> int:
        return len(next(iter(self.arrays.values())))

    @property
    def value(self) -> float:
        """The figure on this model alone; 1 (`kl`: 0) for the kinds that compare with the base model."""
        from tunewell.evaluate.weighted import spearman_of

        if self.kind == "kl":
            return 0.0
        if self.kind in RELATIVE:
            return 1.0
        if self.kind == "bits":
            return float(self.arrays["nats"].sum() / np.log(2) / self.arrays["bytes"].sum())
        if self.kind == "accuracy":
            return float(self.arrays["right"].mean())
        return float(spearman_of(self.arrays["cosine"], self.arrays["gold"])(np.ones((self.n, 1)))[0])


def items_hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False, default=str).encode()).hexdigest()[:16]


class Measurements(dict[str, Measurement]):
    """The probes of one half of a suite on one model, by name."""

    def __init__(self, half: str, entries: dict[str, Measurement] | None = None, seconds: float = 0.0) -> None:
        super().__init__(entries or {})
        self.half, self.seconds = half, seconds

    def save(self, path: str | Path) -> None:
        """Write as .npz without pickle, whole or not at all."""
        meta: dict[str, Any] = {"half": self.half, "seconds": self.seconds, "probes": []}
        arrays: dict[str, np.ndarray] = {}
        for i, m in enumerate(self.values()):
            keys = ("name", "title", "metric", "kind", "chance", "counted", "items")
            meta["probes"].append({**{k: getattr(m, k) for k in keys}, "arrays": list(m.arrays)})
            arrays |= {f"{i}.{name}": a for name, a in m.arrays.items()}
        arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        write_whole(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> Measurements:
        """Read what `save` wrote.

        Raises:
            DataError: the file is damaged.
        """
        import zipfile

        try:
            with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as file:
                meta = json.loads(file["meta"].tobytes())
                out = cls(meta["half"], seconds=meta["seconds"])
                for i, about in enumerate(meta["probes"]):
                    names = about.pop("arrays")
                    out[about["name"]] = Measurement(**about, arrays={n: file[f"{i}.{n}"] for n in names})
                return out
        except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
            raise DataError(
                f"not a file of measurements: {error}", where=str(path), remedy="delete it and run again"
            ) from error
