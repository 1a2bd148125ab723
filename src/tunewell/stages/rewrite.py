"""`strategy: sdft`: the training rows with their answers in the base model's own words, made before tuning.

1. The base model, untuned, is asked to rewrite the last answer of every training row; validation and test rows stay.
2. What it wrote is checked (`tasks.generation.agreement`), and taken or not.
3. The run tunes on the rows with the answers that were taken and the originals of the others. Everything else, the
   check of the data, baselines and scores, goes by the data as they are.

sdft.jsonl holds every row with what was written and why it was not taken, sdft.json the counts. A stopped run goes on
at the batch that it was writing.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewell.folder import fingerprint
from tunewell.report.sdft import sentences
from tunewell.results import Record, write_whole
from tunewell.shown import cut
from tunewell.stages.job import Job
from tunewell.stages.keys import STRATEGY_KEYS
from tunewell.strategies import SDFT

if TYPE_CHECKING:
    from tunewell.recipe import Recipe

FILE, ROWS, PARTS = "sdft.json", "sdft.jsonl", "cache/sdft"
BEGUN = "sdft-begun"  # the step under way, whose batches PARTS holds
SHOWN, LONGEST = 4, 600  # examples of either kind; their characters
MEASURED = 200  # taken answers at most whose likelihood is measured


class RewrittenExample(Record):
    """A row for people to look at; `why` is empty where the rewritten answer was taken."""

    where: str
    instruction: str
    original: str
    rewritten: str
    why: str = ""


class Rewriting(Record):
    """`sdft.json`.

    Attributes:
        rows: training rows. asked: of which the base model was asked to rewrite the answer. rewritten: answers taken.
        kept: why the others stay as they were -> rows; see `tasks.generation.agreement.REASONS`.
        similarity: mean token F1 of the taken answers with their originals; None without any.
        bits_per_byte: "original" and "rewritten": how surprised the base model is by the answers, on `measured` of
            those that were taken; empty without any.
        template: what was asked. examples: taken ones first.
    """

    rows: int
    asked: int
    rewritten: int
    kept: dict[str, int]
    similarity: float | None
    bits_per_byte: dict[str, float]
    measured: int
    template: str
    seconds: float
    examples: tuple[RewrittenExample, ...] = ()


def wanted(recipe: Recipe) -> bool:
    """Whether answers are rewritten."""
    return SDFT in recipe.strategies


def discard(job: Job) -> None:
    """A run without `sdft` keeps no record of an earlier one in its folder that had it."""
    for name in (FILE, ROWS):
        (job.folder / name).unlink(missing_ok=True)


def learned(job: Job) -> Job:
    """The job on the rows that it is tuned on: under `sdft` those with rewritten answers, else its own."""
    if not wanted(job.recipe):
        return job
    assert job.max_length  # of the run's own rows
    child = job.with_keys(job.candidate)
    child.splits = {**job.splits, "train": with_answers(job.splits["train"], rows_of(job))}
    return child


def with_answers(train: Any, found: Sequence[dict[str, Any]]) -> Any:
    """Training rows with the answers that were taken in place of their own, in the same order."""
    from datasets import Dataset

    rows = []
    for row, entry in zip(train, found, strict=True):
        if entry["taken"]:
            messages = json.loads(row["messages"])
            messages[-1]["content"] = entry["rewritten"]
            row = {**row, "label": entry["rewritten"], "messages": json.dumps(messages, ensure_ascii=False)}
        rows.append(row)
    return Dataset.from_list(rows, features=train.features)


def rows_of(job: Job) -> list[dict[str, Any]]:
    """The entries of sdft.jsonl, one a training row; made once and kept in the run folder."""
    if job.rewritten is not None:
        return _read(job.rewritten)
    recipe = job.recipe
    settings = {key: getattr(recipe, key) for key in STRATEGY_KEYS[SDFT]}
    rows = job.splits["train"]["messages"][:]
    key = fingerprint(SDFT, job.keys.data, rows, job.max_length, settings, recipe.seed, recipe.bf16)

    def make() -> list[dict[str, Any]]:
        parts = job.folder / PARTS
        if job.folder.steps.get(BEGUN) != key:
            shutil.rmtree(parts, ignore_errors=True)  # of other rows or settings
        job.folder.mark(BEGUN, key)
        entries, record = rewrite(job, parts)
        write_whole(job.folder / ROWS, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries))
        record.write(job.folder / FILE)
        shutil.rmtree(parts, ignore_errors=True)
        return entries

    return job.folder.step(SDFT, key, [FILE, ROWS], make, lambda: _read(job.folder / ROWS))


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def seconds(job: Job) -> float:
    """What rewriting took, which belongs to tuning; 0 without it."""
    return Rewriting.load(job.folder / FILE).seconds if wanted(job.recipe) else 0.0


def rewrite(job: Job, parts: Path) -> tuple[list[dict[str, Any]], Rewriting]:
    """Ask the base model, check what it wrote, and say what came of it.

    Args:
        parts: a folder for what is written so far.
    """
    from tqdm import tqdm

    from tunewell.strategies.sdft import TEMPLATE
    from tunewell.tasks.generation import agreement, rewriting
    from tunewell.tasks.generation.models import config_of, window_of
    from tunewell.tasks.generation.rendering import ensure_template
    from tunewell.tasks.generation.score import token_f1

    recipe, train = job.recipe, job.splits["train"]
    task: Any = job.task
    template = recipe.sdft_template or TEMPLATE
    window = window_of(config_of(recipe, job.model_path), job.tokenizer)
    ensure_template(job.tokenizer)
    talks = task.messages(job, train)
    asked, left = rewriting.requests(
        job.tokenizer, talks, template=template, ratio=recipe.sdft_length_ratio, most=recipe.sdft_max_new_tokens,
        window=window,
    )  # fmt: skip
    job.echo(f"sdft: the base model says {len(asked):,} answers of {len(talks):,} in its own words")
    model = task.base_model(job)
    writer = rewriting.rewriter(
        model, job.tokenizer, window=window, most=recipe.sdft_max_new_tokens, temperature=recipe.sdft_temperature,
        seed=recipe.seed, batch_size=recipe.per_device_eval_batch_size, bf16=job.bf16,
    )  # fmt: skip
    with tqdm(total=len(asked), desc=SDFT, unit="row", file=sys.stderr, disable=not job.progress) as bar:
        written, taken_seconds = rewriting.write_all(writer, asked, parts, bar.update)

    started = time.perf_counter()
    rules = agreement.Rules(recipe.sdft_min_similarity, recipe.sdft_length_ratio, template)
    own = task.writer(job, model, bf16=job.bf16)
    entries: list[dict[str, Any]] = []
    both: list[tuple[Any, Any]] = []  # rows with either answer, encoded as they are learned
    for at, (row, talk) in enumerate(zip(train, talks, strict=True)):
        reference = talk[-1]["content"]
        entry = {"row": row["row"], "source": row["source"], "original": reference}
        if at in left:
            entries.append({**entry, "rewritten": "", "similarity": None, "taken": False, "why": left[at]})
            continue
        text, ended = written[at].text, written[at].ended
        why = agreement.reason(rewriting.instruction_of(talk), reference, text, ended=ended, rules=rules)
        if why == agreement.TAKEN:
            before, after = own.encode(talk), own.encode([*talk[:-1], {**talk[-1], "content": text}])
            if after.cut > before.cut:  # what is gained at the end would be lost at the beginning
                why = "long"
            else:
                both.append((before, after))
        similar = round(token_f1(text, reference), 4)
        entries.append({**entry, "rewritten": text, "similarity": similar, "taken": not why, "why": why})
    bits, measured = _surprise(own, both)
    taken = [e for e in entries if e["taken"]]
    counts = Counter(e["why"] for e in entries if not e["taken"])
    record = Rewriting(
        rows=len(entries),
        asked=len(asked),
        rewritten=len(taken),
        kept={why: counts[why] for why in agreement.REASONS if counts[why]},
        similarity=round(sum(e["similarity"] for e in taken) / len(taken), 4) if taken else None,
        bits_per_byte=bits,
        measured=measured,
        template=template,
        seconds=round(taken_seconds + time.perf_counter() - started, 2),
        examples=_examples(entries, talks),
    )
    job.echo(f"sdft: {' '.join(sentences(record))}")
    return entries, record


def _surprise(writer: Any, both: Sequence[tuple[Any, Any]]) -> tuple[dict[str, float], int]:
    """Bits a byte of taken answers to the base model, before and after; of at most MEASURED, spread over the rows."""
    import numpy as np

    if not both:
        return {}, 0
    some = [both[i] for i in np.unique(np.linspace(0, len(both) - 1, min(MEASURED, len(both))).astype(int))]
    out = {}
    for name, rows in zip(("original", "rewritten"), zip(*some, strict=True), strict=True):
        found = writer.likelihood(rows)
        out[name] = round(float(found.nats.sum() / np.log(2) / max(found.bytes.sum(), 1)), 4)
    return out, len(some)


def _examples(entries: Sequence[dict[str, Any]], talks: Sequence[Any]) -> tuple[RewrittenExample, ...]:
    """The first rows that were taken, and the first of each reason why others were not."""
    from tunewell.tasks.generation.rewriting import instruction_of

    taken = [i for i, e in enumerate(entries) if e["taken"]][:SHOWN]
    first: dict[str, int] = {}
    for i, e in enumerate(entries):
        if not e["taken"] and e["rewritten"]:
            first.setdefault(e["why"], i)
    out = []
    for i in [*taken, *list(first.values())[:SHOWN]]:
        e = entries[i]
        texts = [cut(text, LONGEST) for text in (instruction_of(talks[i]), e["original"], e["rewritten"])]
        where = f"{e['source']}:{e['row']}"
        out.append(
            RewrittenExample(where=where, instruction=texts[0], original=texts[1], rewritten=texts[2], why=e["why"])
        )
    return tuple(out)
