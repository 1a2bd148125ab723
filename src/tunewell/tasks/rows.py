"""Files to canonical splits for tasks whose answers are texts; every row is accounted for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tunewell.errors import DataError, RecipeError
from tunewell.results import Account

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.data.columns import Columns
    from tunewell.data.load import Loaded
    from tunewell.recipe import Recipe
    from tunewell.stages.prepare import Prepared
    from tunewell.tasks.spec import TaskSpec

Read = Callable[["Loaded"], tuple[list[dict[str, Any]], dict[str, int], Mapping[str, int]]]
"""A file -> rows, dropped rows by reason, mended rows by what was mended."""
SPLITS = ("train", "validation", "test")


def load_files(recipe: Recipe, load: Callable[[str], Loaded]) -> dict[str, Loaded]:
    """split -> file, of those that the recipe names."""
    if not recipe.train:
        raise RecipeError(
            "`train` is missing",
            where="recipe",
            expected="a data file to learn from",
            remedy="--train data.jsonl, or `train: data.jsonl` in the recipe",
        )
    return {name: load(getattr(recipe, name)) for name in SPLITS if getattr(recipe, name)}


def prepare_rows(
    recipe: Recipe,
    files: dict[str, Loaded],
    read: Read,
    *,
    spec: TaskSpec,
    columns: Columns,
    features: Any,
    needs: str,
    echo: Callable[[str], None],
) -> Prepared:
    """Read every file, split what the recipe does not name, account for all rows.

    Args:
        read: makes canonical rows of a file; they have at least text, label, group, row and source.
        features: `datasets.Features` of the rows. needs: what a row needs, for the error when none is left.
    """
    from datasets import Dataset

    from tunewell.stages.prepare import Prepared, completed, data_fingerprint, file_hashes

    notices: list[str] = []
    splits: dict[str, Dataset] = {}
    dropped: dict[str, dict[str, int]] = {}
    for name, file in files.items():
        notices += list(file.notices)
        rows, dropped[name], mended = read(file)
        notices += [f"{file.source}: {n:,} rows: {what}" for what, n in Counter(mended).items() if n]
        if not rows:
            reasons = "; ".join(f"{n:,} {reason}" for reason, n in dropped[name].items())
            raise DataError(
                f"no row is left for {name}" + (f" ({reasons})" if reasons else ""),
                where=file.source,
                expected=f"at least one row with {needs}",
            )
        splits[name] = Dataset.from_list(rows, features=features)
    splits, missing = completed(
        splits, dropped["train"], recipe, source=files["train"].source, stratify=False, notices=notices
    )
    accounts = [
        Account(
            split=name,
            source=files.get(name, files["train"]).source,
            read=len(rows) + sum(dropped.get(name, {}).values()),
            used=len(rows),
            dropped=dropped.get(name, {}),
        )
        for name, rows in splits.items()
    ]
    for line in notices:
        echo(f"data: {line}")
    return Prepared(splits, spec, columns, accounts, data_fingerprint(recipe), notices, missing, file_hashes(recipe))


def opened(value: Any) -> Any:
    """Objects as they are: the loader hands on nested ones as JSON, alone or within a list.

    >>> opened('{"a": 1}'), opened(['{"a": 1}', "b"]), opened("[sic]")
    ({'a': 1}, [{'a': 1}, 'b'], '[sic]')
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            found = json.loads(value)
        except ValueError:
            return value
        return opened(found) if isinstance(found, list) else found
    return [opened(v) for v in value] if isinstance(value, list) else value
