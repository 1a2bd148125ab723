"""Are the two frameworks one model? Logits of both on real rows, held to the limit of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import ModelError

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.backends.tensorflow.model import Classifier

LIMIT = 1e-4  # largest difference of a logit
ROWS = 64


def gate(model: Any, twin: Classifier, tokenizer: Any, encoded: Dataset, *, where: str, when: str) -> float:
    """Compare a PyTorch model with its twin on up to ROWS encoded rows, short and long ones.

    Args:
        where: the name of the model; when: said in the error.

    Returns:
        The largest difference of a logit.

    Raises:
        ModelError: it is above LIMIT, or not a number.
    """
    from tunewell.train.tune import lengths_of

    order = np.argsort(lengths_of(encoded), kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(ROWS, len(order))).astype(int)]
    some = encoded.select(chosen)
    rows = {k: some[k][:] for k in some.column_names if k in tokenizer.model_input_names}
    return hold(model, twin, tokenizer, rows, where=where, when=when)


def hold(model: Any, twin: Classifier, tokenizer: Any, rows: Any, *, where: str, when: str) -> float:
    """As `gate`, for rows that `models.embed.encode` has encoded: all are compared."""
    from tunewell.models.embed import logits_of

    difference = float(np.max(np.abs(logits_of(model, tokenizer, rows) - logits_of(twin, tokenizer, rows))))
    if not difference <= LIMIT:
        raise ModelError(
            f"TensorFlow and PyTorch differ by {difference:.2g} in a logit {when}, on {len(rows['input_ids'])} rows",
            where=where,
            expected=f"at most {LIMIT:g}",
            remedy="`framework: pytorch`, and please report this model",
        )
    return difference
