"""The form that starts a run, made from the recipe: keys, help, defaults and mistakes are written in recipe.py only."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml

from tunewell.errors import TunewellError
from tunewell.recipe import SECTIONS, Recipe, keys_of, yaml_value
from tunewell.recipe_file import mistakes_by_key
from tunewell.ui.places import Place

MAIN = ("text", "label", "text_pair", "task", "model", "keep", "strategy", "num_train_epochs", "seed")
# not for a form: what the page itself sets, what would run code of others or reach other services, and further models
LEFT_OUT = (
    *("train", "output_dir", "overwrite_output_dir", "trust_remote_code", "report_to"),
    *("augment_mlm", "augment_translators"),
)
COLUMNS = ("text", "text_pair", "question", "context", "answers", "source", "target", "messages", "group", "aspect")
FILES = ("validation", "test", "unlabelled")  # chosen among the files that are here
PATHS = ("general_text", "probe_files")  # typed, and held to lie beneath the folder
LONGEST = 2000  # characters of a value


@dataclass(frozen=True)
class Field:
    """One field.

    Attributes:
        kind: "choice" with `choices` (value, shown); "text" with `hints`, values that are suggested.
        default: what stands when it is left empty, shown. faults: what is wrong with `value`.
    """

    name: str
    kind: str
    help: str
    default: str
    value: str
    choices: tuple[tuple[str, str], ...] = ()
    hints: tuple[str, ...] = ()
    numeric: bool = False
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Form:
    """The main keys, the others by section, and the mistakes that are about no single key."""

    main: list[Field]
    rest: dict[str, list[Field]]
    faults: tuple[str, ...] = ()
    count: int = 0


def form(
    values: Mapping[str, str],
    columns: Sequence[str],
    files: Sequence[str],
    faults: Sequence[tuple[str, str]] = (),
    words: Mapping[str, str] | None = None,
) -> Form:
    """The form for a file with these columns.

    Args:
        values: what was typed. files: names of data files that may be chosen. faults: (key, sentence).
        words: for yes, no, default and inferred; English by default.
    """
    words = words or {"s_yes": "yes", "s_no": "no", "s_default": "default", "s_inferred": "inferred"}

    def made(name: str) -> Field:
        return _field(name, str(values.get(name, "")), columns, files, [s for k, s in faults if k == name], words)

    shown = {s: [n for n in keys_of(s) if n not in (*LEFT_OUT, *MAIN)] for s in SECTIONS}
    known = {*MAIN, *(n for names in shown.values() for n in names)}
    general = tuple(s if k in ("", "name") else f"{k}: {s}" for k, s in faults if k not in known and k != "name")
    return Form(
        [made(n) for n in MAIN],
        {SECTIONS[s]: [made(n) for n in names] for s, names in shown.items() if names},
        general,
        len(faults),
    )


def _field(
    name: str, value: str, columns: Sequence[str], files: Sequence[str], faults: list[str], words: Mapping[str, str]
) -> Field:
    described = Recipe.model_fields[name]
    shown = "" if described.default in (None, [], False) else yaml_value(described.default).strip("[]")
    about = (name, described.description or "", shown, value)
    told = tuple(faults)
    empty = words["s_default"] + (f" ({shown})" if shown else "")
    if name in COLUMNS:
        return _choice(*about, told, [("", words["s_inferred"]), *((c, c) for c in columns)])
    if name in FILES:
        return _choice(*about, told, [("", empty), *((f, f) for f in files)])
    kind, choices = _kind(described.annotation)
    if kind is bool:
        on = described.default is True
        empty = words["s_default"] + (f" ({words['s_yes' if on else 's_no']})" if described.default is not None else "")
        return _choice(*about, told, [("", empty), ("true", words["s_yes"]), ("false", words["s_no"])])
    if choices:
        return _choice(*about, told, [("", empty), *((c, c) for c in choices)])
    hints = tuple(columns) if name == "label" else _models() if name == "model" else ()
    return Field(name, "text", *about[1:], hints=hints, numeric=kind in (int, float), faults=told)


def _choice(name: str, help: str, default: str, value: str, faults: tuple[str, ...], choices: list[Any]) -> Field:
    if value and value not in [c for c, _ in choices]:
        choices = [*choices, (value, value)]
    return Field(name, "choice", help, default, value, choices=tuple(choices), faults=faults)


def _kind(annotation: Any) -> tuple[Any, list[str]]:
    """The plain type of a key, and its values where it has only some."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kind(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        parts = [a for a in get_args(annotation) if a is not type(None)]
        return _kind(parts[0]) if len(parts) == 1 else (str, [])
    if origin is Literal:
        return str, [str(a) for a in get_args(annotation)]
    return (list if origin is list else annotation), []


def _models() -> tuple[str, ...]:
    from tunewell.asset_table import ASSETS

    return tuple(a.name for a in ASSETS.values() if a.kind == "model")


# ---------------------------------------------------------------- what was typed


def keys_given(values: Mapping[str, str]) -> dict[str, str]:
    """The recipe keys that were filled in, without those that are not for a form."""
    return {
        name: values[name].strip()
        for name in Recipe.model_fields
        if name not in LEFT_OUT and values.get(name, "").strip()
    }


def plain(keys: Mapping[str, str]) -> dict[str, Any]:
    """Keys as a person writes them into YAML: numbers and truth as such, all else as it was typed.

    >>> plain({"keep": "0.98", "text": "1", "bf16": "true", "learning_rate": "5e-5"})
    {'keep': 0.98, 'text': '1', 'bf16': True, 'learning_rate': '5e-5'}
    """
    out: dict[str, Any] = {}
    for name, typed in keys.items():
        found = yaml.safe_load(typed) if _kind(Recipe.model_fields[name].annotation)[0] in (int, float, bool) else None
        out[name] = found if isinstance(found, (int, float)) else typed
    return out


def placed(place: Place, keys: dict[str, Any]) -> dict[str, Any]:
    """The same keys with whole paths for files of the folder, so that the recipe can be run from anywhere."""
    out = dict(keys)
    for name in (*FILES, *PATHS, "model"):
        parts = [part.strip() for part in str(keys.get(name, "")).split(",") if part.strip()]
        if parts and all(_there(place.folder / part) for part in parts):
            out[name] = ",".join(str(place.at(part)) for part in parts)
    return out


def faults_of(place: Place, keys: dict[str, str]) -> list[tuple[str, str]]:
    """All that is wrong: what the recipe says, and paths that leave the folder."""
    found = [(k, f"more than {LONGEST:,} characters") for k, v in keys.items() if len(v) > LONGEST]
    keys = {k: v for k, v in keys.items() if len(v) <= LONGEST}
    for name in (*FILES, *PATHS):
        for part in keys.get(name, "").split(","):
            if part.strip() and (said := _outside(place, part.strip())):
                found.append((name, said))
    model = keys.get("model", "")
    local = Path(model).is_absolute() or model.startswith((".", "~")) or ".." in Path(model).parts
    if model and (local or _there(place.folder / model)) and (said := _outside(place, model)):
        found.append(("model", said))
    known = {k for k, _ in found}
    return found + [(k, s) for k, s in mistakes_by_key(dict(keys)) if k not in known]


def _there(path: Path) -> bool:
    """Whether something is there; a name too long or too odd for a file is not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _outside(place: Place, name: str) -> str:
    try:
        place.at(name)
    except TunewellError as error:
        return f"`{name}` {error.what}"
    return ""
