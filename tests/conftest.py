"""Fixtures that every room may use: a tiny random encoder and small data files, made on the spot."""

from __future__ import annotations

import csv
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a script that starts them with `&` leaves it
    signal.signal(signal.SIGINT, signal.default_int_handler)
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests are side by side already
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


def word_pieces() -> dict[str, int]:
    """The entries of the tiny tokenizer: special ones, characters, and the words of the reviews.

    Listed and not trained: a `WordPieceTrainer` numbers its entries differently in every process.
    """
    alphabet = [chr(c) for c in range(33, 127)]
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *alphabet, *(f"##{c}" for c in alphabet)]
    return {entry: i for i, entry in enumerate([*entries, *sorted({*GOOD, *BAD, *NEUTRAL})])}


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
def make_moods() -> Callable[[int], list[tuple[str, str]]]:
    """`n` distinct (text, label) rows of three moods that share no word: any embedding of words tells them apart."""

    def moods(n: int) -> list[tuple[str, str]]:
        rng, rows = random.Random(5), dict[str, str]()
        words = {"negative": BAD, "positive": GOOD, "neutral": NEUTRAL}
        while len(rows) < n:
            label = list(words)[len(rows) % 3]
            rows.setdefault(" ".join(rng.sample(words[label], 5)), label)
        return list(rows.items())

    return moods


@pytest.fixture(scope="session")
def make_pairs() -> Callable[[int], list[tuple[str, str, str]]]:
    """`n` (text_a, text_b, score) rows where every model beats chance: the same text twice, or another."""

    def pairs(n: int) -> list[tuple[str, str, str]]:
        texts = [text for text, _ in reviews(2 * n)]
        return [(texts[i], texts[i] if i % 2 else texts[i + n], str(5 * (i % 2))) for i in range(n)]

    return pairs


