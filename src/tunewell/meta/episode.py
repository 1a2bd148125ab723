"""One episode: a small task of its own, some rows to learn from and others to be asked; and the inner loop on it.

A body is any module that turns rows into (n, F) embeddings; a method is tested on a linear one.

Shapes: n rows, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from tunewell.meta.heads import Head, head_steps, logits, prototype_head, prototypes

WAYS_OF_USE = ("prototypes", "head", "whole")  # no step; steps on the head; steps on head and body


@dataclass(frozen=True)
class Inner:
    """The inner loop: so many gradient steps at one learning rate."""

    steps: int
    rate: float


@dataclass(frozen=True)
class Episode:
    """Rows of one task, dealt out.

    Attributes:
        take: row numbers of the episode -> what the body takes. labels: (n,) class ids of all rows.
        support, query: row numbers, disjoint; in a shuffled order. task: where they come from.
    """

    take: Callable[[Sequence[int]], Any]
    labels: torch.Tensor
    support: tuple[int, ...]
    query: tuple[int, ...]
    classes: int
    task: str = ""

    def of(self, rows: Sequence[int]) -> torch.Tensor:
        """The labels of these rows."""
        return self.labels[list(rows)]


@dataclass(frozen=True)
class Lesson:
    """What an episode says to the body: a gradient for each parameter (None where it has none), and how it went.

    Attributes:
        loss, accuracy: on the query rows (Reptile, which has none apart: on the rows of the last step).
    """

    gradients: list[torch.Tensor | None]
    loss: float
    accuracy: float


def learnable(body: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The body's parameters that may change, in order."""
    return [p for p in body.parameters() if p.requires_grad]


@contextmanager
def unchanged(body: torch.nn.Module) -> Iterator[None]:
    """Whatever an inner loop does to the body is undone at the end, also after an error."""
    kept = [p.detach().clone() for p in learnable(body)]
    try:
        yield
    finally:
        with torch.no_grad():
            for p, old in zip(learnable(body), kept, strict=True):
                p.copy_(old)


def first_head(body: torch.nn.Module, episode: Episode) -> Head:
    """The head that an episode begins with: the prototypes of its support rows; no graph hangs on it."""
    with torch.no_grad():
        x = body(episode.take(episode.support))
    return prototype_head(prototypes(x, episode.of(episode.support), episode.classes))


def descend(body: torch.nn.Module, head: Head, x: Any, y: torch.Tensor, rate: float) -> tuple[Head, torch.Tensor]:
    """One step of gradient descent on body (in place) and head; the new head, and the logits before the step."""
    weights, bias = (t.detach().requires_grad_() for t in head)
    parameters = learnable(body)
    given = logits((weights, bias), body(x))
    gradients = torch.autograd.grad(cross_entropy(given, y), [weights, bias, *parameters], allow_unused=True)
    with torch.no_grad():
        for p, g in zip(parameters, gradients[2:], strict=True):
            if g is not None:
                p.sub_(g, alpha=rate)
    return ((weights - rate * gradients[0]).detach(), (bias - rate * gradients[1]).detach()), given.detach()


def adapt(body: torch.nn.Module, episode: Episode, inner: Inner) -> Head:
    """Tune body (in place) and head on the support rows, all of them a step."""
    head = first_head(body, episode)
    x, y = episode.take(episode.support), episode.of(episode.support)
    for _ in range(inner.steps):
        head, _ = descend(body, head, x, y, inner.rate)
    return head


def answers(body: torch.nn.Module, episode: Episode, use: str, inner: Inner) -> torch.Tensor:
    """(query rows, C) logits of a body put to use in one of WAYS_OF_USE; the body stays as it is."""
    if use == "whole":
        with unchanged(body):
            head = adapt(body, episode, inner)
            with torch.no_grad():
                return logits(head, body(episode.take(episode.query)))
    head = first_head(body, episode)
    with torch.no_grad():
        x, asked = body(episode.take(episode.support)), body(episode.take(episode.query))
    if use == "head":
        head = head_steps(head, x, episode.of(episode.support), steps=inner.steps, rate=inner.rate)
    return logits(head, asked)


def accuracy(given: torch.Tensor, y: torch.Tensor) -> float:
    """Share of right answers."""
    return float((given.argmax(-1) == y).float().mean())
