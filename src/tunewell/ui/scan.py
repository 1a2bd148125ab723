"""All runs and sequences beneath a folder, each with its state. A folder that cannot be read is named, not raised.

finished  summary.json is there
working   another process holds the folder's lock
stopped   begun, and nobody is at work
broken    a record is damaged or cannot be read
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from tunewell.errors import TunewellError
from tunewell.results import Estimate, Summary
from tunewell.sequence.records import SequenceSummary
from tunewell.ui.places import Place

State = Literal["finished", "working", "stopped", "broken"]
OWN = ("steps.json", "environment.json", "sequence.json", "evaluation.json", "recipe.yaml")
OTHERS = ("curve.json", "prune.json", "meta.json")  # records of commands that are no runs
DEEPEST, MOST = 8, 20_000  # levels of folders, and folders, that are looked at
FAULTS = (TunewellError, ValueError, OSError, KeyError, TypeError, AttributeError)  # of a record that is not one


@dataclass(frozen=True)
class Entry:
    """One line of the list.

    Attributes:
        at: how a browser asks for it. why: of a broken one, what is wrong.
        test: the headline metric on test; of a sequence its average accuracy. retention: the mean, where measured.
        date: ISO 8601, to the second.
    """

    at: str
    path: Path
    state: State
    kind: Literal["run", "sequence"] = "run"
    why: str = ""
    task: str = ""
    model: str = ""
    strategy: str = ""
    metric: str = ""
    test: Estimate | None = None
    retention: Estimate | None = None
    keep: float | None = None
    kept: bool | None = None
    date: str = ""
    tasks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.path.name if self.at == "." else self.at


def is_run(path: Path) -> bool:
    """Whether a folder is a run or a sequence, finished or not. A recipe or a summary alone makes none; a learning
    curve, a pruning and a meta-learning are no runs, though their folders are kept in the same way."""
    if any((path / name).is_file() for name in OTHERS):
        return False
    has = {name for name in OWN if (path / name).is_file()}
    locked = (path / ".lock").is_file()
    return bool(has - {"recipe.yaml"}) or ("recipe.yaml" in has and (path / "summary.json").is_file()) or locked


def folders(place: Place) -> Iterator[Path]:
    """Folders beneath (and including) the place that are runs; runs inside runs are theirs. Links are not followed."""
    seen, level = 0, [place.folder]
    for _ in range(DEEPEST):
        below: list[Path] = []
        for path in level:
            seen += 1
            if seen > MOST:
                return
            if is_run(path):
                yield path
                continue
            try:
                with os.scandir(path) as entries:
                    inner = [e.path for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith(".")]
            except OSError:
                continue
            below += [Path(p) for p in sorted(inner)]
        level = below


class Shelf:
    """The runs of a place, read again only where their files changed."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._known: dict[Path, tuple[Any, Entry]] = {}

    def all(self) -> list[Entry]:
        """Every run, the newest first."""
        found = [self.entry(path) for path in folders(self.place)]
        there = {e.path for e in found}
        for path in [p for p in list(self._known) if p not in there]:
            self._known.pop(path, None)
        return sorted(found, key=lambda e: (e.date, e.at), reverse=True)

    def entry(self, path: Path) -> Entry:
        """One run; the lock is looked at anew each time."""
        mark = tuple(_changed(path / name) for name in ("summary.json", "retention.json", "environment.json"))
        held = self._known.get(path)
        if held is None or held[0] != mark:
            held = (mark, read(self.place, path))
            self._known[path] = held
        entry = held[1]
        return replace(entry, state="working", why="") if working(path) is not None else entry


