"""How likely the base model finds the answers of a pool: after their prompts, and by themselves.

Shapes: n rows.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.prune.answers.scores import ifd
from tunewell.tasks.generation.loss import IGNORED

if TYPE_CHECKING:
    from tunewell.tasks.generation.writers import Encoded, Writer

CHUNK = 256  # rows between two steps of the bar


def losses(writer: Writer, rows: Sequence[Encoded], *, title: str, progress: bool) -> tuple[np.ndarray, np.ndarray]:
    """Nats (n,) and tokens (n,) of the answers."""
    from tqdm import tqdm

    nats, tokens = np.zeros(len(rows)), np.zeros(len(rows))
    order = np.argsort([-len(r.ids) for r in rows], kind="stable")  # like lengths in one chunk
    with tqdm(total=len(rows), unit="rows", desc=title, file=sys.stderr, disable=not progress, leave=False) as bar:
        for at in range(0, len(rows), CHUNK):
            part = order[at : at + CHUNK]
            found = writer.likelihood([rows[i] for i in part])
            nats[part], tokens[part] = found.nats, found.tokens
            bar.update(len(part))
    return nats, tokens


def perplexities(writer: Writer, rows: Sequence[Encoded], *, progress: bool) -> dict[str, np.ndarray]:
    """`perplexity` (n,) and `tokens` (n,) of the answers."""
    nats, tokens = losses(writer, rows, title="likelihood", progress=progress)
    return {"perplexity": np.exp(nats / np.maximum(tokens, 1)), "tokens": tokens}


def difficulties(writer: Writer, rows: Sequence[Encoded], *, progress: bool) -> dict[str, np.ndarray]:
    """`ifd`, `loss` and `loss_alone` (n,): see `alone` for what is counted."""
    both = [alone(writer.tokenizer, row) for row in rows]
    given = losses(writer, [a for a, _ in both], title="after the prompt", progress=progress)
    by_itself = losses(writer, [b for _, b in both], title="alone", progress=progress)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "ifd": ifd(given, by_itself), "loss": given[0] / given[1], "loss_alone": by_itself[0] / by_itself[1],
        }  # fmt: skip


def alone(tokenizer: Any, row: Encoded) -> tuple[Encoded, Encoded]:
    """A row twice: with loss on its last answer only, and that answer without anything before it.

    A decoder without a mark of the beginning has nothing to tell an answer's first token from, so it carries loss in
    neither; the same tokens are compared (Li et al., 2024, score whole answers).
    """
    learnt = [i for i, y in enumerate(row.labels) if y != IGNORED]
    start = learnt[-1]
    while start and row.labels[start - 1] != IGNORED:
        start -= 1
    bos = tokenizer.bos_token_id
    first = start if bos is not None else start + 1
    labels = [y if i >= first else IGNORED for i, y in enumerate(row.labels)]
    before = [] if bos is None else [int(bos)]
    ids = [*before, *row.ids[start:]]
    own = [*[IGNORED] * len(before), *labels[start:]]
    return row._replace(labels=labels), row._replace(ids=ids, labels=own)
