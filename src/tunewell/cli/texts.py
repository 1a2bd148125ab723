"""What commands share that look at single texts: typed ones, or the rows of a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunewell.cli.base import say, show_progress
from tunewell.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def text_options(*, data: str, pair: str) -> Callable[[Any], Any]:
    """A decorator that gives a command `--data`, `--text`, `--text_pair` and `--limit`.

    Args:
        data: help of `--data`. pair: what the second text is.
    """
    options = (
        click.option("--data", metavar="FILE", help=data),
        click.option("--text", metavar="TEXT", help="Column with the text; by default the one the run was tuned on."),
        click.option(
            "--text_pair", multiple=True, metavar="TEXT", help=f"{pair} (one for each TEXT), or its column in --data."
        ),
        click.option("--limit", type=click.IntRange(1), metavar="INTEGER", help="At most so many rows of --data."),
    )

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def one_source(texts: tuple[str, ...], data: str | None) -> None:
    """Make sure that texts are typed or a file is named, and not both."""
    if bool(texts) == bool(data):
        raise click.UsageError(
            "give one TEXT or more, or a file with --data" if not texts else "give TEXT or --data, not both"
        )


def rows_of(
    predictor: Any, data: str, text: str | None, pair: str | None, limit: int | None, highlights: str | None
) -> tuple[tuple[str, ...], list[str] | None, list[Any] | None, list[Any]]:
    """Texts, second texts, labels and highlights of a file; rows without text are left out and counted."""
    from tunewell.cli.predict import column_of
    from tunewell.data.rows import open_rows

    texts: list[str] = []
    pairs: list[str] = []
    labels: list[Any] = []
    marked: list[Any] = []
    blank = 0
    with open_rows(data) as rows:
        if highlights and highlights not in rows.columns:
            raise DataError(f"no column `{highlights}`", where=data, expected="one of " + ", ".join(rows.columns))
        column = column_of(rows, text, predictor, "text")
        second = None
        if predictor.pair or pair is not None:
            second = column_of(rows, pair, predictor, "text_pair")
        names = getattr(predictor, "columns", {}).get("label") or ["label"]
        label = names[0] if len(names) == 1 and names[0] in rows.columns else None
        for chunk in rows:
            found, others = chunk.texts(column), chunk.texts(second) if second else None
            for i, cell in enumerate(found):
                if not cell.strip():
                    blank += 1
                    continue
                texts.append(cell)
                pairs.append(others[i] if others else "")
                labels.append(chunk.rows[i].get(label) if label else None)
                marked.append(chunk.rows[i].get(highlights) if highlights else None)
                if limit and len(texts) == limit:
                    break
            if limit and len(texts) == limit:
                break
    if blank:
        say(f"{blank:,} rows without text are left out")
    if not texts:
        raise DataError("no row with a text", where=data, expected="at least one")
    return tuple(texts), pairs if second else None, labels if label else None, marked


def watched(found: Iterable[Any], n: int) -> Iterable[Any]:
    from tqdm import tqdm

    return tqdm(found, total=n, unit=" texts", file=sys.stderr, leave=False, disable=n < 2 or not show_progress())


def write_records(done: list[Any], output: str) -> None:
    """Write what has `to_dict` as JSON, or as JSONL, by the ending of the file."""
    from tunewell.results import write_whole

    if Path(output).suffix.lower() == ".json":
        write_whole(output, json.dumps([e.to_dict() for e in done], ensure_ascii=False, indent=1) + "\n")
    else:
        write_whole(output, "".join(json.dumps(e.to_dict(), ensure_ascii=False) + "\n" for e in done))
