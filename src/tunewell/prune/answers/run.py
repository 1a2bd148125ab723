"""`tunewell prune` on instructions and translations: a pool, scores, an order, a file of what is kept."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.data.secrets import shown, stem_of
from tunewell.errors import DataError, RecipeError
from tunewell.folder import fingerprint
from tunewell.prune.answers import AUTO, IFD, LESS, METHODS, PERPLEXITY
from tunewell.prune.answers.scores import order_of
from tunewell.prune.answers.target import Target, read_rows, read_target
from tunewell.prune.choose import choose, first_of_each, groups_of, places_of, same_file
from tunewell.prune.records import Bin, ScoredRow, Selection
from tunewell.results import write_with
from tunewell.shown import cut

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.data.load import Loaded
    from tunewell.recipe import Recipe
    from tunewell.stages.job import Job
    from tunewell.tasks.generation.writers import Encoded

Echo = Callable[[str], None]
FILE, PAGE = "prune.json", "selection.html"
EPOCHS = 4.0  # of the warm-up, as in the paper
SHARE = 0.05  # of the pool that the warm-up is on, as in the paper
BINS, SHOWN, SHOWN_CHARS = 40, 12, 200
DUPLICATE, TEST_TEXT, DROPPED, EMPTY, BEYOND = (
    "a duplicate with the same answer", "a prompt of the test file", "longer than max_length",
    "without a question or an answer", "beyond max_train_samples",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What was asked for beside the recipe; see `prune.run.prune`."""

    keep_share: float
    method: str
    duplicates: str
    target_rows: str | None
    subtask: str | None
    warm_share: float


@dataclass(frozen=True)
class Selected:
    """What was kept: (n,) booleans over `rows`, the scores behind it, what prune.json holds, and the page."""

    rows: Dataset
    kept: np.ndarray
    scores: dict[str, np.ndarray]
    record: Selection
    page: Path


def options_of(recipe: Recipe, options: Options, **of_classes: Any) -> Options:
    """The options, `auto` replaced by what it stands for.

    Raises:
        RecipeError: an option or key that does not go with written answers.
    """
    for key, value in of_classes.items():
        if value:
            raise RecipeError(
                f"`{key}` is for classes, and these rows have written answers",
                where=key,
                expected="an option such as --method, --keep_share, --target_rows, --duplicates",
            )
    if options.method == AUTO:
        if options.target_rows is None:
            raise RecipeError(
                "`method: auto` of written answers needs target rows to choose towards",
                where="target_rows",
                expected="--target_rows FILE with a few rows of what is wanted",
                remedy=f"or a method that needs none: {IFD}, {PERPLEXITY}, random",
            )
        options = replace(options, method=LESS)
    if options.method not in METHODS:
        raise RecipeError(
            f"`method: {options.method}` scores the probability of a label, and these rows have written answers",
            where="method",
            expected=", ".join(METHODS),
        )
    if (options.method == LESS) != (options.target_rows is not None):
        raise RecipeError(
            "`method: less` needs target rows" if options.method == LESS else f"`{options.method}` has no target",
            where="target_rows",
            expected="--target_rows FILE with --method less, and with it alone",
        )
    if options.subtask is not None and options.target_rows is None:
        raise RecipeError("names a column of the target rows", where="subtask", expected="--target_rows FILE too")
    if not 0 < options.warm_share <= 1:
        raise RecipeError(
            f"`warm_share: {options.warm_share:g}` is not possible", where="warm_share", expected="above 0, to 1"
        )
    return options


