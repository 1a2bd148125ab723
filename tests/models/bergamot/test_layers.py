"""Bergamot's layers against numbers that were worked out by hand, and the whole model against itself."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from tunewell.models.bergamot.config import BergamotConfig
from tunewell.models.bergamot.model import (
    SSRU,
    Attention,
    BergamotForConditionalGeneration,
    DecoderLayer,
    FeedForward,
    positions,
)


def filled(module: torch.nn.Module, **values) -> None:
    with torch.no_grad():
        for name, value in values.items():
            module.get_parameter(name.replace("__", ".")).copy_(torch.tensor(value))


def test_ssru_by_hand():
    """Width 1, W = 2, W_f = 0, b_f = ln 3, so f = 3/4: c_t = 3/4 c_{t-1} + 1/4 · 2 x_t; the output is ReLU(c_t)."""
    cell = SSRU(1)
    filled(cell, input__weight=[[2.0]], forget__weight=[[0.0]], forget__bias=[math.log(3)])
    x = torch.tensor([[[4.0], [-8.0], [2.0]]])
    out, state = cell(x)
    # c: 0.25·8 = 2;  0.75·2 - 0.25·16 = -2.5;  0.75·(-2.5) + 0.25·4 = -0.875
    torch.testing.assert_close(out, torch.tensor([[[2.0], [0.0], [0.0]]]))
    torch.testing.assert_close(state, torch.tensor([[-0.875]]))


def test_the_gate_of_the_ssru_looks_at_the_input():
    """W = 1, W_f = 1, b_f = 0: f_1 = σ(1), f_2 = σ(-1)."""
    cell = SSRU(1)
    filled(cell, input__weight=[[1.0]], forget__weight=[[1.0]], forget__bias=[0.0])
    out, state = cell(torch.tensor([[[1.0], [-1.0]]]), torch.tensor([[0.5]]))
    gate = 1 / (1 + math.exp(-1))
    first = gate * 0.5 + (1 - gate) * 1
    second = (1 - gate) * first + gate * -1
    assert out[0, 0, 0].item() == pytest.approx(first, rel=1e-6)
    assert state.item() == pytest.approx(second, rel=1e-6) and out[0, 1, 0].item() == max(0.0, second)


def test_ssru_goes_on_from_its_state():
    torch.manual_seed(0)
    cell, x = SSRU(4), torch.randn(2, 5, 4)
    whole, last = cell(x)
    first, state = cell(x[:, :2])
    rest, end = cell(x[:, 2:], state)
    torch.testing.assert_close(torch.cat([first, rest], dim=1), whole)
    torch.testing.assert_close(end, last)


def test_feed_forward_by_hand():
    layer = FeedForward(1, 2)
    filled(layer, fc1__weight=[[1.0], [-1.0]], fc1__bias=[0.5, 0.0], fc2__weight=[[2.0, 3.0]], fc2__bias=[-1.0])
    # x = 2: relu(2.5), relu(-2) -> 2·2.5 - 1 = 4;  x = -2: relu(-1.5), relu(2) -> 3·2 - 1 = 5
    torch.testing.assert_close(layer(torch.tensor([[2.0], [-2.0]])), torch.tensor([[4.0], [5.0]]))


def test_positions_are_sines_then_cosines():
    """Width 6: rates 1, 10000^-½, 10000^-1."""
    found = positions(3, 2, 6)
    for row, place in zip(found.tolist(), (3, 4), strict=True):
        rates = (1.0, 0.01, 0.0001)
        assert row == pytest.approx([math.sin(place * r) for r in rates] + [math.cos(place * r) for r in rates])


def test_attention_is_that_of_torch():
    torch.manual_seed(0)
    ours, theirs = Attention(8, 2, 0.0), torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        parts = (ours.q_proj, ours.k_proj, ours.v_proj)
        theirs.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
        theirs.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
        theirs.out_proj.load_state_dict(ours.out_proj.state_dict())
    x, source = torch.randn(2, 3, 8), torch.randn(2, 4, 8)
    keep = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    expected, _ = theirs(x, source, source, key_padding_mask=~keep)
    torch.testing.assert_close(ours(x, ours.keys(source), keep[:, None, None]), expected, rtol=1e-4, atol=1e-5)


def test_a_sublayer_is_normalised_after_its_sum():
    torch.manual_seed(0)
    layer = DecoderLayer(BergamotConfig(d_model=4, encoder_attention_heads=2, ffn_dim=8)).eval()
    x, memory = torch.randn(1, 2, 4), layer.encoder_attn.keys(torch.randn(1, 3, 4))
    out, _ = layer(x, None, memory, None)

    def norm(v):
        return functional.layer_norm(v, (4,), eps=1e-6)

    h = norm(x + layer.rnn(x)[0])
    h = norm(h + layer.encoder_attn(h, memory, None))
    torch.testing.assert_close(out, norm(h + layer.ffn(h)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = BergamotConfig(
        vocab_size=41, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, ffn_dim=32,
        pad_token_id=40, decoder_start_token_id=40, initializer_range=0.5,
    )  # fmt: skip
    made = BergamotForConditionalGeneration(config).eval()
    with torch.no_grad():
        made.lm_head.bias[40] = -1e4
    return made


SOURCE = torch.tensor([[5, 6, 7, 8, 0], [9, 10, 0, 40, 40]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


@pytest.mark.parametrize("beams", [1, 3])
def test_writing_with_the_cache_is_writing_without(model, beams):
    written = [
        model.generate(
            input_ids=SOURCE, attention_mask=MASK, max_new_tokens=9, num_beams=beams, do_sample=False, use_cache=cache
        )
        for cache in (True, False)
    ]
    assert torch.equal(*written) and (written[0][:, 0] == 40).all()


def test_padding_changes_nothing(model):
    with torch.no_grad():
        alone = model(input_ids=SOURCE[1:, :3], decoder_input_ids=torch.tensor([[40, 3, 4]])).logits
        padded = model(
            input_ids=SOURCE, attention_mask=MASK, decoder_input_ids=torch.tensor([[40, 1, 2], [40, 3, 4]])
        ).logits
    torch.testing.assert_close(padded[1:], alone, rtol=1e-4, atol=1e-4)


def test_the_loss_is_the_cross_entropy_of_the_next_token(model):
    labels = torch.tensor([[3, 4, 0], [5, 0, -100]])
    out = model(input_ids=SOURCE, attention_mask=MASK, labels=labels)
    before = torch.tensor([[40, 3, 4], [40, 5, 0]])
    logits = model(input_ids=SOURCE, attention_mask=MASK, decoder_input_ids=before).logits.log_softmax(-1)
    kept = [(0, 0, 3), (0, 1, 4), (0, 2, 0), (1, 0, 5), (1, 1, 0)]
    assert out.loss.item() == pytest.approx(-sum(logits[i, j, k].item() for i, j, k in kept) / 5, rel=1e-5)


def test_the_padding_token_is_neither_written_nor_learned(model):
    labels = torch.tensor([[3, 4, 0], [5, 0, -100]])
    model(input_ids=SOURCE, attention_mask=MASK, labels=labels).loss.backward()
    table = model.encoder.embed_tokens.weight
    assert model.lm_head.weight is table and not table[40].any() and not table.grad[40].any()
    assert table.grad[5].any()


def test_saved_as_safetensors_and_read_by_the_auto_classes(model, tmp_path):
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    from tunewell.models.bergamot import register

    register()
    register()  # once is enough, twice does no harm
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    assert AutoConfig.from_pretrained(tmp_path).model_type == "bergamot"
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert again.lm_head.weight is again.encoder.embed_tokens.weight


def test_neither_targets_nor_labels():
    with pytest.raises(ValueError, match="decoder_input_ids or labels"):
        BergamotForConditionalGeneration(BergamotConfig(vocab_size=8, d_model=4, encoder_layers=1, decoder_layers=1,
            encoder_attention_heads=1, ffn_dim=4, pad_token_id=7))(input_ids=torch.tensor([[1]]))  # fmt: skip
