"""`tunewell prune` as a story: rows and what tuning thought of them, duplicates, an order, a file of what is kept."""

from __future__ import annotations

import csv
import io
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.data.secrets import stem_of
from tunewell.errors import DataError, RecipeError, nearest
from tunewell.prune.answers import METHODS as FOR_ANSWERS
from tunewell.prune.choose import (
    AUTO,
    BALANCES,
    DUPLICATES,
    METHODS,
    choose,
    first_of_each,
    groups_of,
    order_of,
    places_of,
    same_file,
)
from tunewell.prune.records import MapPoint, Pruning
from tunewell.prune.scores import SCORES
from tunewell.recipe import Recipe
from tunewell.recipe_file import load_recipe
from tunewell.results import write_whole
from tunewell.shown import cut

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.prune.answers.run import Selected
    from tunewell.prune.pool import Echo, Pool

FILE, PAGE = "prune.json", "datamap.html"
MAPPED, SHOWN, SHOWN_CHARS = 1500, 12, 160  # points on the map, rows in a table, characters of a text
DUPLICATE, TEST_TEXT = "a duplicate of a row with the same label", "a test text"
ENDINGS = (".csv", ".tsv", ".jsonl")


@dataclass(frozen=True)
class Pruned:
    """What was kept.

    Attributes:
        kept: (n,) booleans over `pool.rows`. record: what prune.json holds. page: the data map.
    """

    pool: Pool
    kept: np.ndarray
    record: Pruning
    page: Path


def prune(
    source: str | Path,
    output: str | Path,
    /,
    *,
    keep_share: float = 0.5,
    method: str = AUTO,
    balance: str = "share",
    duplicates: str = "near",
    tunings: int = 1,
    splits: bool = False,
    target_rows: str | None = None,
    subtask: str | None = None,
    warm_share: float = 0.05,
    overwrite: bool = False,
    echo: Echo | None = None,
    progress: bool = True,
    command: str = "",
    **keys: Any,
) -> Pruned | Selected:
    """Keep the share of training rows that teach most: by what a tuning thought of each, or, of rows with written
    answers, by gradients towards target rows or by likelihood.

    Args:
        source: a data file, all rows of which are tuned on and scored; or a finished run folder, whose training rows
            are scored by the dynamics that the run recorded.
        output: the file of the kept rows: .csv, .tsv or .jsonl.
        keep_share: of the rows, above 0 and at most 1. method: see `choose.METHODS`; of written answers
            `answers.METHODS`.
        balance: `share` keeps the same share of each class, `equal` as many of each as there are, `none` looks at no
            classes. duplicates: `near`, `exact`, or `keep` them.
        tunings: seeds over which scores are averaged, for a data file.
        splits: for a run that split its file itself, also write its validation and test rows beside the output.
        target_rows: for `less`, a file of a few rows of what is wanted. subtask: its column that names subtasks.
        warm_share: for `less`, the share of the pool that adapters are tuned on first.
        keys: recipe keys of the tuning, for a data file; of a run, `train` (where its file is now) and `lang`.

    Raises:
        TunewellError: the user's mistakes; nothing is written then.
    """
    from tunewell.explain.influence.answers.rows import task_at
    from tunewell.prune.pool import of_file, of_run, recipe_for, refuse
    from tunewell.tasks.spec import WRITING

    echo = echo or (lambda line: print(line, file=sys.stderr, flush=True))
    _check(keep_share, method, balance, duplicates, tunings)
    place = Path(source)
    out = _output(Path(output), str(source), overwrite)
    options = (keep_share, method, balance, duplicates, splits, overwrite, out, echo)
    wanted = {"target_rows": target_rows, "subtask": subtask}
    if place.is_dir() and (place / "recipe.yaml").is_file():
        if task_at(place) in WRITING:
            raise RecipeError(
                "this run writes answers, and has recorded nothing that tells its rows apart",
                where=str(place),
                expected="a data file",
                remedy="name the run's data file: --method less --target_rows FILE, or ifd, perplexity, random",
            )
        _only_for_answers(method, wanted)
        if others := sorted(set(keys) - {"train", "lang"}):
            raise RecipeError(
                f"`{others[0]}` is for tuning, and the rows of a run are scored by what it recorded",
                where=others[0],
                expected="a data file, or a run without keys of the recipe",
            )
        if tunings > 1:
            raise RecipeError(
                "a run has been tuned once", where="tunings", expected="tunings: 1", remedy="name its data file instead"
            )
        return _prune(of_run(place, keys.get("train")), *options, lang=keys.get("lang") or "en")
    from tunewell.stages.job import Job
    from tunewell.stages.preflight import preflight
    from tunewell.stages.prepare import choose_task

    recipe = _recipe(place, keys)
    if (task := choose_task(recipe)) in WRITING:
        from tunewell.prune.answers.run import Options, prune_answers

        asked = Options(keep_share, method, duplicates, target_rows, subtask, warm_share)
        for_classes = {"tunings": tunings > 1, "splits": splits, "balance": balance != "share"}
        told = recipe.model_copy(update={"task": task})
        return prune_answers(
            told, out, asked, echo=echo, progress=progress, command=command, **for_classes
        )  # fmt: skip
    _only_for_answers(method, wanted)
    folder = recipe.output_dir or str(Path("runs") / f"{stem_of(recipe.train or 'rows')}-prune")
    try:
        made = Job(recipe_for(recipe), output_dir=folder, echo=echo, progress=progress, command=command)
    except RecipeError as error:
        if error.where == "validation_size" and "validation_size" not in recipe.model_fields_set:
            refuse("text-regression", str(source))  # scores cannot do without validation rows
        raise
    with made as job:
        refuse(job.spec.name, str(source))
        preflight(job)
        job.begin()
        return _prune(of_file(job, tunings), *options, lang=recipe.lang)


