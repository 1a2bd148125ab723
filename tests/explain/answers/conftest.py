"""Tiny random models that answer questions and write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def answerer(tiny_model: Path) -> Any:
    """`tiny_model` under a random span head, every question with an answer."""
    import torch
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    from tunewell.tasks.question_answering.spans import Answerer

    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = AutoModelForQuestionAnswering.from_pretrained(tiny_model)
        torch.nn.init.normal_(model.qa_outputs.weight)
    return Answerer(model.eval(), AutoTokenizer.from_pretrained(tiny_model), 64, 16, 5)


@pytest.fixture(scope="session")
def decoder(tiny_decoder: Path) -> Any:
    from tunewell.tasks.generation.task import load_writer

    return load_writer(tiny_decoder)


@pytest.fixture(scope="session")
def translator(tiny_t5: Path) -> Any:
    from tunewell.tasks.generation.task import load_writer

    return load_writer(tiny_t5)
