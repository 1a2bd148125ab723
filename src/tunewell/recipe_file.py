"""Recipes from files and flags: reading, validating, and what is said of mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tunewell.errors import RecipeError, nearest
from tunewell.recipe import RECIPE, Recipe

DATA_ENDINGS = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".parquet", ".pq", ".arrow", ".feather", ".ipc", ".gz")


def load_recipe(path: str | Path | None = None, /, **overrides: Any) -> Recipe:
    """Read and validate a recipe.

    Args:
        path: a YAML file, or None when everything is given as keys.
        overrides: keys that take precedence over the file's; None means not given.

    Raises:
        RecipeError: the file is missing or no YAML mapping, or keys are unknown, of the wrong type or
            out of range. All mistakes are named in one error.
    """
    values: dict[str, Any] = {}
    where = "recipe"
    if path is not None:
        values, where = load_yaml(Path(path)), str(path)
    values.update({k: v for k, v in overrides.items() if v is not None})
    return validate(values, where=where)


def validate(values: dict[str, Any], where: str = "recipe") -> Recipe:
    """Validate a mapping of recipe keys; see `load_recipe`."""
    problems = mistakes(values)
    if not problems:
        return Recipe(**{str(k): v for k, v in values.items()})
    if len(problems) == 1:
        raise RecipeError(problems[0], where=where, remedy="`tunewell run --help` lists all keys")
    raise RecipeError(
        f"{len(problems)} mistakes:\n" + "\n".join(f"  - {p}" for p in problems),
        where=where,
        remedy="`tunewell run --help` lists all keys",
    )


def mistakes(values: dict[str, Any]) -> list[str]:
    """What is wrong with a mapping of recipe keys, in sentences; empty when it is valid."""
    return [sentence for _, sentence in mistakes_by_key(values)]


def mistakes_by_key(values: dict[str, Any]) -> list[tuple[str, str]]:
    """The same with the key that each is about, "" where it is about several: what a form shows beside its fields."""
    try:
        Recipe(**{str(k): v for k, v in values.items()})
    except ValidationError as error:
        return [(str(e["loc"][0]) if e["loc"] else "", _sentence(e)) for e in error.errors()]
    return []


def load_yaml(path: Path, what: str = RECIPE) -> dict[str, Any]:
    """The keys of a YAML file.

    Raises:
        RecipeError: no such file, a data file, or it is no YAML mapping.
    """
    if path.suffix.lower() in DATA_ENDINGS and path.is_file():
        raise _data_file(path, what)
    try:
        text = path.read_text(encoding="utf-8-sig")
        loaded = yaml.safe_load(text)
        _refuse_repeats(text, path)
    except FileNotFoundError:
        raise RecipeError(
            "no such file",
            where=str(path),
            expected=what,
            remedy="`tunewell init DATA` writes one from a data file" if what == RECIPE else "",
        ) from None
    except IsADirectoryError:
        raise RecipeError("is a folder", where=str(path), expected=what) from None
    except PermissionError:
        raise RecipeError("no permission to read", where=str(path)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        raise RecipeError(
            f"not valid YAML: {getattr(error, 'problem', None) or error}", where=place, expected="lines of `key: value`"
        ) from None
    if loaded is None:
        loaded = {}
    if not isinstance(loaded, dict) and path.suffix.lower() == ".json":
        raise _data_file(path, what)
    if not isinstance(loaded, dict):
        raise RecipeError(f"holds a {type(loaded).__name__}", where=str(path), expected="lines of `key: value`")
    return loaded


def _data_file(path: Path, what: str) -> RecipeError:
    remedy = f"tunewell run --train {path}, or `tunewell init {path}` for a recipe to fill in"
    return RecipeError("is a data file", where=str(path), expected=what, remedy=remedy if what == RECIPE else "")


def _refuse_repeats(text: str, path: Path) -> None:
    """YAML itself would silently take the last of two lines with the same key."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    lines: dict[str, int] = {}
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        line = key.start_mark.line + 1
        if key.value in lines:
            raise RecipeError(
                f"`{key.value}` is given twice, in lines {lines[key.value]} and {line}",
                where=f"{path}:{line}",
                expected="each key once",
                remedy="delete one of the two lines",
            )
        lines[key.value] = line


def _sentence(error: Any) -> str:
    """One validation error in words: key, value found, what was expected."""
    location = ".".join(str(part) for part in error["loc"] if not str(part).startswith("function-"))
    found = error.get("input")
    if error["type"] == "extra_forbidden":
        hint = nearest(location, Recipe.model_fields)
        return f"unknown key `{location}`" + (f"; {hint}" if hint else "")
    if not location:
        return str(error["msg"]).removeprefix("Value error, ")
    expected = str(error["msg"])
    if error["type"] == "value_error":
        return f"`{location}: {found}`: " + expected.removeprefix("Value error, ")
    expected = expected.replace("Input should be ", "")
    return f"`{location}: {found}`: expected {expected}"