def _only_for_answers(method: str, wanted: dict[str, str | None]) -> None:
    """Refuse what is for written answers, where rows have labels."""
    if method not in METHODS:
        raise RecipeError(
            f"`method: {method}` is for rows with written answers", where="method", expected=", ".join(METHODS)
        )
    for key, value in wanted.items():
        if value is not None:
            raise RecipeError(
                "is for rows with written answers",
                where=key,
                expected="a data file of instructions or translations",
            )


def _recipe(source: Path, keys: dict[str, Any]) -> Recipe:
    if source.suffix.lower() in (".yaml", ".yml"):
        return load_recipe(source, **keys)
    return load_recipe(None, **{**keys, "train": str(source)})


def _check(keep_share: float, method: str, balance: str, duplicates: str, tunings: int) -> None:
    if not 0 < keep_share <= 1:
        raise RecipeError(f"`keep_share: {keep_share:g}` is not possible", where="keep_share", expected="above 0, to 1")
    for key, value, known in (
        ("method", method, tuple(dict.fromkeys((*METHODS, *FOR_ANSWERS)))),
        ("balance", balance, BALANCES),
        ("duplicates", duplicates, DUPLICATES),
    ):
        if value not in known:
            raise RecipeError(
                f"unknown {key} `{value}`", where=key, expected=", ".join(known), remedy=nearest(value, known)
            )
    if tunings < 1:
        raise RecipeError(f"`tunings: {tunings}` is not possible", where="tunings", expected="1 or more")


def _output(path: Path, source: str, overwrite: bool) -> Path:
    if path.suffix.lower() not in ENDINGS:
        raise DataError("cannot tell the format", where=str(path), expected=", ".join(ENDINGS))
    if path.exists() and Path(source).exists() and path.samefile(source):
        raise DataError("would overwrite the rows themselves", where=str(path), remedy="name another file")
    if path.exists() and not overwrite:
        raise DataError("is there already", where=str(path), expected="a new file", remedy="or --overwrite")
    return path


