"""Strategies: how weights change and what protects them. One file each, one line in this table.

This module stays light: the recipe reads the table before anything heavy is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tunewell.errors import nearest

STRATEGIES: dict[str, str] = {
    "plain": "tunewell.strategies.plain:Plain",
    "distill": "tunewell.strategies.distillation:Distillation",
    "average": "tunewell.strategies.averaging:Averaging",
}


def check_combination(names: list[str]) -> list[str]:
    """What is wrong with a list of strategies, in sentences; empty when it makes sense."""
    problems = []
    for name in names:
        if name not in STRATEGIES:
            hint = nearest(name, STRATEGIES)
            problems.append(
                f"unknown strategy `{name}`; known: {', '.join(STRATEGIES)}" + (f"; {hint}" if hint else "")
            )
    if not names:
        problems.append("strategy must name at least one of " + ", ".join(STRATEGIES))
    if len(set(names)) != len(names):
        problems.append("a strategy is named twice")
    if "plain" in names and len(names) > 1:
        problems.append("`plain` protects nothing and cannot be combined with other strategies")
    return problems


def strategy_class(name: str) -> Any:
    """The class behind a name of the table."""
    module, attribute = STRATEGIES[name].split(":")
    return getattr(import_module(module), attribute)
