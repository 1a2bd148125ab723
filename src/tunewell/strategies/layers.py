"""Where a parameter stands in a model: embeddings, a numbered layer, or the head."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

EMBEDDING = re.compile(r"embed|\bwte\b|\bwpe\b|\bshared\b")  # GPT-2 has short names for them, T5 and BART share one
NUMBER = re.compile(r"(?:^|\.)(\d+)\.")


def depths(model: Any) -> dict[str, int]:
    """Parameter name -> 0 for embeddings, 1 to L for the layers from bottom to top, L + 1 for the head.

    A pooler between the last layer and the classifier is counted as head: no embedding passes through
    it, and other families of encoders keep the same layer in their head. What stands after the last
    layer within the encoder (a final norm) belongs to that layer. Of an encoder-decoder the layers of the decoder
    stand above those of the encoder, as a source goes through them.
    """
    found = _found(model)
    last = head_depth(model) - 1
    encoder = _encoder_layers(model)
    names = [name for name, _ in model.named_parameters()]
    return {
        name: last + 1
        if name not in found
        else _place(found[name], name, encoder if _half(model, name) == "encoder" else last)
        for name in names
    }


def head_depth(model: Any) -> int:
    """L + 1, where the head stands, also of a decoder whose head is its embeddings and has no parameters of its own."""
    return max((d for d in _found(model).values() if d is not None), default=0) + 1


def _found(model: Any) -> dict[str, int | None]:
    """The numbers of the layers that the base model's parameters belong to."""
    return numbered(model, (name for name, _ in model.named_parameters()))


def body(model: Any) -> str:
    """What the names of the base model's parts begin with; nothing where the model is its own base, as T5 is.

    >>> from types import SimpleNamespace
    >>> [body(SimpleNamespace(base_model_prefix=name, bert=None)) for name in ("bert", "transformer")]
    ['bert.', '']
    """
    prefix = model.base_model_prefix
    return f"{prefix}." if prefix and hasattr(model, prefix) else ""


def numbered(model: Any, names: Iterable[str]) -> dict[str, int | None]:
    """Those of some names of parameters or modules that belong to the base model -> the number of their layer, from 1.

    None stands for what is in no layer. The layers of a decoder beside an encoder count on from the encoder's.
    """
    start, below = body(model), _encoder_layers(model)
    inside = [n for n in names if n.startswith(start) and not (start == "" and _heads(model, n))]
    found = {n: within(n.removeprefix(start) + ".") for n in inside}
    return {n: d + below if d is not None and _half(model, n) == "decoder" else d for n, d in found.items()}


def _heads(model: Any, name: str) -> bool:
    """Whether a name belongs to the head of a model that is its own base: its outputs, or those of its decoder."""
    first, _, rest = name.partition(".")
    part = getattr(model, first, None)
    if first == "decoder" and (prefix := body(part) if hasattr(part, "base_model_prefix") else ""):
        return not rest.startswith(prefix)  # a whole model beside another, as in `EncoderDecoderModel`
    return part is not None and part is model.get_output_embeddings()


def _half(model: Any, name: str) -> str:
    """`encoder` or `decoder`, the half of an encoder-decoder that a name is in; empty for what both share."""
    if not getattr(model.config, "is_encoder_decoder", False):
        return ""
    half = name.removeprefix(body(model)).split(".")[0]
    return half if half in ("encoder", "decoder") else ""


def _encoder_layers(model: Any) -> int:
    """How many layers the encoder beside a decoder has; 0 for any other model."""
    start = body(model)
    encoder = [n.removeprefix(start) for n, _ in model.named_parameters() if _half(model, n) == "encoder"]
    return max((d for n in encoder if (d := within(n)) is not None), default=0)


def within(name: str) -> int | None:
    """The number of the layer that a name of the base model belongs to, counted from 1; None when it has none.

    >>> within("encoder.layer.3.output.dense.weight"), within("embeddings.word_embeddings.weight")
    (4, None)
    """
    match = NUMBER.search(name)
    return int(match.group(1)) + 1 if match else None


def _place(number: int | None, name: str, last: int) -> int:
    if number is not None:
        return number
    if "pooler" in name:
        return last + 1
    return 0 if EMBEDDING.search(name) else last


def shared(model: Any) -> list[tuple[str, Any]]:
    """(name, parameter) of what the base model and the tuned one share: all but the head, and only what is tuned."""
    places = depths(model)
    head = head_depth(model)
    return [(name, p) for name, p in model.named_parameters() if places[name] < head and p.requires_grad]
