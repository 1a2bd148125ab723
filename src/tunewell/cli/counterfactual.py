"""`tunewell counterfactual`: the smallest change of a text that turns the answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunewell.cli.as_json import json_option, show_json
from tunewell.cli.base import Command, keep_input, say
from tunewell.cli.texts import one_source, rows_of, text_options, watched, write_records
from tunewell.errors import DataError, ModelError

if TYPE_CHECKING:
    from tunewell.explain.counterfactual.records import Changed, Counterfactual

_EXAMPLES = (
    "tunewell counterfactual runs/reviews 'The plot is thin, but the acting is superb.'",
    "tunewell counterfactual runs/reviews 'what a day' --target positive --json",
    "tunewell counterfactual runs/reviews --data new.csv --limit 200 -o changes.jsonl",
    "tunewell counterfactual runs/reviews 'the crew was rude' --mask_model distilroberta-base",
)


@click.command("counterfactual", cls=Command, examples=_EXAMPLES)
@click.argument("run")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@text_options(data="Take the rows of a file instead.", pair="Second text")
@click.option("--target", metavar="LABEL", help="The answer that is wanted; by default any other than the model's.")
@click.option("--most", type=click.IntRange(1, 20), default=4, metavar="INTEGER", help="Words taken out at most. [4]")
@click.option("--rows", type=click.IntRange(10), default=1500, metavar="INTEGER", help="Texts read for one. [1500]")
@click.option("--mask_model", metavar="MODEL", help="Masked language model that proposes words to put in. [none]")
@json_option("Print JSON: an object for one text, else a list.")
@click.option("-o", "--output", metavar="FILE", help="Write to a file: .jsonl or .json.")
def command(
    run: str,
    texts: tuple[str, ...],
    data: str | None,
    text: str | None,
    text_pair: tuple[str, ...],
    limit: int | None,
    target: str | None,
    most: int,
    rows: int,
    mask_model: str | None,
    as_json: bool,
    output: str | None,
) -> None:
    """Show the smallest change of a text that turns the model's answer.

    First the fewest words whose removal turns it. With --mask_model also one word replaced by another that the model
    named there finds likely in its place: any encoder of the hub that still has its head for masked words, such as
    distilroberta-base. Every change is read anew and shown only if the answer is another then.
    """
    one_source(texts, data)
    if output and Path(output).suffix.lower() not in (".json", ".jsonl"):
        raise DataError("unknown ending", where=output, expected=".jsonl or .json")
    keep_input(output, data)
    from tunewell.explain.counterfactual.search import counterfactual_rows
    from tunewell.predict import Predictor, load_predictor

    predictor = load_predictor(run)
    if not isinstance(predictor, Predictor):
        raise ModelError("gives answers, not classes", where=run, expected="a run with classes")
    if data:
        texts, pairs, _, _ = rows_of(predictor, data, text, text_pair[0] if text_pair else None, limit, None)
    else:
        pairs = list(text_pair) or None
    found = counterfactual_rows(predictor, texts, pairs, target=target, most=most, rows=rows, mask_model=mask_model)
    done = list(watched(found, len(texts)))
    if output:
        write_records(done, output)
        say(f"{len(done):,} texts in {output}; {_turned(done)}")
    if as_json:
        plain = [c.to_dict() for c in done]
        show_json(plain[0] if len(plain) == 1 and not data else plain)
    elif not output:
        click.echo("\n\n".join(_shown(c) for c in done))
        if len(done) > 1:
            say("\n" + _turned(done))


def _turned(done: list[Counterfactual]) -> str:
    turned = [c for c in done if c.without]
    words = sum(len(c.without.edits) for c in turned if c.without) / max(1, len(turned))
    out = f"{len(turned):,} of {len(done):,} turn without {words:.1f} words on average"
    instead = sum(c.instead is not None for c in done)
    return out + (f", {instead:,} with one word instead of another" if instead else "")


def _label(answer: Any) -> str:
    return (", ".join(answer) or "no label") if isinstance(answer, tuple) else str(answer)


def _after(c: Counterfactual, changed: Changed) -> str:
    return f"{_label(changed.prediction)} ({c.label}: {changed.probability:.1%})"


def _shown(c: Counterfactual) -> str:
    from tunewell.cli.show import printable

    lines = [printable(c.text + (f" | {c.text_pair}" if c.text_pair is not None else ""))]
    lines.append(printable(f"  {_label(c.prediction)} ({c.label}: {c.probability:.1%})"))
    if c.without is None:
        lines.append("  no few words whose removal turns the answer")
    else:
        words = ", ".join(f"“{e.word}”" for e in c.without.edits)
        lines.append(printable(f"  without {words}: {_after(c, c.without)}"))
    if c.instead is not None:
        (e,) = c.instead.edits
        lines.append(printable(f"  with “{e.instead}” for “{e.word}”: {_after(c, c.instead)}"))
    return "\n".join(lines)
