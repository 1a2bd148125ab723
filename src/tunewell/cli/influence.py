"""`tunewell influence`: the training rows behind a prediction, and those whose labels look wrong."""

from __future__ import annotations

from typing import Any

import click

from tunewell.cli.as_json import json_option, json_text, show_json
from tunewell.cli.base import Command, say, show_progress
from tunewell.errors import DataError, RecipeError, nearest
from tunewell.shown import cut

_EXAMPLES = (
    'tunewell influence runs/reviews "the seat was broken"',
    'tunewell influence runs/reviews "the seat was broken" --label positive --top 10',
    "tunewell influence runs/reviews --data new.csv --json > behind.jsonl",
    "tunewell influence runs/reviews --label-errors suspects.csv",
    'tunewell influence runs/assistant "How do I reset it?" --answer "Hold the button for ten seconds."',
)
_METHODS = ("auto", "layers", "trak", "datainf", "head", "tracin", "neighbours", "less")


@click.command("influence", cls=Command, examples=_EXAMPLES)
@click.argument("run")
@click.argument("text", required=False)
@click.option("--data", metavar="FILE", help="A data file of texts to explain, instead of TEXT.")
@click.option("--text", "text_column", metavar="TEXT", help="Its column with the text; by default the one of the run.")
@click.option("--text_pair", metavar="TEXT", help="The second text (with --data: its column).")
@click.option("--label", metavar="TEXT", help="Explain the output of this label; by default of the predicted one.")
@click.option(
    "--answer", metavar="TEXT",
    help="Of a run that writes: the answer to explain (with --data: its column); by default what the model writes.",
)  # fmt: skip
@click.option("--method", type=click.Choice(_METHODS), default="auto", help="How influence is estimated. [auto]")
@click.option("--top", type=click.IntRange(1), default=5, metavar="INTEGER", help="Rows each way. [5]")
@click.option(
    "--label-errors", metavar="OUT", help="Write the training rows, most suspicious label first (CSV, JSONL)."
)
@click.option("--train", metavar="FILE", help="Where the run's training file is now, if it was moved.")
@json_option("Print JSON, one object a text.")
def command(
    run: str,
    text: str | None,
    data: str | None,
    text_column: str | None,
    text_pair: str | None,
    label: str | None,
    answer: str | None,
    method: str,
    top: int,
    label_errors: str | None,
    train: str | None,
    as_json: bool,
) -> None:
    """Show which training rows push a prediction up and down, or list rows whose label looks wrong.

    RUN is a finished run whose training file is still there, unchanged. The first question to a run builds an index
    in RUN/influence (a forward and a backward pass over the training rows); later ones are answered from it.

    --label-errors writes every training row with its own columns, `row` (its place in the file, counted from 1) and
    what speaks against its label, the most suspicious first. Correct what is wrong in the data and run again.

    Of a run that writes answers (text-generation, translation) TEXT is a prompt or a source, and rows are shown that
    make its answer likelier or less likely.
    """
    if sum(given is not None for given in (text, data, label_errors)) != 1:
        raise click.UsageError("give one of: a TEXT, --data FILE, --label-errors OUT")
    from tunewell.explain.influence.answers.rows import task_at
    from tunewell.tasks.spec import WRITING

    if task_at(run) in WRITING:
        _answers(run, text, data, text_column, text_pair, label, answer, method, top, label_errors, train, as_json)
        return
    if answer is not None:
        raise RecipeError(
            "--answer is for runs that write answers",
            where="answer",
            expected="a run of " + " or ".join(WRITING),
            remedy="--label names the label to explain",
        )
    if label_errors is not None:
        _label_errors(run, label_errors, train, as_json)
        return
    from tunewell.explain.influence.attribute import Influence

    texts, pairs = [text or ""], [text_pair] if text_pair is not None else None
    influence = Influence(run, train=train, echo=say, progress=show_progress())
    if data is not None:
        texts, pairs = _read(data, influence.predictor, text_column, text_pair)
    for found in influence.explain(texts, pairs, label=label, method=method, top=top):
        click.echo(json_text(found.to_dict(), indent=None) if as_json else _shown(found))


