"""`tunewell report`: the page of a run, made again from its records."""

from __future__ import annotations

from pathlib import Path

import click

from tunewell.cli.as_json import WRITTEN, json_option, show_json
from tunewell.cli.base import Command


@click.command("report", cls=Command, examples=("tunewell report runs/reviews --lang zh",))
@click.argument("run")
@click.option("--lang", type=click.Choice(["en", "zh"]), help="Language; by default the one of the run's recipe.")
@json_option(WRITTEN)
def command(run: str, lang: str | None, as_json: bool) -> None:
    """Write report.html of a finished run again, in English or Chinese; prints its path.

    The page is made from the run's records alone; no model is loaded.
    """
    from tunewell.run import load_run

    finished = load_run(Path(run))
    from tunewell.report.build import build

    language = lang or finished.recipe.lang
    page = build(finished.dir, lang=language)
    if as_json:
        show_json({"folder": str(finished.dir), "report_path": str(page), "lang": language})
    else:
        click.echo(page)
