"""What queries need of each training row, computed once and stored in the run folder.

`RUN/influence/`: features.npy (n, H), logits.npy (n, C) and gradients.npy (n, D, float16, read through memory
mapping), and index.json, which is written last and says what they were made from. Building goes on where it was
stopped, and starts afresh when the model or the data have changed.

Shapes: n training rows, q queries, H features before the head, C outputs, D projected gradient numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.folder import RunFolder, file_hash, fingerprint
from tunewell.results import write_whole

if TYPE_CHECKING:
    from tunewell.explain.influence.gradients import Projector
    from tunewell.explain.influence.rows import FileRows
    from tunewell.predict import Predictor
    from tunewell.tasks import TaskSpec

FOLDER, FORMAT, SIDE, SEED = "influence", 1, 8, 0
BATCH_ROWS = 32
MOST_ROWS = 200_000  # at 2,400 numbers a row about 1 GB
Echo = Callable[[str], None]


@dataclass
class Index:
    """Training rows as the methods see them.

    Attributes:
        features: (n, H) input of the head. logits: (n, C). targets: as in `tunewell.tasks.targets`.
        gradients: (n, D) of each row's own output, see `push`. blocks: layer -> its slice of D.
        rows: (n,) places in the training file, counted from 1.
        kept: what a method computed from the index and may use again.
    """

    spec: TaskSpec
    features: np.ndarray
    logits: np.ndarray
    targets: np.ndarray
    gradients: np.ndarray
    blocks: dict[str, slice]
    rows: np.ndarray
    kept: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def probabilities(self) -> np.ndarray:
        """(n, C) softmax or sigmoid of the logits; the logits themselves for regression."""
        return probabilities(self.spec, self.logits)

    @property
    def errors(self) -> np.ndarray:
        """(n, C) gradient of each row's loss by its logits: p − y (up to a constant for regression: ŷ − y)."""
        if self.spec.regression:
            return self.logits - self.targets[:, None]
        if self.spec.multi_label:
            return self.probabilities - self.targets
        errors = self.probabilities.copy()
        errors[np.arange(len(errors)), self.targets] -= 1
        return errors

    @property
    def push(self) -> np.ndarray:
        """(n,) factor w with −∇loss = w · gradients: 1 − p(label), y − ŷ for regression, 1 for several labels a row."""
        if self.spec.regression:
            return (self.targets - self.logits[:, 0]).astype(np.float32)
        if self.spec.multi_label:
            return np.ones(len(self), dtype=np.float32)
        others = self.probabilities.astype(np.float64)
        others[np.arange(len(self)), self.targets] = 0
        return others.sum(axis=1).astype(np.float32)

    def matrix(self) -> np.ndarray:
        """(n, D) float32 gradients in memory."""
        if "matrix" not in self.kept:
            self.kept["matrix"] = np.asarray(self.gradients, dtype=np.float32)
        return self.kept["matrix"]


@dataclass(frozen=True)
class Query:
    """Predictions to be explained.

    Attributes:
        features: (q, H). logits: (q, C). gradients: (q, D) of the explained output. which: (q,) its class.
    """

    features: np.ndarray
    logits: np.ndarray
    gradients: np.ndarray
    which: np.ndarray

    def outputs(self, spec: TaskSpec) -> np.ndarray:
        """(q, C) gradient of the explained output by the logits, see `gradients.direction`."""
        import torch

        from tunewell.explain.influence.gradients import direction

        return direction(spec, torch.as_tensor(self.logits), torch.as_tensor(self.which)).numpy()


def probabilities(spec: TaskSpec, logits: np.ndarray) -> np.ndarray:
    """(n, C) probabilities; the logits for regression."""
    from scipy.special import expit, softmax

    if spec.regression:
        return logits
    return expit(logits) if spec.multi_label else softmax(logits, axis=1)


def own_direction(spec: TaskSpec, targets: np.ndarray) -> Callable[..., Any]:
    """For training rows: as `gradients.direction`, but −∇loss itself for several labels a row.

    Args:
        targets: of the batch.
    """
    import torch

    from tunewell.explain.influence.gradients import direction

    if not spec.multi_label:
        return direction
    return lambda spec, logits, which: torch.as_tensor(targets).to(logits) - torch.sigmoid(logits)


