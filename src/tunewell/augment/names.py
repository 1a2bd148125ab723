"""Names of the operations. Stays light: the recipe reads them before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence

from tunewell.errors import nearest

BY_RULE = ("swap", "delete", "keyboard", "ocr", "case")  # see operations.py
MASKED = "masked"  # by a masked language model, see masked.py
BACKTRANSLATE = "backtranslate"  # by two translation models, see translate.py
NAMES = (*BY_RULE, MASKED, BACKTRANSLATE)
AUTO = "auto"  # those of AUTO_SPACED or AUTO_UNSPACED that the texts' script allows
AUTO_SPACED, AUTO_UNSPACED = ("swap", "delete", "keyboard"), ("swap", "delete")
NONE = "none"
MLM = "splade-tiny"
TRANSLATORS = ("bergamot-en-pt", "bergamot-pt-en")


def mistakes(names: Sequence[str], *, none: bool = False) -> list[str]:
    """What is wrong with a list of operations, in sentences; empty when it makes sense.

    Args:
        none: `none` alone is allowed.

    >>> mistakes(["swp"])[0].endswith("did you mean `swap`?")
    True
    """
    words = (*NAMES, AUTO, *([NONE] if none else []))
    if not names:
        return ["no operation is named; known: " + ", ".join(words)]
    problems = []
    for name in names:
        if name not in words:
            hint = nearest(name, words)
            problems.append(f"unknown operation `{name}`; known: {', '.join(words)}" + (f"; {hint}" if hint else ""))
    if len(names) > 1 and (alone := [n for n in names if n in (AUTO, NONE)]):
        problems.append(f"`{alone[0]}` stands alone: it cannot be combined with other operations")
    if len(set(names)) != len(names):
        problems.append("an operation is named twice")
    return problems
