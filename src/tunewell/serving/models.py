"""The models that a service answers with: loaded from run folders, known by name, swapped in one step."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tunewell.errors import ModelError, TunewellError, nearest
from tunewell.folder import file_hash
from tunewell.models.twice import BF16, FP32, read
from tunewell.predict import Predictor, decide, load_predictor, read_task

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
WARM_TEXTS = ("warm", "a text of middling length, so that the first caller need not wait", "many words " * 40)


@dataclass(eq=False)
class Served:
    """One loaded model; never changed once it serves but for a count, so that one model answers a request.

    Attributes:
        name: what callers ask for.
        path: the run or model folder as it was given; links are followed anew at each reload.
        version: 12 hexadecimal digits of the weights' sha256.
        loaded: Unix time.
    """

    name: str
    path: Path
    predictor: Predictor
    version: str
    bf16: bool = False  # first; never for regression
    again: int = 0  # texts that were read a second time, in fp32; one thread counts
    loaded: float = field(default_factory=time.time)

    @property
    def most(self) -> int | None:
        """Texts a batch at the most; None for as many as the service takes."""
        return None

    @property
    def headed(self) -> bool:
        """Whether answers are those of a head, whose words and training rows can be told here."""
        return True

    def need(self, texts: Sequence[str], pairs: Sequence[str] | None) -> None:
        """Make sure that a request can be answered, before it shares a batch with others.

        Raises:
            DataError: second texts missing, too many or too few.
        """
        self.predictor.need_pairs(texts, pairs, "text_pairs")

    def whole(self, text: str, pair: str | None) -> bool:
        """Whether there is anything to answer; else the prediction is null."""
        return bool(text.strip())

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None) -> dict[str, list[list[int]]]:
        """Token ids of texts, as `tunewell predict` makes them."""
        from tunewell.models.embed import encode

        p = self.predictor
        encoded = encode(p.tokenizer, texts, pairs, p.max_length)
        return {key: encoded[key] for key in encoded if key in p.tokenizer.model_input_names}

    def scores(self, encoded: dict[str, list[list[int]]], batch_size: int) -> np.ndarray:
        """Probabilities (n, C) or values (n,) of encoded texts, in batches of like length.

        In bf16, probabilities are off by about 0.01 at the most; rows that this could turn are calculated
        again in fp32, so that the labels are those of fp32. `again` counts them.
        """
        p = self.predictor
        scores, again = read(p.model, p.tokenizer, p.spec, encoded, bf16=self.bf16, batch_size=batch_size)
        self.again += int(again.sum())
        return p.calibrated(scores)

    def answers(self, scores: np.ndarray, top_k: int | None, probabilities: bool) -> list[dict[str, Any]]:
        """One dict a text; `probabilities` by label, the likeliest first when `top_k` asks for so many."""
        spec, labels = self.predictor.spec, self.predictor.labels
        decided = decide(spec, scores)
        if spec.regression or not probabilities:
            return [{"prediction": value} for value in decided]
        out = []
        for answer, row in zip(decided, scores.tolist(), strict=True):
            shown = zip(labels, row, strict=True)
            if top_k is not None:
                shown = sorted(shown, key=lambda pair: -pair[1])[:top_k]  # type: ignore[assignment]
            out.append({"prediction": answer, "probabilities": dict(shown)})
        return out

    def describe(self) -> dict[str, Any]:
        """What `GET /models` says of it."""
        return {
            "name": self.name,
            "version": self.version,
            **self.task(),
            "max_length": self.predictor.max_length,
            "precision": self.precision,
            "loaded": round(self.loaded, 3),
        }

    def task(self) -> dict[str, Any]:
        """What it answers, and to what."""
        spec = self.predictor.spec
        return {
            "task": spec.name,
            "labels": list(spec.labels),
            "multi_label": spec.multi_label,
            "text_pairs": spec.pair,
        }

    @property
    def precision(self) -> str:
        """What it computes in, in words."""
        return BF16 if self.bf16 else FP32


def load(name: str, path: str | Path, *, bf16: bool = False, batch_size: int = 64) -> Served:
    """Load and warm a model; one that writes is not warmed.

    Raises:
        ModelError: no such folder, a run without a model, or one that cannot predict.
    """
    predictor = load_predictor(Path(path), batch_size=batch_size)
    if not isinstance(predictor, Predictor) or predictor.scorer is not None:
        from tunewell.serving.told import Told

        kind = str(((read_task(Path(path)) or {}).get("spec") or {}).get("name", ""))
        kind = kind or ("question-answering" if hasattr(predictor, "find") else "text-generation")
        told = Told(name, Path(path), predictor, version_of(predictor.source), kind=kind)
        if told.most is None:
            predictor.predict_batch(list(WARM_TEXTS), list(WARM_TEXTS) if predictor.pair else None)
        return told
    served = Served(name, Path(path), predictor, version_of(predictor.source), bf16 and not predictor.spec.regression)
    for texts in (*([text] for text in WARM_TEXTS), list(WARM_TEXTS) * 8):
        served.scores(served.encode(texts, texts if predictor.spec.pair else None), batch_size)
    served.again = 0
    return served


def version_of(folder: str | Path) -> str:
    """12 hexadecimal digits of the sha256 of a model folder's weights."""
    folder = Path(folder)
    for name in WEIGHTS:
        if (folder / name).is_file():
            return file_hash(folder / name)[:12]
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]


def named(runs: Sequence[str]) -> dict[str, Path]:
    """Names and folders of `RUN` or `NAME=RUN` arguments; a run's name is that of its folder.

    Raises:
        ModelError: two of one name.
    """
    out: dict[str, Path] = {}
    for run in runs:
        name, sign, path = run.partition("=")
        if not sign or "/" in name or Path(run).exists():
            name, path = "", run
        folder = Path(path).expanduser()
        name = name or _name(folder)
        if name in out:
            raise ModelError(
                f"two models are called `{name}`", where=run, expected="names that differ", remedy=f"NAME={path}"
            )
        out[name] = folder
    return out


def _name(folder: Path) -> str:
    absolute = folder.absolute()
    return absolute.parent.name if absolute.name == "model" else absolute.name


class Models:
    """All models of a service; the first is the default. Reading needs no lock: a swap replaces one reference."""

    def __init__(self, paths: dict[str, Path], *, bf16: bool = False, batch_size: int = 64) -> None:
        self.bf16, self.batch_size = bf16, batch_size
        self.all = {name: load(name, path, bf16=bf16, batch_size=batch_size) for name, path in paths.items()}

    def get(self, name: str | None) -> Served:
        """The model of a name, the first without one.

        Raises:
            ModelError: none is called so.
        """
        models = self.all
        if name is None:
            return next(iter(models.values()))
        if name not in models:
            raise ModelError(
                "no such model", where="model", expected="one of " + ", ".join(models), remedy=nearest(name, models)
            )
        return models[name]

    def reload(self, name: str | None = None) -> list[Served | TunewellError]:
        """Load again what lies at the models' paths, one after the other, and swap in what could be loaded.

        Requests taken before the swap are answered by the old model, later ones by the new. What
        cannot be loaded is left as it was, and its error comes back in its place.
        """
        out: list[Served | TunewellError] = []
        for old in [self.get(name)] if name is not None else list(self.all.values()):
            try:
                new = load(old.name, old.path, bf16=self.bf16, batch_size=self.batch_size)
            except TunewellError as error:
                out.append(error)
                continue
            self.all = {**self.all, old.name: new}
            out.append(new)
        return out
