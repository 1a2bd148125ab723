"""A Griffe extension: `>>>` examples of docstrings become blocks of code on the page."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"(?:^[ \t]*>>> .*\n?(?:^[ \t]*(?:\.\.\. .*|(?!>>>)\S.*)\n?)*)+", re.MULTILINE)


def fenced(text: str) -> str:
    """Each run of examples in a fence, without doctest's instructions."""
    return EXAMPLE.sub(
        lambda match: "```pycon\n" + re.sub(r"\s*# doctest: .*", "", match.group(0)).rstrip() + "\n```\n", text
    )


class Doctests(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None and ">>> " in obj.docstring.value:
            obj.docstring.value = fenced(obj.docstring.value)
