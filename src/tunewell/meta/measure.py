"""What an initialisation is worth on tasks that neither taught nor chose: base model and learned body side by side.

Both are put to use in the same ways on the same episodes. The learning rate of the steps is chosen for each of them
on the tasks that choose, among three, so that neither has the advantage of a rate that was made for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunewell.evaluate.statistics import mean_interval
from tunewell.meta.draw import Body, Tokens
from tunewell.meta.episode import Episode, Inner, accuracy, answers
from tunewell.meta.learn import chosen_episodes, mean_accuracy
from tunewell.meta.records import Use
from tunewell.meta.settings import Settings
from tunewell.results import Estimate

RATES = (0.3, 1.0, 3.0)  # times the inner learning rate
CHOOSING = 10  # of the episodes that choose, this many a task choose the rate


def share_interval(values: np.ndarray) -> Estimate:
    """The mean of accuracies with Student's interval, which ends where accuracies end.

    >>> e = share_interval(np.array([1.0, 1.0, 0.7]))
    >>> round(e.value, 3), round(e.low, 3), e.high
    (0.9, 0.47, 1.0)
    """
    e = mean_interval(values)
    if e.low is None or e.high is None:
        return e
    return e.model_copy(update={"low": max(0.0, e.low), "high": min(1.0, e.high)})


def uses_of(own: str) -> tuple[str, ...]:
    """The ways in which bodies are compared: prototypes, the method's own, and tuning all weights."""
    return tuple(dict.fromkeys(("prototypes", own, "whole")))


def reported_episodes(tasks: Sequence[Tokens], settings: Settings, seed: int) -> list[Episode]:
    """The episodes that are reported, as many of each task."""
    each = -(-settings.episodes // len(tasks))
    deal: Any = {"ways": settings.ways, "shots": settings.shots, "queries": settings.queries}
    return [t.episode(seed, "report", t.task.name, i, **deal) for t in tasks for i in range(each)]


def best_rate(body: Body, judges: Sequence[Episode], use: str, settings: Settings) -> tuple[float | None, float]:
    """The rate that serves best on the episodes that choose, and the accuracy there."""
    if use == "prototypes":
        return None, mean_accuracy(body, judges, use, Inner(0, 0.0))
    rates = [settings.rate(use) * factor for factor in RATES]
    tried = {r: mean_accuracy(body, judges, use, Inner(settings.inner_steps, r)) for r in rates}
    rate = max(tried, key=lambda r: tried[r])
    return rate, tried[rate]


def measure(
    name: str,
    body: Body,
    own: str,
    selecting: Sequence[Tokens],
    reporting: Sequence[Tokens],
    settings: Settings,
    *,
    seed: int,
    echo: Callable[[str], None],
    progress: bool,
) -> tuple[list[Use], dict[str, np.ndarray]]:
    """A body in every way of use; and way -> (E,) accuracy of each reported episode, for paired differences.

    Args:
        name: base or meta. own: the method's way of use.
    """
    from tqdm import tqdm

    judges = [e for i, e in enumerate(chosen_episodes(selecting, settings, seed)) if _chooses(i)]
    asked = reported_episodes(reporting, settings, seed)
    of_task = np.array([e.task for e in asked])
    uses, scores = [], {}
    for use in uses_of(own):
        rate, chosen = best_rate(body, judges, use, settings)
        inner = Inner(settings.inner_steps, rate or 0.0)
        found = [
            accuracy(answers(body, e, use, inner), e.of(e.query))
            for e in tqdm(asked, desc=f"{name}, {use}", unit="episode", disable=not progress, leave=False)
        ]
        scores[use] = np.array(found)
        uses.append(
            Use(
                body=name,
                use=use,
                rate=rate,
                selection=chosen,
                accuracy=share_interval(scores[use]),
                tasks={t.task.name: share_interval(scores[use][of_task == t.task.name]) for t in reporting},
            )
        )
        at = "" if rate is None else f" at rate {rate:g}"
        echo(f"meta: {name}, {use}{at}: accuracy {uses[-1].accuracy.value:.4f} on reported tasks")
    return uses, scores


def _chooses(i: int) -> bool:
    from tunewell.meta.learn import SELECTION_EPISODES

    return i % SELECTION_EPISODES < CHOOSING


def write_scores(path: Path, scores: dict[str, dict[str, np.ndarray]]) -> None:
    """Accuracy of each reported episode by body and use, as JSON: what intervals were made from."""
    import json

    from tunewell.results import write_whole

    values: Any = {body: {use: found.round(6).tolist() for use, found in by.items()} for body, by in scores.items()}
    write_whole(path, json.dumps(values) + "\n")
