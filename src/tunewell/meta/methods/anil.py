"""ANIL (Raghu et al., 2020), almost no inner loop: the body stays fixed while a task is learned, the head adapts.

    head' = head after k steps on the support rows' embeddings;   body ← body − η ∇_body L_query(body, head')

With a linear head the exact gradient is cheap, so it is taken: it passes through the k steps and through the
prototypes that the head begins with (Triantafillou et al., 2020).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from tunewell.meta.episode import Episode, Inner, Lesson, accuracy, learnable
from tunewell.meta.heads import head_steps, logits, prototype_head, prototypes

NAME, TITLE = "anil", "ANIL"
PAPER = "Raghu et al. (2020)"
USE, OUTER, RATE = "head", "adam", 2e-5


def lesson(body: Any, episode: Episode, inner: Inner) -> Lesson:
    """The body's gradient of the query loss at the adapted head."""
    x, y = body(episode.take(episode.support)), episode.of(episode.support)
    head = prototype_head(prototypes(x, y, episode.classes))
    head = head_steps(head, x, y, steps=inner.steps, rate=inner.rate, create_graph=True)
    asked = episode.of(episode.query)
    given = logits(head, body(episode.take(episode.query)))
    loss = cross_entropy(given, asked)
    gradients = torch.autograd.grad(loss, learnable(body), allow_unused=True)
    return Lesson(list(gradients), float(loss.detach()), accuracy(given.detach(), asked))
