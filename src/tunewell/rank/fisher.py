"""The Fisher information of an encoder's neurons for a task: Task2Vec (Achille et al., 2019).

A linear head on the frozen encoder's pooled vectors is fitted to the task's labels. Then of each row an answer y is
drawn from what encoder and head say, and the gradient of log p(y | x) is taken by each weight:

    F_w = E_x E_(y ~ p(y | x)) (∂ log p(y | x) / ∂w)²

As in the paper the weights into one neuron are taken together by their mean. The head stays out of it, so that tasks
with other labels can be compared. Scores have a Gaussian of unit variance around the answer, scaled labels and the
expectation in closed form; several labels a row are drawn one by one.

The mean square over a neuron's weights needs no gradient of the weights themselves: with x_t what enters a linear layer
at token t and g_t the gradient of what leaves it, Σ_i (Σ_t g_to x_ti)² = Σ_ts g_to (x_t · x_s) g_so.

Shapes: n texts, B of a batch, T tokens, I what enters and O what leaves a layer, H size of an embedding, C outputs, D
neurons of all layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from tunewell.evaluate.linear import Kind

BATCH = 16


def neuron_fisher(x: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """(O,) the sum over texts of the mean squared gradient of the weights into each neuron.

    Args:
        x: (B, T, I) what entered a linear layer. gradient: (B, T, O) of each text's own loss by what left it.
    """
    inner = x @ x.transpose(1, 2)  # (B, T, T)
    return ((inner @ gradient) * gradient).sum((0, 1)) / x.shape[-1]


def head_of(vectors: np.ndarray, targets: np.ndarray, outputs: int, seed: int) -> tuple[np.ndarray, np.ndarray, Kind]:
    """A linear head for the task's labels: weights (H, C), bias (C,), and its kind.

    Args:
        vectors: (n, H). targets: (n,) class ids, (n, C) of 0 and 1, or (n,) floats, which are scaled.
    """
    from tunewell.evaluate.linear import fit_linear_probe

    y = np.asarray(targets)
    if y.dtype.kind == "f" and y.ndim == 1:
        y = (y - y.mean()) / max(float(y.std()), 1e-12)
    none = slice(0, 0)
    probe = fit_linear_probe(vectors, y, vectors[none], y[none], seed=seed, n_classes=outputs)
    weights = probe.model.weights / probe.scale[:, None]
    return weights, probe.model.bias - probe.mean @ weights, probe.model.kind


def fisher(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    targets: np.ndarray,
    *,
    outputs: int,
    max_length: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Pooled vectors (n, H) of a task's texts and its Task2Vec embedding (D,), the layers one after the other.

    Args:
        model: a base model, frozen; its weights need no gradient. targets: as `tasks.targets` gives them.
        outputs: C, classes or values. seed: of the answers drawn and of the head's folds.
    """
    import torch

    from tunewell.models.embed import embed, encode, like_length, mean_pool, pad

    vectors = embed(model, tokenizer, texts, pairs=pairs, max_length=max_length)
    weights, bias, kind = head_of(vectors, targets, outputs, seed)
    w, b = (torch.tensor(v, dtype=torch.float32, device=model.device) for v in (weights, bias))
    encoded = encode(tokenizer, texts, pairs, max_length)
    lengths = np.fromiter((len(ids) for ids in encoded["input_ids"]), dtype=np.int64, count=len(texts))
    draws = torch.Generator(device=model.device).manual_seed(seed)
    sums: dict[int, torch.Tensor] = {}
    training = model.training
    model.eval()
    try:
        with recording(model, sums):
            for index in like_length(lengths, BATCH):
                batch = {k: v.to(model.device) for k, v in pad(tokenizer, encoded, index).items()}
                hidden = model(**batch).last_hidden_state
                answer_loss(mean_pool(hidden, batch["attention_mask"]) @ w + b, kind, draws).backward()
    finally:
        model.train(training)
    parts = [s.cpu().numpy() for _, s in sorted(sums.items())]
    return vectors, np.maximum(np.concatenate(parts) if parts else np.zeros(0), 0.0) / len(texts)


def answer_loss(logits: torch.Tensor, kind: Kind, draws: torch.Generator) -> torch.Tensor:
    """The sum over rows of −log p(y | x) for answers y that are drawn from the logits (B, C) themselves; for values the
    answer itself, whose squared gradient is the expectation over a Gaussian of unit variance."""
    import torch
    from torch.nn import functional

    if kind == "regression":
        return logits.sum()
    if kind == "single-label":
        y = torch.multinomial(logits.detach().softmax(-1), 1, generator=draws).squeeze(1)
        return functional.cross_entropy(logits, y, reduction="sum")
    labels = torch.bernoulli(logits.detach().sigmoid(), generator=draws)
    return functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")


@contextmanager
def recording(model: Any, sums: dict[int, torch.Tensor]) -> Iterator[None]:
    """Within, each backward pass adds the sums of `neuron_fisher` of every linear layer, poolers left out, by its place
    in the model. Weights get no gradient meanwhile; afterwards all is as before."""
    from torch import nn

    layers = [m for n, m in model.named_modules() if isinstance(m, nn.Linear) and "pooler" not in n]
    before = [(p, p.requires_grad) for p in model.parameters()]

    def watch(place: int) -> Any:
        def forward(module: Any, inputs: Any, output: torch.Tensor) -> None:
            x = inputs[0].detach()

            def backward(gradient: torch.Tensor) -> None:
                if x.ndim == 3:
                    found = neuron_fisher(x.float(), gradient.float())
                    sums[place] = sums[place] + found if place in sums else found

            if output.requires_grad:
                output.register_hook(backward)

        return forward

    handles = [m.register_forward_hook(watch(i)) for i, m in enumerate(layers)]
    handles.append(model.get_input_embeddings().register_forward_hook(lambda m, i, out: out.requires_grad_()))
    try:
        for p, _ in before:
            p.requires_grad_(False)
        yield
    finally:
        for handle in handles:
            handle.remove()
        for p, wanted in before:
            p.requires_grad_(wanted)
