"""Which training rows push a prediction up or down, and which rows carry a wrong label; one method a file."""

from __future__ import annotations

from types import ModuleType

from tunewell.explain.influence import datainf, head, layers, neighbours, tracin, trak

METHODS: dict[str, ModuleType] = {m.name: m for m in (layers, trak, datainf, head, tracin, neighbours)}
DEFAULT = "layers"  # by the linear datamodelling score, see benchmarks/influence.py
