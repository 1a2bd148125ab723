"""Bergamot's files into an ordinary Transformers folder: fp32 safetensors and tokenizer.json, made once.

Mozilla's Firefox translation models and those of packages built on them have this form: one Marian file with
8-bit weights and one SentencePiece vocabulary for both languages.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import ModelError
from tunewell.models.bergamot.marian_file import MarianFile, read_marian

if TYPE_CHECKING:
    from tunewell.models.bergamot.config import BergamotConfig

FOLDER = "transformers"
WEIGHTS, VOCABULARY = "model*.bin", "*.spm"
# what the model class does; a file that says otherwise is another architecture
EXPECTED: dict[str, Any] = {
    "type": "transformer", "transformer-decoder-autoreg": "rnn", "dec-cell": "ssru", "tied-embeddings-all": True,
    "transformer-preprocess": "", "transformer-postprocess": "dan", "transformer-postprocess-emb": "d",
    "transformer-postprocess-top": "", "transformer-ffn-activation": "relu", "transformer-ffn-depth": 2,
    "transformer-no-projection": False, "transformer-train-position-embeddings": False, "lemma-dim-emb": 0,
    "right-left": False, "output-omit-bias": False,
}  # fmt: skip
HALVES = {"self": "self_attn", "context": "encoder_attn"}
PROJECTIONS = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj"}


def is_bergamot(folder: str | Path) -> bool:
    """Whether a folder holds Bergamot's files."""
    folder = Path(folder)
    return folder.is_dir() and bool([*folder.glob(WEIGHTS)] and [*folder.glob(VOCABULARY)])


def unpacked(folder: str | Path) -> Path:
    """The Transformers folder of a folder with Bergamot's files, converted when that was not done yet.

    Beside the files of a packaged model, in the cache for a folder of the user's.

    Raises:
        ModelError: the files are damaged, or of another architecture.
    """
    from tunewell.assets import MARKER
    from tunewell.cache import cache_folder
    from tunewell.folder import file_hash, fingerprint
    from tunewell.results import write_with

    folder = Path(folder)
    if (folder / MARKER).is_file():
        target = folder / FOLDER
    else:
        files = sorted((*folder.glob(WEIGHTS), *folder.glob(VOCABULARY)))
        target = cache_folder("converted", f"{folder.resolve().name}-{fingerprint([file_hash(f) for f in files])[:16]}")
    if not (target / "model.safetensors").is_file():
        write_with(target, lambda path: convert(folder, path))
    return target


def convert(folder: Path, path: Path) -> None:
    """Write the folder `path` from the files of `folder`."""
    import torch

    from tunewell.models.bergamot import register
    from tunewell.models.bergamot.model import NEVER, BergamotForConditionalGeneration
    from tunewell.models.bergamot.vocabulary import fast_tokenizer, missing_characters, read_pieces
    from tunewell.models.load import quietly

    weights, vocabularies = sorted(folder.glob(WEIGHTS)), sorted(folder.glob(VOCABULARY))
    if len(weights) != 1 or len(vocabularies) != 1:
        raise ModelError(
            f"holds {len(weights)} models and {len(vocabularies)} vocabularies",
            where=str(folder),
            expected="one of each",
        )
    register()
    file = read_marian(weights[0])
    config = config_of(file, str(weights[0]))
    pieces, _ = read_pieces(vocabularies[0])
    if len(pieces) != config.vocab_size - 1:
        raise ModelError(
            f"has {config.vocab_size - 1:,} embeddings, its vocabulary {len(pieces):,} pieces",
            where=str(folder),
            expected="the vocabulary that the model was trained with",
        )
    extra = missing_characters(pieces)
    tokenizer = fast_tokenizer(vocabularies[0], config.max_position_embeddings, extra)
    arrays = widened(state_of(file, config, str(weights[0]), NEVER), tokenizer.unk_token_id, len(extra))
    config.vocab_size = len(tokenizer)
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    config.decoder_start_token_id = tokenizer.pad_token_id
    state = {name: torch.from_numpy(value) for name, value in arrays.items()}
    model = BergamotForConditionalGeneration(config)
    missing, unexpected = model.load_state_dict(state, strict=False)
    if missing or unexpected:
        raise ModelError(
            f"does not fit: {', '.join([*missing, *unexpected][:3])}",
            where=str(weights[0]),
            expected="Bergamot's layers",
        )
    model.tie_weights()
    model.generation_config.num_beams = 1
    path.mkdir()
    with quietly():
        model.eval().save_pretrained(path)
        tokenizer.save_pretrained(path)


