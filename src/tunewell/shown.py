"""Texts as they are shown."""

from __future__ import annotations


def cut(text: str, most: int) -> str:
    """A text of at most `most` characters; the last of them says that it went on.

    >>> cut("abcdef", 4), cut("abcd", 4)
    ('abc…', 'abcd')
    """
    return text if len(text) <= most else text[: most - 1] + "…"
