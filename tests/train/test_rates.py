"""Learning rates where none is named: by width, and faster for what was drawn."""

from __future__ import annotations

import math

import pytest
from transformers import AutoModelForSequenceClassification

from tunewell.models.load import load_classifier
from tunewell.tasks import TaskSpec
from tunewell.train.rates import head_factors, peak_rate

SPEC = TaskSpec("text-classification", ("negative", "positive"))


def test_a_drawn_head_is_faster_its_pooler_half_way(tiny_model):
    model = load_classifier(str(tiny_model), SPEC, seed=0)
    factors = head_factors(model, 10.0)
    assert {n: f for n, f in factors.items() if ".pooler." not in n} == {
        "classifier.weight": 10.0,
        "classifier.bias": 10.0,
    }
    assert factors["bert.pooler.dense.weight"] == pytest.approx(math.sqrt(10))
    assert head_factors(model, 1.0) == {}


def test_a_head_that_the_model_brings_is_not_new(tiny_classifier):
    kept = load_classifier(str(tiny_classifier), SPEC, seed=0)
    assert head_factors(kept, 10.0) == {}
    other = load_classifier(str(tiny_classifier), TaskSpec("text-classification", ("a", "b", "c")), seed=0)
    assert head_factors(other, 10.0)["classifier.weight"] == 10.0


def test_the_optimiser_has_these_rates(tiny_model, tmp_path):
    """The groups of the trainer's optimiser carry the factors, the encoder's full rate first."""
    import torch
    from transformers import TrainingArguments

    from tunewell.train.batching import LikeLengthBatches
    from tunewell.train.trainer import TunewellTrainer

    model = load_classifier(str(tiny_model), SPEC, seed=0)
    arguments = TrainingArguments(output_dir=str(tmp_path), learning_rate=1e-4, use_cpu=True, weight_decay=0.01)
    trainer = TunewellTrainer(
        model=model,
        args=arguments,
        train_dataset=[{"input_ids": [1]}],
        batches=LikeLengthBatches(torch.ones(1).numpy(), rows=1, tokens=8, seed=0),
        row_loss=lambda a, b: a.sum(),
        rate_factors=head_factors(model, 10.0),
    )
    groups = trainer.create_optimizer().param_groups
    rates = {id(p): g["lr"] for g in groups for p in g["params"]}
    assert rates[id(model.classifier.weight)] == pytest.approx(1e-3)
    assert rates[id(model.bert.pooler.dense.bias)] == pytest.approx(1e-4 * math.sqrt(10))
    assert rates[id(model.bert.embeddings.word_embeddings.weight)] == pytest.approx(1e-4)
    assert groups[0]["lr"] == pytest.approx(1e-4)
    assert len(rates) == sum(1 for _ in model.parameters())


def test_models_without_a_hidden_size_get_that_of_bert_base(tiny_model):
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    assert peak_rate(model) == 2e-4
    del model.config.hidden_size
    assert peak_rate(model) == pytest.approx(0.04 / 768)
