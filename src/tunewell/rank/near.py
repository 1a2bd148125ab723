"""Which past task is nearest to the new one: task embeddings by one encoder that all are read with, kept in the cache.

A run's own scores tell what its model makes of the new rows; this tells whether its task is like the new one, whatever
became of its model. Vu et al. (2020) found such embeddings to point to good sources for transfer.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import TunewellError
from tunewell.rank.candidates import ENCODERS
from tunewell.rank.records import Ranked
from tunewell.seal import DAMAGED_ARRAYS

if TYPE_CHECKING:
    from tunewell.rank.rows import Sample
    from tunewell.recipe import Recipe
    from tunewell.tasks import TaskSpec

ROWS = 256  # of a task that are read
MAX_LENGTH = 128  # tokens of a text
MADE = 2  # raised when an embedding's definition changes, so that older ones in the cache are not taken
TEXTS, TASK = "textemb_cosine", "task2vec_distance"  # names among a candidate's scores


@dataclass(frozen=True)
class Rows:
    """A task: texts, their second texts where they are pairs, and targets as `tasks.targets` gives them."""

    spec: TaskSpec
    texts: Sequence[str]
    pairs: Sequence[str] | None
    targets: np.ndarray

    def some(self, most: int, seed: int) -> Rows:
        """A seeded sample of at most so many rows, in their order."""
        if len(self.texts) <= most:
            return self
        chosen = np.sort(np.random.default_rng(seed).permutation(len(self.texts))[:most])
        pairs = None if self.pairs is None else [self.pairs[i] for i in chosen]
        return Rows(self.spec, [self.texts[i] for i in chosen], pairs, self.targets[chosen])


@dataclass(frozen=True)
class Embedded:
    """A task's embeddings: TextEmb (H,) and Task2Vec (D,)."""

    text: np.ndarray
    fisher: np.ndarray


def nearness(
    order: Sequence[Ranked],
    past: Mapping[str, str],
    sample: Sample,
    recipe: Recipe,
    *,
    fresh: bool = False,
    echo: Callable[[str], None] = lambda line: None,
) -> tuple[tuple[Ranked, ...], str | None]:
    """The candidates, those of past runs with `textemb_cosine` and `task2vec_distance` to the new task among their
    scores; and the encoder that read the tasks: the base model of most of these runs. Two tasks of which one says
    nothing of the encoder (a single row, a single class) have no distance.

    A run whose rows cannot be read again has neither, and the reason is told. None where no run has.

    Args:
        past: model folder -> base model, see `runs.past_runs`. fresh: embed again what the cache knows.
    """
    if sample.spec.name not in ENCODERS:
        return tuple(order), None
    tasks: dict[str, Rows] = {}
    for one in order:
        if one.name in past:
            try:
                tasks[one.name] = rows_of(Path(one.name).parent)
            except TunewellError as error:
                echo(f"rank: {one.name}: not compared with the new task: {error.what}")
    if not tasks:
        return tuple(order), None
    by = Counter(past[name] for name in tasks).most_common(1)[0][0]
    echo(f"rank: tasks of {len(tasks)} runs and the new one, embedded by {by}")
    spec = sample.spec
    new = Rows(spec, sample.rows["text"][:], sample.rows["text_pair"][:] if spec.pair else None, sample.targets)
    model: list[Any] = []  # loaded where the cache does not know a task
    try:
        here = embedded(new, by, recipe, model, fresh=fresh)
        found = {name: embedded(rows, by, recipe, model, fresh=fresh) for name, rows in tasks.items()}
    except TunewellError as error:
        echo(f"rank: tasks are not compared: {error.what}")
        return tuple(order), None
    return tuple(_scored(one, here, found.get(one.name)) for one in order), by


def _scored(one: Ranked, here: Embedded, there: Embedded | None) -> Ranked:
    from tunewell.rank.scores import cosine, task_distance

    if there is None:
        return one
    near = {TEXTS: cosine(here.text, there.text), TASK: task_distance(here.fisher, there.fisher)}
    return replace(one, scores={**one.scores, **{k: v for k, v in near.items() if v is not None}})


def rows_of(run: Path) -> Rows:
    """What a run was tuned on.

    Raises:
        RunFolderError, DataError: its rows are not at hand, or are not those of then; or no classes and scores.
    """
    from tunewell.errors import DataError
    from tunewell.explain.influence.rows import read_rows

    rows = read_rows(run)
    if rows.spec.name not in ENCODERS:
        raise DataError(f"is a run of {rows.spec.name}", where=str(run), expected=", ".join(ENCODERS))
    rows = rows.select(rows.trained)
    return Rows(rows.spec, rows.texts, rows.pairs, rows.targets())


def embedded(task: Rows, by: str, recipe: Recipe, model: list[Any], *, fresh: bool) -> Embedded:
    """A task's embeddings, from the cache where it has them.

    Args:
        by: the encoder. model: holds it once it is loaded.

    Raises:
        ModelError: it cannot be loaded.
    """
    from tunewell.cache import cache_folder
    from tunewell.folder import fingerprint
    from tunewell.models.load import load_encoder, locate, window
    from tunewell.rank.fisher import fisher
    from tunewell.rank.scores import textemb
    from tunewell.results import write_whole
    from tunewell.stages.keys import model_key

    task = task.some(ROWS, recipe.seed)
    digest = hashlib.sha256(json.dumps([list(task.texts), task.pairs and list(task.pairs)]).encode())
    digest.update(np.ascontiguousarray(task.targets).tobytes())
    about = (task.spec.to_dict(), digest.hexdigest(), MAX_LENGTH, recipe.seed)
    key = fingerprint("task", MADE, model_key(locate(by), None), recipe.trust_remote_code, about)
    place = cache_folder("rank", f"task-{key}.npz")
    if not fresh and place.is_file():
        try:
            with place.open("rb") as file, np.load(file, allow_pickle=False) as kept:
                return Embedded(kept["text"], kept["fisher"])
        except DAMAGED_ARRAYS:
            pass  # damaged: made again
    if not model:
        model.append(load_encoder(by, trust_remote_code=recipe.trust_remote_code))
    encoder = model[0]
    vectors, information = fisher(
        encoder.model, encoder.tokenizer, task.texts, task.pairs, task.targets, outputs=task.spec.outputs,
        max_length=min(MAX_LENGTH, window(encoder.model, encoder.tokenizer)), seed=recipe.seed,
    )  # fmt: skip
    found, buffer = Embedded(textemb(vectors), information), io.BytesIO()
    np.savez(buffer, text=found.text, fisher=found.fisher)
    write_whole(place, buffer.getvalue())
    return found
