"""What queries need of each training row of a run that writes, computed once and stored in the run folder.

`RUN/influence/`: plain.npy and, where Adam's moments are at hand, adam.npy ((n, k), float16, each row of length 1,
read through memory mapping), norms.npy, losses.npy and tokens.npy (n,), features.npy (n, H), and index.json, which is
written last and says what they were made from. Rows are taken one at a time, so that no more than one whole gradient
is in memory. Building goes on where it was stopped, and starts afresh when the model or the data have changed.

Shapes: n training rows, q queries, k numbers of a projected gradient, H hidden size.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.explain.influence.answers.gradients import Moments, Pull, Pulls, unit
from tunewell.explain.influence.answers.sketch import BLOCKS, SIZE, Sketch
from tunewell.explain.influence.answers.weights import ADAPTERS, weights_of
from tunewell.explain.influence.index import FOLDER, Echo, done_before, file_hash_of, is_whole
from tunewell.folder import RunFolder, file_hash, fingerprint
from tunewell.results import write_whole
from tunewell.strategies import SDFT
from tunewell.train.trace import FILE, Adapters

if TYPE_CHECKING:
    from tunewell.explain.influence.answers.rows import AnswerRows
    from tunewell.tasks.generation.writers import Encoded, Writer

FORMAT, SEED = 1, 0
MOST_ROWS = 50_000  # at 16 KB a row about 800 MB
NOTED = 8  # rows between two notes of how far it is


@dataclass
class AnswerIndex:
    """Training rows as the methods see them; with `kept`, `matrix` and `push` as `trak` asks for them.

    Attributes:
        plain: (n, k) projected gradients of each row's loss, of length 1; norms: (n,) their lengths before.
        adam: (n, k) projected directions of Adam's step, of length 1; None without its moments.
        features: (n, H). losses: (n,) nats a token. tokens: (n,) of each answer. rows: (n,) places in the file.
        weights: what gradients were taken by, see `weights`.
    """

    plain: np.ndarray
    norms: np.ndarray
    adam: np.ndarray | None
    features: np.ndarray
    losses: np.ndarray
    tokens: np.ndarray
    rows: np.ndarray
    weights: str
    kept: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def push(self) -> np.ndarray:
        """(n,) factors of the gradients; 1, since they are those of the losses themselves."""
        return np.ones(len(self), dtype=np.float32)

    def matrix(self) -> np.ndarray:
        """(n, k) gradients at their own lengths, float32, in memory."""
        if "matrix" not in self.kept:
            self.kept["matrix"] = np.asarray(self.plain, dtype=np.float32) * self.norms[:, None]
        return self.kept["matrix"]


@dataclass(frozen=True)
class AnswerQuery:
    """Answers to be explained: gradients (q, k) of their losses, features (q, H), losses (q,) in nats a token."""

    gradients: np.ndarray
    features: np.ndarray
    losses: np.ndarray


def adapters_at(run: Path) -> Adapters | None:
    """The adapters that a run has learned; None where it learned whole weights, or they are no longer there."""
    return Adapters.load(run / "train" / FILE)


def settings_of(adapters: Adapters | None) -> Moments | None:
    """Adam's settings; None without its moments."""
    if adapters is None or not adapters.moments:
        return None
    return Moments(adapters.steps, adapters.betas, adapters.eps)


def build(rows: AnswerRows, writer: Writer, *, echo: Echo, progress: bool = False) -> AnswerIndex:
    """The index of a run; built when it is missing or out of date.

    Args:
        rows: the training file. writer: the tuned model. echo: told once when there is something to build.

    Raises:
        RunFolderError: another process is working in the run folder, or it cannot be written.
        DataError: no row of the file was learned.
    """
    rows = sample(rows)
    encoded = rows.encoded(writer)
    if rows.recipe.overlength == "drop":
        fits = [i for i, e in enumerate(encoded) if not e.cut]
        rows, encoded = rows.select(np.array(fits, dtype=np.int64)), [encoded[i] for i in fits]
    folder, key = rows.run / FOLDER, _key(rows)
    if not is_whole(folder, key):
        with RunFolder(rows.run):
            if not is_whole(folder, key):
                _build(rows, encoded, writer, folder, key, echo, progress)
    return _open(rows, folder)


def sample(rows: AnswerRows) -> AnswerRows:
    """The rows that the model was tuned on; a seeded sample of very many."""
    places = np.flatnonzero(rows.split == "train")
    if len(places) > MOST_ROWS:
        places = np.sort(np.random.default_rng(rows.recipe.seed).permutation(places)[:MOST_ROWS])
    return rows.select(places)


def query(rows: AnswerRows, writer: Writer, encoded: Sequence[Encoded]) -> AnswerQuery:
    """Answers as the methods see them: projected as the rows of the index are."""
    adapters = adapters_at(rows.run)
    with weights_of(writer.model, adapters) as weights:
        pulls = Pulls(writer, weights, Sketch(weights.sizes, seed=SEED))
        found = [pulls.of(e) for e in encoded]
    return AnswerQuery(
        np.stack([f.plain for f in found if f.plain is not None]),
        np.stack([f.features for f in found]),
        np.array([f.loss for f in found]),
    )