def build(rows: FileRows, predictor: Predictor, *, echo: Echo, progress: bool = False) -> Index:
    """The index of a run; built when it is missing or out of date.

    Args:
        rows: the training file. predictor: the tuned model. echo: told once when there is something to build.

    Raises:
        RunFolderError: another process is working in the run folder, or it cannot be written.
    """
    rows = sample(rows)
    folder = rows.run / FOLDER
    key = _key(rows)
    if not is_whole(folder, key):
        with RunFolder(rows.run):
            if not is_whole(folder, key):
                _build(rows, predictor, folder, key, echo, progress)
    return _open(rows, folder)


def is_built(rows: FileRows) -> bool:
    """Whether the index of a run is there, and that of its weights and rows."""
    return is_whole(rows.run / FOLDER, _key(sample(rows)))


def sample(rows: FileRows) -> FileRows:
    """The rows that the model was tuned on; a seeded sample of very many."""
    places = rows.trained
    if len(places) > MOST_ROWS:
        places = np.sort(np.random.default_rng(rows.recipe.seed).permutation(places)[:MOST_ROWS])
    return rows.select(places)


def _key(rows: FileRows) -> str:
    weights = sorted((rows.run / "model").glob("*.safetensors"))
    return fingerprint(FORMAT, SIDE, SEED, [file_hash(w) for w in weights], rows.rows.tolist(), file_hash_of(rows))


def file_hash_of(rows: Any) -> str:
    """sha256 of the training file, or its name when it is none."""
    return file_hash(rows.source) if Path(rows.source).exists() else rows.source


def is_whole(folder: Path, key: str) -> bool:
    """Whether an index was finished, and from what `key` tells."""
    try:
        return json.loads((folder / "index.json").read_text(encoding="utf-8")).get("key") == key
    except (OSError, ValueError, AttributeError):
        return False


def _open(rows: FileRows, folder: Path) -> Index:
    described = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    blocks = {name: slice(*bounds) for name, bounds in described["blocks"].items()}
    parts = {
        name: np.load(folder / f"{name}.npy", allow_pickle=False, mmap_mode="r")
        for name in ("features", "logits", "gradients")
    }
    return Index(
        rows.spec,
        np.array(parts["features"]),
        np.array(parts["logits"]),
        rows.targets(),
        parts["gradients"],
        blocks,
        rows.rows,
    )


class _Passes:
    """Training rows through a projector, in batches of like length."""

    def __init__(
        self,
        projector: Projector,
        predictor: Predictor,
        texts: Sequence[str],
        pairs: Any,
        targets: np.ndarray,
        gradients: bool = True,
    ) -> None:
        from tunewell.models.embed import encode, like_length

        self.projector, self.predictor, self.targets, self.gradients = projector, predictor, targets, gradients
        self.encoded = encode(predictor.tokenizer, texts, pairs, predictor.max_length)
        lengths = np.fromiter((len(ids) for ids in self.encoded["input_ids"]), dtype=np.int64, count=len(texts))
        self.batches = list(like_length(lengths, BATCH_ROWS))
        n, outputs = len(texts), predictor.model.config.num_labels
        self.shapes = {
            "features": ((n, projector.head.in_features), np.float32),
            "logits": ((n, outputs), np.float32),
            "gradients": ((n, projector.size if gradients else 0), np.float16),
        }

    def fill(self, number: int, arrays: dict[str, Any]) -> int:
        """Put what batch `number` gives in its place; the rows of the batch."""
        from tunewell.models.embed import pad

        index, spec, model = self.batches[number], self.predictor.spec, self.predictor.model
        inputs = {k: v.to(model.device) for k, v in pad(self.predictor.tokenizer, self.encoded, index).items()}
        which = np.zeros(len(index), dtype=np.int64) if self.targets.dtype.kind == "f" else self.targets[index]
        found = self.projector.run(
            inputs, which, spec, gradients=self.gradients, direction_of=own_direction(spec, self.targets[index])
        )
        arrays["features"][index], arrays["logits"][index] = found.features, found.logits
        arrays["gradients"][index] = np.clip(found.gradients, -6e4, 6e4)  # the range of float16
        return len(index)


