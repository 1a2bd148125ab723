"""Prototypical networks (Snell et al., 2017): a row's class is that of the nearest mean of the support rows.

    p(class | x) = softmax over classes of −‖f(x) − c‖²

Nothing is tuned on a new task. The body learns embeddings in which that works.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from tunewell.meta.episode import Episode, Inner, Lesson, accuracy, learnable
from tunewell.meta.heads import prototypes, squared_distances

NAME, TITLE = "protonet", "Prototypical network"
PAPER = "Snell et al. (2017)"
USE, OUTER, RATE = "prototypes", "adam", 2e-5


def lesson(body: Any, episode: Episode, inner: Inner) -> Lesson:
    """The body's gradient of the query loss; it passes through the prototypes too. `inner` is not used."""
    x = body(episode.take(episode.support))
    centres = prototypes(x, episode.of(episode.support), episode.classes)
    asked = episode.of(episode.query)
    given = -squared_distances(body(episode.take(episode.query)), centres)
    loss = cross_entropy(given, asked)
    gradients = torch.autograd.grad(loss, learnable(body), allow_unused=True)
    return Lesson(list(gradients), float(loss.detach()), accuracy(given.detach(), asked))