def read(place: Place, path: Path) -> Entry:
    """A run as its records say, whoever is at work in it."""
    at = place.name_of(path)
    kind: Literal["run", "sequence"] = "sequence" if (path / "sequence.json").is_file() else "run"
    bare = Entry(at, path, "stopped", kind, date=_date(path))
    try:
        if not (path / "summary.json").is_file():
            return _begun(bare)
        loaded = json.loads((path / "summary.json").read_text(encoding="utf-8"))
        if loaded.get("kind") == "sequence":
            return _sequence(bare, SequenceSummary.load(path / "summary.json"))
        return _run(bare, Summary.load(path / "summary.json"))
    except FAULTS as error:
        return replace(bare, state="broken", why=told(error, "summary.json"))


def told(error: BaseException, name: str) -> str:
    """A fault of a record in one line, without the machine's paths."""
    if isinstance(error, TunewellError):
        where = Path(error.where).name if error.where else name
        return f"{where}: {error.what}"
    if isinstance(error, OSError):
        return f"{Path(str(error.filename or name)).name}: {error.strerror or 'cannot be read'}"
    return f"{name}: is damaged or of another version"


def _begun(bare: Entry) -> Entry:
    import yaml

    path = bare.path / "recipe.yaml"
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if not isinstance(recipe, dict):
            raise ValueError("no mapping")
    except (OSError, ValueError, yaml.YAMLError):
        return replace(bare, state="broken", why="recipe.yaml: cannot be read")
    strategy = recipe.get("strategy")
    return replace(
        bare,
        task=str(recipe.get("task") or ""),
        model=_short(str(recipe.get("model") or "")),
        strategy=" + ".join(map(str, strategy)) if isinstance(strategy, list) else str(strategy or ""),
        keep=recipe["keep"] if isinstance(recipe.get("keep"), (int, float)) else None,
    )


def _run(bare: Entry, summary: Summary) -> Entry:
    retention = summary.retention or {}
    mean = Estimate.model_validate(retention["mean"]) if "mean" in retention else None
    return replace(
        bare,
        state="finished",
        task=summary.task,
        model=_short(summary.model),
        strategy=" + ".join(summary.strategy),
        metric=summary.metric,
        test=summary.test,
        retention=mean,
        keep=summary.keep,
        kept=summary.kept,
    )


def _sequence(bare: Entry, summary: SequenceSummary) -> Entry:
    low, high = summary.intervals.get("average_accuracy", (None, None))
    return replace(
        bare,
        kind="sequence",
        state="finished",
        task=f"{len(summary.tasks)} tasks",
        model=_short(summary.model),
        strategy=" + ".join(summary.strategy),
        metric="average_accuracy",
        test=Estimate(value=summary.average_accuracy, low=low, high=high, n=sum(summary.n_test)),
        retention=summary.rows[-1].retention_mean if summary.rows else None,
        tasks=summary.tasks,
    )


def _short(model: str) -> str:
    """A model's name; of a path its last part."""
    return Path(model).name if model.startswith(("/", "./", "../", "~")) else model


def _date(path: Path) -> str:
    try:
        created = json.loads((path / "environment.json").read_text(encoding="utf-8")).get("created")
        return datetime.fromisoformat(created).replace(tzinfo=None).isoformat(timespec="seconds")
    except FAULTS:
        try:
            return datetime.fromtimestamp(path.stat().st_mtime).isoformat(timespec="seconds")
        except OSError:
            return ""


def _changed(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


# ---------------------------------------------------------------- who is at work


def working(path: Path) -> int | None:
    """The process that holds a run folder's lock, None where nobody does.

    The lock is tried only where its file names a living process, so that looking never keeps a run from starting.
    """
    lock = path / ".lock"
    try:
        pid = int(lock.read_text(encoding="utf-8").strip() or 0)
    except (OSError, ValueError):
        return None
    if pid <= 0 or not alive(pid):
        return None
    try:
        import fcntl
    except ImportError:  # Windows: a living process is all there is to see
        return pid
    try:
        with lock.open("r", encoding="utf-8") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return pid
            fcntl.flock(handle, fcntl.LOCK_UN)
    except OSError:
        return None
    return None


def alive(pid: int) -> bool:
    """Whether a process of that number is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
