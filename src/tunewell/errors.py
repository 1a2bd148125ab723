"""The exceptions that a user may meet.

    TunewellError            what, where, expected, remedy; exit code 2 (the user's mistake)
    ├── RecipeError          a key of the recipe is unknown, of the wrong type or out of range
    ├── DataError            a file cannot be read, a column is missing, the rows do not fit the task
    ├── ModelError           a model cannot be loaded, or lacks what the task needs
    ├── AssetError           a packaged model or data set cannot be fetched or does not match its hash
    ├── RunFolderError       the run folder is locked, not writable, or holds another run
    │   └── DamagedRecordError    a file of the run folder is cut short or not what was written (also a ValueError)
    ├── TrainingError        tuning cannot go on (non-finite loss, memory)
    ├── HubError             an upload to the hub has no token, no permission or no network
    ├── WorkerError          workers (`--jobs`, `--ray`) cannot be reached, differ, do not see the data, or die
    └── GateError            a gate such as `keep` was not met; exit code 3

Anything else that escapes is a fault of ours: exit code 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_DONE, EXIT_OURS, EXIT_USER, EXIT_GATE = 0, 1, 2, 3


class TunewellError(Exception):
    """A mistake that the user can mend.

    Args:
        what: what was found, one sentence without a full stop.
        where: the file (and row), recipe key or command that it concerns.
        expected: what would have been right.
        remedy: what to do next.
    """

    exit_code = EXIT_USER

    def __init__(self, what: str, *, where: str = "", expected: str = "", remedy: str = "") -> None:
        self.what, self.where, self.expected, self.remedy = what, where, expected, remedy
        super().__init__(what)

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.remedy:
            lines.append(f"  try: {self.remedy}")
        return "\n".join(lines)

    def __reduce__(self):  # keeps the parts when an error crosses a process boundary
        return (_rebuild, (type(self), self.what, self.where, self.expected, self.remedy))


def _rebuild(cls: type[TunewellError], what: str, where: str, expected: str, remedy: str) -> TunewellError:
    return cls(what, where=where, expected=expected, remedy=remedy)


class RecipeError(TunewellError):
    """A recipe key is unknown, of the wrong type, or out of range."""


class DataError(TunewellError):
    """A data file cannot be read, or its rows do not fit the task."""


class ModelError(TunewellError):
    """A model folder or name cannot be loaded, or lacks what the task needs."""


class AssetError(TunewellError):
    """A packaged model or data set cannot be fetched, or is not what was pinned."""


class RunFolderError(TunewellError):
    """The run folder is locked, not writable, or belongs to something else."""


class DamagedRecordError(RunFolderError, ValueError):
    """A file of the run folder cannot be read as what it should be; stages that meet one make it again."""


class TrainingError(TunewellError):
    """Tuning cannot go on."""


class HubError(TunewellError):
    """The hub cannot be reached, does not know who asks, or does not let them write."""


class WorkerError(TunewellError):
    """Workers cannot be reached, differ from this machine, do not see what they must, or die again and again."""


class GateError(TunewellError):
    """A gate (`keep`, `keep_worst`) was not met. The run itself is complete and saved."""

    exit_code = EXIT_GATE


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that suggests the nearest known name, or the empty string.

    >>> nearest("learning_rat", ["learning_rate", "seed"])
    'did you mean `learning_rate`?'
    """
    hits = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return f"did you mean `{hits[0]}`?" if hits else ""
