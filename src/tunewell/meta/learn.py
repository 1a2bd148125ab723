"""The outer loop: episodes of the tasks to learn from move the body; the tasks that choose say when it was best.

State is written whole at every point of measurement, so that a stopped job goes on from the last one and ends in
the same weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tunewell.errors import TrainingError
from tunewell.meta.draw import Body, Tokens
from tunewell.meta.episode import Episode, Inner, accuracy, answers, learnable
from tunewell.meta.methods import method
from tunewell.meta.records import OuterStep
from tunewell.meta.settings import Settings
from tunewell.results import write_whole, write_with
from tunewell.seal import broken, seal

POINTS = 10  # measurements on the tasks that choose, beside the one before the first step
CLIP = 1.0  # largest norm of a step's gradient; Reptile's is a difference of weights and stays as it is
SELECTION_EPISODES = 20  # of each task that chooses, the same at every point
STATE = "train/state"


@dataclass
class State:
    """Where the outer loop is.

    Attributes:
        best: weights at the point where the tasks that choose were answered best; the base model's to begin with.
    """

    step: int = 0
    best_step: int = 0
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    history: list[OuterStep] = field(default_factory=list)


def chosen_episodes(tasks: Sequence[Tokens], settings: Settings, seed: int) -> list[Episode]:
    """The episodes that choose, of every such task; the same at every call."""
    deal: Any = {"ways": settings.ways, "shots": settings.shots, "queries": settings.queries}
    return [t.episode(seed, "select", t.task.name, i, **deal) for t in tasks for i in range(SELECTION_EPISODES)]


def mean_accuracy(body: Body, episodes: Sequence[Episode], use: str, inner: Inner) -> float:
    """Of a body put to use, over episodes."""
    return float(np.mean([accuracy(answers(body, e, use, inner), e.of(e.query)) for e in episodes]))


def optimiser(body: Body, kind: str, rate: float) -> torch.optim.Optimizer:
    """Adam without weight decay, or plain steps."""
    made = torch.optim.Adam if kind == "adam" else torch.optim.SGD
    return made(learnable(body), lr=rate)


def rate_at(kind: str, rate: float, step: int, steps: int) -> float:
    """The outer learning rate of a step, from 0: Reptile's falls linearly to 0, as in the paper; Adam's is constant."""
    return rate * (1 - step / steps) if kind == "sgd" else rate


def outer_step(body: Body, teach: Any, episodes: Sequence[Episode], inner: Inner, outer: Any, kind: str) -> Any:
    """The mean of the episodes' lessons as one step of the outer optimiser; the mean loss and accuracy.

    Raises:
        TrainingError: a gradient is not finite.
    """
    parameters, lessons = learnable(body), []
    outer.zero_grad(set_to_none=True)
    for episode in episodes:
        lesson = teach.lesson(body, episode, inner)
        lessons.append((lesson.loss, lesson.accuracy))
        for p, g in zip(parameters, lesson.gradients, strict=True):
            if g is not None:
                p.grad = g / len(episodes) if p.grad is None else p.grad.add_(g, alpha=1 / len(episodes))
    given = [p.grad for p in parameters if p.grad is not None]
    if not all(torch.isfinite(g).all() for g in given):
        raise TrainingError(
            "the inner loop has diverged: a gradient is not finite",
            where="inner_rate",
            expected="a learning rate at which tuning on a few rows goes well",
            remedy=f"lower --inner-rate (it is {inner.rate:g})",
        )
    if kind == "adam":
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
    outer.step()
    return np.mean(lessons, axis=0)


def learn(
    body: Body,
    learning: Sequence[Tokens],
    selecting: Sequence[Tokens],
    settings: Settings,
    *,
    seed: int,
    folder: Path,
    echo: Callable[[str], None],
    progress: bool,
) -> State:
    """Learn, from where a stopped job was; the body ends with the best weights.

    Args:
        folder: the output folder; the state is kept below it.
    """
    from tqdm import tqdm

    teach = method(settings.method)
    inner = Inner(settings.inner_steps, settings.rate(teach.USE))
    rate = teach.RATE if settings.outer_rate is None else settings.outer_rate
    outer = optimiser(body, teach.OUTER, rate)
    judges = chosen_episodes(selecting, settings, seed)
    every = max(1, settings.steps // POINTS)
    state = load_state(folder, body, outer)
    if state is None:
        state = State(best=weights_of(body))
        score = mean_accuracy(body, judges, teach.USE, inner)
        state.history.append(OuterStep(step=0, selection=score))
        echo(f"meta: base model, accuracy {score:.4f} on the tasks that choose")
    else:
        echo(f"meta: goes on after step {state.step} of {settings.steps}")
    deal: Any = {"ways": settings.ways, "shots": settings.shots, "queries": settings.queries}
    passed: list[Any] = []
    bar = tqdm(total=settings.steps, initial=state.step, desc="meta", unit="step", disable=not progress, leave=False)
    with bar:
        for step in range(state.step, settings.steps):
            rng = np.random.default_rng([seed, step])
            drawn = rng.choice(len(learning), settings.tasks_per_step, replace=settings.tasks_per_step > len(learning))
            episodes = [learning[t].episode(seed, "learn", step, i, **deal) for i, t in enumerate(drawn)]
            for group in outer.param_groups:
                group["lr"] = rate_at(teach.OUTER, rate, step, settings.steps)
            passed.append(outer_step(body, teach, episodes, inner, outer, teach.OUTER))
            bar.update()
            state.step = step + 1
            if state.step % every == 0 or state.step == settings.steps:
                loss, right = np.mean(passed, axis=0)
                passed.clear()
                score = mean_accuracy(body, judges, teach.USE, inner)
                if score > state.history[[h.step for h in state.history].index(state.best_step)].selection:
                    state.best_step, state.best = state.step, weights_of(body)
                state.history.append(
                    OuterStep(step=state.step, loss=float(loss), accuracy=float(right), selection=score)
                )
                echo(f"meta: step {state.step}, loss {loss:.4f}, accuracy {score:.4f} on the tasks that choose")
                save_state(folder, state, body, outer)
    set_weights(body, state.best)
    return state


# ---------------------------------------------------------------- what is kept between two sittings


def weights_of(body: Body) -> dict[str, torch.Tensor]:
    """A copy of the encoder's weights on the processor."""
    return {k: v.detach().to("cpu", copy=True).contiguous() for k, v in body.model.state_dict().items()}


