"""Dropout drawn fifteen bits an entry: how often, in whose place, and nothing else than dropout."""

from __future__ import annotations

import math

import pytest
import torch
import transformers
from torch.nn import functional

from tunewell.train import dropout as ours
from tunewell.train.dropout import attention, drawn, dropout, quick_dropout

TINY = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 64, "vocab_size": 50}


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.9, 0.9999])
def test_entries_go_as_often_as_asked_and_the_expectation_stays(p):
    torch.manual_seed(0)
    count = 2_000_003  # no multiple of the four that one draw decides on
    out = dropout(torch.ones(count, dtype=torch.float64), p)
    share = round(p * 2**15) / 2**15
    assert abs(share - p) <= 2**-16
    error = math.sqrt(share * (1 - share) / count)
    assert float((out == 0).double().mean()) == pytest.approx(share, abs=5 * error)
    assert out[out != 0].unique().tolist() == pytest.approx([1 / (1 - share)])


def test_neighbours_are_independent():
    """The four that one draw decides on, and those beside them: a table of pairs against its expectation."""
    torch.manual_seed(1)
    gone = (drawn(torch.Size([400_000]), 2**14) == 0).view(-1, 4).double()
    correlation = torch.corrcoef(gone.T) - torch.eye(4)
    assert correlation.abs().max() < 5 / math.sqrt(len(gone))
    follows = torch.corrcoef(torch.stack([gone[:-1, 3], gone[1:, 0]]))[0, 1]
    assert abs(follows) < 5 / math.sqrt(len(gone))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_the_gradient_goes_where_the_values_stayed(dtype):
    torch.manual_seed(2)
    x = torch.randn(7, 9, 5, dtype=dtype).transpose(0, 1).requires_grad_()
    out = dropout(x, 0.3)
    out.sum().backward()
    stayed = out != 0
    assert 0 < stayed.sum() < stayed.numel() and x.grad.dtype == dtype == out.dtype
    expected = stayed.to(dtype) * ours.factor_of(0.3)
    torch.testing.assert_close(x.grad, expected)
    torch.testing.assert_close(out, x.detach() * expected)


def test_the_same_seed_draws_the_same():
    draws = []
    for _ in range(2):
        torch.manual_seed(3)
        draws.append(drawn(torch.Size([10, 11]), 9000))
        last = torch.get_rng_state()
    assert torch.equal(*draws)
    torch.set_rng_state(last)
    assert not torch.equal(drawn(torch.Size([10, 11]), 9000), draws[0])


def mask_of(kind: str, batch: int, queries: int, keys: int):
    seen = torch.rand(batch, 1, queries, keys) > 0.3
    seen[..., 0] = True
    return {"none": None, "bool": seen, "float": torch.zeros(seen.shape).masked_fill(~seen, -1e4)}[kind]


@pytest.mark.parametrize("kind", ["none", "bool", "float"])
@pytest.mark.parametrize(("more", "heads"), [({}, 4), ({"scale": 0.2}, 4), ({"enable_gqa": True}, 2)])
def test_attention_whose_weights_all_stay_is_torchs(monkeypatch, kind, more, heads):
    torch.manual_seed(4)
    monkeypatch.setattr(ours, "drawn", lambda shape, dropped: torch.full(shape, -1, dtype=torch.int16))
    monkeypatch.setattr(ours, "factor_of", lambda p: 1.0)
    sides = [torch.randn(3, h, t, 8, requires_grad=True) for h, t in ((4, 6), (heads, 7), (heads, 7))]
    mask = mask_of(kind, 3, 6, 7)
    found = []
    for function, p in ((attention, 0.1), (functional.scaled_dot_product_attention, 0.0)):
        out = function(*sides, attn_mask=mask, dropout_p=p, **more)
        found.append((out.detach(), *torch.autograd.grad(out.square().sum(), sides)))
    for mine, torchs in zip(*found, strict=True):
        torch.testing.assert_close(mine, torchs)


def test_causal_attention_sees_nothing_of_what_follows(monkeypatch):
    monkeypatch.setattr(ours, "drawn", lambda shape, dropped: torch.full(shape, -1, dtype=torch.int16))
    monkeypatch.setattr(ours, "factor_of", lambda p: 1.0)
    sides = [torch.randn(2, 2, 5, 4) for _ in range(3)]
    torch.testing.assert_close(
        attention(*sides, dropout_p=0.1, is_causal=True),
        functional.scaled_dot_product_attention(*sides, is_causal=True),
    )


