"""Heads of an episode: prototypes, the linear layer that they are, and gradient steps on that layer alone.

Shapes: n rows, F features, C classes.
"""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

Head = tuple[torch.Tensor, torch.Tensor]  # weights (C, F) and bias (C,)


def prototypes(x: torch.Tensor, y: torch.Tensor, classes: int) -> torch.Tensor:
    """(C, F) the mean of each class's rows (Snell et al., 2017, equation 1).

    Args:
        x: (n, F) embeddings. y: (n,) class ids; every class has a row.
    """
    member = torch.nn.functional.one_hot(y, classes).to(x.dtype)  # (n, C)
    return member.T @ x / member.sum(0)[:, None]


def squared_distances(x: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """(n, C) squared Euclidean distances of rows to prototypes; minus these are a prototypical network's logits."""
    return (x[:, None, :] - centres[None, :, :]).pow(2).sum(-1)


def prototype_head(centres: torch.Tensor) -> Head:
    """The linear layer that answers as prototypes do: W = 2 c, b = −‖c‖² (Triantafillou et al., 2020, Proto-MAML).

    −‖x − c‖² = 2 c·x − ‖c‖² − ‖x‖², and ‖x‖² is the same for all classes.
    """
    return 2 * centres, -centres.pow(2).sum(-1)


def logits(head: Head, x: torch.Tensor) -> torch.Tensor:
    """(n, C)."""
    return x @ head[0].T + head[1]


def head_steps(
    head: Head, x: torch.Tensor, y: torch.Tensor, *, steps: int, rate: float, create_graph: bool = False
) -> Head:
    """Gradient descent on the head alone, all rows a step; the features stay as they are.

    Args:
        head: its tensors may hang on a graph, and are not changed.
        create_graph: keep the graph, so that a loss at the new head has gradients for what the features came from.
    """
    weights, bias = head
    if not create_graph:
        x, weights, bias = x.detach(), weights.detach(), bias.detach()
    for _ in range(steps):
        if not weights.requires_grad:
            weights, bias = weights.requires_grad_(), bias.requires_grad_()
        loss = cross_entropy(logits((weights, bias), x), y)
        by_weights, by_bias = torch.autograd.grad(loss, (weights, bias), create_graph=create_graph)
        weights, bias = weights - rate * by_weights, bias - rate * by_bias
        if not create_graph:
            weights, bias = weights.detach(), bias.detach()
    return weights, bias


__all__ = ["Head", "head_steps", "logits", "prototype_head", "prototypes", "squared_distances"]
