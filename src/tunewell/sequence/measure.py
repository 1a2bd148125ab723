"""One row of the accuracy matrix: every task's test rows under the body as it is now."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.results import write_whole
from tunewell.sequence.heads import Head, run_heads

if TYPE_CHECKING:
    from tunewell.stages.prepare import Prepared

PROBE_ROWS = 1000  # training rows of a linear probe on a task not yet seen


def answers(model: Any, tokenizer: Any, prepared: Prepared, split: str, head: Head, **options: Any) -> np.ndarray:
    """(n,) class ids that a head gives on a split; options: max_length, batch_size, bf16."""
    return logits_on(model, tokenizer, prepared, split, {"": head}, **options)[0][""].argmax(1)


def logits_on(
    model: Any,
    tokenizer: Any,
    prepared: Prepared,
    split: str,
    heads: dict[str, Head],
    *,
    max_length: int,
    **options: Any,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Logits of heads, and states (n, 2, H), on the rows of a split; see `run_heads`."""
    from tunewell.models.embed import encode

    rows = prepared.splits[split]
    pairs = list(rows["text_pair"]) if prepared.spec.pair else None
    return run_heads(model, tokenizer, encode(tokenizer, list(rows["text"]), pairs, max_length), heads, **options)


def right_of(
    model: Any, tokenizer: Any, prepared: Prepared, head: Head, *, max_length: int, **options: Any
) -> np.ndarray:
    """(n,) which test rows a task's own head answers right."""
    from tunewell.tasks import targets

    given = answers(model, tokenizer, prepared, "test", head, max_length=max_length, **options)
    return given == targets(prepared.spec, prepared.splits["test"])


def probe_right(
    model: Any, tokenizer: Any, prepared: Prepared, *, max_length: int, seed: int, bf16: bool
) -> np.ndarray:
    """(n,) which test rows a linear probe on the frozen body answers right.

    The probe is fitted on at most PROBE_ROWS training rows, its regularisation chosen on validation.
    """
    from tunewell.evaluate.linear import fit_linear_probe
    from tunewell.models.embed import embed
    from tunewell.tasks import targets

    x, y = {}, {}
    for name, rows in prepared.splits.items():
        if name == "train" and len(rows) > PROBE_ROWS:
            rows = rows.select(np.sort(np.random.default_rng(seed).permutation(len(rows))[:PROBE_ROWS]))
        pairs = list(rows["text_pair"]) if prepared.spec.pair else None
        x[name] = embed(model, tokenizer, list(rows["text"]), pairs=pairs, max_length=max_length, bf16=bf16)
        y[name] = targets(prepared.spec, rows)
    probe = fit_linear_probe(
        x["train"], y["train"], x["validation"], y["validation"], seed=seed, n_classes=len(prepared.spec.labels)
    )
    return probe.predict(x["test"]) == y["test"]


def save_right(path: Path, cells: Sequence[np.ndarray | None]) -> None:
    """One row of the matrix, test row by test row."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{str(j): cell for j, cell in enumerate(cells) if cell is not None})  # type: ignore[arg-type]
    write_whole(path, buffer.getvalue())


def load_right(path: Path, tasks: int) -> list[np.ndarray | None]:
    with np.load(path, allow_pickle=False) as file:
        return [file[str(j)] if str(j) in file.files else None for j in range(tasks)]
