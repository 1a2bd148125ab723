"""Reference tables made from the code, so that they cannot fall behind it; an MkDocs hook.

A page asks for one with a comment on a line of its own: `<!-- table: recipe -->`. To print one:

    python docs/reference/tables.py recipe
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MARK = re.compile(r"^<!-- table: ([a-z-]+) -->$", re.MULTILINE)
RECIPES = Path(__file__).parents[2] / "examples" / "recipes"
GALLERY = (
    "sentiment-classes", "sentiment-scores", "topics-keep", "auto", "multi-label", "pairs-nli", "few-labels",
    "unlabelled-pool", "questions", "instructions-lora", "translation-po", "translation-tsv", "chinese", "sequence",
    "big-data", "cluster", "tensorflow",
)  # fmt: skip
COMMON = ("verbose", "quiet", "debug")  # options that every command has


def recipe() -> str:
    """Every recipe key by section: default, type and range, help."""
    from tunewell.recipe import SECTIONS, Recipe, keys_of, yaml_value

    parts = []
    for section, title in SECTIONS.items():
        parts += [f"## {title}", "", "| key | default | values | |", "| --- | --- | --- | --- |"]
        for name in keys_of(section):
            field = Recipe.model_fields[name]
            default = "" if field.default is None else f"`{yaml_value(field.default)}`"
            help = _cell(field.description or "")
            parts.append(f"| `{name}`{{ #{name} }} | {default} | {_values(field)} | {help} |")
        parts.append("")
    return "\n".join(parts)


def _values(field: Any) -> str:
    """What a key takes, in words."""
    from types import NoneType, UnionType
    from typing import Annotated, Literal, Union, get_args, get_origin

    def words(kind: Any) -> str:
        origin = get_origin(kind)
        if origin is Annotated:
            return words(get_args(kind)[0])
        if origin is Literal:
            return ", ".join(f"`{value}`" for value in get_args(kind))
        if origin in (Union, UnionType):
            return " or ".join(words(k) for k in get_args(kind) if k is not NoneType)
        if origin is list:
            return "list of " + {"text": "texts", "number": "numbers"}[words(get_args(kind)[0])]
        if origin is dict:
            return "mapping"
        return {str: "text", int: "whole number", float: "number", bool: "true, false"}[kind]

    limits = []
    for mark in field.metadata:
        for attribute, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤")):
            bound = getattr(mark, attribute, None)
            if bound is not None:
                limits.append(f"{sign} {bound:,}" if abs(bound) > 1000 else f"{sign} {bound}")
    return ", ".join([words(field.annotation), *limits])


def cli() -> str:
    """Every command: usage, help, its own options; recipe keys are not repeated."""
    import click

    from tunewell.cli import COMMANDS, app

    parts = []
    with click.Context(app, info_name="tunewell") as root:
        for heading, commands in COMMANDS.items():
            parts += [f"## {heading}", ""]
            for name in commands:
                command = app.get_command(root, name)
                assert command is not None, name
                with click.Context(command, info_name=name, parent=root) as ctx:
                    parts += _command(name, command, ctx)
    return "\n".join(parts)


def _command(name: str, command: Any, ctx: Any) -> list[str]:
    import inspect

    from tunewell.recipe import Recipe

    usage = " ".join(["tunewell", name, *command.collect_usage_pieces(ctx)])
    parts = [f"### tunewell {name}", "", f"`{usage}`", "", inspect.cleandoc(command.help or "").replace("\b\n", ""), ""]
    own, keys = [], []
    for param in command.get_params(ctx):
        if param.name in COMMON or "--help" in param.opts or param.param_type_name == "argument":
            continue
        if param.name in Recipe.model_fields and getattr(param, "section", None):
            keys.append(param.name)
        elif record := param.get_help_record(ctx):
            own.append(record)
    if own:
        parts += ["| option | |", "| --- | --- |", *(f"| `{o}` | {_cell(text)} |" for o, text in own), ""]
    if keys:
        parts += ["Recipe keys as options: " + ", ".join(f"[`--{k}`](recipe.md#{k})" for k in keys) + ".", ""]
    if examples := getattr(command, "examples", ()):
        parts += ["```bash", *examples, "```", ""]
    return parts


def assets() -> str:
    """Models and data that registry packages ship."""
    from tunewell.asset_table import ASSETS

    parts = ["| name | kind | what | package | MB | licence |", "| --- | --- | --- | --- | --- | --- |"]
    for a in ASSETS.values():
        package = f"{a.package} {a.version}" + (" (source archive)" if a.sdist else "")
        parts.append(f"| `{a.name}` | {a.kind} | {_cell(a.title)} | {package} | {a.size_mb:,.1f} | {a.licence} |")
    return "\n".join(parts)


def strategies() -> str:
    """Strategies with their papers, read from their files."""
    from tunewell.strategies import STRATEGIES, strategy_class

    parts = ["| strategy | what it is | paper |", "| --- | --- | --- |"]
    for name in STRATEGIES:
        strategy = strategy_class(name)
        parts.append(f"| `{name}` | {strategy.title} | {strategy.paper} |")
    return "\n".join(parts)


def gallery() -> str:
    """The recipes of examples/recipes, each with its introduction and the file as it stands."""
    parts = []
    for name in GALLERY:
        lines = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
        title, whom, data, run = (re.sub(r"^# (?:(?:For|Data|Run): )?", "", line) for line in lines[:4])
        parts += [f"## {title}", "", f"For {whom}", "", f"Data: {data}", "", f"`{run}`", ""]
        parts += ["```yaml", *lines[4:], "```", ""]
    return "\n".join(parts)


def _cell(text: str) -> str:
    """Text for a table's cell; a bar inside `code` splits no cell and is left."""
    parts = text.replace("\n", " ").split("`")
    return "`".join(part if i % 2 else part.replace("|", "\\|") for i, part in enumerate(parts))


TABLES: dict[str, Callable[[], str]] = {
    "recipe": recipe,
    "cli": cli,
    "assets": assets,
    "strategies": strategies,
    "gallery": gallery,
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for every page."""
    return MARK.sub(lambda match: TABLES[match.group(1)](), markdown)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or TABLES:
        print(TABLES[wanted]())
