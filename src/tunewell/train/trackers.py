"""Trackers beside a tuning: each tuning is a run of its own."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence


@contextlib.contextmanager
def tracked(names: Sequence[str]) -> Iterator[None]:
    """End the Weights & Biases run that a tuning began, also on an error.

    Transformers ends the runs of MLflow and trackio itself, and leaves that of wandb open: further candidates and
    seeds of the same process would go on in it. A run that was open before is the user's own and stays so.

    Args:
        names: the recipe's `report_to`.
    """
    own = "wandb" in names and getattr(sys.modules.get("wandb"), "run", None) is None
    try:
        yield
    finally:
        wandb = sys.modules.get("wandb")
        if own and wandb is not None and wandb.run is not None:
            wandb.finish()


__all__ = ["tracked"]