def _prune(
    pool: Pool, keep_share: float, method: str, balance: str, duplicates: str, splits: bool, overwrite: bool,
    out: Path, echo: Echo, *, lang: str,
) -> Pruned:  # fmt: skip
    from tunewell.data.split import text_key
    from tunewell.report.datamap import build

    for name in pool.others if splits else ():
        _output(beside(out, name), pool.source, overwrite)
    n, seed = len(pool.rows), pool.recipe.seed
    labels = None if pool.spec.multi_label else list(pool.rows["label"])
    groups = groups_of(pool.rows, duplicates)
    taboo = {text_key(t) for t in pool.taboo}
    allowed = np.array([text_key(t) not in taboo for t in pool.rows["text"]], dtype=bool)
    keep = max(1, round(keep_share * n))

    def kept_by(name: str, among: np.ndarray | None = None, wanted: int = keep) -> np.ndarray:
        order = order_of(name, pool.scores, seed)
        usable = allowed if among is None else allowed & among
        order = places_of(usable, order)  # a twin that may stay comes first
        usable = first_of_each(order, groups) & usable
        return choose(order, labels, wanted, usable=usable, balance=balance)  # type: ignore[arg-type]

    chosen, tried, judges = method, (), 0
    if method == AUTO:
        chosen, tried, judges = _auto(pool, kept_by, keep_share, echo)
    kept = kept_by(chosen)
    if not kept.any():
        raise DataError("no row is left", where=pool.source, expected="rows whose texts are not those of test rows")
    unique = first_of_each(places_of(allowed), groups)
    left_out = {DUPLICATE: int((allowed & ~unique).sum()), TEST_TEXT: int((~allowed).sum())}
    counts = _counts(labels, kept)
    record = Pruning(
        source=pool.source, output=str(out), task=pool.spec.name, model=pool.recipe.model, seed=seed,
        metric=pool.spec.metric, asked=method, method=chosen, keep_share=keep_share, balance=balance,
        duplicates=duplicates, rows=n, kept=int(kept.sum()), left_out={k: v for k, v in left_out.items() if v},
        epochs=pool.scores.epochs, tunings=pool.scores.tunings, classes=counts, tried=tried, judged_on=judges,
        **_shown(pool, kept, seed), command=_again(pool, out, splits),
    )  # fmt: skip
    write_rows(out, records_of(pool, kept))
    if splits:
        for name, places in pool.others.items():
            write_rows(beside(out, name), pool.own.select(np.sort(places) - 1).to_list())
    record.write(pool.folder / FILE)
    page = build(pool.folder / PAGE, record, lang)
    for line in said(record):
        echo(f"prune: {line}")
    return Pruned(pool, kept, record, page)


def _auto(pool: Pool, kept_by: Any, keep_share: float, echo: Echo) -> tuple[str, tuple, int]:
    from tunewell.evaluate.baselines import pair_features
    from tunewell.models.embed import embed
    from tunewell.models.load import load_encoder
    from tunewell.prune.auto import best, set_aside
    from tunewell.tasks import targets

    recipe, spec = pool.recipe, pool.spec
    encoder = load_encoder(recipe.model, recipe.revision, recipe.trust_remote_code, decoders=True)

    def vectors(rows: Any) -> np.ndarray:
        columns = ("text", "text_pair") if spec.pair else ("text",)
        parts = [embed(encoder.model, encoder.tokenizer, list(rows[c])) for c in columns]
        return pair_features(np.stack(parts, axis=1)) if spec.pair else parts[0]

    echo(f"prune: a linear probe on {recipe.model}'s embeddings for each method")
    x, y = vectors(pool.rows), targets(spec, pool.rows)
    among = np.ones(len(y), dtype=bool)
    if pool.held is not None:
        judge_x, judge_y = vectors(pool.held), targets(spec, pool.held)
    else:
        aside = set_aside(y, recipe.seed)
        judge_x, judge_y, among = x[aside], y[aside], ~aside
    wanted = max(1, round(keep_share * int(among.sum())))
    chosen, tried = best(spec, x, y, judge_x, judge_y, lambda m: kept_by(m, among, wanted), seed=recipe.seed)
    return chosen, tried, len(judge_y)


def _counts(labels: Sequence[Any] | None, kept: np.ndarray) -> dict[str, tuple[int, int]]:
    if labels is None:
        return {}
    names = np.array([str(label) for label in labels])
    return {str(name): (int((names == name).sum()), int(kept[names == name].sum())) for name in np.unique(names)}


def _shown(pool: Pool, kept: np.ndarray, seed: int) -> dict[str, tuple[MapPoint, ...]]:
    """What the page shows: a seeded sample of the map, the hardest rows and the most ambiguous ones."""
    s, n = pool.scores, len(pool.rows)
    texts, labels, numbers = pool.rows["text"], pool.rows["label"], pool.rows["row"]

    def point(i: int) -> MapPoint:
        text, label = " ".join(str(texts[i]).split()), labels[i]
        return MapPoint(
            row=int(numbers[i]), label=", ".join(label) if isinstance(label, list) else str(label),
            text=cut(text, SHOWN_CHARS), kept=bool(kept[i]),
            **{k: round(float(np.nan_to_num(getattr(s, k)[i])), 4) for k in SCORES},
        )  # fmt: skip

    some = np.sort(np.random.default_rng(seed).permutation(n)[:MAPPED])
    return {
        "points": tuple(point(int(i)) for i in some),
        "hardest": tuple(point(int(i)) for i in order_of("hard", s, seed)[:SHOWN]),
        "ambiguous": tuple(point(int(i)) for i in order_of("ambiguous", s, seed)[:SHOWN]),
    }


