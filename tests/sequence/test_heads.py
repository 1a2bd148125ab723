"""A head over given hidden states answers as the whole model does, and nothing stays replaced."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ModernBertConfig,
    RobertaConfig,
)

from tunewell.sequence.heads import attach, attached, body_of, features, head_of, last_linear, read_out

SMALL = {"vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_labels": 3}
CONFIGS = {
    "bert": BertConfig(**SMALL, num_hidden_layers=1),
    "roberta": RobertaConfig(**SMALL, num_hidden_layers=1),
    "deberta": DebertaV2Config(**SMALL, num_hidden_layers=1),
    "distilbert": DistilBertConfig(vocab_size=50, dim=16, n_heads=2, hidden_dim=32, n_layers=1, num_labels=3),
    "modernbert": ModernBertConfig(**SMALL, num_hidden_layers=1, pad_token_id=0),
}


def model_of(kind: str, labels: int = 3):
    torch.manual_seed(0)
    config = CONFIGS[kind]
    config.num_labels = labels
    return AutoModelForSequenceClassification.from_config(config).eval()


def batch():
    torch.manual_seed(1)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    return {"input_ids": torch.randint(5, 50, (2, 5)) * mask, "attention_mask": mask}


@pytest.mark.parametrize("kind", CONFIGS)
def test_body_and_head_make_the_model(kind):
    model, inputs = model_of(kind), batch()
    assert {**body_of(model), **head_of(model)}.keys() == model.state_dict().keys()
    with torch.no_grad():
        whole = model(**inputs).logits
        hidden = model.base_model(**inputs).last_hidden_state
        torch.testing.assert_close(read_out(model, {}, hidden, inputs["attention_mask"]), whole)


@pytest.mark.parametrize("kind", CONFIGS)
def test_another_head_answers_as_its_own_model(kind):
    """Head of a second model, with other labels, over the first one's body."""
    model, other, inputs = model_of(kind), model_of(kind, labels=5), batch()
    for p in head_of(other).values():
        p.data.normal_()
    other_head = {k: torch.randn_like(v) * 0.3 for k, v in head_of(other).items()}
    other.load_state_dict({**body_of(model), **other_head}, strict=False)
    attach(model, {"second": other_head})
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        hidden = model.base_model(**inputs).last_hidden_state
        found = read_out(model, attached(model, "second"), hidden, inputs["attention_mask"])
        torch.testing.assert_close(found, other(**inputs).logits)
        assert found.shape == (2, 5)
        assert model(**inputs).logits.shape == (2, 3)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert "forward" not in vars(model.base_model)


def test_gradients_reach_body_and_attached_head():
    model, inputs = model_of("bert"), batch()
    attach(model, {"old": head_of(model)})
    hidden = model.base_model(**inputs).last_hidden_state
    read_out(model, attached(model, "old"), hidden, inputs["attention_mask"]).sum().backward()
    assert model.classifier.weight.grad is None  # the own head was not asked
    assert attached(model, "old")["classifier.weight"].grad is not None
    assert attached(model, "old")["bert.pooler.dense.weight"].grad is not None
    assert model.bert.embeddings.word_embeddings.weight.grad is not None


def test_nothing_stays_replaced_after_an_error():
    model = model_of("bert")
    with pytest.raises(RuntimeError):
        read_out(model, {}, torch.zeros(2, 5, 7), torch.ones(2, 5))
    assert "forward" not in vars(model.base_model)
    assert model(**batch()).logits.shape == (2, 3)


def test_features_are_what_the_last_layer_sees():
    model, inputs = model_of("bert"), batch()
    with torch.no_grad(), features(model) as seen:
        logits = model(**inputs).logits
    name, layer = last_linear(model)
    assert name == "classifier"
    torch.testing.assert_close(layer(seen[0]), logits)
    assert not layer._forward_pre_hooks
