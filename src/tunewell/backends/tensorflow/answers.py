"""A tuned model that answers in TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunewell.errors import ModelError


def in_tensorflow(predictor: Any, where: str) -> Any:
    """The same predictor, answering by the twin of its model, which is compared with PyTorch on a few rows first.

    Args:
        predictor: a `Predictor`; what writes texts is refused. where: what asks for it, for the errors.

    Raises:
        ModelError: the model is none that TensorFlow has, or its twin does not give its logits.
        TunewellError: TensorFlow is not installed.
    """
    from tunewell.backends.tensorflow.engine import tensorflow
    from tunewell.backends.tensorflow.fits import BACK, refuse_model
    from tunewell.backends.tensorflow.parity import ROWS, hold
    from tunewell.export.parity import rows_of
    from tunewell.models.embed import encode
    from tunewell.predict import Predictor

    if not isinstance(predictor, Predictor):
        raise ModelError(
            "gives no classes and no scores: its answers are texts, which TensorFlow does not have here",
            where=where,
            expected="a model for classes or scores",
            remedy=f"`{BACK}`",
        )
    predictor.need_head(where)
    refuse_model(predictor.model.config, where)
    tensorflow("framework: tensorflow")
    from tunewell.backends.tensorflow.model import Classifier

    twin: Any = Classifier.of(predictor.model)
    texts, pairs, _ = rows_of(predictor.run or Path(predictor.source), predictor.pair)
    encoded = encode(predictor.tokenizer, texts[:ROWS], pairs[:ROWS] if pairs else None, predictor.max_length)
    hold(predictor.model, twin, predictor.tokenizer, encoded, where=where, when="of the tuned model")
    predictor.model = twin
    return predictor
