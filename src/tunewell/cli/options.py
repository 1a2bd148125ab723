"""Options made from the recipe: its keys, help, defaults and sections are written in recipe.py only.

Values are handed to the recipe as they were typed, so that a mistake is answered by the recipe in the
same words whether it stands in a file or on the command line.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click

from tunewell.recipe import SECTIONS, Recipe, keys_of, yaml_value
from tunewell.recipe_file import load_recipe

WORKERS = "Independent jobs side by side"


class RecipeOption(click.Option):
    """An option that stands under its section's heading in `--help`."""

    def __init__(self, *args: Any, section: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


def recipe_options(
    sections: Sequence[str] = tuple(SECTIONS), *, only: Sequence[str] = (), without: Sequence[str] = ()
) -> Any:
    """A decorator that gives a command the recipe's keys as options, in the recipe's order.

    Args:
        sections: which sections; only: these keys alone; without: keys that the command gives otherwise.
    """
    names = [n for section in sections for n in keys_of(section) if (not only or n in only) and n not in without]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            command = _option(name)(command)
        return command

    return decorate


def worker_options(command: Any) -> Any:
    """`--jobs` and `--ray`: where many independent jobs are done."""
    command = click.option(
        "--ray",
        metavar="ADDRESS",
        cls=RecipeOption,
        section=WORKERS,
        help="Do them on Ray: `local` starts it here, `auto` or HOST:PORT joins a cluster.",
    )(command)
    return click.option(
        "--jobs",
        type=click.IntRange(1),
        metavar="INTEGER",
        cls=RecipeOption,
        section=WORKERS,
        help="So many at once, in processes of this machine; on Ray all that fit by default. [1]",
    )(command)


def given(values: dict[str, Any]) -> dict[str, Any]:
    """Only the keys that were typed; repeated lists as one list."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, tuple):
            value = [part.strip() for cell in value for part in cell.split(",") if part.strip()] if value else None
        if value is not None:
            out[name] = value
    return out


def recipe_from(path: str | None, values: dict[str, Any], **fixed: Any) -> Recipe:
    """The recipe of a file (or none) and typed keys."""
    return load_recipe(path, **{**fixed, **given(values)})


def _option(name: str) -> Any:
    field = Recipe.model_fields[name]
    kind, choices, several = _kind(field.annotation)
    text = field.description or ""
    if field.default not in (None, [], False) and "Default:" not in text and "by default" not in text:
        text += f" [{yaml_value(field.default).strip('[]')}]"
    attributes: dict[str, Any] = {"default": None, "help": text, "cls": RecipeOption}
    if kind is bool:
        declaration = f"--{name}/--no-{name}"
    else:
        declaration = f"--{name}"
        attributes |= {"metavar": "|".join(choices) if choices else "LIST" if several else _METAVARS.get(kind, "TEXT")}
        if several:
            attributes |= {"multiple": True, "default": ()}
        if choices:
            attributes["shell_complete"] = lambda ctx, param, start: [c for c in choices if c.startswith(start)]
    return click.option(declaration, name, section=SECTIONS[_section(name)], **attributes)


_METAVARS = {int: "INTEGER", float: "NUMBER", str: "TEXT"}


def _section(name: str) -> str:
    return next(section for section in SECTIONS if name in keys_of(section))


def _kind(annotation: Any) -> tuple[type, list[str], bool]:
    """Of a key's annotation: the plain type, the values of a Literal, whether it is a list."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kind(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return _kind(next(a for a in get_args(annotation) if a is not type(None)))
    if origin is Literal:
        return str, [str(a) for a in get_args(annotation)], False
    if origin is list:
        return _kind(get_args(annotation)[0])[0], [], True
    return annotation, [], False