def config_of(file: MarianFile, where: str) -> BergamotConfig:
    """The config of a Marian file.

    Raises:
        ModelError: settings of another architecture.
    """
    from tunewell.models.bergamot.config import BergamotConfig

    said = file.settings
    other = {k: said[k] for k, v in EXPECTED.items() if k in said and said[k] != v}
    other |= {k: said.get(k) for k in ("type", "dec-cell", "transformer-decoder-autoreg") if said.get(k) != EXPECTED[k]}
    if other:
        some = ", ".join(f"{k}: {v}" for k, v in other.items())
        raise ModelError(
            f"is another architecture than Bergamot's ({some})",
            where=where,
            expected="a Transformer encoder with an SSRU decoder and all embeddings tied",
        )
    table = file.arrays.get("Wemb")
    inner = file.arrays.get("encoder_l1_ffn_W1")
    if table is None or inner is None:
        raise ModelError("lacks Wemb or encoder_l1_ffn_W1", where=where, expected="the weights of a whole model")
    heads = int(said.get("transformer-heads", 8))
    if heads < 1 or table.shape[1] % heads:
        raise ModelError(f"has {heads} heads for a width of {table.shape[1]}", where=where, expected="a divisor of it")
    return BergamotConfig(
        vocab_size=table.shape[0] + 1,
        d_model=table.shape[1],
        encoder_layers=int(said["enc-depth"]),
        decoder_layers=int(said["dec-depth"]),
        encoder_attention_heads=heads,
        ffn_dim=inner.shape[1],
        pad_token_id=table.shape[0],
        decoder_start_token_id=table.shape[0],
    )


def state_of(file: MarianFile, config: BergamotConfig, where: str, never: float) -> dict[str, np.ndarray]:
    """The model's state dict: layers transposed to (out, in), a row of zeros for the padding token."""
    state: dict[str, np.ndarray] = {}
    for name, value in file.arrays.items():
        if name == "Wemb":
            table = np.concatenate([value, np.zeros((1, value.shape[1]), np.float32)])
            state["encoder.embed_tokens.weight"] = state["lm_head.weight"] = table
        elif name == "decoder_ff_logit_out_b":
            state["lm_head.bias"] = np.append(value.ravel(), np.float32(never)).astype(np.float32)
        else:
            key = renamed(name)
            if key is None:
                raise ModelError(f"holds {name}, which is not known", where=where, expected="Bergamot's layers")
            state[key] = value.ravel() if value.shape[0] == 1 else np.ascontiguousarray(value.T)
    return state


def widened(state: dict[str, np.ndarray], unknown: int, extra: int) -> dict[str, np.ndarray]:
    """Rows for `extra` more pieces before that of the padding token, each a copy of the unknown piece's.

    So a model that never saw braces or the signs of tags reads and writes as before, and can learn them. Between
    equal logits the first is taken, which is the unknown piece.
    """
    out = dict(state)
    for name in ("encoder.embed_tokens.weight", "lm_head.weight", "lm_head.bias"):
        if name in state:
            value = state[name]
            copies = np.repeat(value[unknown : unknown + 1], extra, axis=0)
            out[name] = np.concatenate([value[:-1], copies, value[-1:]])
    return out


def renamed(name: str) -> str | None:
    """The name of Marian's array in our model; None where there is none.

    >>> renamed("encoder_l1_self_Wq"), renamed("decoder_l2_rnn_bf"), renamed("decoder_l1_context_Wo_ln_scale")
    ('encoder.layers.0.self_attn.q_proj.weight', 'decoder_layers.1.rnn.forget.bias', \
'decoder_layers.0.encoder_attn_layer_norm.weight')
    """
    match = re.fullmatch(r"(encoder|decoder)_l(\d+)_(self|context|ffn|rnn)_(\w+)", name)
    if not match:
        return None
    side, number, part, rest = match.groups()
    layer = f"{'encoder.layers' if side == 'encoder' else 'decoder_layers'}.{int(number) - 1}"
    kinds = {"scale": "weight", "bias": "bias"}
    if norm := re.fullmatch(r"(?:Wo|ffn)_ln_(scale|bias)", rest):
        return f"{layer}.{HALVES.get(part, part)}_layer_norm.{kinds[norm[1]]}"
    if part in HALVES and (piece := re.fullmatch(r"([Wb])([qkvo])", rest)):
        return f"{layer}.{HALVES[part]}.{PROJECTIONS[piece[2]]}.{'weight' if piece[1] == 'W' else 'bias'}"
    if part == "ffn" and (piece := re.fullmatch(r"([Wb])([12])", rest)):
        return f"{layer}.ffn.fc{piece[2]}.{'weight' if piece[1] == 'W' else 'bias'}"
    if part == "rnn":
        found = {"W": "input.weight", "Wf": "forget.weight", "bf": "forget.bias"}.get(rest)
        return f"{layer}.rnn.{found}" if found else None
    return None
