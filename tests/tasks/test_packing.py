"""Rows behind one another in one sequence, and losses without the logits of prompts: the same as one row at a time."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from tunewell.errors import ModelError
from tunewell.tasks.generation import head
from tunewell.tasks.generation.learning import packed_rows, token_loss
from tunewell.tasks.generation.loss import IGNORED, following
from tunewell.tasks.generation.writers import CausalWriter
from tunewell.train import packing
from tunewell.train.batching import RandomBatches


@pytest.fixture
def writer(tiny_decoder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_decoder)
    return CausalWriter(model, AutoTokenizer.from_pretrained(tiny_decoder), 128)


def rows_of(writer, *answers: str) -> list[dict]:
    pairs = [("say " + "room " * len(a.split()), a) for a in answers]
    turns = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in pairs]
    return [writer.encode(t)._asdict() for t in turns]


ANSWERS = ("red blue", "one", "white black green one two three", "the crew was rude")


def small(config) -> object:
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


SIZES = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def test_loss_and_gradient_are_those_of_one_row_at_a_time(writer):
    rows, model = rows_of(writer, *ANSWERS), writer.model
    loss = token_loss(model, writer, packing=None)
    assert loss.random  # the tiny Llama can be packed
    batch = loss.collate(rows)
    assert batch["input_ids"].shape == (1, sum(len(r["ids"]) for r in rows))
    _, nats = loss.learn(model, model, batch)
    nats.backward()
    together = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    alone = torch.zeros(())
    for row in rows:
        ids, labels = torch.tensor([row["ids"]]), torch.tensor([row["labels"]])
        logits = model(input_ids=ids).logits[0, :-1]
        one = F.cross_entropy(logits, labels[0, 1:], ignore_index=IGNORED, reduction="sum")
        one.backward()
        alone = alone + one.detach()
    assert nats.item() == pytest.approx(alone.item(), rel=1e-5)
    for name, p in model.named_parameters():
        torch.testing.assert_close(together[name], p.grad, rtol=1e-4, atol=1e-5)
    assert loss.count(batch["labels"]).item() == sum(y != IGNORED for r in rows for y in r["labels"][1:])


def test_a_row_does_not_see_another(writer):
    rows, model = rows_of(writer, *ANSWERS), writer.model
    other = [*rows[:1], *rows_of(writer, "rot blau grün schwarz"), *rows[2:]]  # another second row, another length
    with torch.no_grad():
        a, b = (packing.forward(model, {k: v for k, v in packed_rows(r).items() if k != "labels"}).logits[0]
                for r in (rows, other))  # fmt: skip
    first, last = len(rows[0]["ids"]), sum(len(r["ids"]) for r in rows[2:])
    torch.testing.assert_close(a[:first], b[:first], rtol=0, atol=1e-6)
    torch.testing.assert_close(a[-last:], b[-last:], rtol=0, atol=1e-6)
    assert len(a) != len(b)  # while the changed row itself is another


def test_the_attention_of_a_model_is_put_back(writer):
    model = writer.model
    before = model.config._attn_implementation
    inside = []

    def fail() -> None:
        with packing.attending_by_row(model):
            inside.append(model.config._attn_implementation)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert inside == [packing.NAME]
    assert model.config._attn_implementation == before


def test_sliding_windows_are_kept_within_rows():
    from transformers import MistralConfig

    config = MistralConfig(**SIZES, intermediate_size=32, num_key_value_heads=1, sliding_window=4)
    assert packing.exact(small(config))  # its rows of 7 and 5 tokens are longer than the window


def test_models_that_cannot_be_packed_are_padded(writer):
    from transformers import BloomConfig

    model = small(BloomConfig(vocab_size=60, hidden_size=16, n_layer=2, n_head=2))  # positions by ALiBi
    assert not packing.exact(model)
    loss = token_loss(model, writer, packing=None)
    assert not loss.random
    assert "attention_mask" in loss.collate(rows_of(writer, "one"))
    with pytest.raises(ModelError, match="rows of a bloom model cannot stand behind one another") as caught:
        token_loss(model, writer, packing=True)
    assert caught.value.where == "packing: true"


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("size", [1, 100, 2**24])
def test_sliced_losses_are_cross_entropy(monkeypatch, size, bias):
    monkeypatch.setattr(head, "SLICE", size)
    draw = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(8, 30, bias=bias)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn(p.shape, generator=draw))
    wanted = torch.randint(0, 30, (11,), generator=draw)
    hidden = torch.randn(11, 8, generator=draw, requires_grad=True)
    grads = []
    for loss in (
        head.sliced_nats(hidden, layer, wanted) / 11 * 3,
        F.cross_entropy(layer(hidden), wanted) * 3,
    ):
        parts = torch.autograd.grad(loss, [hidden, *layer.parameters()])
        grads.append((loss.detach(), *parts))
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_soft_caps_of_logits_are_kept(writer):
    from transformers import Gemma2Config

    config = Gemma2Config(
        **{**SIZES, "vocab_size": len(writer.tokenizer)}, intermediate_size=32, num_key_value_heads=1, head_dim=8,
        final_logit_softcapping=0.05, pad_token_id=0,
    )  # fmt: skip
    model = small(config)
    assert not head.plain_head(model) and head.plain_head(writer.model)
    batch = writer.collate(rows_of(writer, *ANSWERS))
    wanted = following(batch.pop("labels"))
    _, nats = head.answer_nats(model, lambda: model(**batch), wanted, plain=False)
    logits = model(**batch).logits
    expected = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="sum")
    assert nats.item() == pytest.approx(expected.item(), rel=1e-5)


def test_hooks_are_gone_after_an_error(writer):
    model = writer.model
    with pytest.raises(ZeroDivisionError), head.only_at(model, torch.ones(1, 3, dtype=torch.bool)):
        raise ZeroDivisionError
    assert not model.get_output_embeddings()._forward_pre_hooks


def test_batches_come_in_the_order_of_trainer():
    """As accelerate's seedable sampler, which Trainer uses, draws them."""
    from accelerate.data_loader import SeedableRandomSampler

    theirs = SeedableRandomSampler(list(range(23)), data_seed=5)
    ours = RandomBatches(23, rows=4, seed=5)
    for epoch in range(2):
        theirs.set_epoch(epoch)
        ours.set_epoch(epoch)
        assert [i for batch in ours for i in batch] == list(theirs)
    assert [len(b) for b in ours] == [4, 4, 4, 4, 4, 3]


def test_accumulated_batches_count_by_tokens(tiny_decoder, tmp_path):
    """4 rows in one batch or in two: the same step, although the rows have answers of other lengths."""
    from safetensors.torch import load_file

    import tunewell

    path = tmp_path / "sft.jsonl"
    words = [*ANSWERS, "two", "black", "small large room seat meal phone"] * 4
    path.write_text(
        "\n".join(json.dumps({"prompt": f"say {i}", "completion": w}) for i, w in enumerate(words)), encoding="utf-8"
    )
    weights = []
    for rows, accumulate in ((4, 1), (2, 2)):
        run = tunewell.run(
            train=str(path), model=str(tiny_decoder), output_dir=str(tmp_path / f"run{rows}"), probes="none",
            per_device_train_batch_size=rows, gradient_accumulation_steps=accumulate, max_steps=2, max_new_tokens=2,
            generation_samples=2, bf16=False, learning_rate=1e-3, warmup_ratio=0.0, echo=lambda line: None,
            progress=False,
        )  # fmt: skip
        weights.append(load_file(run.model_path / "model.safetensors"))
        assert run.training.padding_share == 0
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-3, atol=2e-5)
