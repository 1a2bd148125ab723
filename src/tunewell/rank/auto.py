"""`model: auto`: a run that takes the base model which ranks first on its own training split.

The ranking is kept in the run folder as ranking.json; a run that is continued does not choose again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tunewell.errors import ModelError, RecipeError
from tunewell.rank.records import Ranking
from tunewell.recipe import DEFAULT_MODEL

if TYPE_CHECKING:
    from pathlib import Path

    from tunewell.recipe import Recipe
    from tunewell.stages.prepare import Prepared
    from tunewell.tasks.base import Task

FILE = "ranking.json"


def resolve(
    recipe: Recipe,
    task: Task,
    prepared: Prepared,
    folder: Path | None,
    *,
    echo: Callable[[str], None],
    progress: bool,
) -> tuple[Recipe, Ranking | None]:
    """The recipe with a model in place of `auto`, and the ranking that led to it.

    Args:
        folder: the run folder; None where nothing is tuned, and the task's default stands for the choice.

    Raises:
        RecipeError: a revision is asked of no model in particular, or the task is not ranked.
        ModelError: nothing that fits is at hand.
    """
    from tunewell.rank.compare import compare

    if recipe.revision is not None:
        raise RecipeError(
            "`revision` belongs to one model of the hub",
            where="revision",
            expected="a model by its name, or `model: auto` without revision",
        )
    if folder is None:
        name = task.defaults.get("model", DEFAULT_MODEL)
        echo(f"model: {name} stands for `auto`, which is chosen when a run begins")
        return recipe.model_copy(update={"model": name}), None
    inputs = f"{prepared.fingerprint} {recipe.seed}"
    ranking = _kept(folder / FILE, inputs)
    if ranking is None:
        ranking = compare(recipe, models=None, rows=None, echo=echo, progress=progress, prepared=prepared)
    best = ranking.best
    if not best.fits:
        raise ModelError(f"no model at hand fits {ranking.task}: {best.fit}", where="model: auto")
    echo(f"model: {best.name} chosen: {best.why}")
    return recipe.model_copy(update={"model": best.name}), ranking


def write(folder: Path, ranking: Ranking | None, prepared: Prepared, recipe: Recipe) -> None:
    """Keep a ranking in the run folder; one that led to another model than the recipe's goes."""
    from tunewell.results import write_whole

    path = folder / FILE
    if ranking is not None:
        record = {"inputs": f"{prepared.fingerprint} {recipe.seed}", **ranking.to_dict()}
        write_whole(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    elif path.is_file() and summary_of(folder, recipe.model) is None:
        path.unlink()


def summary_of(folder: Path, model: str) -> dict[str, Any] | None:
    """What summary.json says of the choice; None where the model was named."""
    ranking = _kept(folder / FILE)
    if ranking is None or ranking.best.name != model:
        return None
    return {
        "chosen": model,
        "why": ranking.best.why,
        "by": ranking.by,
        "rows": ranking.rows,
        "seed": ranking.seed,
        "seconds": ranking.seconds,
        "candidates": {m.name: m.score for m in ranking.models},
        "skipped": {s.name: s.reason for s in ranking.skipped},
    }


def _kept(path: Path, inputs: str | None = None) -> Ranking | None:
    """The ranking of a run folder, if it is whole and (where `inputs` are given) was made from the same rows."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if inputs is not None and values["inputs"] != inputs:
            return None
        return Ranking.from_dict(values)
    except (OSError, ValueError, KeyError, TypeError):
        return None
