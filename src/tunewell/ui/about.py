"""What the page of one run shows, read from its folder."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tunewell.recipe import Recipe, yaml_value
from tunewell.report.records import Records
from tunewell.report.records import read as read_records
from tunewell.sequence.records import SequenceSummary
from tunewell.ui.scan import Entry

FILES = 200  # shown at most
HIDDEN = ("cache", "probes", "checkpoints")  # folders of files that nobody opens


@dataclass(frozen=True)
class About:
    """A run: its records, what its recipe changes, the recipe's text, its files, and the steps that are done."""

    entry: Entry
    records: Records | None
    sequence: SequenceSummary | None
    changed: list[tuple[str, str]]
    recipe: str
    files: list[tuple[str, int]]
    steps: list[str]
    usable: bool  # whether a model to try is there
    verdict: tuple[str, ...]


def about(entry: Entry, lang: str) -> About:
    """Read a run.

    Raises:
        TunewellError, ValueError, OSError, KeyError: a record is damaged.
    """
    from tunewell.folder import RunFolder
    from tunewell.report.verdict import verdict

    path = entry.path
    records = sequence = None
    said: tuple[str, ...] = ()
    if entry.kind == "sequence":
        if (path / "summary.json").is_file():
            sequence = SequenceSummary.load(path / "summary.json")
    elif any((path / name).is_file() for name in ("summary.json", "check.json", "recipe.yaml")):
        records = read_records(path)
        said = verdict(records, lang)
    named = path / ("sequence.yaml" if entry.kind == "sequence" else "recipe.yaml")
    text = named.read_text(encoding="utf-8") if named.is_file() else ""
    return About(
        entry,
        records,
        sequence,
        changed(records.recipe) if records is not None else [],
        text,
        files(path),
        list(RunFolder.read_steps(path)),
        any((path / at).is_file() for at in ("model/config.json", "models/tasks.json", "model/tasks.json")),
        said,
    )


def changed(recipe: dict[str, Any]) -> list[tuple[str, str]]:
    """The keys of a recipe that differ from their defaults, in the recipe's order, those of later versions last."""
    fields = Recipe.model_fields
    out = [(k, yaml_value(recipe[k])) for k, f in fields.items() if k in recipe and recipe[k] != f.default]
    return out + [(k, yaml_value(v)) for k, v in recipe.items() if k not in fields]


def recipe_of(path: Path) -> dict[str, Any]:
    """A run's recipe; empty where there is none that can be read."""
    try:
        loaded = yaml.safe_load((path / "recipe.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def files(path: Path) -> list[tuple[str, int]]:
    """Files of a run with their bytes, without caches, links and hidden ones."""
    out: list[tuple[str, int]] = []
    for folder, inner, names in os.walk(path):
        inner[:] = sorted(n for n in inner if n not in HIDDEN and not n.startswith("."))
        for name in sorted(names):
            file = Path(folder) / name
            if name.startswith(".") or file.is_symlink():
                continue
            out.append((file.relative_to(path).as_posix(), file.stat().st_size))
            if len(out) == FILES:
                return out
    return sorted(out, key=lambda f: (f[0].count("/"), f[0]))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none that can be read."""
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}