def _answers(
    run: str, text: str | None, data: str | None, text_column: str | None, text_pair: str | None, label: str | None,
    answer: str | None, method: str, top: int, label_errors: str | None, train: str | None, as_json: bool,
) -> None:  # fmt: skip
    """The rows behind written answers."""
    for option, given in (("--label", label), ("--label-errors", label_errors), ("--text_pair", text_pair)):
        if given is not None:
            raise RecipeError(
                f"{option} is for classes and scores, and this run writes answers",
                where=option.lstrip("-"),
                expected="a TEXT or --data FILE, and --answer for the answer to explain",
            )
    from tunewell.explain.influence.answers.attribute import AnswerInfluence

    influence = AnswerInfluence(run, train=train, echo=say, progress=show_progress())
    texts, answers = [text or ""], None if answer is None else [answer]
    if data is not None:
        texts, answers = _read_answers(data, influence.writer, text_column, answer)
    for found in influence.explain(texts, answers, method=method, top=top):
        click.echo(json_text(found.to_dict(), indent=None) if as_json else _shown_answer(found))


def _read_answers(data: str, writer: Any, text: str | None, answer: str | None) -> tuple[list[str], list[str] | None]:
    """The prompts of a file and, where their column is named, the answers; rows without them are left out."""
    from tunewell.cli.predict import column_of
    from tunewell.data.rows import open_rows

    with open_rows(data) as rows:
        column = column_of(rows, text, writer, "text")
        if answer is not None and answer not in rows.columns:
            raise DataError(
                f"no column `{answer}`",
                where=rows.name,
                expected="one of " + ", ".join(rows.columns),
                remedy=nearest(answer, rows.columns),
            )
        return _filled(rows, column, answer)


def _shown_answer(found: Any) -> str:
    """One attribution of a written answer for a terminal."""
    whose = "the model's own answer" if found.written else "answer"
    lines = [
        _short(found.text),
        f"  {whose} ({found.loss:.3f} nats a token): {_short(found.answer, 76)}",
        f"  method: {found.method} ({found.gradients})",
    ]
    for heading, rows in (("makes it likelier", found.supports), ("makes it less likely", found.opposes)):
        lines.append(f"  {heading}:" + ("" if rows else " no training row"))
        lines += [f"    {b.score:+.2f}  row {b.row:<6} {_short(b.text, 60)} → {_short(str(b.label), 60)}" for b in rows]
    return "\n".join(lines)


def _label_errors(run: str, output: str, train: str | None, as_json: bool) -> None:
    from pathlib import Path

    from tunewell.explain.influence.label_errors import check_output, label_errors

    check_output(Path(output), train or "")
    found = label_errors(run, train=train, echo=say, progress=show_progress())
    found.write(output)
    if as_json:
        show_json(found.summary(output), indent=None)
        return
    for line in found.lines(output):
        click.echo(line)


def _read(data: str, predictor: Any, text: str | None, pair: str | None) -> tuple[list[str], list[str] | None]:
    """The texts of a file; rows without text are left out."""
    from tunewell.cli.predict import column_of
    from tunewell.data.rows import open_rows

    with open_rows(data) as rows:
        column = column_of(rows, text, predictor, "text")
        second = column_of(rows, pair, predictor, "text_pair") if predictor.spec.pair else None
        return _filled(rows, column, second)


def _filled(rows: Any, column: str, second: str | None) -> tuple[list[str], list[str] | None]:
    """The cells of one column, and of a second one where it is named, of the rows that have both."""
    texts: list[str] = []
    others: list[str] = []
    for chunk in rows:
        first = chunk.texts(column)
        more = chunk.texts(second) if second else first
        full = [i for i, one in enumerate(first) if one.strip() and more[i].strip()]
        texts += [first[i] for i in full]
        others += [more[i] for i in full]
    return texts, others if second else None


def _shown(found: Any) -> str:
    """One attribution for a terminal."""
    answer = ", ".join(found.prediction) if isinstance(found.prediction, list) else found.prediction
    title = f"{found.value:.4g}" if found.explained is None else f"{found.explained} ({found.value:.1%})"
    if found.explained is not None and answer != found.explained:
        title += f"; predicted: {answer or 'no label'}"
    lines = [_short(found.text), f"  explained: {title}; method: {found.method}"]
    for heading, rows in (("for it", found.supports), ("against it", found.opposes)):
        lines.append(f"  {heading}:" + ("" if rows else " no training row"))
        for behind in rows:
            label = ", ".join(behind.label) if isinstance(behind.label, list) else behind.label
            pair = f" | {behind.text_pair}" if behind.text_pair else ""
            lines.append(f"    {behind.score:+.2f}  row {behind.row:<6} {label}: {_short(behind.text + pair, 76)}")
    return "\n".join(lines)


def _short(text: str, most: int = 100) -> str:
    return cut(" ".join(text.split()), most)
