"""Fixtures that every room may use: a tiny random encoder and small data files, made on the spot."""

from __future__ import annotations

import csv
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

GOOD = ["good", "great", "lovely", "happy", "fine", "nice", "superb", "bright"]
BAD = ["bad", "awful", "broken", "sad", "poor", "late", "rude", "dirty"]
NEUTRAL = ["flight", "seat", "crew", "phone", "screen", "hotel", "room", "meal", "today", "with", "the", "was", "and"]


def sentence(rng: random.Random, label: str) -> str:
    """A made-up review; its label can be learnt from single words."""
    mood = {"positive": GOOD, "negative": BAD}.get(label, NEUTRAL)
    words = rng.choices(NEUTRAL, k=rng.randint(2, 6)) + rng.choices(mood, k=2)
    rng.shuffle(words)
    return " ".join(words)


def reviews(n: int, labels: tuple[str, ...] = ("negative", "positive"), seed: int = 0) -> list[tuple[str, str]]:
    """`n` distinct (text, label) rows with the labels in turn."""
    rng, seen, rows = random.Random(seed), set(), []
    while len(rows) < n:
        label = labels[len(rows) % len(labels)]
        text = sentence(rng, label)
        if text not in seen:
            seen.add(text)
            rows.append((text, label))
    return rows


def write_csv(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("text", "label")) -> Path:
    """A comma-separated file with a header line."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


@pytest.fixture(scope="session")
def make_reviews() -> Callable[..., list[tuple[str, str]]]:
    """The function `reviews(n, labels, seed)`: distinct (text, label) rows whose labels can be learnt."""
    return reviews


@pytest.fixture(scope="session")
def save_csv() -> Callable[..., Path]:
    """The function `write_csv(path, rows, header)`."""
    return write_csv


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random BERT encoder: 2 layers, hidden 32, 2 heads, window 128, WordPiece of some 300 entries.

    Saved by `save_pretrained` as safetensors; the weights are the same in every session (seed 0).
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny") / "tiny-bert"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    alphabet = [chr(c) for c in range(33, 127)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([text for text, _ in reviews(400, ("negative", "positive", "neutral"))], trainer)
    cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", cls), ("[SEP]", sep)],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=128,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    config = BertConfig(
        vocab_size=len(fast),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        pad_token_id=0,
        initializer_range=0.1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_csv(tmp_path: Path) -> Path:
    """120 labelled reviews, two balanced classes, columns text and label, no two texts alike."""
    return write_csv(tmp_path / "reviews.csv", reviews(120))


@pytest.fixture(scope="session")
def tiny_classifier(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_model` under a random head for the classes negative and positive, as `save_pretrained` writes it."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("tiny") / "tiny-classifier"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = AutoModelForSequenceClassification.from_pretrained(
            tiny_model,
            id2label={0: "negative", 1: "positive"},
            label2id={"negative": 0, "positive": 1},
            problem_type="single_label_classification",
        )
        torch.nn.init.normal_(model.classifier.weight)  # else every text gets about a half
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    with torch.inference_mode():  # so that each class is given to half of some reviews
        batch = tokenizer([text for text, _ in reviews(40)], return_tensors="pt", padding=True)
        model.classifier.bias -= model.eval()(**batch).logits.median(dim=0).values
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
