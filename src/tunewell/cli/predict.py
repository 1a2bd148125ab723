"""`tunewell predict`: label a file of any size, in the format it came in."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunewell.cli.as_json import json_option, show_json
from tunewell.cli.base import Command, keep_input, say, show_progress
from tunewell.cli.options import worker_options
from tunewell.errors import DataError, ModelError, nearest
from tunewell.workers import HERE, Shared, Workers

if TYPE_CHECKING:
    from tunewell.data.rows import Chunk, RowSource

_EXAMPLES = (
    "tunewell predict runs/reviews new.csv -o labelled.csv",
    "tunewell predict runs/reviews new.parquet --text body -o labelled.parquet",
    "echo 'what a lovely day' | tunewell predict runs/reviews -",
    "tunewell predict runs/reviews new.csv -o labelled.csv --coverage 0.9",
    "zcat new.jsonl.gz | tunewell predict runs/reviews - --format jsonl | head",
    "tunewell predict runs/reviews big.parquet --ray auto -o labelled.parquet",
)
AHEAD = 2  # blocks of rows a worker: the one that it labels and the next
_FORMATS = ("csv", "tsv", "json", "jsonl", "parquet", "arrow", "text")


@click.command("predict", cls=Command, examples=_EXAMPLES)
@click.argument("run")
@click.argument("data", default="-")
@click.option("-o", "--output", metavar="FILE", default="-", help="Where to; standard output when missing.")
@click.option("--format", "format_", type=click.Choice(_FORMATS), help="Format of DATA; by its ending when missing.")
@click.option("--text", metavar="TEXT", help="Column with the text; by default the one the run was tuned on.")
@click.option("--text_pair", metavar="TEXT", help="Column with the second text.")
@click.option("--encoding", default="auto", metavar="TEXT", help="Character encoding of a text file. [auto]")
@click.option("--task_name", metavar="TEXT", help="Which task of a sequence; needed where RUN has several.")
@click.option(
    "--framework",
    type=click.Choice(["pytorch", "tensorflow"]),
    default="pytorch",
    help="What computes; tensorflow for encoders of the BERT family, GPT-2 and Llama. [pytorch]",
)
@click.option("--batch_size", type=click.IntRange(1), default=64, metavar="INTEGER", help="Rows a batch. [64]")
@click.option(
    "--coverage",
    type=float,
    metavar="NUMBER",
    help="Add `prediction_set`: labels that hold the true one with this probability, such as 0.9 (an interval for "
    "scores).",
)
@click.option(
    "--conformal",
    default="lac",
    metavar="NAME",
    help="With --coverage: lac (smallest sets) or aps (sets that adapt to the row). [lac]",
)
@click.option(
    "--bf16/--no-bf16",
    default=False,
    help="Classes in bfloat16 and close calls again in fp32: the same labels, about twice as fast where the processor "
    "has it, probabilities within about 0.01. [no]",
)
@click.option("--threads", type=click.IntRange(1), metavar="INTEGER", help="Processor threads, of each worker if any.")
@json_option("With -o, print what was written as JSON; without, rows as JSON lines.")
@worker_options
def command(
    run: str,
    data: str,
    output: str,
    format_: str | None,
    text: str | None,
    text_pair: str | None,
    encoding: str,
    task_name: str | None,
    framework: str,
    batch_size: int,
    coverage: float | None,
    conformal: str,
    bf16: bool,
    threads: int | None,
    as_json: bool,
    jobs: int | None,
    ray: str | None,
) -> None:
    """Label a file, or standard input, with a tuned model; files may be larger than memory.

    RUN is a run folder, a sequence folder (with --task_name) or a plain Transformers classification
    folder. DATA is CSV, TSV, JSON, JSONL, Parquet, Arrow or lines of text (the default for standard input,
    `-`). The output has the same rows, columns and format, with `prediction` and a probability for each
    label added; another ending of -o asks for another format. A row with an empty text gets an empty
    prediction. The output file appears whole or not at all.

    With --json and -o an account of what was written is printed as JSON; without -o the rows themselves are JSON lines.

    With --jobs or --ray blocks of rows are labelled side by side, each by a worker that holds the model; rows are
    read and written here, in their order.
    """
    from tunewell.data.rows import STDIN, open_rows
    from tunewell.data.write_rows import STDOUT, format_of

    if not Path(run).exists():
        raise ModelError("no such run or model folder", where=run, expected="a run folder or a model folder")
    keep_input(output, data)
    if data == STDIN and sys.stdin.isatty():
        say("reading from the terminal, one text a line; Ctrl-D ends")
    waits = data == STDIN and sys.stdin.isatty()
    workers = Workers(jobs, ray)
    if threads and workers.here:
        import torch

        torch.set_num_threads(threads)
    if coverage is not None:
        from tunewell.evaluate.conformal import check_coverage

        check_coverage(coverage)
    with open_rows(data, format=format_ or "auto", encoding=encoding, chunk_rows=1 if waits else 1024) as rows:
        target = "jsonl" if as_json and output == STDOUT else format_of(output, rows.format)
        _check_output(output)
        from tunewell.predict import open_predictor

        about = {"run": str(Path(run).absolute()), "batch_size": batch_size, "task_name": task_name}
        about |= {"framework": framework, "coverage": coverage, "conformal": conformal, "bf16": bf16}
        predictor = open_predictor({**about, "run": run})
        if bf16 and _precision(predictor) == "fp32":
            say("--bf16 is for the classes of a head in PyTorch, without --coverage; this is calculated without it")
        column = column_of(rows, text, predictor, "text")
        pair = None
        if predictor.pair or text_pair is not None:
            pair = column_of(rows, text_pair, predictor, "text_pair")
        shared = Shared(lambda: predictor, open_predictor, about, () if workers.here else model_files(run))
        account = label(predictor, rows, output, target, column, pair, shared, workers, threads)
        if as_json and output != STDOUT:
            show_json(account)


def model_files(run: str) -> list[str]:
    """What a worker must see to predict as we do: the folder, its files of weights and what is said of them."""
    found = [p for p in sorted(Path(run).rglob("*")) if p.suffix in (".safetensors", ".json", ".npz") and p.is_file()]
    return [run, *(str(p) for p in found if "train" not in p.relative_to(run).parts)]


def label(
    predictor: Any,
    rows: RowSource,
    output: str,
    format_: str,
    column: str,
    pair: str | None,
    shared: Shared,
    workers: Workers = HERE,
    threads: int | None = None,
) -> dict[str, Any]:
    """Predict chunk by chunk, say on stderr how many rows there were, and return that account.

    Raises:
        DataError: the file holds another number of rows than it says.
    """
    from tqdm import tqdm

    from tunewell.data.write_rows import RowWriter
    from tunewell.predict import predict_rows
    from tunewell.workers import done

    added = predictor.added(rows.columns)
    if added.suffix:
        say(f"{rows.name}: has a column of our name already; ours are called {', '.join(added.flat[:2])}, ...")
    started, count, empty, again = time.perf_counter(), 0, 0, 0
    show = show_progress() and rows.name != "standard input"
    read: deque[tuple[Chunk, list[int]]] = deque()  # chunks that are being labelled, with the places of their texts

    def blocks() -> Iterator[dict[str, Any]]:
        for chunk in rows:
            texts, pairs = chunk.texts(column), chunk.texts(pair) if pair else None
            full = [i for i, text in enumerate(texts) if text.strip()]
            read.append((chunk, full))
            yield {"texts": [texts[i] for i in full], "pairs": [pairs[i] for i in full] if pairs else None}

    options: dict[str, Any] = {"threads": threads, "echo": say, "name": lambda _: "a block of rows"}
    with (
        RowWriter(output, format_, rows, added) as writer,
        tqdm(total=rows.total, unit=" rows", file=sys.stderr, disable=not show, leave=False) as bar,
        closing(done(predict_rows, blocks(), shared, workers, in_order=True, ahead=AHEAD, **options)) as results,
    ):
        for one in results:
            chunk, full = read.popleft()
            answers: list[dict | None] = [None] * len(chunk.rows)
            found = one.result()
            for i, answer in zip(full, found["answers"], strict=True):
                answers[i] = answer
            again += found["again"]
            writer.write(chunk, answers)
            count, empty = count + len(answers), empty + len(answers) - len(full)
            bar.update(len(answers))
        if rows.total is not None and rows.total != count:
            raise DataError(f"says that it has {rows.total:,} rows, and holds {count:,}", where=rows.name)
    for notice in rows.notices:
        say(notice)
    seconds = time.perf_counter() - started
    say(_told(count, empty, seconds, output, again))
    account = {"output": output, "format": format_, "rows": count, "empty": empty, "columns": added.flat}
    account |= {"precision": _precision(predictor), "read_again": again}
    return account | {"seconds": round(seconds, 3), "notices": list(rows.notices)}


def _precision(predictor: Any) -> str:
    """What probabilities are calculated in."""
    return str(getattr(predictor, "precision", "fp32"))


def _told(count: int, empty: int, seconds: float, output: str, again: int = 0) -> str:
    """What was done, in one line; the rate of a few rows that took seconds tells nothing.

    >>> _told(3, 1, 60.0, "out.csv")
    '3 rows labelled in out.csv; 1 without text, left without a prediction'
    """
    rate = count / max(seconds, 1e-9)
    place = f" in {output}" if output != "-" else ""
    speed = f", {rate:,.0f} rows/s" if rate >= 1 else ""
    note = f"; {empty:,} without text, left without a prediction" if empty else ""
    note += f"; {again:,} close call{'s' * (again != 1)} read again in fp32" if again else ""
    return f"{count:,} row{'s' * (count != 1)} labelled{place}{speed}{note}"


def _check_output(output: str) -> None:
    """Name a place that cannot be written before the model is loaded."""
    from tunewell.data.write_rows import WholeFile

    if output != "-":
        WholeFile(output).discard()


def column_of(rows: RowSource, asked: str | None, predictor: Any, kind: str) -> str:
    """The column of the texts ("text") or of the second texts ("text_pair"), see `_column`."""
    if kind == "text":
        return _column(rows, asked, predictor.text_column, predictor.usual, "--text")
    return _column(rows, asked, predictor.text_pair_column, predictor.usual_pair, "--text_pair")


def _column(rows: RowSource, asked: str | None, tuned: str | None, usual: tuple[str, ...], option: str) -> str:
    """The column to read: as asked for, as the run was tuned on, or the only one that comes to mind.

    Raises:
        DataError: it is not in the data.
    """
    if rows.format == "text" and option != "--text":
        raise DataError("lines of text hold no second text", where=rows.name, expected="CSV or JSONL with two columns")
    if rows.format == "text" and asked is None:
        return "text"
    wanted = asked or tuned
    if wanted is None:
        lower = {name.lower(): name for name in rows.columns}
        wanted = next((lower[name] for name in usual if name in lower), None)
        if wanted is None and len(rows.columns) == 1 and option == "--text":
            wanted = rows.columns[0]
        if wanted is None:
            raise DataError(
                "cannot tell which column holds the text" + (" pair" if option != "--text" else ""),
                where=rows.name,
                expected="one of " + ", ".join(rows.columns),
                remedy=f"name it with {option}",
            )
    if wanted not in rows.columns:
        raise DataError(
            f"no column `{wanted}`" + ("" if asked else ", which the run was tuned on"),
            where=rows.name,
            expected="one of " + ", ".join(rows.columns),
            remedy="; ".join(
                part for part in (nearest(wanted, rows.columns), f"name the column with {option}") if part
            ),
        )
    return wanted
