"""Candidates made on the spot: the tiny encoder, one that cannot tell words apart, and a tiny decoder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, so that every test measures."""
    monkeypatch.setenv("TUNEWELL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def blank_model(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny encoder with the same embedding for every word: its features can tell nothing but the length."""
    import torch
    from transformers import AutoModel

    folder = tmp_path / "blank"
    model = AutoModel.from_pretrained(tiny_model)
    with torch.no_grad():
        words = model.embeddings.word_embeddings.weight
        words[:] = words[10].clone()
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model / name, folder / name)
    return folder


@pytest.fixture
def no_model(tmp_path: Path) -> Path:
    """A folder that cannot be loaded: its weights are cut short."""
    folder = tmp_path / "torn"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert", "hidden_size": 32}', encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"\x10\x00")
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n", encoding="utf-8")
    return folder


@pytest.fixture
def blank_decoder(tmp_path: Path) -> Path:
    """A decoder whose words all have the same place: each of 260 tokens is as likely as any other, always."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<pad>"]
    entries = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE({entry: i for i, entry in enumerate(entries)}, []))
    made.add_special_tokens(special)
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, model_max_length=128, pad_token="<pad>", eos_token="<|im_end|>",
        extra_special_tokens=["<|endoftext|>", "<|im_start|>"], model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=128, tie_word_embeddings=True, pad_token_id=3, eos_token_id=2, bos_token_id=None,
    )  # fmt: skip
    folder = tmp_path / "blank-decoder"
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.zero_()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
