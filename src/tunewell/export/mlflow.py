"""MLflow: a tuned model as a folder of the `python_function` flavour, which this package loads itself.

No code object is written (MLflow's usual way is a pickle of one): `MLmodel` names this module, whose `_load_pyfunc`
opens the run's own files under `data/`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewell.errors import RunFolderError, TunewellError
from tunewell.export.parity import Parity

if TYPE_CHECKING:
    from tunewell.export.tables import Tables

LOADER = "tunewell.export.mlflow"
KEPT = (".json", ".jinja", ".md", ".model", ".safetensors", ".txt")  # of a model folder: weights, tokenizer, card
BESIDE = ("task.json", "calibration.json")  # of a run folder
EXAMPLES = 3
PINNED = ("mlflow-skinny", "torch", "transformers")


# ---------------------------------------------------------------- what MLflow calls


def _load_pyfunc(path: str) -> Tables:
    """What `mlflow.pyfunc.load_model` calls with the folder under `data/`."""
    from tunewell.export.tables import Tables
    from tunewell.predict import load_predictor

    return Tables(load_predictor(path))


# ---------------------------------------------------------------- writing


def write_mlflow(predictor: Any, run: Path, folder: Path) -> Parity:
    """Write a model folder of MLflow into an empty folder, and compare it with its source.

    Args:
        predictor: from `load_predictor(run)`. run: a run folder or a plain model folder.

    Raises:
        ModelError: the folder does not give the source's answers.
    """
    import mlflow

    from tunewell.export.tables import compare

    with tempfile.TemporaryDirectory(prefix=".mlflow.", dir=folder.parent) as place, _as_it_is():
        mlflow.pyfunc.save_model(str(folder), **described(predictor, _staged(predictor, Path(place))))
        loaded = mlflow.pyfunc.load_model(str(folder))
    return compare(predictor, loaded, run)


def described(predictor: Any, data: Path) -> dict[str, Any]:
    """What MLflow's `save_model` and `log_model` are told of a model whose files are in `data`."""
    import pandas as pd

    from tunewell.export.tables import sample_rows, validation_rows

    texts, pairs = validation_rows(predictor, EXAMPLES) or sample_rows(predictor, EXAMPLES)[:2]
    example = pd.DataFrame({"text": texts} | ({"text_pair": pairs} if pairs is not None else {}))
    return {
        "loader_module": LOADER,
        "data_path": str(data),
        "signature": signature(predictor),
        "input_example": example,
        "pip_requirements": requirements(),
        "metadata": {"tunewell": about(predictor)},
    }


def signature(predictor: Any) -> Any:
    """Columns in and out, with their types."""
    import pyarrow as pa
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    from tunewell.export.tables import writes

    takes: list[Any] = [ColSpec(DataType.string, "text")]
    if predictor.pair:
        takes.append(ColSpec(DataType.string, "text_pair", required=not writes(predictor)))
    gives: list[Any] = []
    columns = predictor.added(())
    for name, kind in zip(columns.flat, columns.types(), strict=True):
        of: Any = DataType.string
        if pa.types.is_list(kind):
            of = Array(DataType.string)
        elif pa.types.is_floating(kind):
            of = DataType.double
        elif pa.types.is_integer(kind):
            of = DataType.long
        gives.append(ColSpec(of, name))
    return ModelSignature(inputs=Schema(takes), outputs=Schema(gives))


def requirements() -> list[str]:
    """What answers with the model: this version of tunewell, and the versions that its answers were compared with."""
    from tunewell import __version__

    return [f"tunewell=={__version__}", *(f"{name}=={version(name).partition('+')[0]}" for name in PINNED)]


def about(predictor: Any) -> dict[str, Any]:
    """What stands of the run in `MLmodel`: its figures, and what it was tuned from; no names of files or folders."""
    from tunewell import __version__
    from tunewell.export.tables import home
    from tunewell.predict import read_task
    from tunewell.results import Summary

    folder = home(predictor)
    described = (read_task(folder) if folder is not None else None) or {}
    named = described.get("spec", {}).get("name") or getattr(predictor, "task", None)
    out: dict[str, Any] = {"version": __version__} | ({"task": named} if named else {})
    if folder is None or not (folder / "summary.json").is_file():
        return out
    s = Summary.load(folder / "summary.json")
    out |= {"metric": s.metric, "strategy": list(s.strategy), "seed": s.seed, "n_train": s.n_train}
    if not s.model.startswith((".", "/", "~")) and "\\" not in s.model:
        out["base_model"] = s.model
    out |= {"test": s.test.model_dump(mode="json"), "base": s.base.model_dump(mode="json") if s.base else None}
    kept = s.retention or {}
    out["retention"] = {name: kept[name] for name in ("mean", "worst") if kept.get(name)}
    return out | {"keep": s.keep, "kept": s.kept}


def _staged(predictor: Any, place: Path) -> Path:
    """The files that answer, and no others, in a folder `run`: linked where the disk can, else copied."""
    from tunewell.export.tables import home

    source, out = Path(predictor.source), place / "run"
    (out / "model").mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix in KEPT:
            _link(path, out / "model" / path.name)
    run = home(predictor)
    for name in BESIDE if run is not None else ():
        if run is not None and (run / name).is_file():
            _link(run / name, out / name)
    return out


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copy2(source, target)


