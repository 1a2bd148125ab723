"""The Fisher information of an encoder's neurons for a task: Task2Vec (Achille et al., 2019).

A linear head on the frozen encoder's pooled vectors is fitted to the task's labels. Then for each row the gradient of
log p(y | x) is taken by each weight, for the answers y that encoder and head give:

    F_w = E_x E_(y ~ p(y | x)) (∂ log p(y | x) / ∂w)²

As in the paper the weights into one neuron are taken together by their mean. The head stays out of it, so that tasks
with other labels can be compared. Scores have a Gaussian of unit variance around the answer and scaled labels.

Where we differ: the expectation over y is taken as it is and not from one drawn answer. A head is nearly sure of most
rows, so that a draw would nearly always give the sure answer, with no gradient, and all hang on the few rows where it
did not. With z the logits of a row, ∂ log p(y) / ∂w = (e_y − p)ᵀ ∂z/∂w, and the expectation of its square is
Σ_c (r_cᵀ ∂z/∂w)² for the columns r_c = √p_c (e_c − p): one backward pass for each class. Labels of which a row has
several are independent: r_c = √(p_c (1 − p_c)) e_c. Above `PASSES` outputs, Rademacher signs ε mix the columns, with
E (Σ_c ε_c r_cᵀ ∂z/∂w)² the same sum (Hutchinson, 1989). And a row is read with a head fitted to the other half of the
rows: of its own it would be too sure.

The mean square over a neuron's weights needs no gradient of the weights themselves: with x_t what enters a linear layer
at token t and g_t the gradient of what leaves it, Σ_i (Σ_t g_to x_ti)² = Σ_ts g_to (x_t · x_s) g_so.

Shapes: n texts, B of a batch, K columns, T tokens, I what enters and O what leaves a layer, H size of an embedding, C
outputs, D neurons of all layers.
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
PASSES = 8  # backward passes a batch at the most
HALVES = 2


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
        vectors: (n, H). targets: (n,) class ids, (n, C) of 0 and 1, or (n,) floats.
    """
    from tunewell.evaluate.linear import fit_linear_probe

    y = np.asarray(targets)
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
        outputs: C, classes or values. seed: of the halves, of the signs drawn and of the heads' folds.
    """
    import torch

    from tunewell.models.embed import embed, encode, like_length, mean_pool, pad

    vectors = embed(model, tokenizer, texts, pairs=pairs, max_length=max_length)
    half, w, b, kind = heads_of(vectors, targets, outputs, seed)
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
                pooled = mean_pool(model(**batch).last_hidden_state, batch["attention_mask"])
                at = torch.from_numpy(half[index])
                logits = (pooled.unsqueeze(1) @ w[at].to(model.device)).squeeze(1) + b[at].to(model.device)
                columns = mixed(roots(logits.detach(), kind), draws)
                for k in range(columns.shape[2]):
                    (logits * columns[:, :, k]).sum().backward(retain_graph=k + 1 < columns.shape[2])
    finally:
        model.train(training)
    parts = [s.cpu().numpy() for _, s in sorted(sums.items())]
    return vectors, np.maximum(np.concatenate(parts) if parts else np.zeros(0), 0.0) / len(texts)


def heads_of(
    vectors: np.ndarray, targets: np.ndarray, outputs: int, seed: int
) -> tuple[np.ndarray, torch.Tensor, torch.Tensor, Kind]:
    """Which head reads each row (n,), the heads' weights (heads, H, C) and biases (heads, C), and their kind.

    Each half of the rows, its classes dealt evenly, is read with a head fitted to the other; fewer than four rows with
    one fitted to all.
    """
    import torch

    n, y = len(vectors), np.asarray(targets)
    half = np.zeros(n, dtype=np.int64)
    parts = [np.arange(n)]
    if n >= 2 * HALVES:
        order = np.random.default_rng(seed).permutation(n)
        order = order[np.argsort(y[order].argmax(axis=1) if y.ndim == 2 else y[order], kind="stable")]
        half[order] = np.arange(n) % HALVES
        parts = [np.flatnonzero(half != k) for k in range(HALVES)]
    if y.dtype.kind == "f" and y.ndim == 1:
        y = (y - y.mean()) / max(float(y.std()), 1e-12)
    heads = [head_of(vectors[rows], y[rows], outputs, seed) for rows in parts]
    w, b = (torch.tensor(np.stack([h[i] for h in heads]), dtype=torch.float32) for i in (0, 1))
    return half, w, b, heads[0][2]


def roots(logits: torch.Tensor, kind: Kind) -> torch.Tensor:
    """(B, C, K) columns r with Σ_k r_k r_kᵀ = E_y (∂ log p(y) / ∂z) (∂ log p(y) / ∂z)ᵀ, for logits z (B, C)."""
    import torch

    if kind == "regression":
        return torch.ones_like(logits).unsqueeze(2)
    eye = torch.eye(logits.shape[1], device=logits.device)
    if kind == "single-label":
        p = logits.softmax(-1)
        return (eye - p.unsqueeze(2)) * p.sqrt().unsqueeze(1)
    return eye * (logits.sigmoid() * (-logits).sigmoid()).sqrt().unsqueeze(1)


def mixed(columns: torch.Tensor, draws: torch.Generator, most: int = PASSES) -> torch.Tensor:
    """(B, C, K) columns as they are, or, where there are more than `most`, so many sums of them with random signs:
    their outer products add up to the same in expectation."""
    import torch

    rows, _, k = columns.shape
    if k <= most:
        return columns
    signs = torch.randint(0, 2, (rows, k, most), generator=draws, device=columns.device).float() * 2 - 1
    return columns @ signs / most**0.5


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
