"""What tuning is told to cost: counted by hand on a toy, and on a tiny encoder against what it is made of."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tunewell.rank.cost import Step, measured_step, memory_mb, steps_of, tuning_seconds
from tunewell.rank.cover import cover
from tunewell.rank.features import forward
from tunewell.recipe import Recipe


class Toy(nn.Module):
    """Word embeddings of width 4 and one layer of width 8."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.layer = nn.Embedding(6, 4), nn.Linear(4, 8)
        self.device = torch.device("cpu")

    def get_input_embeddings(self) -> Any:
        return self.words

    def get_output_embeddings(self) -> Any:
        return None

    def forward(self, input_ids: torch.Tensor) -> Any:
        return SimpleNamespace(last_hidden_state=self.layer(self.words(input_ids)))


def square(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    return model(**batch).last_hidden_state.pow(2).mean()


def test_activations_of_a_toy_by_hand() -> None:
    torch.manual_seed(0)
    toy = Toy()
    before = {k: v.clone() for k, v in toy.state_dict().items()}
    ids = torch.arange(5).repeat(3, 1)  # (3, 5), five of six entries: no exchange of the embeddings
    step = measured_step(toy, {"input_ids": ids}, square, bf16=False)
    assert step.tokens == 15
    # a token: its id for the embedding's gradient (8 bytes), the layer's input (4 · 4), the output squared (8 · 4)
    assert step.activation_bytes == 15 * (8 + 16 + 32)
    assert step.seconds > 0
    assert all(torch.equal(v, before[k]) for k, v in toy.state_dict().items())
    assert not toy.training


def test_memory_by_its_formula() -> None:
    step = Step(seconds=1.0, tokens=100, activation_bytes=100 * 2**10)
    recipe = Recipe(per_device_train_batch_size=4)
    # 16 bytes a parameter; 4 rows of 64 tokens at 1 kB each
    assert memory_mb(recipe, step, parameters=2**20, max_length=64, rows=1000) == pytest.approx(16 + 0.25)
    # rows of 500 tokens: the batch is held to 4 · 128
    assert memory_mb(recipe, step, parameters=2**20, max_length=500, rows=1000) == pytest.approx(16 + 0.5)


def test_time_by_its_formula() -> None:
    step = Step(seconds=2.0, tokens=160, activation_bytes=0)
    recipe = Recipe(num_train_epochs=2, per_device_train_batch_size=16)
    told = tuning_seconds(recipe, step, rows=320, validation_rows=50, tokens_a_row=10, tokens_per_second=100)
    assert steps_of(recipe, 320) == 40
    assert told == pytest.approx(40 * 2.0 + 2 * 50 * 10 / 100)


def test_a_step_of_an_encoder_grows_with_its_batch(tiny_model: Path) -> None:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(tiny_model)
    before = {k: v.clone() for k, v in model.state_dict().items()}

    def of(rows: int) -> Step:
        ids = torch.arange(10, 42).repeat(rows, 1)
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return measured_step(model, batch, square, bf16=False)

    one, two = of(4), of(8)
    assert two.tokens == 2 * one.tokens == 256
    assert two.activation_bytes == pytest.approx(2 * one.activation_bytes, rel=0.02)
    # at the least, the inputs of six linear layers in each of two layers, and hidden states of width 32
    assert one.activation_bytes > 128 * 2 * (5 * 32 + 64) * 4
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_cover_is_counted_on_the_texts(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    told = cover(tokenizer, ["good room", "好 room"], None, window=4)
    assert told.lengths.tolist() == [4, 4]
    assert told.unknown_share == 0.25  # one of four
    assert told.characters_per_token == (9 + 6) / 4
    assert told.cut_share == 0.0
    assert cover(tokenizer, ["good room", "good"], None, window=3).cut_share == 0.5
    assert cover(tokenizer, ["good"], ["room meal"], window=9).lengths.tolist() == [6]


def test_features_are_means_of_hidden_states_in_the_rows_order(tiny_model: Path) -> None:
    from datasets import Dataset
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(tiny_model).eval(), AutoTokenizer.from_pretrained(tiny_model)
    texts = ["good room with the meal today", "bad", "late crew"]
    told: list[int] = []
    rows = Dataset.from_dict({"text": texts})
    passed = forward(model, tokenizer, rows, pair=False, max_length=16, batch_size=2, advance=told.append)
    assert passed.layers.shape == (3, 3, 32)
    assert passed.logits is None
    assert sum(told) == 3
    for i, text in enumerate(texts):
        with torch.inference_mode():
            states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        for layer, state in enumerate(states):
            np.testing.assert_allclose(passed.layers[layer, i], state[0].mean(0).numpy(), atol=1e-5)
        np.testing.assert_allclose(passed.read[i], states[-1][0].mean(0).numpy(), atol=1e-5)


def test_what_a_head_reads_is_what_its_last_layer_gets(tiny_classifier: Path) -> None:
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(tiny_classifier).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_classifier)
    passed = forward(model, tokenizer, Dataset.from_dict({"text": ["good room", "late"]}), pair=False, max_length=16)
    assert passed.logits is not None
    by_hand = passed.read @ model.classifier.weight.detach().numpy().T + model.classifier.bias.detach().numpy()
    np.testing.assert_allclose(by_hand, passed.logits, atol=1e-5)
    assert not model.classifier._forward_pre_hooks
