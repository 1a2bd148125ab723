"""A model whose explanation is known: a bag of words with one weight a token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tunewell.explain.scorer import Scorer
from tunewell.predict import Predictor
from tunewell.tasks import TaskSpec

BINARY = TaskSpec("text-classification", ("negative", "positive"))
TEXTS = [
    "the crew was great and the seat was fine",
    "awful",
    "rude crew, broken screen and a late flight with the dirty seat today and the poor meal was bad",
    "nice hotel!",
]


def bag_of_words(tokenizer: Any, seed: int = 0) -> Any:
    """A torch model: the log-odds of class 1 are the sum of its tokens' weights; special tokens weigh nothing."""
    import torch
    from torch import nn

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            generator = torch.Generator().manual_seed(seed)
            self.embedding = nn.Embedding(len(tokenizer), 6)
            self.embedding.weight.data = torch.randn(len(tokenizer), 6, generator=generator)
            self.embedding.weight.data[tokenizer.all_special_ids] = 0.0
            self.weight = nn.Parameter(torch.randn(6, generator=generator))
            self.config = SimpleNamespace(num_labels=2, model_type="bag")

        @property
        def device(self) -> Any:
            return self.weight.device

        def get_input_embeddings(self) -> Any:
            return self.embedding

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
            score = (self.embedding(input_ids) @ self.weight * attention_mask).sum(dim=1)
            return SimpleNamespace(logits=torch.stack([torch.zeros_like(score), score], dim=1))

        def known(self, item: Any) -> np.ndarray:
            by_token = (self.embedding.weight.data[torch.as_tensor(item.ids)] @ self.weight.data).numpy()
            return item.to_words(by_token.astype(np.float64))

    return Bag()


@pytest.fixture(scope="session")
def tiny_predictor(tiny_classifier: Path) -> Predictor:
    return Predictor.load(tiny_classifier)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Four texts, of one to twenty words."""
    return TEXTS


@pytest.fixture
def scorer(tiny_predictor: Predictor) -> Scorer:
    return Scorer(tiny_predictor.model, tiny_predictor.tokenizer, BINARY)


@pytest.fixture
def bag(tiny_predictor: Predictor) -> Scorer:
    return Scorer(bag_of_words(tiny_predictor.tokenizer), tiny_predictor.tokenizer, BINARY)


@pytest.fixture
def items(tiny_predictor: Predictor) -> list:
    from tunewell.explain.segment import items_of

    return items_of(tiny_predictor.tokenizer, TEXTS, None, 64)


@pytest.fixture(scope="session")
def make_items(tiny_predictor: Predictor) -> Callable[..., list]:
    """`items_of` with the tiny tokenizer: make_items(texts, pairs=None, max_length=64)."""
    from tunewell.explain.segment import items_of

    return lambda texts, pairs=None, max_length=64: items_of(tiny_predictor.tokenizer, texts, pairs, max_length)


@pytest.fixture(scope="session")
def regression_model(tiny_model: Path) -> Any:
    """`tiny_model` under a random head with one output."""
    import torch
    from transformers import AutoModelForSequenceClassification

    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1, problem_type="regression")
        torch.nn.init.normal_(model.classifier.weight)
    return model.eval()
