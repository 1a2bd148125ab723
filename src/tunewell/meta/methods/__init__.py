"""Methods of meta-learning, one a file: what an episode teaches the body that all tasks share.

Each module has `NAME`, `TITLE`, `PAPER`, `USE` (how a body that it has made is put to use, one of
`episode.WAYS_OF_USE`), `OUTER` (`adam`, or `sgd` for a step towards the mean of adapted weights), `RATE` (of that
step, by default) and `lesson(body, episode, inner)`, which leaves the body as it was.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

METHODS = ("reptile", "fomaml", "anil", "protonet")


def method(name: str) -> Any:
    """The module of a method."""
    return import_module(f"tunewell.meta.methods.{name}")
