"""Integrated gradients against captum's (a different implementation, equal steps by Gauss-Legendre)."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from tunewell.explain.scorer import Scorer
from tunewell.explain.tokens import integrated_gradients

pytest.importorskip("captum")


@pytest.mark.parametrize("baseline", ["mask", "pad"])
def test_equal_to_captum(baseline: str, scorer: Scorer, items: list) -> None:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from captum.attr import LayerIntegratedGradients

    model, tokenizer = scorer.model, scorer.tokenizer
    targets = np.array([1, 0, 1, 0])

    def forward(ids: Any, mask: Any, target: Any) -> Any:
        return scorer.log_odds(model(input_ids=ids, attention_mask=mask).logits, target.expand(len(ids)))

    theirs = LayerIntegratedGradients(forward, model.get_input_embeddings())
    ours = integrated_gradients.attribute(scorer, items, targets, baseline=baseline, tolerance=1e-4)
    empty = tokenizer.mask_token_id if baseline == "mask" else tokenizer.pad_token_id
    for item, target, mine in zip(items, targets, ours, strict=True):
        ids = torch.as_tensor(item.ids)[None]
        start = torch.where(torch.as_tensor(item.word_of >= 0)[None], empty, ids)
        found = theirs.attribute(
            ids, start, additional_forward_args=(torch.ones_like(ids), torch.tensor([target])), n_steps=200
        )
        by_word = item.to_words(found.sum(dim=-1)[0].detach().numpy().astype(np.float64))
        assert mine.scores == pytest.approx(by_word, abs=1e-3)
