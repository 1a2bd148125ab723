"""Learning rates where the recipe names none: the peak by the model's width, a new head faster than what is known.

Adam's best rate falls as one over the width of a model (Yang et al., 2021, Tensor Programs V): the usual 5e-5
at BERT-base's 768 is 1e-4 at MiniLM's 384. A head that was just drawn has everything to learn, the encoder
under it next to nothing: with one rate for both, a head of many classes is still learning when the encoder
should stop (discriminative rates; Howard & Ruder, 2018). A pooler between them gets the geometric mean.
"""

from __future__ import annotations

import math
from typing import Any

RATE_TIMES_WIDTH = 0.04
LEAST, MOST = 1e-5, 2e-4


def fixed_rate(rate: float | str | None) -> float | None:
    """A recipe's rate as a number, None for the usual one.

    Raises:
        RecipeError: it is to be found, which only a whole run does.
    """
    if isinstance(rate, str):
        from tunewell.errors import RecipeError

        raise RecipeError(
            "`learning_rate: auto` compares tunings of a run, and this is not one",
            where="learning_rate",
            expected="a rate, such as 5e-5, or none for the usual one",
            remedy="find it with `tunewell run`, and name it here",
        )
    return rate


def peak_rate(model: Any) -> float:
    """The peak learning rate for a model, by its hidden size.

    >>> from types import SimpleNamespace as N
    >>> [round(peak_rate(N(config=N(hidden_size=h))), 7) for h in (128, 384, 768, 1024)]
    [0.0002, 0.0001042, 5.21e-05, 3.91e-05]
    """
    width = getattr(model.config, "hidden_size", None) or getattr(model.config, "d_model", None) or 768
    return min(MOST, max(LEAST, RATE_TIMES_WIDTH / width))


def head_factors(model: Any, factor: float) -> dict[str, float]:
    """Factors of the learning rate by parameter name, for the parameters that were drawn and not loaded.

    Empty where nothing was drawn (a head that the base model brought) or the factor is 1.
    """
    drawn: frozenset[str] = getattr(model, "drawn_parameters", frozenset())
    if not drawn or factor == 1:
        return {}
    out = {}
    for name, _ in model.named_parameters():
        if name in drawn:
            out[name] = factor
        elif ".pooler." in name:
            out[name] = math.sqrt(factor)
    return out
