"""Splits that do not leak: seeded, stratified by label, grouped by author or document and by text."""

from __future__ import annotations

import unicodedata


def text_key(text: str) -> str:
    """What makes two texts the same: letters in normal form and without case, any space as one space.

    >>> text_key("  Ｈello\\tWORLD ")
    'hello world'
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
