"""Layer-wise learning-rate decay: the lower a layer, the smaller its steps (Howard & Ruder, 2018; Sun et al., 2019).

The head takes the full learning rate, the last layer `llrd_decay` of it, the one below that squared,
and so on down to the embeddings: decay^(L + 1 − l) for layer l of L, the embeddings being l = 0.
"""

from __future__ import annotations

from typing import Any


class LayerwiseRates:
    name = "llrd"
    title = "Layer-wise learning-rate decay"
    paper = "Howard & Ruder, 2018, Universal language model fine-tuning; Sun et al., 2019, How to fine-tune BERT"

    def __init__(self, options: dict[str, Any]) -> None:
        self.decay = float(options["llrd_decay"])

    def rate_factors(self, model: Any) -> dict[str, float]:
        from tunewell.strategies.layers import depths, head_depth

        places = depths(model)
        head = head_depth(model)  # above the last layer also where it is the embeddings and has no place of its own
        return {name: self.decay ** (head - place) for name, place in places.items()}
