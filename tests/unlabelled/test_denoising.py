"""TSDAE against its definition, and that it learns through the one vector."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from tunewell.errors import ModelError
from tunewell.recipe_file import load_recipe
from tunewell.stages.job import Job
from tunewell.unlabelled.denoising import Denoiser, Shortened, decoder_config, delete_tokens, tsdae_loss
from tunewell.unlabelled.pretraining import Reading, denoiser, load_base, pretrain, put


@pytest.fixture
def job(tiny_model, tmp_path, make_reviews, save_csv):
    rows = make_reviews(120)
    train = save_csv(tmp_path / "train.csv", rows[:40])
    pool = save_csv(tmp_path / "pool.csv", [(text,) for text, _ in rows[40:]], ("text",))
    recipe = load_recipe(
        None, train=str(train), unlabelled=str(pool), model=str(tiny_model), probes="none", bf16=False, threads=1,
        learning_rate=2e-3, unlabelled_pretraining="tsdae", unlabelled_epochs=12,
    )  # fmt: skip
    with Job(recipe, output_dir=None, progress=False) as job:
        yield job


@pytest.fixture
def made(job) -> Denoiser:
    torch.manual_seed(0)
    return load_base(job)[0].eval()


def texts_of(job, reading=None) -> dict[str, torch.Tensor]:
    from tunewell.train.batching import Collator

    rows = [
        {"place": i, "input_ids": job.tokenizer(t)["input_ids"]} for i, t in enumerate(job.pool.texts[:5])
    ]  # of several lengths
    collate = Collator(job.tokenizer.pad_token_id, float_labels=False, padding_side="right")
    return Shortened(collate, job.tokenizer, 1, reading or Reading())(rows)


def test_what_is_left_out():
    """60 % of the tokens, no special one, and never all."""
    special = np.arange(20_000) % 5 == 0
    stays = delete_tokens(special, np.random.default_rng(0))
    assert stays[special].all()
    assert stays[~special].mean() == pytest.approx(0.4, abs=0.01)
    short = np.array([True, False, False, True])
    assert all(delete_tokens(short, np.random.default_rng(i))[1:3].any() for i in range(50))
    assert delete_tokens(np.array([True, True]), np.random.default_rng(0)).all()  # a text of no word


def test_batches(job):
    """The encoder reads a part in its order; the decoder the whole text, one token behind what it is asked for."""
    reading = Reading()
    batch, ahead = texts_of(job, reading), texts_of(job, reading)
    assert ahead["input_ids"].tolist() == batch["input_ids"].tolist()  # collating a batch ahead changes nothing
    reading.epoch = 1
    again = texts_of(job, reading)
    special = set(job.tokenizer.all_special_ids)
    for i, text in enumerate(job.pool.texts[:5]):
        whole = job.tokenizer(text)["input_ids"]
        n = len(whole) - 1
        assert batch["decoder_input_ids"][i, :n].tolist() == whole[:-1]
        assert batch["labels"][i, :n].tolist() == whole[1:]
        assert (batch["labels"][i, n:] == -100).all()
        seen = batch["input_ids"][i][batch["attention_mask"][i] == 1].tolist()
        rest = iter(whole)
        assert all(token in rest for token in seen)  # in order
        assert len(seen) < len(whole)
        assert (seen[0], seen[-1]) == (whole[0], whole[-1])
        assert {whole[0], whole[-1]} <= special
    assert batch["input_ids"].tolist() != again["input_ids"].tolist()  # other words in the second pass
    assert texts_of(job)["input_ids"].tolist() == batch["input_ids"].tolist()


def test_loss_by_hand():
    """Two texts of two tokens and one: −log p of each, their mean over the three."""
    logits = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 2.0], [9.0, 9.0]]])
    labels = torch.tensor([[0, 1], [1, -100]])
    nats = [math.log(1 + math.exp(-1)), math.log(2), math.log(1 + math.exp(-2))]
    losses = tsdae_loss(logits, labels)
    assert losses.tolist() == pytest.approx([2 / 3 * (nats[0] + nats[1]), 2 / 3 * nats[2]], abs=1e-6)
    assert losses.mean().item() == pytest.approx(sum(nats) / 3, abs=1e-6)
    assert losses.mean().item() == pytest.approx(
        functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).item()
    )


def by_hand(model: Denoiser, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The decoder's logits from the encoder's own weights: causal self-attention, then attention to one vector, which
    takes all of it whatever is asked, then the rest of the layer."""
    e, d = model.encoder, model.decoder
    mask = batch["attention_mask"].unsqueeze(-1).float()
    hidden = e(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    s = (hidden * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
    ids = batch["decoder_input_ids"]
    words = e.embeddings
    x = words.LayerNorm(
        words.word_embeddings(ids)
        + words.position_embeddings.weight[: ids.shape[1]]
        + words.token_type_embeddings.weight[0]
    )
    heads = e.config.num_attention_heads
    for own, crossed in zip(e.encoder.layer, d.bert.encoder.layer, strict=True):
        a = own.attention.self
        q, k, v = (f(x).unflatten(-1, (heads, -1)).transpose(1, 2) for f in (a.query, a.key, a.value))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        future = torch.ones(ids.shape[1], ids.shape[1]).triu(1).bool()
        mixed = (scores.masked_fill(future, -torch.inf).softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = own.attention.output.LayerNorm(own.attention.output.dense(mixed) + x)
        c = crossed.crossattention
        x = c.output.LayerNorm(c.output.dense(c.self.value(s)) + x)
        x = own.output.LayerNorm(own.output.dense(functional.gelu(own.intermediate.dense(x))) + x)
    head = d.cls.predictions
    x = head.transform.LayerNorm(functional.gelu(head.transform.dense(x)))
    return x @ words.word_embeddings.weight.T + head.bias


def test_the_decoder_is_the_encoder_with_attention_to_one_vector(job, made):
    with torch.no_grad():  # parts that are drawn, so that a mistake in them would show
        for name, p in made.decoder.named_parameters():
            if "crossattention" in name or name.startswith("cls"):
                p.add_(0.1 * torch.randn(p.shape))
        batch = {k: v for k, v in texts_of(job).items() if k != "labels"}
        assert made(**batch).logits.numpy() == pytest.approx(by_hand(made, batch).numpy(), abs=1e-4)


def test_every_weight_of_the_encoder_is_tied_and_saved_once(made, tmp_path):
    from safetensors.torch import load_file, save_file

    own = {id(p): n for n, p in made.encoder.named_parameters() if "pooler" not in n}
    theirs = {id(p) for p in made.decoder.parameters()}
    assert own.keys() <= theirs
    assert made.decoder.get_output_embeddings().weight is made.encoder.embeddings.word_embeddings.weight
    beside = {n for n, p in made.decoder.named_parameters() if id(p) not in own}
    assert all("crossattention" in n or n.startswith("cls.predictions") for n in beside)
    state = made.state_dict()
    assert sum(t.numel() for n, t in state.items()) == sum(p.numel() for p in made.parameters())
    save_file(state, str(tmp_path / "one.safetensors"))  # refuses tensors that share memory
    before = {n: p.clone() for n, p in made.named_parameters()}
    with torch.no_grad():
        for p in made.parameters():
            p.zero_()
    found = made.load_state_dict(load_file(str(tmp_path / "one.safetensors")))
    assert not found.missing_keys
    assert not found.unexpected_keys
    assert all((p == before[n]).all() for n, p in made.named_parameters())
    assert made.decoder.get_output_embeddings().weight is made.encoder.embeddings.word_embeddings.weight


def test_the_layer_that_names_words_is_the_base_models_where_it_has_one(job, tiny_model, tmp_path):
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(1)
    masked = BertForMaskedLM(BertConfig.from_pretrained(tiny_model))
    with torch.no_grad():
        masked.cls.predictions.bias.normal_()
    masked.save_pretrained(tmp_path / "masked")
    job.tokenizer.save_pretrained(tmp_path / "masked")
    encoder = masked.bert
    about, options = (str(tmp_path / "masked"),) * 2, {"revision": None, "trust_remote_code": False}
    decoder = denoiser(encoder, about, encoder.config, options).decoder
    head = masked.cls.predictions
    assert torch.equal(decoder.cls.predictions.bias, head.bias)
    assert torch.equal(decoder.cls.predictions.transform.dense.weight, head.transform.dense.weight)


def test_the_vector_is_all_that_the_decoder_is_told(job, made):
    """The same words before, and another text's vector: other answers. The same vector: the same, whatever was read."""
    batch = texts_of(job)
    batch.pop("labels")
    other = {**batch, "input_ids": batch["input_ids"].roll(1, 0), "attention_mask": batch["attention_mask"].roll(1, 0)}
    with torch.no_grad():
        assert (made(**batch).logits - made(**other).logits).abs().max() > 1e-4
        made.encoder.forward = lambda **inputs: type("Out", (), {"last_hidden_state": torch.ones(5, 1, 32)})
        one = {"attention_mask": torch.ones(5, 1, dtype=torch.long)}
        assert torch.equal(made(**(batch | one)).logits, made(**(other | one)).logits)


def test_the_loss_falls_and_the_encoder_loads(job, tmp_path):
    lines: list[str] = []
    job.echo = lines.append
    weights, about = pretrain(job, job.pool.texts, tmp_path / "made")
    assert about["objective"] == "tsdae"
    assert about["loss_last"] < 0.8 * about["loss_first"]
    assert f"pretraining: tsdae on {len(job.pool.texts)} texts, 12 ×" in lines
    model = job.fresh_model()
    base = {k: v.clone() for k, v in model.base_model.state_dict().items()}
    assert weights.keys() == base.keys()  # nothing of the decoder is left
    from safetensors.torch import save_file

    save_file(weights, str(tmp_path / "w.safetensors"))
    put(model, tmp_path / "w.safetensors")
    found = model.base_model.state_dict()
    assert all((found[k] == weights[k]).all() for k in weights)
    moved = [k for k in base if not torch.equal(found[k], base[k])]
    assert {k for k in base if "pooler" not in k and "key.bias" not in k} <= set(moved)


def test_a_model_without_such_attention_is_refused(tiny_model):
    from transformers import AutoConfig, DistilBertConfig

    assert decoder_config(AutoConfig.from_pretrained(tiny_model)).add_cross_attention
    with pytest.raises(ModelError, match="cannot be pretrained by TSDAE") as caught:
        decoder_config(DistilBertConfig())
    assert "distilbert" in str(caught.value)
    assert "unlabelled_pretraining: simcse" in caught.value.remedy
