"""A ranking from beginning to end: rows, candidates one after the other, order. Each candidate's figures are kept
in the user's cache, so that a ranking that was stopped goes on where it was."""

from __future__ import annotations

import gc
import hashlib
import json
import platform
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewell.errors import ModelError, RecipeError, TunewellError, WorkerError
from tunewell.rank.candidates import at_hand, check_task, named
from tunewell.rank.near import nearness
from tunewell.rank.order import HALVES, combined, ordered
from tunewell.rank.records import Ranked, Ranking, Skipped
from tunewell.rank.rows import ROWS, Sample, draw
from tunewell.rank.runs import judged, past_runs
from tunewell.workers import HERE, LOCAL, Shared, Workers, done, threads_for

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
    workers: Workers = HERE,
) -> Ranking:
    """See `tunewell.rank.rank`.

    Args:
        prepared: rows at hand already; by default those of the files that the recipe names.
        workers: where candidates are measured.
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
    threads = torch.get_num_threads() if workers.here else threads_for(workers, recipe.threads)
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
    machine: tuple[Any, ...] = (workers.ray if workers.ray not in (None, LOCAL) else platform.node(), threads)
    if not workers.here:
        machine = (*machine, workers.jobs)  # what stands beside one slows it
    measuring = _measured(wanted, sample, recipe, machine, workers, rows, fresh=fresh, progress=progress, echo=echo)
    with closing(measuring):
        for name, one, cached in measuring:
            if isinstance(one, TunewellError):
                skipped.append(Skipped(name, str(one)))
                echo(f"rank: {name} skipped: {one.what}")
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
        threads=threads,
        seconds=round(time.perf_counter() - started, 2),
        cpu_seconds=round(time.process_time() - cpu, 2),
        transfer=judged(order, past, sample, recipe, echo) if past else None,
        embedded_by=embedded_by,
    )


def _refuse_rows(rows: int) -> Sample:
    raise RecipeError(f"`rows: {rows}`", where="rows", expected="a number of rows, such as 512")


def _measured(
    names: Sequence[str], sample: Sample, recipe: Recipe, machine: tuple[Any, ...], workers: Workers, rows: int | None,
    *, fresh: bool, progress: bool, echo: Callable[[str], None],
) -> Generator[tuple[str, Ranked | TunewellError, bool]]:  # fmt: skip
    """Each candidate with its figures, or why it has none, and whether they came from the cache; in order.

    Args:
        machine: on which figures were measured; costs are not those of another. rows: as they were asked for.
    """
    from tqdm import tqdm

    from tunewell.models.load import locate
    from tunewell.rank.measure import measure
    from tunewell.results import write_whole

    places: dict[str, Path] = {}
    known: dict[str, Ranked | TunewellError] = {}
    for name in names:
        try:
            places[name] = _place(name, locate(name), sample, recipe, machine)
            if not fresh and places[name].is_file():
                known[name] = Ranked.from_dict(json.loads(places[name].read_text(encoding="utf-8")))
        except TunewellError as error:
            known[name] = error
        except (OSError, ValueError, KeyError, TypeError):
            pass  # damaged or of another version: measured again
    missing = [name for name in names if name not in known]
    if workers.here:

        def one_here(_: Any, name: str) -> Any:
            title = f"{names.index(name) + 1}/{len(names)} {name}"
            with tqdm(total=len(sample.rows), desc=title, unit="row", disable=not progress, leave=False) as bar:
                return measure(name, sample, recipe, advance=bar.update).to_dict()

        made = done(one_here, missing, Shared(lambda: None, open_sample, {}), workers)
    else:
        about: dict[str, Any] = {"recipe": recipe.model_dump(mode="json", exclude_unset=True), "rows": rows}
        about["fingerprint"] = sample.prepared.fingerprint
        files = [getattr(recipe, name) for name in sample.prepared.files]
        shared = Shared(lambda: (sample, recipe), open_sample, about, files)
        made = done(measure_candidate, missing, shared, workers, threads=recipe.threads, echo=echo, in_order=True)
    hide = workers.here or not progress
    with closing(made), tqdm(total=len(missing), desc="rank", unit="model", disable=hide, leave=False) as bar:
        for name in names:
            if name in known:
                yield name, known[name], not isinstance(known[name], TunewellError)
                continue
            one = next(made)
            bar.update()
            gc.collect()
            if one.error is not None:
                yield name, one.error, False
                continue
            write_whole(places[name], json.dumps(one.value, indent=1) + "\n")
            yield name, Ranked.from_dict(one.value), False


def open_sample(about: dict[str, Any]) -> tuple[Sample, Recipe]:
    """The rows of a ranking, in a worker.

    Raises:
        WorkerError: they are not those of the process that gave the command.
    """
    from tunewell.recipe import Recipe
    from tunewell.stages.prepare import prepare

    recipe = Recipe(**about["recipe"])
    prepared = prepare(recipe, echo=lambda line: None)
    if prepared.fingerprint != about["fingerprint"]:
        raise WorkerError(
            f"the worker on {platform.node()} has read other rows",
            where="train",
            expected="the same files on all machines",
            remedy="put data and models on a file system that all machines share",
        )
    return draw(prepared, about["rows"] or ROWS, recipe.seed), recipe


def measure_candidate(shared: tuple[Sample, Recipe], name: str) -> dict[str, Any]:
    """One candidate's figures as JSON."""
    from tunewell.rank.measure import measure

    return measure(name, *shared).to_dict()


def _place(name: str, path: str, sample: Sample, recipe: Recipe, machine: tuple[Any, ...]) -> Path:
    """Where a candidate's figures are kept: under its files, the rows, the recipe's keys and this machine."""
    from tunewell.cache import cache_folder
    from tunewell.folder import fingerprint
    from tunewell.stages.keys import model_key

    digest = hashlib.sha256()
    columns = [c for c in ("text", "text_pair", "label", "messages") if c in sample.rows.column_names]
    for row in zip(*(sample.rows[c][:] for c in columns), strict=True):
        digest.update(json.dumps(row, ensure_ascii=False).encode())
    keys: dict[str, Any] = {k: getattr(recipe, k) for k in COST_KEYS}
    about = (sample.spec.to_dict(), digest.hexdigest(), sample.of_rows, sample.validation_rows, recipe.seed, keys)
    key = fingerprint("rank", SCORES, name, model_key(path, recipe.revision), recipe.trust_remote_code, about, machine)
    return cache_folder("rank", f"{key}.json")