# ---------------------------------------------------------------- the file


def records_of(pool: Pool, kept: np.ndarray) -> list[dict[str, Any]]:
    """The kept rows in the file's order: its own columns, then the row's number and its scores."""
    places = np.asarray(pool.rows["row"], dtype=np.int64)
    return rows_beside(pool.own, places, kept, {name: getattr(pool.scores, name) for name in SCORES})


def rows_beside(
    own: Dataset, places: np.ndarray, kept: np.ndarray, columns: dict[str, Sequence[Any]]
) -> list[dict[str, Any]]:
    """The kept rows of a file in its order: its own columns, then `row` and ours, renamed where a name is taken.

    Args:
        own: the file as it stands. places: (n,) where the rows stand in it, from 1. kept: (n,) booleans.
        columns: name -> n numbers (those that are none become None) or texts.
    """
    from tunewell.explain.influence.label_errors import names_beside

    at = np.flatnonzero(kept)
    at = at[np.argsort(places[at], kind="stable")]
    names = names_beside(own.column_names, ("row", *columns))
    out = []
    for cells, i in zip(own.select(places[at] - 1).to_list(), at.tolist(), strict=True):
        ours: dict[str, Any] = {"row": int(places[i])}
        for name, values in columns.items():
            value = values[i]
            ours[name] = value if isinstance(value, str) else round(float(value), 6) if np.isfinite(value) else None
        out.append({**cells, **{names[k]: v for k, v in ours.items()}})
    return out


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Rows as .csv, .tsv or .jsonl, whole or not at all."""
    if path.suffix.lower() == ".jsonl":
        write_whole(path, "".join(json.dumps(r, ensure_ascii=False, default=str) + "\n" for r in rows))
        return
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    writer.writerow(rows[0].keys())
    writer.writerows([_cell(v) for v in row.values()] for row in rows)
    write_whole(path, buffer.getvalue())


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, (list, dict)) else value


def beside(out: Path, name: str) -> Path:
    """kept.csv -> kept.test.csv.

    >>> beside(Path("a/kept.csv"), "test").as_posix()
    'a/kept.test.csv'
    """
    return out.with_name(f"{out.stem}.{name}{out.suffix}")


def _again(pool: Pool, out: Path, splits: bool) -> str:
    """The command that tunes on what was kept."""
    parts = ["tunewell", "run", "--train", str(out)]
    recipe, columns = pool.recipe, pool.columns
    for name in ("validation", "test"):
        given = getattr(recipe, name)
        if given and not same_file(given, recipe.train):
            parts += [f"--{name}", given]
        elif splits and name in pool.others:
            parts += [f"--{name}", str(beside(out, name))]
    for name in ("text", "text_pair"):
        if columns.get(name):
            parts += [f"--{name}", str(columns[name])]
    if recipe.task != "auto":
        parts += ["--task", recipe.task]
    if columns.get("label"):
        parts += ["--label", ",".join(columns["label"])]
    return shlex.join(parts)


def said(record: Pruning) -> list[str]:
    """What to tell on a terminal."""
    r = record
    out = []
    if r.tried:
        found = ", ".join(f"{t.method} {t.score.value:.4f}" for t in r.tried if t.score.value is not None)
        out.append(f"auto takes {r.method}: on {r.judged_on:,} held-out rows the probe's {r.metric} was {found}")
    lost = "".join(f"; left out beforehand: {v:,} ({k})" for k, v in r.left_out.items())
    out.append(f"{r.kept:,} of {r.rows:,} rows by {r.method} in {r.output}{lost}")
    if r.epochs < 3:
        out.append(f"{r.epochs} epochs were recorded: forgetting and variability say little below three")
    if "--test" not in r.command:
        out.append("name a --test of its own: one split off these rows would be as chosen as they are")
    return out
