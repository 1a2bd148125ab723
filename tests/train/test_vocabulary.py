"""Embeddings restricted to the rows in use: same answers, same gradients, same tuned weights, the rest untouched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModel

from tunewell.train.vocabulary import UsedEmbedding, only_used_rows


@pytest.fixture
def model(tiny_model):
    return AutoModel.from_pretrained(tiny_model).eval()


def test_looks_up_and_learns_like_the_whole_matrix():
    torch.manual_seed(0)
    whole = nn.Embedding(20, 4, padding_idx=0)
    part = UsedEmbedding(whole, torch.tensor([0, 3, 5, 11]))
    ids = torch.tensor([[3, 5, 3, 0], [11, 7, 19, 0]])  # 7 and 19 are not in use
    assert torch.equal(part(ids), whole(ids))
    weights = torch.randn(2, 4, 4)
    (whole(ids) * weights).sum().backward()
    (part(ids) * weights).sum().backward()
    assert torch.equal(part.weight.grad, whole.weight.grad[[0, 3, 5, 11]])
    assert not part.weight.grad[0].any()  # padding is not learned


def test_the_whole_matrix_is_back_with_what_was_learned(model):
    before = model.get_input_embeddings().weight.detach().clone()
    used = np.array([0, 2, 7])
    with only_used_rows(model, used) as left_out:
        assert left_out == (len(before) - 3) * before.shape[1]
        with torch.no_grad():
            model.get_input_embeddings().weight.add_(1)
    after = model.get_input_embeddings().weight
    assert type(model.get_input_embeddings()) is nn.Embedding
    assert torch.equal(after[used], before[used] + 1)
    rest = np.setdiff1d(np.arange(len(before)), used)
    assert torch.equal(after[rest], before[rest])


def test_it_is_back_after_an_error_too(model):
    with pytest.raises(ZeroDivisionError), only_used_rows(model, np.array([1])):
        raise ZeroDivisionError
    assert type(model.get_input_embeddings()) is nn.Embedding


def test_nothing_is_exchanged_where_most_rows_are_used_or_the_matrix_is_the_output_too(model, monkeypatch):
    most = np.arange(int(0.8 * model.config.vocab_size))
    with only_used_rows(model, most) as left_out:
        assert left_out == 0
        assert type(model.get_input_embeddings()) is nn.Embedding
    monkeypatch.setattr(model, "get_output_embeddings", lambda: nn.Linear(2, 2))
    with only_used_rows(model, np.array([1])) as left_out:
        assert left_out == 0
