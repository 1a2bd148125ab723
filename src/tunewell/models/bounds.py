"""A local model's files, looked at before they are loaded: sizes that its weights do not have are refused.

Transformers allocates what config.json says before it compares it with the weights, so a hidden size of ten million
would take all memory first. Only headers are read here; no tensor and no code of the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunewell.errors import ModelError

# what an encoder, a decoder or both call the sizes of their tensors
WIDTHS = (
    "hidden_size", "intermediate_size", "vocab_size", "d_model", "d_ff", "d_kv", "d_inner", "dim", "hidden_dim",
    "n_embd", "n_inner", "emb_dim", "embedding_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim",
    "type_vocab_size", "head_dim", "pooler_hidden_size", "classifier_hidden_size",
)  # fmt: skip
DEPTHS = (
    "num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers",
    "num_decoder_layers", "num_attention_heads", "n_head", "n_heads", "num_heads", "num_key_value_heads",
    "num_hidden_groups", "num_memory_blocks", "inner_group_num",
)  # fmt: skip
MOST_JSON = {"config.json": 10 << 20, "tokenizer.json": 512 << 20, "tokenizer_config.json": 64 << 20,
             "generation_config.json": 10 << 20, "special_tokens_map.json": 10 << 20, "added_tokens.json": 64 << 20,
             "vocab.json": 512 << 20, "model.safetensors.index.json": 64 << 20}  # fmt: skip
MOST_HEADER = 100 << 20  # bytes of a safetensors header, as the format itself allows
WIDER, DEEPEST, SMALL = 4, 1_000, 4_096  # beyond the largest tensor; layers and heads; a width that is never refused
POSITIONS = 16 << 20


def check_files(folder: Path, name: str) -> None:
    """Refuse a folder whose JSON files are too large or no JSON, or whose config.json asks for what is not there.

    Raises:
        ModelError: with the file and key.
    """
    for file, most in MOST_JSON.items():
        path = folder / file
        if path.is_file() and path.stat().st_size > most:
            raise ModelError(
                f"{file} has {path.stat().st_size >> 20:,} MB",
                where=name,
                expected=f"at most {most >> 20} MB",
                remedy="download or save the model again",
            )
    config = _object(folder / "config.json", name)
    shapes = dict(_shapes(folder, name))
    if not shapes:
        return
    largest = max((n for shape in shapes.values() for n in shape), default=0)
    for key, value in _sizes(config):
        if not isinstance(value, int) or isinstance(value, bool):
            if isinstance(value, float) or value is None or isinstance(value, (list, dict)):
                continue  # left to Transformers, which says what it wants
            raise _refused(f"`{key}: {str(value)[:40]}` is no number", name, "a whole number")
        leaf = key.rpartition(".")[2]
        if leaf in DEPTHS and not 0 < value <= DEEPEST:
            raise _refused(f"`{key}: {value}`", name, f"1 to {DEEPEST:,}")
        if leaf in WIDTHS and not 0 <= value <= max(SMALL, WIDER * largest):
            raise _refused(f"`{key}: {value}`, but its largest tensor has {largest:,} rows or columns", name)
        if leaf == "max_position_embeddings":
            learned = [s[0] for n, s in shapes.items() if n.endswith("position_embeddings.weight") and len(s) == 2]
            if value > POSITIONS or (learned and value > max(learned)):
                raise _refused(f"`{key}: {value}`, but its weights have {max(learned, default=0):,} positions", name)


def _refused(what: str, name: str, expected: str = "config.json and model.safetensors of the same model") -> ModelError:
    return ModelError(
        f"its config.json says {what}", where=name, expected=expected, remedy="download or save the model again"
    )


def _object(path: Path, name: str) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"cannot load its config: {path.name} cannot be read: {str(error).splitlines()[0]}",
            where=name,
            expected="a folder written by save_pretrained",
        ) from None
    if not isinstance(loaded, dict):
        raise ModelError(f"{path.name} holds a {type(loaded).__name__}", where=name, expected="an object of settings")
    return loaded


def _sizes(config: dict[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Key, with those above it, and value of what decides about sizes; also inside `text_config` and the like."""
    for key, value in config.items():
        if isinstance(value, dict) and depth < 8:
            yield from _sizes(value, f"{prefix}{key}.", depth + 1)
        elif key in WIDTHS or key in DEPTHS or key == "max_position_embeddings":
            yield prefix + key, value


def _shapes(folder: Path, name: str) -> Iterator[tuple[str, list[int]]]:
    """Names and shapes of the tensors, from the headers of the safetensors files."""
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            head = file.read(8)
            size = int.from_bytes(head, "little")
            if len(head) < 8 or size > min(MOST_HEADER, path.stat().st_size):
                raise ModelError(
                    f"cannot load its weights: {path.name} is damaged, its header is cut short",
                    where=name,
                    expected="safetensors weights",
                    remedy="download or save the model again",
                )
            try:
                header = json.loads(file.read(size))
                found = [(k, [int(n) for n in v["shape"]]) for k, v in header.items() if k != "__metadata__"]
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise ModelError(
                    f"cannot load its weights: {path.name} is damaged, its header cannot be read",
                    where=name,
                    expected="safetensors weights",
                    remedy="download or save the model again",
                ) from None
        yield from found
