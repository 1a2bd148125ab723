"""A whole order of tasks as a story: prepare all, then for each task tune, keep what is to be kept, measure, go on.

The folder is locked; what is done is not repeated, so that a sequence that was stopped between tasks or
inside one goes on where it was.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewell.errors import RunFolderError
from tunewell.folder import RunFolder
from tunewell.sequence.records import SequenceSummary
from tunewell.sequence.spec import Spec, load_spec

if TYPE_CHECKING:
    from tunewell.predict import Predictor

Echo = Callable[[str], None]


class Sequence:
    """A finished sequence, read lazily.

    >>> done = tunewell.load_sequence("runs/sequence")   # doctest: +SKIP
    >>> done.summary.average_accuracy, done.predict(["fine"], task_name="reviews")   # doctest: +SKIP
    """

    def __init__(self, path: str | Path) -> None:
        self.dir = Path(path)
        if not (self.dir / "summary.json").is_file() or not (self.dir / "sequence.yaml").is_file():
            raise RunFolderError(
                "is not a finished sequence",
                where=str(path),
                expected="a folder that `tunewell sequence` has finished",
            )

    def __repr__(self) -> str:
        s = self.summary
        return f"Sequence({str(self.dir)!r}, {len(s.tasks)} tasks, average_accuracy={s.average_accuracy:.4f})"

    @cached_property
    def summary(self) -> SequenceSummary:
        """Matrix, figures, intervals and costs."""
        return SequenceSummary.load(self.dir / "summary.json")

    @cached_property
    def spec(self) -> Spec:
        """What was asked for."""
        return load_spec(self.dir / "sequence.yaml")

    @property
    def report_path(self) -> Path:
        """The page for people."""
        return self.dir / "report.html"

    @property
    def model_path(self) -> Path:
        """The shared body as a plain Transformers folder, with `heads/` beside its weights."""
        return self.dir / "model"

    def predictor(self, task_name: str) -> Predictor:
        """The model of one task, ready to predict."""
        from tunewell.predict import Predictor

        return Predictor.load(self.dir, task_name=task_name)

    def predict(self, texts: Any, text_pairs: Any = None, *, task_name: str) -> list[Any]:
        """Labels by the head of a named task, one a text."""
        return self.predictor(task_name).predict(texts, text_pairs)

    def export(self, task_name: str) -> Path:
        """One task's model as a plain AutoModelForSequenceClassification folder, written when first asked for."""
        from tunewell.sequence.model import export_task

        return export_task(self.dir, task_name)


def load_sequence(path: str | Path) -> Sequence:
    """Open a finished sequence folder."""
    return Sequence(path)


def run_sequence(
    source: str | Path | Mapping[str, Any] | Spec,
    *,
    echo: Echo | None = None,
    progress: bool = True,
    command: str = "",
    jobs: int | None = None,
    ray: str | None = None,
    **keys: Any,
) -> Sequence:
    """Tune one model on task after task, and measure after each what became of the others.

    Args:
        source: a YAML file with `strategy`, `output_dir` and `tasks`, or the same keys as a mapping.
        keys: keys that take precedence over the file's.
        echo: called with one line a stage; by default lines go to stderr. progress: show bars.
        jobs, ray: with `strategy: separate`, where tasks are tuned: so many processes side by side; on Ray, "local" or
            the address of a cluster.

    Raises:
        TunewellError: the user's mistakes; those in any task are found before the first is tuned.
    """
    from tunewell.sequence.ahead import refuse, tune_ahead
    from tunewell.sequence.prepare import prepare_all
    from tunewell.sequence.reference import reference
    from tunewell.sequence.work import Work
    from tunewell.workers import Workers

    started, workers = time.perf_counter(), Workers(jobs, ray)
    spec = source if isinstance(source, Spec) else load_spec(source, **keys)
    refuse(spec, workers)
    echo = echo or _to_stderr
    prepared = prepare_all(spec, echo)
    with RunFolder(spec.output_dir, overwrite=bool(spec.recipe.get("overwrite_output_dir"))) as folder:
        work = Work(spec, folder, prepared, echo=echo, progress=progress, command=command)
        work.check_folder()
        work.begin()
        work.base()
        if spec.strategy in (("joint",), ("separate",)):
            if not workers.here:
                tune_ahead(work, workers)
            reference(work)
        else:
            for i in range(len(spec.tasks)):
                work.learn(i)
        summary = work.finish(time.perf_counter() - started)
        from tunewell.report.sequence import build

        echo(f"report: {build(folder.path, summary, lang=str(spec.recipe.get('lang', 'en')))}")
    return Sequence(spec.output_dir)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def read_record(folder: Path) -> dict[str, Any] | None:
    """sequence.json of a folder: settings and tasks that it was begun with."""
    try:
        return json.loads((folder / "sequence.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
