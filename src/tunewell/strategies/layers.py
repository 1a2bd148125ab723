"""Where a parameter stands in a model: embeddings, a numbered layer, or the head."""

from __future__ import annotations

import re
from typing import Any

EMBEDDING = re.compile(r"embed|\bwte\b|\bwpe\b")  # GPT-2 has short names for them
NUMBER = re.compile(r"(?:^|\.)(\d+)\.")


def depths(model: Any) -> dict[str, int]:
    """Parameter name -> 0 for embeddings, 1 to L for the layers from bottom to top, L + 1 for the head.

    A pooler between the last layer and the classifier is counted as head: no embedding passes through
    it, and other families of encoders keep the same layer in their head. What stands after the last
    layer within the encoder (a final norm) belongs to that layer.
    """
    found = _found(model)
    last = head_depth(model) - 1
    names = [name for name, _ in model.named_parameters()]
    return {name: last + 1 if name not in found else _place(found[name], name, last) for name in names}


def head_depth(model: Any) -> int:
    """L + 1, where the head stands, also of a decoder whose head is its embeddings and has no parameters of its own."""
    return max((d for d in _found(model).values() if d is not None), default=0) + 1


def _found(model: Any) -> dict[str, int | None]:
    """The numbers of the layers that the base model's parameters belong to."""
    prefix = model.base_model_prefix + "."
    names = [name for name, _ in model.named_parameters()]
    return {name: within(name.removeprefix(prefix)) for name in names if name.startswith(prefix)}


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
