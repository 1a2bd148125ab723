"""`tunewell explain`: which words decided, and whether that is true."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunewell.cli.base import Command, in_colour, keep_input, say, show_progress
from tunewell.errors import DataError, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable


_EXAMPLES = (
    "tunewell explain runs/reviews 'The plot is thin, but the acting is superb.'",
    "tunewell explain runs/reviews 'what a day' --json",
    "tunewell explain runs/reviews --data new.csv --limit 200 -o why.html",
    "tunewell explain runs/pairs 'A man eats.' --text_pair 'Someone is eating.' --method shapley",
    "tunewell explain runs/reviews --data new.csv --limit 20 --method occlusion --sanity",
    "tunewell explain runs/questions 'Who wrote it?' --text_pair 'It was written by Ada in 1843.'",
    "tunewell explain runs/translate 'The room was small.' -o why.html",
)
_ENDINGS = (".jsonl", ".json", ".html")


@click.command("explain", cls=Command, examples=_EXAMPLES)
@click.argument("run")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option("--data", metavar="FILE", help="Explain the rows of a file instead.")
@click.option("--text", metavar="TEXT", help="Column with the text; by default the one the run was tuned on.")
@click.option(
    "--text_pair",
    multiple=True,
    metavar="TEXT",
    help="Second text or context (one for each TEXT), or its column in --data.",
)
@click.option("--limit", type=click.IntRange(1), metavar="INTEGER", help="At most so many rows of --data.")
@click.option(
    "--method",
    default="auto",
    metavar="NAME",
    help="auto (the most faithful one), integrated_gradients, attnlrp, occlusion, shapley, lime, gradient_x_input, "
    "smoothgrad, rollout or random. [auto]",
)
@click.option("--target", metavar="LABEL", help="Explain this label or answer; by default the model's.")
@click.option("--budget", type=click.FloatRange(0), default=20.0, metavar="SECONDS", help="Time for auto. [20]")
@click.option("--seed", type=int, default=42, metavar="INTEGER", help="Seed of sampled methods. [42]")
@click.option("--sanity", "check", is_flag=True, help="Does the method follow the weights? Compare with random ones.")
@click.option("--highlights", metavar="COLUMN", help="Column with what people highlighted: 0 or 1 a word. [none]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: an object for one text, else a list.")
@click.option("-o", "--output", metavar="FILE", help="Write to a file: .jsonl, .json or .html.")
def command(
    run: str,
    texts: tuple[str, ...],
    data: str | None,
    text: str | None,
    text_pair: tuple[str, ...],
    limit: int | None,
    method: str,
    target: str | None,
    budget: float,
    seed: int,
    check: bool,
    highlights: str | None,
    as_json: bool,
    output: str | None,
) -> None:
    """Show which words decided, and how true that is.

    Each word gets a signed score: above 0 it speaks for the label, below 0 against it. Every explanation is tested:
    the words that are said to matter are taken out, and kept alone, and the answer watched (ERASER's
    comprehensiveness and sufficiency), against random words. `auto` tries several methods and takes the most
    faithful one. RUN is a run folder or a plain Transformers folder. Where it finds answers in contexts, TEXT is the
    question and --text_pair the context; where it writes, each word of the answer is traced to words of TEXT.
    """
    if bool(texts) == bool(data):
        raise click.UsageError(
            "give one TEXT or more, or a file with --data" if not texts else "give TEXT or --data, not both"
        )
    if output and Path(output).suffix.lower() not in _ENDINGS:
        raise DataError("unknown ending", where=output, expected=", ".join(_ENDINGS))
    keep_input(output, data)
    from tunewell.explain.tokens import method as known
    from tunewell.explain.why import why
    from tunewell.predict import Predictor, load_predictor

    if method != "auto":
        known(method)
    predictor = load_predictor(run)
    if check and not (isinstance(predictor, Predictor) and predictor.scorer is None):
        raise ModelError("has no head to check against a random one", where="--sanity", expected="a classifier's run")
    if highlights and not (data and isinstance(predictor, Predictor)):
        raise DataError(
            "can be compared for rows of a file that get classes or scores",
            where="--highlights",
            expected="--data FILE",
        )
    labels: list[Any] | None = None
    marked: list[Any] = []
    if data:
        second = text_pair[0] if text_pair else None
        texts, pairs, labels, marked = rows_of(predictor, data, text, second, limit, highlights)
    else:
        pairs = list(text_pair) or None
    found = why(predictor, texts, pairs, method=method, target=target, budget=budget, seed=seed)
    done = list(watched(found, len(texts)))
    if labels is not None:
        from dataclasses import replace

        done = [replace(e, label=None if y is None else str(y)) for e, y in zip(done, labels, strict=True)]
    if output:
        _write(done, output)
        say(f"{len(done):,} explanations in {output}")
    if as_json:
        plain = [e.to_dict() for e in done]
        click.echo(json.dumps(plain[0] if len(plain) == 1 and not data else plain, indent=1, ensure_ascii=False))
    elif not output:
        _print(done)
    if highlights:
        from tunewell.explain.plausibility import agreement
        from tunewell.explain.plausibility import said as in_words

        say("\n" + in_words(agreement(done, marked, seed=seed)))
    if check:
        from tunewell.explain.sanity import sanity
        from tunewell.explain.show import sanity_table

        say("")
        result = sanity(predictor, texts[:24], pairs[:24] if pairs else None, method=done[0].method, seed=seed)
        click.echo(sanity_table(result), err=as_json)


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


def _write(done: list[Any], output: str) -> None:
    from tunewell.results import write_whole

    ending = Path(output).suffix.lower()
    if ending == ".html":
        from tunewell.report.explanations import page

        write_whole(output, page(done, name=Path(output).stem))
    elif ending == ".json":
        write_whole(output, json.dumps([e.to_dict() for e in done], ensure_ascii=False, indent=1) + "\n")
    else:
        write_whole(output, "".join(json.dumps(e.to_dict(), ensure_ascii=False) + "\n" for e in done))


def _print(done: list[Any]) -> None:
    from tunewell.explain.answers.records import WrittenExplanation
    from tunewell.explain.show import text_of, tried_table, written_text

    colour = in_colour(sys.stdout)
    width = shutil.get_terminal_size((100, 24)).columns
    for i, e in enumerate(done):
        if i:
            click.echo()
        said = (
            written_text(e, width=width)
            if isinstance(e, WrittenExplanation)
            else text_of(e, colour=colour, width=width)
        )
        click.echo(said, color=colour)
    if done[0].tried:
        say("\n" + tried_table(done[0].tried))