def _key(rows: AnswerRows) -> str:
    weights = sorted((rows.run / "model").glob("*.safetensors"))
    adapters = rows.run / "train" / FILE
    traced = file_hash(adapters) if adapters.is_file() else ""
    hashes = [file_hash(w) for w in weights]
    about = (FORMAT, SIZE, BLOCKS, SEED, hashes, traced, rows.rows.tolist(), file_hash_of(rows))
    rewritten = (fingerprint(rows.dataset["messages"][:]),) if SDFT in rows.recipe.strategies else ()
    return fingerprint("answers", *about, *rewritten)


def _open(rows: AnswerRows, folder: Path) -> AnswerIndex:
    described = json.loads((folder / "index.json").read_text(encoding="utf-8"))

    def part(name: str, mode: Any = None) -> np.ndarray:
        return np.load(folder / f"{name}.npy", allow_pickle=False, mmap_mode=mode)

    return AnswerIndex(
        plain=part("plain", "r"),
        norms=part("norms"),
        adam=part("adam", "r") if described["adam"] else None,
        features=part("features"),
        losses=part("losses"),
        tokens=part("tokens"),
        rows=rows.rows,
        weights=described["weights"],
    )


def put(arrays: dict[str, np.ndarray], i: int, pull: Pull) -> None:
    """A row into its place."""
    if pull.plain is not None:
        arrays["norms"][i] = np.linalg.norm(pull.plain)
        if "plain" in arrays:
            arrays["plain"][i] = unit(pull.plain)
    if "adam" in arrays and pull.adam is not None:
        arrays["adam"][i] = unit(pull.adam)
    if "features" in arrays:
        arrays["features"][i] = pull.features
    arrays["losses"][i], arrays["tokens"][i] = pull.loss, pull.tokens


def shapes_of(n: int, *, hidden: int, plain: bool, adam: bool) -> dict[str, tuple[tuple[int, ...], Any]]:
    """name -> shape and kind of what is stored; without features where `hidden` is 0."""
    out: dict[str, tuple[tuple[int, ...], Any]] = {
        "norms": ((n,), np.float32), "losses": ((n,), np.float32), "tokens": ((n,), np.int32),
    }  # fmt: skip
    if plain:
        out["plain"] = ((n, SIZE), np.float16)
    if hidden:
        out["features"] = ((n, hidden), np.float32)
    return out | ({"adam": ((n, SIZE), np.float16)} if adam else {})


def fill(
    folder: Path, key: str, encoded: Sequence[Encoded], pulls: Pulls, *, hidden: int, plain: bool, echo: Echo,
    progress: bool, title: str,
) -> None:  # fmt: skip
    """The arrays of some rows, one row at a time; every few rows a note of how far it is.

    Args:
        hidden: H; 0 stores no features. plain: store the plain gradients (of Adam's steps always, with its moments).
        title: what `echo` is told before the number of rows.
    """
    import sys

    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    shapes = shapes_of(len(encoded), hidden=hidden, plain=plain, adam=pulls.moments is not None)
    done = done_before(folder, key, shapes, "rows")
    arrays: dict[str, np.ndarray] = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="r+" if done else "w+", dtype=kind, shape=shape)
        for name, (shape, kind) in shapes.items()
    }
    echo(f"{title} of {len(encoded):,} rows" + (f", going on at row {done + 1:,}" if done else ""))
    with tqdm(
        total=len(encoded), unit="rows", desc="gradients", file=sys.stderr, disable=not progress, leave=False
    ) as bar:
        bar.update(done)
        for i in range(done, len(encoded)):
            put(arrays, i, pulls.of(encoded[i]))
            bar.update()
            if i % NOTED == NOTED - 1 or i == len(encoded) - 1:
                for array in arrays.values():
                    array.flush()  # type: ignore[attr-defined]
                write_whole(folder / "progress.json", json.dumps({"key": key, "rows": i + 1}) + "\n")


def _build(
    rows: AnswerRows, encoded: Sequence[Encoded], writer: Writer, folder: Path, key: str, echo: Echo, progress: bool
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").unlink(missing_ok=True)
    adapters = adapters_at(rows.run)
    with weights_of(writer.model, adapters) as weights:
        pulls = Pulls(writer, weights, Sketch(weights.sizes, seed=SEED), settings_of(adapters))
        by = "the run's adapters" if weights.kind == ADAPTERS else "the last block"
        echo(f"influence: gradients by {by}, {sum(weights.sizes):,} weights, kept as {SIZE:,} numbers a row")
        hidden = int(writer.model.get_output_embeddings().weight.shape[1])
        fill(
            folder, key, encoded, pulls, hidden=hidden, plain=True, echo=echo, progress=progress,
            title="influence: gradients",
        )  # fmt: skip
        described = {"key": key, "rows": len(rows), "weights": weights.kind, "adam": pulls.moments is not None}
    write_whole(folder / "index.json", json.dumps(described, indent=1) + "\n")
    (folder / "progress.json").unlink(missing_ok=True)
