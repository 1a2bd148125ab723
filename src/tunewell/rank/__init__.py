"""Which base model: candidates scored without tuning them, with what each would cost here."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

from tunewell.rank.records import Ranked, Ranking, Skipped, Transfer
from tunewell.recipe import Recipe
from tunewell.recipe_file import load_recipe

__all__ = ["Ranked", "Ranking", "Skipped", "Transfer", "rank"]


def rank(
    train: str | None = None,
    *,
    models: Sequence[str] | None = None,
    runs: Sequence[str] | None = None,
    rows: int | None = None,
    recipe: Recipe | str | None = None,
    fresh: bool = False,
    echo: Callable[[str], None] | None = None,
    progress: bool = True,
    jobs: int | None = None,
    ray: str | None = None,
    **keys: Any,
) -> Ranking:
    """Compare base models on labelled data without tuning them.

    Only rows of the training split are read: those that `tunewell.run` with the same keys would learn from.

    >>> ranking = tunewell.rank("reviews.csv")   # doctest: +SKIP
    >>> ranking.best.name, ranking.best.why, ranking.best.tuning_seconds   # doctest: +SKIP

    Args:
        train: the data, in any format that `tunewell.run` takes.
        models: assets, folders or hub ids; by default the packaged and cached models that fit the task.
        runs: past run folders to compare as starting points, beside the base models that they were tuned from;
            `transfer` of the result says whether the best of them helps. With `models`, beside those too.
        rows: look at so many training rows at most, 512 by default.
        recipe: a Recipe or the path of a YAML file; its keys say what tuning is to be. keys: recipe keys.
        fresh: measure again what the cache knows.
        echo: called with one line a candidate; by default lines go to stderr. progress: show a bar.
        jobs, ray: where candidates are measured: so many processes side by side; on Ray, "local" or the address of a
            cluster. Scores do not depend on it; costs are those of a machine with that much else to do.

    Returns:
        The candidates, best first, each with its scores, its cost and a reason; and those that were skipped.

    Raises:
        TunewellError: the data does not serve, or no candidate could be measured.
    """
    from tunewell.rank.compare import compare
    from tunewell.workers import Workers

    workers = Workers(jobs, ray)
    if isinstance(recipe, Recipe):
        keys = {**recipe.model_dump(exclude_unset=True), **keys}
        recipe = None
    made = load_recipe(recipe, **{**keys, "train": train})
    options: dict[str, Any] = {"models": models, "runs": runs, "rows": rows, "fresh": fresh, "workers": workers}
    return compare(made, **options, echo=echo or _to_stderr, progress=progress)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _CallableModule(types.ModuleType):
    """`tunewell.rank` is this package, since Python binds a submodule to its package; calling it is calling `rank`."""

    def __call__(self, *args: Any, **keys: Any) -> Ranking:
        return rank(*args, **keys)


_CallableModule.__call__.__doc__ = rank.__doc__
__signature__ = inspect.signature(rank)
sys.modules[__name__].__class__ = _CallableModule
