"""Mixup on pooled representations: the loss worked by hand, what is drawn, what the loop learns from."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy

from tunewell.strategies.mixup import Mixup, mixed_losses


def each(logits, labels):
    return cross_entropy(logits, labels, reduction="none")


def test_the_loss_by_hand():
    """Two rows z = (2, 0) and (0, 0) of the classes 0 and 1, W = I, λ = 0.75, each mixed with the other.

    z̃₁ = (1.5, 0): −log p₀ = log(1 + e^−1.5), −log p₁ = log(1 + e^1.5); z̃₂ = (0.5, 0).
    """
    z, labels, swap = torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1]), torch.tensor([1, 0])
    found = mixed_losses(z, labels, 0.75, swap, torch.eye(2), torch.zeros(2), each, mix_labels=False)
    first = 0.75 * math.log(1 + math.exp(-1.5)) + 0.25 * math.log(1 + math.exp(1.5))
    second = 0.75 * math.log(1 + math.exp(0.5)) + 0.25 * math.log(1 + math.exp(-0.5))
    assert found.tolist() == pytest.approx([first, second], abs=1e-6)


def test_mixed_losses_are_the_loss_of_mixed_labels():
    """Zhang et al.'s definition: the cross-entropy with the soft label λ yᵢ + (1 − λ) yⱼ."""
    torch.manual_seed(0)
    z, weight, bias = torch.randn(6, 4), torch.randn(3, 4), torch.randn(3)
    labels, other, share = torch.tensor([0, 1, 2, 0, 1, 2]), torch.randperm(6), 0.3
    soft = share * torch.eye(3)[labels] + (1 - share) * torch.eye(3)[labels[other]]
    wanted = cross_entropy((share * z + (1 - share) * z[other]) @ weight.T + bias, soft, reduction="none")
    found = mixed_losses(z, labels, share, other, weight, bias, each, mix_labels=False)
    assert torch.allclose(found, wanted, atol=1e-6)


def test_share_one_is_the_row_itself():
    torch.manual_seed(0)
    z, weight, labels = torch.randn(4, 3), torch.randn(2, 3), torch.tensor([0, 1, 1, 0])
    found = mixed_losses(z, labels, 1.0, torch.randperm(4), weight, None, each, mix_labels=False)
    assert torch.allclose(found, each(z @ weight.T, labels))


class Head(torch.nn.Module):
    """A head of two classes on what it is given."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)
        self.config = SimpleNamespace(num_labels=2, model_type="bert", is_encoder_decoder=False)

    def forward(self, z):
        return SimpleNamespace(logits=self.linear(z))


def test_it_learns_from_mixtures_and_answers_rows():
    torch.manual_seed(0)
    model, strategy = Head().train(), Mixup({"mixup_alpha": 1.0})
    strategy.row_loss, strategy.float_labels = each, False
    strategy.begin_step(model, 0)
    z, labels = torch.randn(8, 3), torch.tensor([0, 1] * 4)
    outputs = model(z)
    assert torch.equal(outputs.logits, model.linear(z))  # the rows are answered as they are
    losses = each(outputs.logits, labels)
    state = torch.get_rng_state()
    model(z)
    found = strategy.row_losses(model, outputs, labels, losses)
    torch.set_rng_state(state)
    share = float(torch.distributions.Beta(1.0, 1.0).sample())
    other = torch.randperm(8)
    mixed = model.linear(share * z + (1 - share) * z[other])
    assert torch.allclose(found, share * each(mixed, labels) + (1 - share) * each(mixed, labels[other]), atol=1e-6)
    strategy.finish(model)
    model(z)
    assert strategy.pooled is None  # nothing listens any more


def test_shares_follow_beta():
    """Beta(α, α) has mean ½ and variance 1 / (4 (2α + 1)): α = 0.2 gives 0.1786."""
    torch.manual_seed(0)
    drawn = torch.distributions.Beta(0.2, 0.2).sample((20_000,))
    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(drawn.var()) == pytest.approx(1 / (4 * 1.4), abs=0.003)


def test_a_tuning_learns_from_mixtures(small_job):
    plain, mixed = small_job(folder="a"), small_job("mixup", folder="b", mixup_alpha=1.0)
    assert any(not torch.equal(plain.weights[k], mixed.weights[k]) for k in plain.weights)
    again = small_job("mixup", folder="c", mixup_alpha=1.0)
    assert all(torch.equal(again.weights[k], mixed.weights[k]) for k in mixed.weights)


def test_scores_mix_their_targets():
    z, labels, swap = torch.tensor([[2.0], [0.0]]), torch.tensor([1.0, 0.0]), torch.tensor([1, 0])

    def squared(logits, y):
        return (logits[:, 0] - y) ** 2

    found = mixed_losses(z, labels, 0.75, swap, torch.tensor([[1.0]]), None, squared, mix_labels=True)
    assert found.tolist() == pytest.approx([(1.5 - 0.75) ** 2, (0.5 - 0.25) ** 2])


def test_not_for_decoders(tiny_decoder):
    from transformers import AutoModelForSequenceClassification

    from tunewell.errors import RecipeError

    model = AutoModelForSequenceClassification.from_pretrained(tiny_decoder)
    with pytest.raises(RecipeError, match="this is a decoder"):
        Mixup({"mixup_alpha": 0.2}).prepare(SimpleNamespace(model=model, row_loss=each, float_labels=False))
