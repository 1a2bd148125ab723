"""Packaged decoders in GGUF: unpacked once into an ordinary Transformers folder, fp32 safetensors.

The 4-bit weights are dequantised as they stand; nothing is rounded a second time.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tunewell.errors import ModelError

FOLDER = "transformers"
WINDOW = 8192  # tokens that SmolLM2 was trained on; GGUF leaves the tokenizer without a limit


def unpacked(folder: str | Path) -> Path:
    """The Transformers folder of an asset's folder; the folder itself where it holds nothing to unpack.

    Raises:
        ModelError: the package `gguf` is missing.
    """
    from tunewell.models import e5

    folder = Path(folder)
    if (folder / e5.FILE).is_file():
        return e5.unpacked(folder)
    files = sorted(folder.glob("*.gguf"))
    if not files:
        return folder
    target = folder / FOLDER
    if (target / "model.safetensors").is_file():
        return target
    if importlib.util.find_spec("gguf") is None:
        raise ModelError(
            "reading packaged decoders needs the package gguf",
            where=files[0].stem,
            remedy="pip install 'tunewell[generate]', or pip install gguf",
        )
    from tunewell.results import write_with

    write_with(target, lambda path: _convert(files[0], path))
    return target


def _convert(file: Path, path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tunewell.models.load import quietly

    with quietly():
        loaded = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # else the copy would ask for the quantised file again
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    tokenizer.model_max_length = min(tokenizer.model_max_length, WINDOW)
    path.mkdir()
    with quietly():
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