def set_weights(body: Body, weights: dict[str, torch.Tensor]) -> None:
    """Put them back."""
    body.model.load_state_dict(weights)


def save_state(folder: Path, state: State, body: Body, outer: Any) -> None:
    """Weights, the optimiser's moments and the history, as one folder that appears whole or not at all."""
    from safetensors.torch import save_file

    moments = {
        f"{i}.{key}": torch.as_tensor(value).detach().to("cpu", copy=True).contiguous()
        for i, values in outer.state_dict()["state"].items()
        for key, value in values.items()
        if value is not None
    }
    about = {"step": state.step, "best_step": state.best_step, "history": [h.model_dump() for h in state.history]}

    def save(path: Path) -> None:
        path.mkdir()
        save_file(weights_of(body), str(path / "body.safetensors"))
        save_file(state.best, str(path / "best.safetensors"))
        save_file(moments, str(path / "moments.safetensors"))
        write_whole(path / "state.json", json.dumps(about) + "\n")
        seal(path)

    write_with(folder / STATE, save)


def load_state(folder: Path, body: Body, outer: Any) -> State | None:
    """What `save_state` wrote, put into body and optimiser; None where there is nothing whole."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / STATE
    if broken(path) is not None:
        return None
    try:
        about = json.loads((path / "state.json").read_text(encoding="utf-8"))
        weights, best, moments = (
            load_file(str(path / f"{n}.safetensors")) for n in ("body", "best", "moments")
        )  # fmt: skip
        history = [OuterStep(**h) for h in about["history"]]
        state = State(int(about["step"]), int(about["best_step"]), best, history)
        set_weights(body, weights)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError):
        return None
    inside = outer.state_dict()
    for name, value in moments.items():
        i, _, key = name.partition(".")
        inside["state"].setdefault(int(i), {})[key] = value
    outer.load_state_dict(inside)
    return state
