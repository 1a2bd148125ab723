"""An encoder that classifies by its sentence embedding: a linear layer on the normalised mean of its hidden states.

The usual classification head of a BERT reads the first token through a pooler. A sentence encoder such as MiniLM was
made for another vector, the mean over tokens, and with a few labels a class the head can learn from nothing else. So
the head stands on that vector here:

    logits = W e / ‖e‖ + b,   e = mean over tokens of the last hidden state

A folder that was saved is the encoder with `sentence_head.weight` and `sentence_head.bias` beside it and
`tunewell_pooled` in its config.json. Transformers alone loads the encoder (`AutoModel`); as a classifier it would say
that the head is newly drawn, since ours has a name of its own.

Shapes: B rows, T tokens, H hidden size, C classes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewell.errors import ModelError

if TYPE_CHECKING:
    import torch

KEY = "tunewell_pooled"  # in config.json
HEAD = "sentence_head"


def pooled(model: Any) -> Any:
    """A sequence classifier of Transformers, turned in place into one that reads its sentence embedding.

    Modules of the old head take no part any more; its last layer is dropped. The new one starts at zero.

    Raises:
        ModelError: the model is no encoder with a head that could be replaced.
    """
    import torch

    config = model.config
    if not isinstance(getattr(model, "classifier", None), torch.nn.Module):
        raise ModelError(
            f"a {config.model_type} model has no classification head that could stand on its embeddings",
            where=str(config.name_or_path),
            expected="a BERT-like encoder for `strategy: fewshot`",
        )
    model.classifier = torch.nn.Identity()
    head = torch.nn.Linear(config.hidden_size, config.num_labels)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    model.add_module(HEAD, head)
    setattr(config, KEY, True)
    whole = type(model)
    model.__class__ = type(whole.__name__, (whole,), {"forward": _forward, "__module__": whole.__module__})
    model.drawn_parameters = frozenset({f"{HEAD}.weight", f"{HEAD}.bias"})
    return model


def _forward(
    self: Any,
    input_ids: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
    inputs_embeds: torch.Tensor | None = None,
    **inputs: Any,
) -> Any:
    import torch
    from transformers.modeling_outputs import SequenceClassifierOutput

    inputs.pop("labels", None)
    out = self.base_model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        inputs_embeds=inputs_embeds,
        **(inputs | {"return_dict": True}),
    )
    hidden = out.last_hidden_state
    mask = torch.ones(hidden.shape[:2], device=hidden.device) if attention_mask is None else attention_mask
    logits = getattr(self, HEAD)(sentence_embedding(hidden, mask))
    return SequenceClassifierOutput(logits=logits, hidden_states=out.hidden_states, attentions=out.attentions)


def sentence_embedding(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B, H) float32 of length 1: the mean of the hidden states (B, T, H) over the tokens that `mask` (B, T) keeps."""
    from torch.nn.functional import normalize

    from tunewell.models.embed import mean_pool

    return normalize(mean_pool(hidden.float(), mask), dim=-1)


def load_pooled(path: str) -> Any:
    """A saved folder as a classifier, in fp32 and evaluation mode.

    Raises:
        ModelError: the folder lacks the head that its config.json promises.
    """
    import torch
    from safetensors import SafetensorError, safe_open
    from transformers import AutoModelForSequenceClassification

    from tunewell.models.load import check_weights, read_saved

    model, missing, _ = read_saved(AutoModelForSequenceClassification, path)
    prefix = f"{model.base_model_prefix}."
    check_weights(model, [key for key in missing if key.startswith(prefix) and "pooler" not in key], path)
    model = pooled(model)
    head = getattr(model, HEAD)
    try:
        with safe_open(str(Path(path) / "model.safetensors"), framework="pt") as file, torch.no_grad():
            head.weight.copy_(file.get_tensor(f"{HEAD}.weight"))
            head.bias.copy_(file.get_tensor(f"{HEAD}.bias"))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(
            f"lacks its head on sentence embeddings: {error}",
            where=path,
            expected=f"{HEAD}.weight and {HEAD}.bias in model.safetensors, as `tunewell run` saves them",
            remedy="the same `tunewell run` makes it again",
        ) from error
    return model.eval()


def is_pooled(folder: str | Path) -> bool:
    """Whether a model folder was saved by a strategy whose head stands on sentence embeddings."""
    try:
        return bool(json.loads((Path(folder) / "config.json").read_text(encoding="utf-8")).get(KEY))
    except (OSError, ValueError, AttributeError):
        return False
