"""What L2-SP, EWC and MAS share: a quadratic term that pulls weights back to where they began.

Its gradient is added after the backward pass in closed form, which is the same as adding the term to
the loss, without a graph over all weights. The loss that is logged stays the task's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from tunewell.train.hooks import Tuning, Weights

TEXTS = 512  # general texts that importances are measured on, at most
LONGEST = 64  # tokens of a general text


def anchors(model: Any) -> Weights:
    """Copies of the weights that base and tuned model share, as they are now."""
    from tunewell.strategies.layers import shared

    return {name: p.detach().clone() for name, p in shared(model)}


def pull(model: Any, anchor: Weights, weight: float, importance: Mapping[str, torch.Tensor] | None = None) -> None:
    """Add weight · importance · (θ − θ₀) to the gradients: that of weight / 2 · Σ importance · (θ − θ₀)².

    A parameter without a gradient (a step that was dropped) is left alone.
    """
    import torch

    with torch.no_grad():
        for name, p in model.named_parameters():
            if name in anchor and p.grad is not None:
                away = p - anchor[name].to(p.device)
                if importance is not None:
                    away *= importance[name].to(p.device)
                p.grad.add_(away, alpha=weight)


def general_batches(tuning: Tuning, options: tuple[str | None, int], rows: int) -> Iterator[dict[str, torch.Tensor]]:
    """Padded batches of general text for measuring importances, on the model's device."""
    from tunewell.data.general import general_texts
    from tunewell.models.embed import encode

    source, samples = options
    texts = general_texts(source, min(samples, TEXTS), seed=tuning.seed)
    encoded = encode(tuning.tokenizer, texts, None, LONGEST)
    yield from padded(tuning.tokenizer, encoded, rows, tuning.model.device)


def padded(tokenizer: Any, encoded: Any, rows: int, device: Any) -> Iterator[dict[str, torch.Tensor]]:
    """Encoded texts in padded batches of so many rows, the shortest first."""
    from tunewell.models.embed import pad

    lengths = [len(ids) for ids in encoded["input_ids"]]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for start in range(0, len(order), rows):
        batch = pad(tokenizer, encoded, order[start : start + rows])
        yield {k: v.to(device) for k, v in batch.items()}


def cached(tuning: Tuning, name: str, measure: Callable[[], Weights]) -> Weights:
    """Importances, measured once a tuning: a resumed run reads them back, unless they are damaged."""
    from safetensors.torch import load_file, save_file

    from tunewell.results import write_with
    from tunewell.seal import broken, seal

    path = tuning.cache / f"{name}.safetensors"
    if path.is_file():
        if (why := broken(path)) is None:
            return load_file(str(path))
        tuning.echo(f"{name}: what was kept of an earlier start is measured again: {why}")
    found = measure()
    write_with(path, lambda temporary: save_file(found, str(temporary)))
    seal(path)
    return found


def pooled(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """(B, H) pooled embeddings of a batch, as the retention probes take them."""
    from tunewell.models.embed import mean_pool

    return mean_pool(model.base_model(**batch).last_hidden_state.float(), batch["attention_mask"])


def squared_gradients(
    model: Any,
    batches: Iterable[dict[str, torch.Tensor]],
    names: Iterable[str],
    draw: Callable[[dict[str, torch.Tensor]], tuple[torch.Tensor, int] | None],
) -> Weights:
    """Squared gradients of what `draw` makes of each batch, summed and divided by the items they stand for.

    Args:
        names: of the parameters to measure; what the model does not have is left out.
        draw: a batch -> a scalar and how many items are in it; None for a batch without any.

    Returns:
        name -> (shape of the parameter).
    """
    import torch

    wanted = set(names)
    parameters = {name: p for name, p in model.named_parameters() if name in wanted}
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    training, n = model.training, 0
    model.eval()
    try:
        for batch in batches:
            if (drawn := draw(batch)) is None:
                continue
            gradients = torch.autograd.grad(drawn[0], list(parameters.values()), allow_unused=True)
            for name, g in zip(parameters, gradients, strict=True):
                if g is not None:
                    total[name].addcmul_(g, g)
            n += drawn[1]
    finally:
        model.train(training)
    return {name: t / max(n, 1) for name, t in total.items()}