def in_memory(
    predictor: Predictor,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    targets: np.ndarray,
    *,
    gradients: bool = True,
) -> Index:
    """The index of rows at hand; nothing is written.

    Args:
        gradients: without them it is a forward pass only, and enough for the methods that look at the head alone.
    """
    from tunewell.explain.influence.gradients import Projector

    with Projector(predictor.model, side=SIDE, seed=SEED) as projector:
        passes = _Passes(projector, predictor, texts, pairs, targets, gradients)
        arrays = {name: np.empty(shape, dtype=kind) for name, (shape, kind) in passes.shapes.items()}
        for number in range(len(passes.batches)):
            passes.fill(number, arrays)
        blocks = dict(projector.blocks)
    return Index(
        predictor.spec,
        arrays["features"],
        arrays["logits"],
        targets,
        arrays["gradients"],
        blocks,
        np.arange(1, len(texts) + 1),
    )


def _build(rows: FileRows, predictor: Predictor, folder: Path, key: str, echo: Echo, progress: bool) -> None:
    """Fill the arrays batch by batch; every few batches note how far it is."""
    import sys

    from tqdm import tqdm

    from tunewell.explain.influence.gradients import Projector

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").unlink(missing_ok=True)
    with Projector(predictor.model, side=SIDE, seed=SEED) as projector:
        passes = _Passes(projector, predictor, rows.texts, rows.pairs, rows.targets())
        done, total = done_before(folder, key, passes.shapes, "batches"), len(passes.batches)
        arrays = {
            name: np.lib.format.open_memmap(
                folder / f"{name}.npy", mode="r+" if done else "w+", dtype=kind, shape=shape
            )
            for name, (shape, kind) in passes.shapes.items()
        }
        echo(f"influence: index of {len(rows):,} training rows" + (f", going on at batch {done}" if done else ""))
        with tqdm(
            total=len(rows), unit="rows", desc="index", file=sys.stderr, disable=not progress, leave=False
        ) as bar:
            bar.update(sum(len(batch) for batch in passes.batches[:done]))
            for number in range(done, total):
                bar.update(passes.fill(number, arrays))
                if number % 20 == 19 or number == total - 1:
                    for array in arrays.values():
                        array.flush()
                    write_whole(folder / "progress.json", json.dumps({"key": key, "batches": number + 1}) + "\n")
        blocks = {name: [block.start, block.stop] for name, block in projector.blocks.items()}
    described = {"key": key, "rows": len(rows), "blocks": blocks}
    write_whole(folder / "index.json", json.dumps(described, indent=1) + "\n")
    (folder / "progress.json").unlink(missing_ok=True)


def done_before(folder: Path, key: str, shapes: dict[str, Any], unit: str) -> int:
    """Batches or rows (`unit`, as progress.json calls them) that an interrupted build has finished."""
    try:
        noted = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        fits = all(
            np.load(folder / f"{n}.npy", mmap_mode="r", allow_pickle=False).shape == shape
            for n, (shape, _) in shapes.items()
        )
        return int(noted[unit]) if noted["key"] == key and fits else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def query(
    predictor: Predictor,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    which: Sequence[int] | None = None,
    *,
    gradients: bool = True,
) -> Query:
    """Predictions as the methods see them.

    Args:
        which: class to explain for each text; by default the predicted one. gradients: see `in_memory`.
    """
    from tunewell.explain.influence.gradients import Projector
    from tunewell.models.embed import encode, like_length, pad

    model, tokenizer = predictor.model, predictor.tokenizer
    encoded = encode(tokenizer, texts, pairs, predictor.max_length)
    lengths = np.fromiter((len(ids) for ids in encoded["input_ids"]), dtype=np.int64, count=len(texts))
    wanted = None if which is None else np.asarray(which, dtype=np.int64)
    with Projector(model, side=SIDE, seed=SEED) as projector:
        features = np.empty((len(texts), projector.head.in_features), dtype=np.float32)
        logits = np.empty((len(texts), int(model.config.num_labels or 1)), dtype=np.float32)
        found_gradients = np.empty((len(texts), projector.size if gradients else 0), dtype=np.float32)
        for index in like_length(lengths, BATCH_ROWS):
            inputs = {k: v.to(model.device) for k, v in pad(tokenizer, encoded, index).items()}
            chosen = None if wanted is None else wanted[index]
            found = projector.run(inputs, chosen, predictor.spec, gradients=gradients)
            features[index], logits[index], found_gradients[index] = found.features, found.logits, found.gradients
    return Query(features, logits, found_gradients, logits.argmax(axis=1) if wanted is None else wanted)
