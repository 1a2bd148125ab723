"""Models whose answers are no scores of a head: spans of a context, written texts, labels by their likelihood.

They share the queue and its batches with the others. What comes out of a batch is an object for each text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunewell.errors import DataError, TunewellError
from tunewell.predict import Predictor
from tunewell.serving.models import Served

WRITTEN = 8  # texts a batch at the most: each takes seconds, and others wait for all of them


@dataclass(eq=False)
class Told(Served):
    """One loaded model that answers by `predict_batch`.

    Attributes:
        kind: the task that it was tuned for.
    """

    kind: str = ""

    @property
    def most(self) -> int | None:
        return WRITTEN if hasattr(self.predictor, "write") else None

    @property
    def headed(self) -> bool:
        return False

    def need(self, texts: Sequence[str], pairs: Sequence[str] | None) -> None:
        if isinstance(self.predictor, Predictor):  # labels by their likelihood
            super().need(texts, pairs)
        elif pairs is None and self._pairs:
            raise DataError(
                "this model answers questions on contexts", where="text_pairs", expected="a context for each question"
            )
        elif pairs is not None and len(pairs) != len(texts):
            raise DataError(
                f"{len(texts)} texts but {len(pairs)} second texts", where="text_pairs", expected="one for each text"
            )

    @property
    def _pairs(self) -> bool:
        return getattr(self.predictor, "pair", None) is True

    def whole(self, text: str, pair: str | None) -> bool:
        return bool(text.strip()) and (not self._pairs or pair is None or bool(pair.strip()))

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None) -> dict[str, Any]:
        """The texts as they are, and their token ids, which are counted."""
        ids = self.predictor.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return {"texts": list(texts), "pairs": None if pairs is None else list(pairs), "input_ids": ids}

    def scores(self, encoded: dict[str, Any], batch_size: int) -> np.ndarray:
        """(n,) what `tunewell predict` says of each text, as objects; an error in the place of one that it cannot read,
        such as messages that a chat template refuses, so that others of the batch have their answers.
        """
        texts, pairs = encoded["texts"], encoded["pairs"]
        out = np.empty(len(texts), dtype=object)
        try:
            out[:] = self.predictor.predict_batch(texts, pairs)
        except Exception:
            for i in range(len(texts)):
                try:
                    (out[i],) = self.predictor.predict_batch(
                        texts[i : i + 1], None if pairs is None else pairs[i : i + 1]
                    )
                except Exception as error:
                    out[i] = error
        return out

    def answers(self, scores: np.ndarray, top_k: int | None, probabilities: bool) -> list[dict[str, Any]]:
        """One dict a text: its prediction; of spans probability, start, end and the `top_k` best; of labels their
        probabilities.

        Raises:
            DataError: one that could not be read.
        """
        for found in scores:
            if isinstance(found, TunewellError):
                raise found
            if isinstance(found, Exception):
                raise DataError(
                    f"the model cannot answer a text ({type(found).__name__}: {str(found)[:200]})",
                    where="texts",
                    expected="texts, or messages that its chat template takes",
                ) from found
        return [_shown(found, top_k, probabilities) for found in scores]

    def task(self) -> dict[str, Any]:
        spec = getattr(self.predictor, "spec", None)
        labels = list(spec.labels) if spec is not None else []
        return {"task": self.kind, "labels": labels, "multi_label": False, "text_pairs": self._pairs}

    @property
    def precision(self) -> str:
        return "bf16" if getattr(self.predictor, "bf16", False) else "fp32"


def _shown(found: dict[str, Any], top_k: int | None, probabilities: bool) -> dict[str, Any]:
    out = dict(found)
    if not probabilities:
        for key in ("probabilities", "probability", "nbest"):
            out.pop(key, None)
    if "nbest" in out:
        out["nbest"] = list(out["nbest"])[: top_k or 1]
    if top_k is not None and "probabilities" in out:
        out["probabilities"] = dict(sorted(out["probabilities"].items(), key=lambda pair: -pair[1])[:top_k])
    return out
