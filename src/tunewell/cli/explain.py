"""`tunewell explain`: which words decided, and whether that is true."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import click

from tunewell.cli.as_json import json_option, show_json
from tunewell.cli.base import Command, in_colour, keep_input, say
from tunewell.cli.texts import one_source, rows_of, text_options, watched, write_records
from tunewell.errors import DataError, ModelError

_EXAMPLES = (
    "tunewell explain runs/reviews 'The plot is thin, but the acting is superb.'",
    "tunewell explain runs/reviews 'what a day' --json",
    "tunewell explain runs/reviews --data new.csv --limit 200 -o why.html",
    "tunewell explain runs/pairs 'A man eats.' --text_pair 'Someone is eating.' --method shapley",
    "tunewell explain runs/reviews --data new.csv --limit 20 --method occlusion --sanity",
    "tunewell explain runs/questions 'Who wrote it?' --text_pair 'It was written by Ada in 1843.'",
    "tunewell explain runs/translate 'The room was small.' -o why.html",
)
CHECKED = 24  # texts that `--sanity` looks at
_ENDINGS = (".jsonl", ".json", ".html")


@click.command("explain", cls=Command, examples=_EXAMPLES)
@click.argument("run")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@text_options(data="Explain the rows of a file instead.", pair="Second text or context")
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
@click.option("--sanity", "check", is_flag=True, help="Do scores follow the weights, and stay when reworded?")
@click.option("--highlights", metavar="COLUMN", help="Column with what people highlighted: 0 or 1 a word. [none]")
@json_option("Print JSON: an object for one text, else a list.")
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
    one_source(texts, data)
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
    if check:  # before anything is explained
        from tunewell.explain.sanity import rankable

        predictor.need_pairs(texts, pairs)
        rankable(predictor, texts[:CHECKED], pairs[:CHECKED] if pairs else None)
    found = why(predictor, texts, pairs, method=method, target=target, budget=budget, seed=seed)
    done = list(watched(found, len(texts)))
    if labels is not None:
        from dataclasses import replace

        done = [replace(e, label=None if y is None else str(y)) for e, y in zip(done, labels, strict=True)]
    checked: dict[str, Any] = {}
    if check:
        checked, done = _checked(predictor, done, texts, pairs, target, seed)
    if output:
        _write(done, output)
        say(f"{len(done):,} explanations in {output}")
    if as_json:
        plain = [e.to_dict() | {name: found.to_dict() for name, found in checked.items()} for e in done]
        show_json(plain[0] if len(plain) == 1 and not data else plain)
    elif not output:
        _print(done)
    if highlights:
        from tunewell.explain.plausibility import agreement
        from tunewell.explain.plausibility import said as in_words

        say("\n" + in_words(agreement(done, marked, seed=seed)))
    if checked and not as_json:
        from tunewell.explain.show import sanity_table

        say("")
        click.echo(sanity_table(checked["sanity"]))


def _checked(
    predictor: Any, done: list[Any], texts: Any, pairs: list[str] | None, target: str | None, seed: int
) -> tuple[dict[str, Any], list[Any]]:
    """The randomisation check of the method, and the explanations with their stability, of the first texts."""
    from dataclasses import replace

    from tunewell.explain.sanity import sanity
    from tunewell.explain.stability import stability

    method = done[0].method
    some, few = texts[:CHECKED], pairs[:CHECKED] if pairs else None
    steady = stability(predictor, some, few, method=method, target=target, seed=seed)
    done = [replace(e, stability=s) for e, s in zip(done, steady, strict=False)] + done[CHECKED:]
    return {"sanity": sanity(predictor, some, few, method=method, seed=seed)}, done


def _write(done: list[Any], output: str) -> None:
    from tunewell.results import write_whole

    ending = Path(output).suffix.lower()
    if ending == ".html":
        from tunewell.report.explanations import page

        write_whole(output, page(done, name=Path(output).stem))
    else:
        write_records(done, output)


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
