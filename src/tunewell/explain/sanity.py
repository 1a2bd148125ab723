"""Does a method look at the weights at all? The model-randomisation check of Adebayo et al. (2018).

The head, then layer after layer from the top down to the embeddings is given random weights, and texts are explained
again. An explanation of the model changes with it: its rank correlation with the first one falls towards 0. A method
whose scores stay the same shows the text, not the model.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunewell.errors import DataError, ModelError
from tunewell.evaluate.statistics import mean_interval
from tunewell.explain import tokens
from tunewell.explain.scorer import Scorer
from tunewell.explain.segment import Item, items_of
from tunewell.explain.spearman import spearman
from tunewell.results import Estimate

if TYPE_CHECKING:
    from tunewell.predict import Predictor

FEWEST = 3  # words: fewer cannot be ranked
CHANGED = 0.5  # a rank correlation below it, when all weights are random, passes


@dataclass(frozen=True)
class SanityStep:
    """Explanations after one more part of the model was drawn anew, against those of the model.

    Attributes:
        part: what was drawn last ("head", "layer 5", ..., "embeddings"); all parts before it stay random.
        correlation: mean over texts of Spearman's correlation of the words' scores, with its 95 % t interval.
    """

    part: str
    correlation: Estimate


@dataclass(frozen=True)
class Sanity:
    """The check of one method. `passed`: with all weights random, the scores have become others."""

    method: str
    steps: tuple[SanityStep, ...]
    passed: bool

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "method": self.method,
            "passed": self.passed,
            "steps": [{"part": s.part, "correlation": s.correlation.model_dump()} for s in self.steps],
        }


def sanity(
    predictor: Predictor,
    texts: Sequence[str],
    text_pairs: Sequence[str] | None = None,
    *,
    method: str = "integrated_gradients",
    seed: int = 42,
) -> Sanity:
    """Run the check; the predictor's own model is not touched.

    Args:
        texts: with three words or more each (others cannot be ranked and are left out); a dozen is enough.
        method: a name of `tokens.METHODS`.

    Raises:
        DataError: no text has three words. ModelError: a model of answers.
    """
    explain = tokens.method(method).attribute
    items = rankable(predictor, texts, text_pairs)
    own = Scorer(predictor.model, predictor.tokenizer, predictor.spec)
    targets = own.logits(items).argmax(axis=1)
    before = [a.scores for a in explain(own, items, targets, seed=seed)]
    model = copy.deepcopy(predictor.model)
    steps = []
    for part, weights in parts(model):
        randomise(weights, seed=seed)
        for item in items:
            item.cache.clear()
        after = explain(Scorer(model, predictor.tokenizer, predictor.spec), items, targets, seed=seed)
        steps.append(SanityStep(part, _mean([spearman(b, a.scores) for b, a in zip(before, after, strict=True)])))
    return Sanity(method, tuple(steps), abs(steps[-1].correlation.value or 0.0) < CHANGED)


def rankable(predictor: Predictor, texts: Sequence[str], text_pairs: Sequence[str] | None = None) -> list[Item]:
    """The texts whose words can be ranked.

    Raises:
        DataError: there is none. ModelError: the model has no head that could be random.
    """
    if getattr(predictor, "scorer", predictor) is not None:
        raise ModelError("has no head to check against a random one", where="sanity", expected="a classifier's run")
    items = items_of(predictor.tokenizer, texts, text_pairs, predictor.max_length)
    found = [item for item in items if len(item.words) >= FEWEST]
    if not found:
        longest = max((len(item.words) for item in items), default=0)
        raise DataError(
            f"the check compares the order of words, and no text has enough of them: the longest has {longest}",
            where="sanity",
            expected=f"a text of {FEWEST} words or more",
            remedy="give longer texts, or leave the check out",
        )
    return found


def parts(model: Any) -> list[tuple[str, list[Any]]]:
    """The model's weights from the top down: head, layers from the last to the first, embeddings."""
    from torch import nn

    base = model.base_model
    stacks = [m for m in base.modules() if isinstance(m, nn.ModuleList) and len(m) == base.config.num_hidden_layers]
    layers = list(stacks[0]) if stacks else []
    inside = {id(w) for layer in layers for w in layer.parameters()}
    below = {id(w) for name, w in base.named_parameters() if name.startswith("embeddings")}
    below |= {id(w) for w in base.get_input_embeddings().parameters()}
    head = [w for w in model.parameters() if id(w) not in inside | below]
    stack = [(f"layer {i + 1}", list(layers[i].parameters())) for i in reversed(range(len(layers)))]
    return [("head", head), *stack, ("embeddings", [w for w in model.parameters() if id(w) in below])]


def randomise(weights: Sequence[Any], *, seed: int) -> None:
    """Normal draws with each tensor's own mean and standard deviation, in place."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for w in weights:
            drawn = torch.randn(w.shape, generator=generator).to(w)
            spread = w.float().std() if w.numel() > 1 else torch.zeros(())
            w.copy_(drawn * spread.to(w) + w.mean())


def _mean(values: Sequence[float]) -> Estimate:
    """Of correlations, whose interval ends at −1 and 1."""
    found = mean_interval(values)
    if found.low is None or found.high is None:
        return found
    return found.model_copy(update={"low": max(-1.0, found.low), "high": min(1.0, found.high)})
