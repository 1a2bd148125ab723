"""Models with other heads than classes: loading them under the same care as `models.load`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewell.errors import ModelError
from tunewell.models.load import check_weights, load_part, load_tokenizer, locate, read_saved

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_with_head(
    kind: Any, name: str, *, seed: int, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedModel:
    """The base model under the head of an Auto class, which is drawn with `seed` where the model brings none; fp32.

    Args:
        kind: an Auto class of Transformers, such as AutoModelForQuestionAnswering.
    """
    import torch
    from transformers import set_seed

    path = locate(name)
    set_seed(seed)
    model = load_part(
        kind.from_pretrained,
        name,
        path,
        "weights",
        revision=revision,
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
        dtype=torch.float32,
    )
    return prepared(model)


def prepared(model: Any) -> Any:
    """A model made ready for the training loop: our own loss scales (see `models.load.load_classifier`), and
    weights that are tied to others are not missed in checkpoints, which leave them out."""
    model.accepts_loss_kwargs = False
    model._weight_conversions = []
    tied = list(getattr(model, "all_tied_weights_keys", None) or {})
    if tied:
        model._keys_to_ignore_on_save = tied
    return model


def load_saved(kind: Any, path: str | Path, role: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A saved model with its head, in evaluation mode.

    Args:
        role: what the head is, for the error.

    Raises:
        ModelError: no such folder, or weights are missing: the head would be drawn at random.
    """
    model, missing, folder = read_saved(kind, path)
    if missing:
        raise ModelError(
            f"has not {role}: {', '.join(missing[:3])} would be drawn at random",
            where=str(path),
            expected=f"a run folder, or a model with {role}",
            remedy=f"tune it first: tunewell run --model {path} --train DATA",
        )
    check_weights(model, [], str(path))
    return model.eval(), load_tokenizer(str(path), folder)


def brings_head(path: str, ending: str) -> bool:
    """Whether a local model's config names an architecture with this ending (`ForQuestionAnswering`)."""
    return any(name.endswith(ending) for name in architectures(path))


def architectures(path: str) -> list[str]:
    """The classes that a local model's config names."""
    try:
        config = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
        return [str(a) for a in config.get("architectures") or []]
    except (OSError, ValueError, AttributeError):
        return []
