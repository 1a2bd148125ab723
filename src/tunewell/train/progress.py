"""What one sees while a model is tuned: a bar with loss, rate and time left, and metrics.jsonl."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

SEEN = ("rows", "tokens", "cells", "pairs")  # what is counted of a batch


class Counts(TrainerCallback, ExportableState):
    """What tuning has seen so far; saved with each checkpoint, so that a resumed run counts it all.

    Attributes:
        examples, tokens, padding: over all training batches.
        pairs: Σ T² over the rows of all batches, for the attention's work.
        computing: seconds of training steps, without validation and checkpoints.
        nonfinite_steps: optimiser steps whose loss or gradient was not finite; they were skipped.
        earlier: seconds of tuning before this process.
    """

    def __init__(self) -> None:
        self.examples = self.tokens = self.padding = self.pairs = 0
        self.computing = 0.0
        self.nonfinite_steps: list[int] = []
        self.earlier = 0.0
        self._started = self._step_began = time.perf_counter()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._step_began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.computing += time.perf_counter() - self._step_began

    def add(self, *, rows: int, tokens: int, cells: int, pairs: int) -> None:
        self.examples += rows
        self.pairs += pairs
        self.tokens += tokens
        self.padding += cells - tokens

    @property
    def so_far(self) -> float:
        """Seconds of tuning up to now, earlier processes included."""
        return self.earlier + time.perf_counter() - self._started

    def state(self) -> dict[str, Any]:
        attributes = {k: v for k, v in vars(self).items() if not k.startswith("_")}
        attributes["earlier"] = self.so_far
        return {"args": {}, "attributes": attributes}


class Bar(TrainerCallback):
    """A progress bar on stderr."""

    def __init__(self, title: str, metric: str, show: bool = True) -> None:
        self.title, self.metric, self.show = title, metric, show
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.show and state.is_world_process_zero:
            from tqdm import tqdm

            self.bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc=self.title,
                unit="step",
                dynamic_ncols=True,
                file=sys.stderr,
                leave=True,
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if self.bar is None or not logs:
            return
        shown = {}
        if "loss" in logs:
            shown["loss"] = f"{float(logs['loss']):.4f}"
            shown["rate"] = f"{float(logs['learning_rate']):.1e}"
        if f"eval_{self.metric}" in logs:
            shown[self.metric] = f"{float(logs[f'eval_{self.metric}']):.4f}"
        if "kept_estimate" in logs:
            shown["kept"] = f"≈{float(logs['kept_estimate']):.3f}"
        self.bar.set_postfix({**getattr(self, "_shown", {}), **shown}, refresh=False)
        self._shown = {**getattr(self, "_shown", {}), **shown}

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.bar is not None:
            self.bar.close()


class MetricsFile(TrainerCallback):
    """Every log entry as one line of JSON. After a resume, lines beyond the checkpoint are written again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(_line(entry) for entry in state.log_history), encoding="utf-8")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs and state.log_history:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line(state.log_history[-1]))


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(plain(entry)) + "\n"


def plain(entry: dict[str, Any]) -> dict[str, Any]:
    """A log entry with numbers as numbers; non-finite ones as the strings "nan", "inf", "-inf"."""
    out: dict[str, Any] = {}
    for key, value in entry.items():
        number = value
        if hasattr(value, "item"):
            number = value.item()
        elif isinstance(value, str):
            try:
                number = float(value)
            except ValueError:
                number = value
        out[key] = str(number) if isinstance(number, float) and not math.isfinite(number) else number
    return out
