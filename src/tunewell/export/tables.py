"""A predictor over tables: rows in, the columns of `tunewell predict` out; and whether two of them say the same."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import ModelError, TunewellError
from tunewell.export.parity import Parity

if TYPE_CHECKING:
    import pandas as pd

ROWS, WRITTEN = 200, 16  # compared; of a model that writes


class Tables:
    """A predictor over tables: the rows that `tunewell predict` would write, without the columns of its input."""

    def __init__(self, predictor: Any) -> None:
        self.predictor = predictor
        self._one = threading.Lock()  # a server answers in several threads

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """The answers to n rows.

        Args:
            model_input: a table with `text`, and `text_pair` for a model of pairs. params: not used.

        Returns:
            n rows: `prediction`, then `p_<label>` each (with more than 50 labels `probability`); for questions
            `probability`, `start` and `end`; for scores and for texts `prediction` alone. A row without a text has
            no answer.
        """
        import pandas as pd

        rows = pd.DataFrame(model_input)
        texts = _strings(rows["text"])
        pairs = _strings(rows["text_pair"]) if self.predictor.pair and "text_pair" in rows else None
        full = [i for i, text in enumerate(texts) if text.strip()]
        answers: list[dict[str, Any] | None] = [None] * len(texts)
        if full:
            with self._one:
                found = self.predictor.predict_batch(
                    [texts[i] for i in full], [pairs[i] for i in full] if pairs is not None else None
                )
            for i, answer in zip(full, found, strict=True):
                answers[i] = answer
        return table(self.predictor, answers)


def _strings(column: Any) -> list[str]:
    return ["" if value is None or value != value else str(value) for value in column]


def table(predictor: Any, answers: Sequence[dict[str, Any] | None]) -> pd.DataFrame:
    """Answers as `predict_batch` gives them, None for none, as the columns that `tunewell predict` adds."""
    import pandas as pd
    import pyarrow as pa

    columns = predictor.added(())
    cells = [columns.cells(answer) for answer in answers]
    out: dict[str, Any] = {}
    for j, (name, kind) in enumerate(zip(columns.flat, columns.types(), strict=True)):
        values = [row[j] for row in cells]
        number = "float64" if pa.types.is_floating(kind) else "int64" if pa.types.is_integer(kind) else object
        out[name] = pd.Series(values, dtype=object if None in values else number)  # None is null in JSON, NaN is not
    return pd.DataFrame(out)


def home(predictor: Any) -> Path | None:
    """The run folder that a predictor's model belongs to; None for a model folder without a run."""
    from tunewell.predict import Predictor

    folder = Path(predictor.source).parent
    if isinstance(predictor, Predictor) and predictor.run is None and predictor.scorer is None:
        return None  # it may lie beside another run's files
    return folder if (folder / "task.json").is_file() else None


def writes(predictor: Any) -> bool:
    """Whether answers are texts that a model writes."""
    from tunewell.tasks.generation.writers import CausalWriter, Seq2SeqWriter

    return isinstance(predictor, CausalWriter | Seq2SeqWriter)


# ---------------------------------------------------------------- rows


def validation_rows(predictor: Any, count: int) -> tuple[list[str], list[str] | None] | None:
    """The first validation rows of a run, from its files; None where they are gone or have changed since."""
    from tunewell.recipe_file import load_recipe
    from tunewell.stages.prepare import data_fingerprint, prepare

    folder = home(predictor)
    if folder is None:
        return None
    try:
        division = dict(json.loads((folder / "split.json").read_text(encoding="utf-8")))
        recipe = load_recipe(folder / "recipe.yaml")
        if not recipe.train or not Path(recipe.train).expanduser().is_file():  # nothing is fetched for an example
            return None
        if data_fingerprint(recipe) != division.get("fingerprint"):
            return None
        rows = prepare(recipe).splits["validation"]
    except (TunewellError, OSError, ValueError):
        return None
    rows = rows.select(range(min(count, len(rows))))
    texts = list(rows["text"])
    pair = predictor.pair and "text_pair" in rows.column_names
    return (texts, list(rows["text_pair"]) if pair else None) if texts else None


def sample_rows(predictor: Any, count: int) -> tuple[list[str], list[str] | None, bool]:
    """Test rows of a run, evenly over its file, else sample texts; and whether they are the run's."""
    from tunewell.export.parity import rows_of

    folder = home(predictor) or Path(predictor.source)
    if writes(predictor):
        from tunewell.export.llamacpp import prompts_of

        texts, real = prompts_of(folder)
        return texts[:count], None, real
    texts, pairs, real = rows_of(folder, predictor.pair)
    return texts[:count], pairs[:count] if pairs is not None else None, real


# ---------------------------------------------------------------- the same answers


def compare(predictor: Any, loaded: Any, run: Path) -> Parity:
    """Ask source and export the same, in their last form: after calibration, with labels decided.

    Raises:
        ModelError: any answer differs, or a figure beside it by more than rounding.
    """
    import pandas as pd

    from tunewell.export.parity import speed

    text = writes(predictor)
    count = WRITTEN if text else ROWS
    texts, pairs, real = sample_rows(predictor, count)
    if not real and (rows := validation_rows(predictor, count)) is not None:
        (texts, pairs), real = rows, True

    def source(texts: Sequence[str], pairs: Sequence[str] | None) -> pd.DataFrame:
        return table(predictor, predictor.predict_batch(list(texts), pairs))

    def export(texts: Sequence[str], pairs: Sequence[str] | None) -> pd.DataFrame:
        given = {"text": list(texts)} | ({"text_pair": list(pairs)} if pairs is not None else {})
        return loaded.predict(pd.DataFrame(given))

    a, b = source(texts, pairs), export(texts, pairs)
    if list(a.columns) != list(b.columns) or len(a) != len(b):
        raise _differs(run, f"columns {', '.join(b.columns)} and {len(b):,} rows for {', '.join(a.columns)}")
    largest, same = 0.0, None
    for name in a.columns:
        x, y = list(a[name]), list(b[name])
        if name == "prediction" and not isinstance(x[0], float):
            same = float(np.mean([one == other for one, other in zip(x, y, strict=True)]))
            continue
        u, v = (np.array([-1.0 if value is None else value for value in values], dtype=np.float64) for values in (x, y))
        scale = np.maximum(1.0, np.abs(u)) if name == "prediction" else 1.0
        largest = max(largest, float((np.abs(u - v) / scale).max()))
    from tunewell.export.run import EXACT

    if same is not None and same < 1:
        raise _differs(run, f"another answer on {1 - same:.1%} of {len(texts):,} rows")
    if not largest <= EXACT:
        raise _differs(run, f"figures off by up to {largest:.2g}")
    before, after = ({}, {}) if text else speed([source, export], texts, pairs)  # type: ignore[list-item]
    return Parity(
        rows=len(texts), real=real, largest=largest, same=same, source_rows_per_second=before, rows_per_second=after
    )


def _differs(run: Path, how: str) -> ModelError:
    return ModelError(
        f"the export does not give the model's answers: {how}",
        where=str(run),
        expected="the same answers",
        remedy="please report this model",
    )
