"""A run at work: how far it is, and its curves so far, from the files that tuning writes as it goes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunewell.folder import RunFolder
from tunewell.report import charts
from tunewell.ui.about import recipe_of
from tunewell.ui.scan import Entry

TAIL = 8_000_000  # bytes of a log that are read, the last ones
POINTS = 300  # of a curve


@dataclass(frozen=True)
class Live:
    """What the page shows.

    Attributes:
        phase: "before", "tuning" or "after". step, steps: of tuning; steps is 0 where unknown.
        part: of a search or a sequence, which tuning the curves are of.
        curves: name -> SVG. done: steps of the run that are finished.
    """

    entry: Entry
    phase: str
    step: int
    steps: int
    part: str
    curves: dict[str, Any] = field(default_factory=dict)
    done: tuple[str, ...] = ()

    @property
    def share(self) -> float | None:
        return min(1.0, self.step / self.steps) if self.steps else None


def live(entry: Entry, w: dict[str, str]) -> Live:
    """Read a run folder as it is now; what is not written yet is left out."""
    done = tuple(RunFolder.read_steps(entry.path))
    logs = sorted(_logs(entry.path), key=_changed)
    if not logs:
        return Live(entry, "after" if entry.state == "finished" else "before", 0, 0, "", done=done)
    log = logs[-1]
    rows = read_log(log)
    step = max((int(r["step"]) for r in rows if isinstance(r.get("step"), int)), default=0)
    ended = (log.parent / "training.json").is_file()
    part = log.parent.relative_to(entry.path).as_posix()
    return Live(
        entry,
        "after" if ended or entry.state == "finished" else "tuning",
        step,
        step if ended else planned(log.parent, rows, recipe_of(entry.path)),
        "" if part == "train" else part,
        curves(rows, w),
        done,
    )


def _logs(path: Path) -> list[Path]:
    """metrics.jsonl of a run, of the tunings of a search, and of the tasks of a sequence."""
    patterns = ("train/metrics.jsonl", "train/*/metrics.jsonl", "tasks/*/metrics.jsonl", "tasks/*/*/metrics.jsonl")
    return [found for pattern in patterns for found in path.glob(pattern)]


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def read_log(path: Path) -> list[dict[str, Any]]:
    """The entries of a metrics.jsonl; a last line that is half written is left for the next look."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL))
            content = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    out = []
    for line in content.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            out.append(entry)
    return out


def planned(folder: Path, rows: list[dict[str, Any]], recipe: dict[str, Any]) -> int:
    """The steps that tuning is to take: as its newest checkpoint says, else as epochs and steps so far foretell."""
    for state in sorted(folder.glob("checkpoints/*/trainer_state.json"), key=_changed, reverse=True):
        try:
            return int(json.loads(state.read_text(encoding="utf-8"))["max_steps"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    if isinstance(most := recipe.get("max_steps"), int) and most > 0:
        return most
    epochs = recipe.get("num_train_epochs", 3.0)
    seen = next((r for r in reversed(rows) if isinstance(r.get("epoch"), (int, float)) and r["epoch"] > 0), None)
    if seen is None or not isinstance(epochs, (int, float)) or not isinstance(seen.get("step"), int):
        return 0
    return max(round(seen["step"] / seen["epoch"] * epochs), seen["step"])


def series(rows: list[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    """(step, value) of a key, thinned to some hundred points; the first and the last stay."""
    found = [
        (float(r["step"]), float(r[key]))
        for r in rows
        if isinstance(r.get(key), (int, float)) and isinstance(r.get("step"), int)
    ]
    every = max(1, len(found) // POINTS)
    return [p for i, p in enumerate(found) if i % every == 0 or i == len(found) - 1]


def curves(rows: list[dict[str, Any]], w: dict[str, str]) -> dict[str, Any]:
    """Loss, validation scores, what is kept, learning rate: those that there is a point of."""
    from markupsafe import Markup

    scores = [k for k in dict.fromkeys(k for r in rows for k in r) if k.startswith("eval_") and k != "eval_loss"]
    wanted = [("loss", w["training_loss"], w["loss"], "main", False)]
    wanted += [(k, f"{w['validation_score']}: {k[5:]}", k[5:], "good", True) for k in scores[:3]]
    wanted += [("kept_estimate", w["monitor"], w["retention"], "main", True)]
    wanted += [("learning_rate", w["rate"], w["rate"], "other", False)]
    out: dict[str, Any] = {}
    for key, title, name, tone, dots in wanted:
        if points := series(rows, key):
            line = [(name, tone, points)]
            svg = charts.lines(line, title=title, x_label=w["step"], y_label=name, dots=dots, height=230)
            out[title] = Markup(svg)
    return out