@contextlib.contextmanager
def _as_it_is() -> Iterator[None]:
    """MLflow takes no project files from the current folder, draws no bars, and speaks only of what is wrong."""
    own = {"MLFLOW_UV_AUTO_DETECT": "false", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    before, log = {name: os.environ.get(name) for name in own}, logging.getLogger("mlflow")
    level = log.level
    os.environ.update(own)
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def quiet() -> None:
    """MLflow tells its makers how it is used, unless the environment says otherwise; ours does by default."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


# ---------------------------------------------------------------- tracking


def log_model(
    run: str | Path,
    *,
    name: str = "model",
    registered_model_name: str | None = None,
    echo: Callable[[str], None] = lambda line: None,
) -> Any:
    """Log a tuned model to MLflow, with the run's figures; and register it, where a name to register is given.

    It goes to the tracking server that MLflow is set up for (`MLFLOW_TRACKING_URI`), into the active MLflow run, or one
    of its own. It is written and compared with the source first, as `tunewell export --to mlflow` does.

    Args:
        run: a run folder or a plain model folder.
        name: of the model within the MLflow run.
        registered_model_name: in the model registry, of which this becomes a new version.

    Returns:
        MLflow's `ModelInfo`; its `model_uri` is what `mlflow.pyfunc.load_model` takes.

    Raises:
        TunewellError: as `export` does, and where MLflow cannot reach its server.

    >>> from tunewell.export.mlflow import log_model
    >>> log_model("runs/reviews", registered_model_name="reviews").model_uri   # doctest: +SKIP
    """
    from tunewell.export.run import export
    from tunewell.export.tables import home
    from tunewell.extras import need
    from tunewell.predict import load_predictor

    need("mlflow", "log_model")
    quiet()
    import mlflow

    run = Path(run)
    with tempfile.TemporaryDirectory(prefix="tunewell-mlflow-") as place:
        export(run, Path(place) / "model", to="mlflow", echo=echo)
        predictor = load_predictor(run)
        told = described(predictor, Path(place) / "model" / "data" / "run")
        try:
            with contextlib.ExitStack() as ends, _as_it_is():
                if mlflow.active_run() is None:
                    ends.enter_context(mlflow.start_run(run_name=(home(predictor) or run).resolve().name))
                mlflow.log_metrics(figures(told["metadata"]["tunewell"]))
                mlflow.set_tags({"tunewell.version": told["metadata"]["tunewell"]["version"]})
                return mlflow.pyfunc.log_model(name=name, registered_model_name=registered_model_name, **told)
        except (mlflow.exceptions.MlflowException, OSError) as error:
            raise TunewellError(
                f"MLflow did not take the model: {str(error).splitlines()[0]}",
                where=str(mlflow.get_tracking_uri()),
                expected="a tracking server that answers",
                remedy="set MLFLOW_TRACKING_URI, such as sqlite:///mlflow.db",
            ) from error


def figures(told: dict[str, Any]) -> dict[str, float]:
    """The run's figures by name, as MLflow logs metrics.

    >>> figures({"metric": "f1_macro", "test": {"value": 0.8, "low": 0.7, "high": None}, "retention": {}})
    {'test_f1_macro': 0.8, 'test_f1_macro_low': 0.7}
    """
    named = {f"test_{told.get('metric')}": told.get("test"), f"base_{told.get('metric')}": told.get("base")}
    named |= {f"retention_{name}": value for name, value in (told.get("retention") or {}).items()}
    out: dict[str, float] = {}
    for name, estimate in named.items():
        for part in ("value", "low", "high"):
            if estimate and estimate.get(part) is not None:
                out[name if part == "value" else f"{name}_{part}"] = float(estimate[part])
    return out


def readme(predictor: Any) -> str:
    """How to use the folder."""
    row = '{"text": "some text"' + (', "text_pair": "a second text"}' if predictor.pair else "}")
    return f"""# A tuned model for MLflow

```python
import mlflow
import pandas as pd

model = mlflow.pyfunc.load_model(".")
print(model.predict(pd.DataFrame([{row}])))
```

```bash
mlflow models serve -m . --env-manager local --port 5001
curl http://127.0.0.1:5001/invocations -H 'content-type: application/json' -d '{{"dataframe_records": [{row}]}}'
```

`MLmodel` has the signature and, under `metadata`, the run's figures. `export.json` has the comparison with the source
model. What answers is tunewell itself, of the version in `requirements.txt`; no file here is a pickle.
"""


def refuse(run: Path) -> None:
    """Refuse what has more than one task.

    Raises:
        RunFolderError: a sequence folder.
    """
    if any((run / place / "tasks.json").is_file() for place in ("model", "models", ".")):
        raise RunFolderError(
            "is a sequence of tasks, which MLflow's folder cannot choose between",
            where=str(run),
            expected="a run of one task",
        )