@pytest.fixture(scope="session")
def save_csv() -> Callable[..., Path]:
    """The function `write_csv(path, rows, header)`."""
    return write_csv


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random BERT encoder: 2 layers, hidden 32, 2 heads, window 128, WordPiece of some 220 entries.

    Saved by `save_pretrained` as safetensors; the weights are the same in every session (seed 0).
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny") / "tiny-bert"
    tokenizer = Tokenizer(models.WordPiece(word_pieces(), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
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


def write_records(folder: Path, *, word: str = "word", labels: tuple[str, ...] = ("negative", "positive")) -> Path:
    """All records of a finished run, as `tunewell run` writes them, with figures that a test can look for.

    Args:
        word: stands wherever text of the user's data goes. labels: the classes; none for a regression.
    """
    import json

    from tunewell import results as r

    def e(value: float) -> r.Estimate:
        return r.Estimate(value=value, low=value - 0.01, high=value + 0.01, n=40)

    def made(score: float) -> r.Evaluation:
        metric = "f1_macro" if labels else "r2"
        n = len(labels)
        return r.Evaluation(
            split="test", metric=metric, metrics={metric: e(score), "other": e(0.5)}, n=40, labels=labels,
            confusion=tuple(tuple(9 if i == j else 1 for j in range(n)) for i in range(n)),
            per_class=tuple(
                r.PerClass(label=name, precision=0.5, recall=0.5, f1=0.5, support=9, predicted=9) for name in labels
            ),
            calibration=(r.CalibrationBin(low=0.5, high=1.0, confidence=0.8, accuracy=0.7, n=40),) if labels else (),
            scatter=() if labels else ((1.0, 1.2), (2.0, 1.9), (3.0, 3.3)),
        )  # fmt: skip

    folder.mkdir(parents=True)
    (folder / "model").mkdir()
    better = r.Comparison(
        metric="f1_macro", difference=e(0.1234), test="McNemar, exact", p_value=0.0004, better=True
    )  # fmt: skip
    baseline = r.BaselineResult(
        name="b", title=f"baseline {word}", evaluation=made(0.6), seconds=1.0, comparison=better
    )
    (folder / "baselines.json").write_text(json.dumps({"baselines": [baseline.model_dump()]}), encoding="utf-8")
    probe = r.ProbeResult(
        name="own", title=f"probe {word}", metric="Spearman", chance=0.0, before=e(0.8), after=e(0.79),
        retention=e(0.9875), note=word,
    )  # fmt: skip
    r.Retention(half="report", probes=(probe,), mean=e(0.9875), worst=e(0.9875), worst_probe="own").write(
        folder / "retention.json"
    )
    example = r.Example(where=f"{word}.csv:7", text=f"text {word}", note=f"note {word}")
    r.CheckReport(
        findings=(
            r.Finding(code="html", severity="notice", title="HTML remains", message=f"message {word}", count=3,
                      examples=(example,), remedy=f"remedy {word}"),
        ),
        accounts=(r.Account(split="train", source=word, read=100, used=97, dropped={f"reason {word}": 3}, truncated=2,
                            tokens=1000, tokens_cut=25),),
        task="text-classification", columns={"text": word, "label": word}, languages={"en": 0.9, "zh": 0.1},
        class_counts={"train": dict.fromkeys(labels, 50)}, rows=97,
    ).write(folder / "check.json")  # fmt: skip
    made(0.75).write(folder / "evaluation.json")
    candidates = tuple(
        r.Candidate(name=f"candidate {word} {i}", strategy=("plain",), parameters={}, score=e(0.7 + i / 50),
                    retention_mean=e(0.98 - i / 50), retention_worst=e(0.97), meets=i == 0, chosen=i == 0)
        for i in range(2)
    )  # fmt: skip
    r.Choice(keep=0.98, keep_worst=None, met=True, candidates=candidates, reason=f"reason {word}").write(
        folder / "choice.json"
    )
    history = tuple({"step": i, "loss": 1.0 / i, "learning_rate": 1e-5 * i} for i in range(1, 9))
    r.Training(
        strategy=("plain",), steps=8, epochs=1, best_step=8, best_score=0.7, stopped_early=False, learning_rate=5e-5,
        precision="fp32", examples=97, tokens=975, padding_share=0.05, seconds=83, peak_memory_mb=901,
        parameters=1000, trainable_parameters=1000, nonfinite_steps=(3,),
        history=(*history, {"step": 8, "eval_f1_macro": 0.7}),
    ).write(folder / "train" / "training.json")  # fmt: skip
    r.Summary(
        task="text-classification" if labels else "text-regression", metric="f1_macro" if labels else "r2",
        test=e(0.75), base=e(0.6), baselines={"b": e(0.6)}, retention=None, keep=0.98, kept=True, strategy=("plain",),
        model=f"model {word}", seed=1, n_train=97, seconds={"train": 83.0, "total": 200.0}, peak_memory_mb=901,
    ).write(folder / "summary.json")  # fmt: skip
    recipe = {"model": "all-MiniLM-L6-v2", "train": f"{word}.csv", "keep": 0.98}
    (folder / "recipe.yaml").write_text(json.dumps(recipe, ensure_ascii=False), encoding="utf-8")
    environment = {"created": "2026-01-02T03:04:05", "command": f"tunewell run {word}", "packages": {"torch": "2"}}
    (folder / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        if labels:
            writer.writerow(["source", "row", "text", "label", "prediction", *(f"p_{name}" for name in labels)])
            writer.writerow([word, 1, f"mistake {word}", labels[0], labels[1], 0.1, 0.9])
            writer.writerow([word, 2, "all right", labels[0], labels[0], 0.9, 0.1])
        else:
            writer.writerow(["source", "row", "text", "label", "prediction"])
            writer.writerow([word, 1, f"mistake {word}", 1.0, 3.0])
    return folder


@pytest.fixture(scope="session")
def make_records() -> Callable[..., Path]:
    """The function `write_records(folder, word=..., labels=...)`: a finished run without its weights."""
    return write_records


# ---------------------------------------------------------------- tiny models that write

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CORPUS = [
    "the hotel was good and the crew was rude today",
    "system user assistant say the word twice please one two three four five six",
    "red blue green black white small large room seat meal phone",
    "rot blau grün schwarz weiß klein groß Zimmer Sitz Essen Telefon der die das war gut",
]


def byte_tokenizer(**more):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<pad>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    return tokenizer, PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=128, pad_token="<pad>", eos_token="<|im_end|>",
        extra_special_tokens=["<|endoftext|>", "<|im_start|>"], model_input_names=["input_ids", "attention_mask"],
        **more,
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory) -> Path:
    """Folder of a random Llama: 2 layers, hidden 32, a ChatML template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny") / "tiny-llama"
    _, tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=128, tie_word_embeddings=True, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory) -> Path:
    """Folder of a random T5: 2 layers each, hidden 32; its tokenizer ends every text."""
    import torch
    from tokenizers import processors
    from transformers import T5Config, T5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("tiny") / "tiny-t5"
    inner, tokenizer = byte_tokenizer()
    end = inner.token_to_id("<|im_end|>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|im_end|>", special_tokens=[("<|im_end|>", end)]
    )
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=end, decoder_start_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bergamot(tmp_path_factory) -> Path:
    """Folder of a random Bergamot model: 2 layers each, hidden 32; its tokenizer ends every text."""
    import torch
    from tokenizers import processors

    from tunewell.models.bergamot.config import BergamotConfig
    from tunewell.models.bergamot.model import NEVER, BergamotForConditionalGeneration

    folder = tmp_path_factory.mktemp("tiny") / "tiny-bergamot"
    inner, tokenizer = byte_tokenizer()
    end = inner.token_to_id("<|im_end|>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|im_end|>", special_tokens=[("<|im_end|>", end)]
    )
    config = BergamotConfig(
        vocab_size=len(tokenizer), d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        ffn_dim=64, eos_token_id=end, pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BergamotForConditionalGeneration(config)
        with torch.no_grad():
            model.lm_head.bias[tokenizer.pad_token_id] = NEVER
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
