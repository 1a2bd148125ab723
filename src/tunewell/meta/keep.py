"""Between the base model and what was learned: the point that serves best within the retention budget.

Weights on the line between the two (WiSE-FT; Wortsman et al., 2022) are put to use on the tasks that choose and
probed on select halves; nothing that is reported takes part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from tunewell.meta.draw import Body
from tunewell.meta.episode import Episode, Inner
from tunewell.meta.learn import mean_accuracy, set_weights, weights_of

if TYPE_CHECKING:
    from tunewell.recipe import Recipe

ALPHAS = (1.0, 0.75, 0.5, 0.25)


def between(
    base: dict[str, torch.Tensor], learned: dict[str, torch.Tensor], alpha: float
) -> dict[str, torch.Tensor]:  # fmt: skip
    """base + alpha (learned − base); what is no floating-point number stays as it is."""
    return {k: torch.lerp(v, learned[k], alpha) if v.is_floating_point() else v for k, v in base.items()}


def within_budget(
    body: Body,
    tokenizer: Any,
    base: dict[str, torch.Tensor],
    recipe: Recipe,
    judges: Sequence[Episode],
    use: str,
    inner: Inner,
    echo: Callable[[str], None],
) -> float:
    """Put the best weights within `keep` into the body; alpha, 0 where only the base model keeps enough.

    Args:
        body: with the learned weights. judges: the episodes that choose. use: the method's way.
    """
    from tunewell.retention.forgetting import point
    from tunewell.retention.suite import load_suite
    from tunewell.stages.probe import embedder

    assert recipe.keep is not None
    suite = load_suite(recipe.probes, recipe.probe_files, half="select", seed=recipe.seed).counted()
    learned = weights_of(body)
    set_weights(body, base)
    before = suite.measure(embedder(body.model, tokenizer))
    best, chosen = mean_accuracy(body, judges, use, inner), 0.0
    for alpha in ALPHAS:
        set_weights(body, between(base, learned, alpha))
        mean, _, _ = point(before, suite.measure(embedder(body.model, tokenizer)))
        if mean is None:
            continue
        score = mean_accuracy(body, judges, use, inner)
        echo(f"keep: alpha {alpha:g}: retention {mean:.4f} on select halves, accuracy {score:.4f}")
        if mean >= recipe.keep and score > best:
            best, chosen = score, alpha
    set_weights(body, between(base, learned, chosen))
    return chosen
