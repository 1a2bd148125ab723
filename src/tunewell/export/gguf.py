"""A tuned decoder as one GGUF file for llama.cpp and all that is built on it.

Read are decoders of the Llama family (Llama, SmolLM2, Mistral without sliding windows, Qwen2) whose tokenizer is a
byte-level BPE of a kind that llama.cpp knows. Llama's query and key rows are put into the order that llama.cpp's
rotary embedding expects (pairs of neighbours where Transformers has halves).

Shapes: V entries of the vocabulary, H hidden size.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tunewell.errors import ModelError

if TYPE_CHECKING:
    import torch

Weights = Literal["f32", "f16", "q8_0"]
FILE = "model.gguf"
FAMILIES = ("llama", "mistral", "qwen2")
NORMAL, CONTROL, USER, UNUSED = 1, 3, 4, 5  # llama.cpp's kinds of tokens
LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
REST = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_gguf(model: Any, tokenizer: Any, path: Path, *, weights: Weights = "f16", name: str = "") -> None:
    """Write a decoder with its tokenizer and chat template.

    Args:
        weights: of matrices; vectors (norms, biases) are kept in fp32. `q8_0` has 8 bits and a scale for 32 weights.

    Raises:
        ModelError: another architecture, or a tokenizer that llama.cpp has no name for.
    """
    import gguf

    config = model.config
    refuse(config, tokenizer, str(name or path))
    writer = gguf.GGUFWriter(path, "qwen2" if config.model_type == "qwen2" else "llama")
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_name(name or "tuned with tunewell")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(groups)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(_theta(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    kinds = {"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16}
    writer.add_file_type(kinds.get(weights, gguf.LlamaFileType.MOSTLY_Q8_0))
    _add_tokenizer(writer, tokenizer, config.vocab_size)
    state = model.state_dict()
    if config.tie_word_embeddings:
        state = {k: v for k, v in state.items() if k != "lm_head.weight"}
    for key, value in state.items():
        if (there := tensor_name(key)) is None:
            continue
        array = value.detach().float().cpu()
        if config.model_type != "qwen2" and (".q_proj." in key or ".k_proj." in key):
            array = neighbours(array, heads if ".q_proj." in key else groups)
        _add(writer, there, array.numpy(), weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensor_name(key: str) -> str | None:
    """The name of a weight in GGUF; None for what is no weight of its own (inverse frequencies).

    >>> tensor_name("model.layers.3.self_attn.q_proj.weight"), tensor_name("model.norm.weight")
    ('blk.3.attn_q.weight', 'output_norm.weight')

    Raises:
        ModelError: a weight that these families do not have.
    """
    stem, _, kind = key.rpartition(".")
    if stem in REST:
        return f"{REST[stem]}.{kind}"
    parts = stem.split(".", 3)
    if len(parts) == 4 and parts[:2] == ["model", "layers"] and parts[3] in LAYER:
        return f"blk.{parts[2]}.{LAYER[parts[3]]}.{kind}"
    if "rotary_emb" in key:
        return None
    raise ModelError(f"has a weight that GGUF has no place for: {key}", where=FILE, expected="a Llama-like decoder")


def neighbours(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows (heads · D, ...) of a query or key matrix, whose halves turn together, so that neighbours do.

    >>> import torch
    >>> neighbours(torch.arange(8).float(), 2).tolist()
    [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]
    """
    shape = weight.shape
    return weight.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def _add(writer: Any, name: str, array: np.ndarray, weights: Weights) -> None:
    import gguf

    if array.ndim == 1 or weights == "f32":
        writer.add_tensor(name, np.ascontiguousarray(array, dtype=np.float32))
    elif weights == "f16" or array.shape[-1] % 32:
        writer.add_tensor(name, np.ascontiguousarray(array, dtype=np.float16))
    else:
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)


def _theta(config: Any) -> float:
    parameters = getattr(config, "rope_parameters", None) or {}
    return float(parameters.get("rope_theta") or getattr(config, "rope_theta", None) or 10000.0)


def refuse(config: Any, tokenizer: Any, where: str) -> None:
    """Make sure that the file would be the model.

    Raises:
        ModelError: see `write_gguf`.
    """
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if config.model_type not in FAMILIES:
        raise ModelError(
            f"`{config.model_type}` is not written as GGUF here",
            where=where,
            expected="a decoder of " + ", ".join(FAMILIES),
            remedy="llama.cpp's own convert_hf_to_gguf.py knows more families: give it the run's model/ folder",
        )
    if rope != "default" or getattr(config, "sliding_window", None):
        raise ModelError(
            f"its positions ({'rope ' + rope if rope != 'default' else 'sliding window'}) are not written as GGUF here",
            where=where,
            expected="plain rotary embeddings",
        )
    pre_tokenizer(tokenizer, where)


def pre_tokenizer(tokenizer: Any, where: str) -> str:
    """llama.cpp's name of how a tokenizer cuts text before merging.

    Raises:
        ModelError: it has none, or it is no byte-level BPE.
    """
    about = _described(tokenizer, where)
    steps = about["pre_tokenizer"] or {}
    steps = steps.get("pretokenizers", [steps])
    kinds = [s.get("type") for s in steps]
    if about["model"]["type"] == "BPE" and kinds[-1:] == ["ByteLevel"] and not steps[-1].get("add_prefix_space"):
        if kinds == ["ByteLevel"] and steps[0].get("use_regex"):
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and steps[1].get("use_regex"):
            return "smollm"
        pattern = (steps[0].get("pattern") or {}).get("Regex", "") if kinds == ["Split", "ByteLevel"] else ""
        if r"\p{N}{1,3}" in pattern:
            return "llama-bpe"
        if r"\p{L}+|\p{N}|" in pattern:
            return "qwen2"
    raise ModelError(
        f"its tokenizer ({about['model']['type']}, cut by {', '.join(map(str, kinds)) or 'nothing'}) is not one that "
        "is written as GGUF here",
        where=where,
        expected="a byte-level BPE as GPT-2, SmolLM2, Llama 3 or Qwen2 have it",
        remedy="llama.cpp's own convert_hf_to_gguf.py knows more tokenizers: give it the run's model/ folder",
    )


def _described(tokenizer: Any, where: str) -> dict[str, Any]:
    if not tokenizer.is_fast:
        raise ModelError("has no fast tokenizer", where=where, expected="a model with tokenizer.json")
    return json.loads(tokenizer.backend_tokenizer.to_str())


def begins(tokenizer: Any) -> bool:
    """Whether a tokenizer puts its beginning-of-text token before a text by itself; llama.cpp does so then."""
    plain = tokenizer("a")["input_ids"]
    return bool(plain) and plain[0] == tokenizer.bos_token_id


def _add_tokenizer(writer: Any, tokenizer: Any, size: int) -> None:
    about = _described(tokenizer, "")
    tokens = [f"[PAD{i}]" for i in range(size)]
    kinds = [UNUSED] * size  # a text with "[PAD7]" in it is not that token
    for token, i in about["model"]["vocab"].items():
        if i < size:  # the model has no embedding for more
            tokens[i], kinds[i] = token, NORMAL
    for added in about["added_tokens"]:
        if added["id"] < size:
            tokens[added["id"]], kinds[added["id"]] = added["content"], CONTROL if added["special"] else USER
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer(tokenizer, ""))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in about["model"]["merges"]])
    ids = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id}
    for kind, i in ids.items():
        if i is not None and i < size:
            getattr(writer, f"add_{kind}_token_id")(i)
    writer.add_add_bos_token(begins(tokenizer))
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
