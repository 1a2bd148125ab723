"""Dropout on attention weights: found in every family, set while tuning only; without it nothing is random."""

from __future__ import annotations

import pandas
import pytest
import torch
import transformers

from tunewell.recipe import Recipe
from tunewell.train.attention import attention_dropout, attention_dropouts

SIZES = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 50}
BERT = {"hidden_size": 32, **SIZES}
LAYERS = {"encoder_layers": 2, "decoder_layers": 2}
BART = {"d_model": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2, **LAYERS}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (transformers.BertConfig(**BERT), 2),
        (transformers.RobertaConfig(**BERT), 2),
        (transformers.DebertaV2Config(**BERT), 2),
        (transformers.MPNetConfig(**BERT), 2),
        (transformers.ModernBertConfig(**BERT, **SPECIAL, attention_dropout=0.1), 2),
        (transformers.LlamaConfig(**BERT, attention_dropout=0.1), 2),
        (transformers.DistilBertConfig(dim=32, n_layers=2, n_heads=2, hidden_dim=64, vocab_size=50), 2),
        (transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=50), 2),
        (transformers.BartConfig(**BART, vocab_size=60, attention_dropout=0.1), 6),  # the decoder looks at two sides
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_each_layer_is_found_and_set_for_the_time_of_tuning(config, expected):
    model = transformers.AutoModel.from_config(config)

    def values() -> list[float]:
        return [getattr(getattr(m, n), "p", getattr(m, n)) for m, n in attention_dropouts(model)]

    before = values()
    assert before == [pytest.approx(0.1)] * expected
    with attention_dropout(model, 0.25) as n:
        assert n == expected and values() == [0.25] * expected
    assert values() == before
    with pytest.raises(ZeroDivisionError), attention_dropout(model, 0.25):
        raise ZeroDivisionError
    assert values() == before


def test_without_any_dropout_training_computes_what_evaluation_does():
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(transformers.BertConfig(**BERT, hidden_dropout_prob=0.0)).train()
    ids = torch.arange(40).reshape(2, 20)
    with torch.no_grad():
        expected = model.eval()(ids).last_hidden_state
        model.train()
        assert not torch.allclose(model(ids).last_hidden_state, expected, atol=1e-4)
        with attention_dropout(model, 0.0):
            assert torch.allclose(model(ids).last_hidden_state, expected, atol=1e-6)
        with attention_dropout(model, None) as n:
            assert n == 0 and not torch.allclose(model(ids).last_hidden_state, expected, atol=1e-4)


def test_the_key_is_a_probability():
    assert Recipe(train="x.csv", attention_dropout=0).attention_dropout == 0
    with pytest.raises(ValueError, match="attention_dropout"):
        Recipe(train="x.csv", attention_dropout=1)


def test_the_saved_model_keeps_its_own_dropout(tiny_model, make_reviews, tmp_path):
    import tunewell

    said: list[str] = []
    data = tmp_path / "data.csv"
    pandas.DataFrame(make_reviews(60, ("bad", "good"), 0), columns=["text", "label"]).to_csv(data, index=False)
    run = tunewell.run(
        train=str(data), model=str(tiny_model), max_steps=2, probes="none", attention_dropout=0,
        output_dir=str(tmp_path / "run"), progress=False, echo=said.append,
    )  # fmt: skip
    config = transformers.AutoConfig.from_pretrained(run.dir / "model")
    assert config.attention_probs_dropout_prob == pytest.approx(0.1)
    assert not any("changes nothing" in line for line in said)


def test_a_model_in_which_none_is_found_says_so_for_nought_too(tiny_model, make_reviews, tmp_path, monkeypatch):
    import tunewell

    monkeypatch.setattr("tunewell.train.attention.QUERIES", ())
    data = tmp_path / "data.csv"
    pandas.DataFrame(make_reviews(60, ("bad", "good"), 0), columns=["text", "label"]).to_csv(data, index=False)
    said: list[str] = []
    tunewell.run(
        train=str(data), model=str(tiny_model), max_steps=1, probes="none", attention_dropout=0, explain=0,
        output_dir=str(tmp_path / "run"), progress=False, echo=said.append,
    )  # fmt: skip
    assert any("found no dropout on attention weights" in line for line in said)
