"""Any task of EleutherAI's lm-eval by name: `lm_eval:TASK`, or `lm_eval:FILE.yaml` for a task of one's own.

Gao et al., A framework for few-shot language model evaluation. The package is optional (`tunewell[eval]`), and its
tasks fetch their data where they say, most of them from the Hugging Face Hub. At most 200 documents a half are
looked at: those at even places for choosing, those at odd places for the report. The figure is the first of
acc_norm, acc, exact_match, f1, … that the task has for each document; chance is one over the number of choices.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import RecipeError
from tunewell.retention.measurement import items_hash
from tunewell.retention.probes.speaker import Speaker, SpokenProbe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunewell.retention.suite import Half

PREFIX, MOST = "lm_eval:", 200
METRICS = ("acc_norm", "acc", "exact_match", "em", "f1")


@contextmanager
def _quietly() -> Iterator[None]:
    from tunewell.models.load import quietly

    loggers = [logging.getLogger(n) for n in ("lm_eval", "lm-eval", "lm_eval.evaluator", "lm_eval.models.huggingface")]
    levels = [x.level for x in loggers]
    try:
        for x in loggers:
            x.setLevel(logging.ERROR)
        with quietly(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for x, level in zip(loggers, levels, strict=True):
            x.setLevel(level)


def lm_eval_probe(name: str, half: Half) -> SpokenProbe:
    """The probe behind a name that begins with `lm_eval:`.

    Raises:
        RecipeError: the package is missing, it knows no such task, the data cannot be read, or no metric fits.
    """
    task_name = name.removeprefix(PREFIX)
    if find_spec("lm_eval") is None:
        raise RecipeError(
            f"`{name}` needs the package lm-eval, which is not installed",
            where="probes",
            expected="the optional packages of `eval`",
            remedy="pip install 'tunewell[eval]'",
        )
    task, options = _task(name, task_name)
    n = len(_docs(task, name))
    places = list(range(0 if half == "select" else 1, n, 2))[:MOST]
    if not places:
        raise RecipeError(f"`{name}` has {n} documents", where="probes", expected="at least two, one for each half")
    docs = [str(d)[:500] for d in (_docs(task, name)[i] for i in places)]
    metric = _metric(task, name)

    def arrays(speaker: Speaker) -> dict[str, np.ndarray]:
        return {"right": _measure(speaker, task, options, places, metric)}

    return SpokenProbe(
        name, f"lm-eval: {task.config.task}", metric, "accuracy", tuple(docs), items_hash(name, docs), arrays,
        chance=_chance(task, places),
    )  # fmt: skip


def _task(name: str, task_name: str) -> tuple[Any, Any]:
    """The task object and the manager that knows it."""
    with _quietly():
        from lm_eval.tasks import TaskManager, get_task_dict

        file = Path(task_name)
        if task_name.endswith((".yaml", ".yml")):
            from tunewell.recipe_file import load_yaml

            task_name = str(load_yaml(file, "a task of lm-eval in YAML").get("task", ""))
            manager = TaskManager(include_path=str(file.resolve().parent))
        else:
            manager = TaskManager()
        if task_name not in manager.all_tasks:
            raise RecipeError(
                f"lm-eval knows no task `{task_name}`",
                where=f"probes: {name}",
                expected="a task's name, or the YAML file of one",
                remedy="`lm_eval ls tasks` lists them all",
            )
        try:
            found = get_task_dict([task_name], manager)
        except Exception as error:  # loading data fails in as many ways as there are tasks
            raise RecipeError(
                f"its data cannot be read: {str(error).strip().splitlines()[0][:200]}" if str(error) else "no data",
                where=f"probes: {name}",
                expected="a task whose data is reachable from here",
            ) from error
    task = found.get(task_name)
    if task is None or not hasattr(task, "eval_docs"):
        raise RecipeError(f"`{task_name}` is a group of tasks", where="probes", expected="one task of it")
    return task, manager


def _docs(task: Any, name: str) -> Sequence[Any]:
    try:
        return task.eval_docs
    except Exception as error:
        raise RecipeError(f"its data cannot be read: {error}", where=f"probes: {name}") from error


def _metric(task: Any, name: str) -> str:
    known = [str(m) for m in task.aggregation()]
    for metric in METRICS:
        if metric in known:
            return metric
    raise RecipeError(
        f"`{name}` is measured by {', '.join(known)}",
        where="probes",
        expected="a task with one of " + ", ".join(METRICS),
    )


def _chance(task: Any, places: Sequence[int]) -> float:
    """One over the number of choices, on average; 0 where the answer is free."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return 0.0
    docs = task.eval_docs
    return float(np.mean([1.0 / max(1, len(task.doc_to_choice(docs[i]))) for i in places]))


def _measure(speaker: Speaker, task: Any, manager: Any, places: list[int], metric: str) -> np.ndarray:
    """(n,) the task's figure for each document."""
    name = task.config.task
    with _quietly():
        import lm_eval
        from lm_eval.models.huggingface import HFLM

        training = speaker.model.training
        speaker.model.eval()
        model = HFLM(pretrained=speaker.model, tokenizer=speaker.tokenizer, batch_size=speaker.batch_size)
        try:
            found = lm_eval.simple_evaluate(
                model=model, tasks=[name], task_manager=manager, samples={name: places}, bootstrap_iters=0,
                log_samples=True,
            )  # fmt: skip
        finally:
            speaker.model.train(training)
    assert found is not None
    rows = sorted(found["samples"][name], key=lambda row: row["doc_id"])
    return np.array([float(row[metric]) for row in rows], dtype=np.float64)
