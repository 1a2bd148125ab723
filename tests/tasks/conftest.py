"""Tiny models that write: a decoder with a chat template, an encoder-decoder; made on the spot from configs."""

from __future__ import annotations

from pathlib import Path

import pytest

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