def recipe_for(recipe: Recipe) -> Recipe:
    """The recipe of the warm-up: adapters, all rows of the file in the pool, no validation.

    Raises:
        RecipeError: keys that change which rows are tuned on, or how.
    """
    if recipe.augment != ["none"] or recipe.unlabelled:
        key = "unlabelled" if recipe.unlabelled else "augment"
        raise RecipeError("rows are scored as they are", where=key, expected=f"a recipe without `{key}`")
    if recipe.strategies not in (("plain",), ("lora",)) or recipe.keep or recipe.keep_worst:
        raise RecipeError(
            "the warm-up tunes adapters and keeps no budget",
            where="strategy" if recipe.strategy else "keep",
            expected="a recipe without `strategy` and `keep`, or `strategy: lora`",
        )
    for key, known in (("framework", ("pytorch",)), ("optim", ("adamw",)), ("lora_variant", ("lora", "rslora"))):
        if getattr(recipe, key) not in known:
            raise RecipeError(
                f"`{key}: {getattr(recipe, key)}` leaves no steps of Adam on adapters to read",
                where=key,
                expected=" or ".join(known),
            )
    if recipe.load_in_4bit:
        raise RecipeError("gradients are taken at whole weights", where="load_in_4bit", expected="a recipe without it")
    own: dict[str, Any] = {
        "strategy": ["lora"], "validation": recipe.validation or recipe.train, "test": recipe.test or recipe.train,
        "early_stopping_patience": 0, "monitor": "off", "probes": ["none"],
    }  # fmt: skip
    if "num_train_epochs" not in recipe.model_fields_set and recipe.max_steps < 0:
        own["num_train_epochs"] = EPOCHS
    return recipe.model_validate({**recipe.model_dump(exclude_unset=True), **own})


def prune_answers(
    recipe: Recipe, out: Path, options: Options, *, echo: Echo, progress: bool, command: str, **of_classes: Any
) -> Selected:
    """Keep a share of a pool.

    Args:
        recipe: `train` names the pool; its task is text-generation or translation. out: the file of the kept rows.
        of_classes: options for classes alone, to be refused where they are given.
    """
    from tunewell.data.split import text_key
    from tunewell.stages.job import Job
    from tunewell.stages.preflight import preflight
    from tunewell.stages.prepare import prepare

    options = options_of(recipe, options, **of_classes)
    made = recipe_for(recipe)
    folder = recipe.output_dir or str(Path("runs") / f"{stem_of(recipe.train or 'rows')}-prune")
    said: set[str] = set()

    def once(line: str) -> None:  # one file stands for three splits
        if line not in said:
            echo(line)
        said.add(line)

    prepared = prepare(made, echo=once)
    taboo = set()
    if recipe.test is not None and not same_file(recipe.test, recipe.train):
        taboo = {text_key(t) for t in prepared.splits["test"]["text"]}
    target = None
    if options.target_rows is not None:
        target = read_target(options.target_rows, prepared.spec.name, recipe, options.subtask, taboo)
    with Job(made, output_dir=folder, echo=echo, progress=progress, command=command, prepared=prepared) as job:
        preflight(job)
        if options.method == IFD and not job.task.describe(job)["decoder"]:
            raise RecipeError(
                "`ifd` reads an answer without its prompt, which an encoder-decoder cannot",
                where="method",
                expected=", ".join(m for m in METHODS if m != IFD),
            )
        job.begin()
        return _select(job, recipe, out, options, target, taboo, echo)


def _select(
    job: Job, recipe: Recipe, out: Path, options: Options, target: Target | None, taboo: set[str], echo: Echo
) -> Selected:
    from tunewell.data.split import text_key
    from tunewell.report.selection import build

    whole = len(job.splits["train"])
    rows, encoded = _pool(job)
    n, seed = len(rows), recipe.seed
    unread = _unread(job)
    groups = groups_of(rows, options.duplicates)
    allowed = np.array([text_key(t) not in taboo for t in rows["text"]], dtype=bool)
    if not allowed.any():
        raise DataError("no row is left", where=str(recipe.train), expected="rows whose prompts are not test prompts")
    found, subtasks, warm = _scored(job, encoded, options, target, first_of_each(places_of(allowed), groups) & allowed)
    order = order_of(options.method, found, n, seed)
    order = places_of(allowed, order)  # a twin that may stay comes first
    usable = first_of_each(order, groups) & allowed
    kept = choose(order, None, max(1, round(options.keep_share * n)), usable=usable, balance="none")
    twins = unread.get(DUPLICATE, 0) + int((allowed & ~usable).sum())
    left_out = {**unread, DROPPED: whole - n, DUPLICATE: twins, TEST_TEXT: int((~allowed).sum())}
    if target is not None:
        wanted = {text_key(t) for t in target.rows["text"]}
        if same := sum(text_key(t) in wanted for t in rows["text"]):
            echo(f"prune: {same:,} rows of the pool have the prompt of a target row")
    record = Selection(
        source=shown(str(recipe.train)), output=str(out), task=job.spec.name, model=job.recipe.model, seed=seed,
        method=options.method, keep_share=options.keep_share, duplicates=options.duplicates,
        rows=whole + sum(unread.values()), kept=int(kept.sum()), left_out={k: v for k, v in left_out.items() if v},
        target=options.target_rows or "", **warm, **_shown(rows, options.method, found, subtasks, kept, order),
        subtasks=_by_subtask(target, subtasks, found, kept), command=_again(recipe, out, job.spec.name),
    )  # fmt: skip
    _write(job, recipe, rows, kept, found, subtasks, out)
    record.write(job.folder / FILE)
    page = build(job.folder / PAGE, record, recipe.lang)
    lost = "".join(f"; {v:,} are {k}" for k, v in record.left_out.items())
    echo(f"prune: {record.kept:,} of {record.rows:,} rows by {record.method} in {out}{lost}")
    if "--test" not in record.command:
        echo("prune: name a --test of its own: one split off these rows would be as chosen as they are")
    return Selected(rows, kept, found, record, page)


