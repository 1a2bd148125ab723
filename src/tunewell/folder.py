"""The run folder: one lock, and steps that are not repeated while their inputs are unchanged.

A step has a fingerprint of its inputs. When `steps.json` holds the same fingerprint and the step's
files are there and are what it wrote (sizes and hashes stand in `files.json`), its result is read
back; else the step runs, writes its files whole, and only then is its fingerprint noted. So a kill
at any moment loses at most the step under way.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, TypeVar

from tunewell import __version__, processes
from tunewell.errors import RunFolderError
from tunewell.results import cannot_write, write_whole
from tunewell.seal import described, differs, sha256_of, synced

T = TypeVar("T")
STEPS, FILES = "steps.json", "files.json"
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)  # the system's word, not our fault
OWN = ("recipe.yaml", STEPS)  # what marks a folder as a run of ours


def fingerprint(*parts: Any) -> str:
    """A short hash of JSON-like values."""
    text = json.dumps([__version__, *parts], sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def file_hash(path: str | Path) -> str:
    """sha256 of a file's content; of the names and contents below it, for a folder."""
    path = Path(path)
    if not path.is_dir():
        return sha256_of(path)
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as handle:
            hashlib.file_digest(handle, lambda: digest)
    return digest.hexdigest()


class RunFolder:
    """A locked run folder; use it as a context manager.

    Args:
        path: made when missing.
        overwrite: clear a run that is already there.

    Attributes:
        say: called with a line where the file of a finished step is damaged.

    Raises:
        RunFolderError: locked by another process, not writable, a file, or a folder with other things in it.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        processes.refuse_alone("work in a run folder")
        self.path = Path(path)
        self._lock: IO[str] | None = None
        self.say: Callable[[str], None] = lambda line: None
        self._made = not self.path.exists()
        if self.path.exists() and not self.path.is_dir():
            raise RunFolderError("is a file, not a folder", where=str(path), remedy="name another --output_dir")
        if self.path.is_dir() and any(self.path.iterdir()) and not self.is_run() and not self._only_lock():
            raise RunFolderError(
                "holds other things than a run",
                where=str(path),
                expected="an empty or new folder, or a run to go on with",
                remedy="name another --output_dir",
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._acquire()
            self._sweep()
        except RunFolderError:
            raise
        except OSError as error:
            self.close()
            raise RunFolderError(
                f"cannot be made or written: {error.strerror or error}",
                where=str(path),
                expected="a folder that can be written",
                remedy="mend the permissions or name another --output_dir",
            ) from error
        if overwrite:
            for entry in self.path.iterdir():
                if entry.name != ".lock":
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        self.steps: dict[str, str] = self.read_steps(self.path)
        self.files: dict[str, dict[str, Any]] = self._read_files()

    def is_run(self) -> bool:
        return any((self.path / name).is_file() for name in OWN)

    def _only_lock(self) -> bool:
        return all(p.name == ".lock" or p.name.endswith(".tmp") for p in self.path.iterdir())

    def _acquire(self) -> None:
        handle = (self.path / ".lock").open("a+", encoding="utf-8")
        try:
            try:
                import fcntl

                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except ImportError:  # Windows
                import msvcrt

                msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            handle.seek(0)
            holder = handle.read().strip()
            handle.close()
            raise RunFolderError(
                "another tunewell process is working in this folder" + (f" (process {holder})" if holder else ""),
                where=str(self.path),
                remedy="wait for it, stop it, or name another --output_dir",
            ) from None
        handle.seek(0)
        handle.truncate()
        handle.write(str(os.getpid()))
        handle.flush()
        self._lock = handle

    def _sweep(self) -> None:
        """Remove what an interrupted write left."""
        for leftover in self.path.rglob(".*.tmp"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)

    @staticmethod
    def read_steps(path: Path) -> dict[str, str]:
        """The steps that a folder notes as done, with the fingerprints of their inputs."""
        try:
            loaded = json.loads((path / STEPS).read_text(encoding="utf-8"))
            return {str(k): str(v) for k, v in loaded.items()}
        except (OSError, ValueError, AttributeError):
            return {}

    def _read_files(self) -> dict[str, dict[str, Any]]:
        """step -> its output -> what `seal.described` said of it; a step that is not there is taken as it is."""
        try:
            loaded = json.loads((self.path / FILES).read_text(encoding="utf-8"))
            return {str(k): dict(v) for k, v in loaded.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.close(failed=error is not None)
        if isinstance(error, OSError) and error.errno in REFUSED and self._holds(error.filename):
            raise cannot_write(error.filename, error) from error

    def _holds(self, name: Any) -> bool:
        """Whether a path that the system named is in this folder."""
        return isinstance(name, str | Path) and self.path.absolute() in [*Path(name).absolute().parents]

    def close(self, *, failed: bool = False) -> None:
        """Give up the lock. A folder that this run made goes when it is empty or failed before a first step."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        nothing_done = failed and not self.steps and not any((self.path / "train").rglob("checkpoint-*"))
        if self._made and self.path.is_dir() and (self._only_lock() or nothing_done):
            shutil.rmtree(self.path, ignore_errors=True)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def done(self, name: str, inputs: str, outputs: list[str]) -> bool:
        """Whether a step's outputs are there, made from the same inputs, and whole; a damaged one is told of."""
        if self.steps.get(name) != inputs or not all((self.path / o).exists() for o in outputs):
            return False
        for output, files in self.files.get(name, {}).items():
            try:
                why = differs(self.path / output, files)
            except (KeyError, TypeError, ValueError, AttributeError):  # the note itself is damaged
                why = f"nothing is known of {output}"
            if why is not None:
                place = f"{output}: " if (self.path / output).is_dir() else ""
                self.say(f"{name}: done again, since a file of it is damaged ({place}{why})")
                return False
        return True

    def step(self, name: str, inputs: str, outputs: list[str], make: Callable[[], T], read: Callable[[], T]) -> T:
        """Run `make` (which writes `outputs`) unless done already; else `read` them back."""
        if self.done(name, inputs, outputs):
            try:
                return read()
            except (OSError, ValueError, KeyError):  # a damaged output is made again
                pass
        result = make()
        self.mark(name, inputs, outputs)
        return result

    def mark(self, name: str, inputs: str, outputs: Iterable[str] = ()) -> None:
        """Note a step as done, with what is in its files (or folders of files)."""
        self.files[name] = {o: described(self.path / o) for o in outputs if (self.path / o).exists()}
        write_whole(self.path / FILES, json.dumps(self.files, indent=1) + "\n")
        self.steps[name] = inputs
        write_whole(self.path / STEPS, json.dumps(self.steps, indent=1) + "\n")
        synced(self.path)
