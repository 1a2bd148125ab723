"""A ranking from beginning to end: rows, candidates one after the other, order. Each candidate's figures are kept
in the user's cache, so that a ranking that was stopped goes on where it was."""

from __future__ import annotations

import gc
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewell.errors import ModelError, RecipeError, TunewellError
from tunewell.rank.candidates import at_hand, check_task, named
from tunewell.rank.near import nearness
from tunewell.rank.order import HALVES, combined, ordered
from tunewell.rank.records import Ranked, Ranking, Skipped
from tunewell.rank.rows import ROWS, Sample, draw
from tunewell.rank.runs import judged, past_runs

if TYPE_CHECKING:
    from tunewell.recipe import Recipe
    from tunewell.stages.prepare import Prepared

SCORES = 1  # raised when a score's definition changes, so that older figures in the cache are not taken
COST_KEYS = (
    "max_length", "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps",
    "evals_per_epoch", "bf16", "max_target_length", "source_prefix", "source_lang", "target_lang", "overlength",
)  # fmt: skip


def compare(
    recipe: Recipe,
    *,
    models: Sequence[str] | None,
    rows: int | None,
    runs: Sequence[str] | None = None,
    fresh: bool = False,
    echo: Callable[[str], None] = lambda line: None,
    progress: bool = False,
    prepared: Prepared | None = None,
) -> Ranking:
    """See `tunewell.rank.rank`.

    Args:
        prepared: rows at hand already; by default those of the files that the recipe names.
    """
    from tunewell.stages.job import with_defaults
    from tunewell.stages.prepare import choose_task, prepare
    from tunewell.tasks import task_of

    wanted = None if models is None else named(models)
    if prepared is None:
        check_task(choose_task(recipe))
        prepared = prepare(recipe, echo=echo)
    spec = prepared.spec
    check_task(spec.name)
    recipe = with_defaults(recipe, task_of(spec.name))
    started, cpu = time.perf_counter(), time.process_time()
    import torch

    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    sample = draw(prepared, rows or ROWS, recipe.seed) if rows is None or rows > 0 else _refuse_rows(rows)
    skipped: list[Skipped] = []
    past: dict[str, str] = {}
    if runs is not None:
        past, skipped = past_runs(runs, tuple(prepared.files.values()))
        wanted = list(dict.fromkeys([*past, *past.values(), *(wanted or [])]))
    elif wanted is None:
        wanted, skipped = at_hand(spec.name)
    n = len(sample.rows)
    echo(f"rank: {len(wanted)} candidates on {n:,} of {sample.of_rows:,} training rows, seed {recipe.seed}")
    found: list[Ranked] = []
    for i, name in enumerate(wanted, 1):
        try:
            one, cached = _measured(name, sample, recipe, fresh=fresh, progress=progress, title=f"{i}/{len(wanted)}")
        except TunewellError as error:
            skipped.append(Skipped(name, str(error)))
            echo(f"rank: {name} skipped: {error.what}")
            continue
        found.append(one)
        shown = ", ".join(f"{k} {one.scores[k]:.4f}" for k in (*HALVES, "bits_per_byte") if k in one.scores)
        echo(f"rank: {name}: {shown}" + (" (from the cache)" if cached else ""))
    if not found:
        raise ModelError(
            "no candidate could be measured" if wanted else f"no model for {spec.name} is at hand",
            where=", ".join(wanted) or "models",
            expected="at least one model that loads and fits the task",
            remedy="; ".join(f"{s.name}: {s.reason.splitlines()[0]}" for s in skipped)[:1000]
            or "name candidates with --models",
        )
    order, embedded_by = ordered(combined(found)), None
    if past:
        order, embedded_by = nearness(order, past, sample, recipe, fresh=fresh, echo=echo)
    return Ranking(
        task=spec.name,
        metric=spec.metric,
        by=order[0].by,
        rows=n,
        of_rows=sample.of_rows,
        seed=recipe.seed,
        models=order,
        skipped=tuple(skipped),
        threads=torch.get_num_threads(),
        seconds=round(time.perf_counter() - started, 2),
        cpu_seconds=round(time.process_time() - cpu, 2),
        transfer=judged(order, past, sample, recipe, echo) if past else None,
        embedded_by=embedded_by,
    )


def _refuse_rows(rows: int) -> Sample:
    raise RecipeError(f"`rows: {rows}`", where="rows", expected="a number of rows, such as 512")


def _measured(
    name: str, sample: Sample, recipe: Recipe, *, fresh: bool, progress: bool, title: str
) -> tuple[Ranked, bool]:
    """A candidate's figures, and whether they came from the cache."""
    from tunewell.models.load import locate
    from tunewell.rank.measure import measure
    from tunewell.results import write_whole

    place = _place(name, locate(name), sample, recipe)
    if not fresh and place.is_file():
        try:
            return Ranked.from_dict(json.loads(place.read_text(encoding="utf-8"))), True
        except (OSError, ValueError, KeyError, TypeError):
            pass  # damaged or of another version: measured again
    from tqdm import tqdm

    with tqdm(total=len(sample.rows), desc=f"{title} {name}", unit="row", disable=not progress, leave=False) as bar:
        one = measure(name, sample, recipe, advance=bar.update)
    gc.collect()
    write_whole(place, json.dumps(one.to_dict(), indent=1) + "\n")
    return one, False


def _place(name: str, path: str, sample: Sample, recipe: Recipe) -> Path:
    """Where a candidate's figures are kept: under its files, the rows, the recipe's keys and this machine."""
    import platform

    import torch

    from tunewell.cache import cache_folder
    from tunewell.folder import fingerprint
    from tunewell.stages.keys import model_key

    digest = hashlib.sha256()
    columns = [c for c in ("text", "text_pair", "label", "messages") if c in sample.rows.column_names]
    for row in zip(*(sample.rows[c][:] for c in columns), strict=True):
        digest.update(json.dumps(row, ensure_ascii=False).encode())
    keys: dict[str, Any] = {k: getattr(recipe, k) for k in COST_KEYS}
    about = (sample.spec.to_dict(), digest.hexdigest(), sample.of_rows, sample.validation_rows, recipe.seed, keys)
    machine = (platform.node(), torch.get_num_threads())
    key = fingerprint("rank", SCORES, name, model_key(path, recipe.revision), recipe.trust_remote_code, about, machine)
    return cache_folder("rank", f"{key}.json")