def _unread(job: Job) -> dict[str, int]:
    """Reason -> rows of the file that are not in the pool at all."""
    from tunewell.stages import prepare

    told = {prepare.DUPLICATE: DUPLICATE, prepare.BEYOND: BEYOND}
    out: Counter[str] = Counter()
    for account in job.prepared.accounts:
        if account.split == "train":
            for why, count in account.dropped.items():
                out[told.get(why, EMPTY)] += count
    return dict(out)


def _pool(job: Job) -> tuple[Dataset, list[Encoded]]:
    """The rows of the pool that are learned from, and as tokens."""
    from tunewell.tasks.generation.audit import encode_rows

    rows = job.splits["train"]
    talks = job.task.messages(job, rows)  # type: ignore[attr-defined]
    encoded, used, _ = encode_rows(job.task.writer(job, None), rows, talks, job.recipe.overlength)  # type: ignore[attr-defined]
    if len(used) < len(rows):
        job.splits = {**job.splits, "train": rows.select(used)}
        rows = job.splits["train"]
    return rows, encoded


def _scored(
    job: Job, encoded: list[Encoded], options: Options, target: Target | None, usable: np.ndarray
) -> tuple[dict[str, np.ndarray], list[str] | None, dict[str, Any]]:
    """Scores (n,) by name, the subtask that each row serves best, and what the record says of the warm-up.

    Args:
        usable: (n,) rows that a model may be tuned on.
    """
    from tunewell.prune.answers import less, likelihood

    if options.method == LESS:
        assert target is not None
        each, warm = less.scores(job, encoded, target, options.warm_share, usable)
        best = None if target.subtasks == ("",) else [target.subtasks[j] for j in each.argmax(axis=1)]
        about = {"target_n": len(target.rows), "warm_rows": warm.rows, "rates": warm.rates}
        return {LESS: each.max(axis=1)}, best, about
    if options.method not in (IFD, PERPLEXITY):
        return {}, None, {}
    name = f"scores-{options.method}.npz"

    def make() -> dict[str, np.ndarray]:
        writer = job.task.writer(job, job.fresh_model().eval(), bf16=job.bf16)  # type: ignore[attr-defined]
        job.echo(f"prune: likelihood of {len(encoded):,} answers by {job.recipe.model}")
        score = likelihood.difficulties if options.method == IFD else likelihood.perplexities
        made = score(writer, encoded, progress=job.progress)
        write_with(job.folder / name, lambda path: _save(path, made))
        return made

    def read() -> dict[str, np.ndarray]:
        with np.load(job.folder / name, allow_pickle=False) as file:
            return {key: file[key] for key in file}

    key = fingerprint(options.method, job.keys.data, job.max_length, job.bf16, job.recipe.overlength)
    return job.folder.step(options.method, key, [name], make, read), None, {}


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _by_subtask(
    target: Target | None, best: list[str] | None, found: dict[str, np.ndarray], kept: np.ndarray
) -> dict[str, tuple[int, int]]:
    """subtask -> target rows, kept rows that serve it best; empty without subtasks."""
    if target is None or best is None:
        return {}
    served = np.array(best)
    return {
        name: (int((target.group == j).sum()), int(kept[served == name].sum()))
        for j, name in enumerate(target.subtasks)
    }


