"""First-order MAML (Finn et al., 2017): the gradient of the query loss at the adapted weights.

    φ̃ = φ after k steps on the support rows;   φ ← φ − η ∇ L_query(φ̃)

The exact gradient would pass through the k steps; dropping their second derivatives costs little and saves most of
the time and memory (section 5.2 of the paper). The head of an episode begins as prototypes (Triantafillou et al.,
2020), and, first-order here too, no gradient passes through that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from tunewell.meta.episode import Episode, Inner, Lesson, accuracy, adapt, learnable, unchanged
from tunewell.meta.heads import logits

NAME, TITLE = "fomaml", "First-order MAML"
PAPER = "Finn et al. (2017)"
USE, OUTER, RATE = "whole", "adam", 2e-5


def lesson(body: Any, episode: Episode, inner: Inner) -> Lesson:
    """The gradient at the adapted weights, to be applied to those before."""
    with unchanged(body):
        head = adapt(body, episode, inner)
        y = episode.of(episode.query)
        given = logits(head, body(episode.take(episode.query)))
        loss = cross_entropy(given, y)
        gradients = torch.autograd.grad(loss, learnable(body), allow_unused=True)
        return Lesson(list(gradients), float(loss.detach()), accuracy(given.detach(), y))