@pytest.mark.parametrize("tokens", [7, 300])
@pytest.mark.parametrize("causal", [False, True])
def test_short_texts_in_bf16_are_as_near_to_fp32_as_torchs(tokens, causal):
    torch.manual_seed(7)
    sides = [torch.randn(4, 2, tokens, 8) for _ in range(3)]

    def found(function, dtype):
        own = [t.detach().to(dtype).requires_grad_() for t in sides]
        out = function(*own, is_causal=causal)
        return [t.float() for t in (out.detach(), *torch.autograd.grad(out.float().square().sum(), own))]

    exact = found(functional.scaled_dot_product_attention, torch.float32)
    torchs, mine = (found(f, torch.bfloat16) for f in (functional.scaled_dot_product_attention, attention))
    assert (tokens == 7) == any(not torch.equal(a, b) for a, b in zip(torchs, mine, strict=True))
    for a, b, c in zip(exact, torchs, mine, strict=True):
        assert (c - a).norm() <= 1.5 * (b - a).norm() + 1e-6 * a.norm()


def test_without_a_backward_pass_or_in_fp32_the_fused_kernel_answers(monkeypatch):
    monkeypatch.setattr(ours, "_attention", lambda *sides, **more: "fused")
    sides = [torch.randn(2, 2, 5, 4, requires_grad=True) for _ in range(3)]
    assert attention(*sides) == "fused"
    with torch.autocast("cpu", torch.bfloat16):
        assert attention(*sides) != "fused"
        with torch.no_grad():
            assert attention(*sides) == "fused"
        assert attention(*(t.detach() for t in sides)) == "fused"
    assert attention(*(t.bfloat16() for t in sides)) != "fused"


def test_attention_drops_weights_as_often_as_torchs():
    """Values of one: each answer is the sum of the weights that stayed, whose mean is one in both."""
    torch.manual_seed(5)
    query, key, value = torch.randn(8, 4, 64, 8), torch.randn(8, 4, 64, 8), torch.ones(8, 4, 64, 1)
    sums = [f(query, key, value, dropout_p=0.2) for f in (attention, functional.scaled_dot_product_attention)]
    for each in sums:
        assert float(each.mean()) == pytest.approx(1, abs=0.01)
    assert float(sums[0].std()) == pytest.approx(float(sums[1].std()), rel=0.1)


def test_under_autocast_it_answers_in_the_type_that_torchs_does():
    sides = [torch.randn(2, 2, 5, 4) for _ in range(3)]
    with torch.autocast("cpu", torch.bfloat16):
        ours_, torchs = (f(*sides, dropout_p=0.1) for f in (attention, functional.scaled_dot_product_attention))
        assert dropout(sides[0], 0.1).dtype == torch.float32
    assert ours_.dtype == torchs.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "model",
    [
        lambda: transformers.BertModel(transformers.BertConfig(**TINY)),
        lambda: transformers.LlamaModel(transformers.LlamaConfig(**TINY, attention_dropout=0.1)),
        lambda: transformers.GPT2Model(transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=50)),
    ],
    ids=["bert", "llama", "gpt2"],
)
def test_models_drop_with_it_inside_and_not_outside(monkeypatch, model):
    torch.manual_seed(6)
    model = model().train()
    ids = torch.randint(0, 50, (3, 8))
    own = drawn
    asked: list[int] = []
    monkeypatch.setattr(ours, "factor_of", lambda p: 1.0)
    monkeypatch.setattr(ours, "drawn", lambda s, dropped: (asked.append(dropped), own(s, dropped) * 0 - 1)[1])
    with quick_dropout():
        inside = model(ids).last_hidden_state
    assert set(asked) == {round(0.1 * 2**15)} and len(asked) >= 2
    asked.clear()
    model(ids)
    assert not asked and functional.dropout.__module__ == "torch.nn.functional"
    torch.testing.assert_close(inside, model.eval()(ids).last_hidden_state)


def test_what_it_cannot_do_better_is_left_to_torch(monkeypatch):
    monkeypatch.setattr(ours, "drawn", lambda *asked: pytest.fail("drawn"))
    x = torch.ones(5)
    assert dropout(x, 0.5, training=False) is x
    assert torch.equal(dropout(x, 0.0), x) and torch.equal(dropout(x, 1.0), torch.zeros(5))
    assert dropout(x.clone(), 0.5, inplace=True).shape == x.shape
    dropout(x, 1e-5)
    with pytest.raises(ValueError, match="probability"):
        dropout(x, 1.5)