def _shown(
    rows: Dataset, method: str, found: dict[str, np.ndarray], best: list[str] | None, kept: np.ndarray,
    order: np.ndarray,
) -> dict[str, Any]:  # fmt: skip
    """What the page shows: how the scores lie, the first rows of the order and the last."""
    values = found.get(method)
    texts, answers, numbers = rows["text"], rows["label"], rows["row"]

    def shown(i: int) -> ScoredRow:
        value = None if values is None or not np.isfinite(values[i]) else round(float(values[i]), 6)
        return ScoredRow(
            row=int(numbers[i]), text=cut(" ".join(texts[i].split()), SHOWN_CHARS),
            answer=cut(" ".join(answers[i].split()), SHOWN_CHARS), score=value, kept=bool(kept[i]),
            subtask="" if best is None else best[i],
        )  # fmt: skip

    bins: tuple[Bin, ...] = ()
    if values is not None and np.isfinite(values).any():
        there = np.isfinite(values)
        drawn = np.log10(values) if method == PERPLEXITY else values  # a few are far out
        edges = np.histogram_bin_edges(drawn[there], bins=BINS)
        counts = [np.histogram(drawn[mask], edges)[0] for mask in (there, there & kept)]
        bins = tuple(
            Bin(low=float(edges[i]), high=float(edges[i + 1]), rows=int(counts[0][i]), kept=int(counts[1][i]))
            for i in range(len(edges) - 1)
        )
    return {
        "bins": bins,
        "first": tuple(shown(int(i)) for i in order[:SHOWN]),
        "last": tuple(shown(int(i)) for i in order[::-1][:SHOWN]),
    }


def _write(
    job: Job, recipe: Recipe, rows: Dataset, kept: np.ndarray, found: dict[str, np.ndarray], best: list[str] | None,
    out: Path,
) -> None:  # fmt: skip
    """The kept rows in the file's order: its own columns, then the row's number and its scores."""
    from tunewell.prune.run import rows_beside, write_rows

    file, _ = read_rows(str(recipe.train), job.spec.name, recipe)
    columns: dict[str, Any] = dict(found)
    if best is not None:
        columns["subtask"] = best
    places = np.asarray(rows["row"], dtype=np.int64)
    made = rows_beside(file.dataset, places, kept, columns)
    write_rows(out, as_written(made, places[kept], file, recipe) if out.suffix.lower() == ".jsonl" else made)


def as_written(made: list[dict[str, Any]], places: np.ndarray, file: Loaded, recipe: Recipe) -> list[dict[str, Any]]:
    """Rows of a file and our columns beside them, for a file of JSON lines.

    The cells of a JSON file are its own: a text stays one, also where it reads like JSON. Of another file only what
    must be conversations or pairs is nested.

    Args:
        made: the rows in the file's order, their cells as they were loaded. places: of the rows in the file, from 1.
    """
    from tunewell.data.load import records_of
    from tunewell.tasks.rows import opened

    columns = set(file.dataset.column_names)
    if (records := records_of(file, recipe.encoding)) is not None:
        wanted = set(places.tolist())
        own = (record for number, record in enumerate(records, 1) if number in wanted)
        return [{**o, **{k: v for k, v in m.items() if k not in columns}} for o, m in zip(own, made, strict=True)]
    nested = {recipe.messages, "messages", "conversations", "translation"} & columns
    return [{k: opened(v) if k in nested else v for k, v in row.items()} for row in made]


def _again(recipe: Recipe, out: Path, task: str) -> str:
    """The command that tunes on what was kept."""
    parts = ["tunewell", "run", "--task", task, "--train", str(out)]
    for name in ("validation", "test"):
        if (given := getattr(recipe, name)) and not same_file(given, recipe.train):
            parts += [f"--{name}", given]
    for name in ("source", "target", "messages", "source_prefix", "source_lang", "target_lang"):
        if given := getattr(recipe, name):
            parts += [f"--{name}", given]
    if "model" in recipe.model_fields_set:
        parts += ["--model", recipe.model]
    return shlex.join(parts)
