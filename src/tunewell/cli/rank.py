"""`tunewell rank`: which base model to tune."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import click

from tunewell.cli.as_json import json_option, json_text
from tunewell.cli.base import Command, say, show_progress
from tunewell.cli.options import given, recipe_options, worker_options

if TYPE_CHECKING:
    from tunewell.rank.records import Ranking

_EXAMPLES = (
    "tunewell rank reviews.csv",
    "tunewell rank reviews.csv --label stars --models all-MiniLM-L6-v2 splade-tiny path/to/model",
    "tunewell rank recipe.yaml --json > ranking.json",
    "tunewell rank reviews.csv --runs runs/*",
)
_TRAINING = (
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "metric",
    "bf16",
    "seed",
    "threads",
)


SPREAD = ("models", "runs")


class _Models(Command):
    """`--models A B C` as well as `--models A --models B`: what follows the option up to the next one is a model.

    The same for `--runs runs/*`, which a shell spreads.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread: list[str] = []
        within, took = "", True
        for arg in [*args, "--"]:
            if arg.startswith("-"):
                if within and not took:
                    spread.append(within)  # click tells that its value is missing
                name = arg.lstrip("-").replace("-", "_")
                within, took = (f"--{name}", False) if arg.startswith("--") and name in SPREAD else ("", True)
                if within:
                    continue
            if within:
                spread += [within, arg]
                took = True
            else:
                spread.append(arg)
        return super().parse_args(ctx, spread[:-1])


@click.command("rank", cls=_Models, examples=_EXAMPLES)
@click.argument("data")
@click.option(
    "--models",
    multiple=True,
    metavar="MODEL...",
    help="Candidates: assets, folders or hub ids. By default the packaged and cached models that fit the task.",
)
@click.option(
    "--runs",
    multiple=True,
    metavar="RUN...",
    help="Past run folders as starting points, beside the base models that they were tuned from.",
)
@click.option("--rows", type=int, metavar="N", help="Look at so many training rows at most. [512]")
@click.option("--fresh", is_flag=True, help="Measure again what the cache knows.")
@json_option("Print everything as JSON.")
@worker_options
@recipe_options(("data",), without=("train", "strict", "duplicates"))
@recipe_options(("model", "training"), only=("max_length", "trust_remote_code", *_TRAINING))
def command(
    data: str,
    models: tuple[str, ...],
    runs: tuple[str, ...],
    rows: int | None,
    fresh: bool,
    as_json: bool,
    jobs: int | None,
    ray: str | None,
    **keys: Any,
) -> None:
    """Compare base models on your data without tuning them: how well each would do, and what it would cost here.

    DATA is a file to train on, or a recipe. Only rows that `tunewell run` would learn from are read, a sample of
    them. A candidate that cannot be loaded is named and left out. `model: auto` in a recipe takes the first.

    With --runs, your own finished runs are candidates too, and the last line says whether the best of them is a
    better start than the base model.
    """
    from tunewell.rank import rank

    is_recipe = data.lower().endswith((".yaml", ".yml"))
    ranking = rank(
        None if is_recipe else data,
        recipe=data if is_recipe else None,
        models=list(models) or None,
        runs=list(runs) or None,
        rows=rows,
        fresh=fresh,
        echo=say,
        progress=show_progress(),
        jobs=jobs,
        ray=ray,
        **given(keys),
    )
    click.echo(json_text(ranking.to_dict()) if as_json else ranking_table(ranking))


def ranking_table(ranking: Ranking) -> str:
    """The order, what each candidate would cost, and why."""
    from tunewell.cli.show import WIDTH, duration, number, printable, table

    head = [
        "",
        "model",
        "score",
        "probe" if "probe_mean" in ranking.best.scores else "bits/byte",
        "M",
        "tokens/s",
        "to tune",
        "memory",
        "window",
        "cut",
        "unknown",
        "char/token",
    ]
    columns = {"leep": "LEEP", "textemb_cosine": "texts", "task2vec_distance": "task"}
    told = [key for key in columns if any(key in m.scores for m in ranking.models)]
    rows = [[*head, *(columns[key] for key in told), "licence"]]
    for i, m in enumerate(ranking.models, 1):
        rows.append(
            [
                str(i) if m.fits else "–",
                m.name,
                number(m.score),
                number(m.scores.get("probe_mean", m.scores.get("bits_per_byte"))),
                f"{m.parameters / 1e6:.1f}",
                f"{m.tokens_per_second:,.0f}",
                duration(m.tuning_seconds),
                f"{m.memory_mb:,.0f} MB",
                f"{m.window:,}",
                f"{m.cut_share:.0%}",
                f"{m.unknown_share:.1%}",
                f"{m.characters_per_token:.1f}",
                *(number(m.scores.get(key)) for key in told),
                m.licence or "?",
            ]
        )
    shown = f"{ranking.rows:,} of {ranking.of_rows:,} training rows (seed {ranking.seed})"
    parts = [
        f"{ranking.task}, by {ranking.by} on {shown}",
        "",
        table(rows, right=tuple(range(2, 12 + len(told)))),
        "",
    ]
    for m in ranking.models:
        parts.append(textwrap.fill(printable(f"{m.name}: {m.why}"), WIDTH, subsequent_indent="  "))
    for s in ranking.skipped:
        parts.append(textwrap.fill(printable(f"left out: {s.name}: {s.reason.splitlines()[0]}"), WIDTH))
    parts += [
        "",
        f"Costs are of {ranking.models[0].steps:,} steps of plain tuning on {ranking.threads} "
        f"thread{'s' if ranking.threads > 1 else ''} of this machine; "
        f"the ranking took {duration(ranking.seconds)}.",
    ]
    if ranking.embedded_by is not None:
        near = (
            "Near is a run whose `texts` are near 1 (cosine of mean embeddings) and whose `task` is near 0 "
            f"(Task2Vec's distance), beside those of the other runs, by {ranking.embedded_by}; the order does not go "
            "by them."
        )
        parts.append(textwrap.fill(printable(near), WIDTH))
    best = ranking.best
    if ranking.transfer is not None:
        from tunewell.rank.runs import advice

        t = ranking.transfer
        parts.append(textwrap.fill(printable(advice(t)), WIDTH))
        parts.append(f"tunewell run … --model {t.run if t.helps else t.base}")
    elif best.fits:
        parts.append(f"tunewell run … --model {best.name}")
    return "\n".join(parts)
