"""Seals: a file or folder counts only when what was written last says that it is whole.

A folder is sealed by `whole.json` in it, a file by `<name>.whole.json` beside it: name, size and sha256 of each
file, written when all of them are on the disk. What a kill, a full disk or a fault of the disk leaves behind has
no seal, or differs from it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SEAL = "whole.json"
DAMAGED_ARRAYS = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)  # what NumPy says of a broken .npz


def sha256_of(path: Path) -> str:
    """Of one file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def synced(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    with contextlib.suppress(PermissionError, IsADirectoryError):  # Windows opens no folder
        handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def described(path: Path) -> dict[str, dict[str, Any]]:
    """Relative name -> size and sha256 of a file, or of all files below a folder; the seal itself left out."""
    files = [(path.name, path)] if path.is_file() else sorted(_below(path))
    return {name: {"size": file.stat().st_size, "sha256": sha256_of(file)} for name, file in files}


def _below(folder: Path) -> Iterator[tuple[str, Path]]:
    for file in folder.rglob("*"):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and name != SEAL:
            yield name, file


def seal_of(path: Path) -> Path:
    """Where the seal of a file or folder stands."""
    return path / SEAL if path.is_dir() else path.with_name(f"{path.name}.{SEAL}")


def seal(path: Path) -> None:
    """Say that a file or folder is whole, once its content is on the disk.

    Raises:
        RunFolderError: it cannot be written.
    """
    from tunewell.results import cannot_write, write_whole

    try:
        files = [path] if path.is_file() else [file for _, file in _below(path)]
        with ThreadPoolExecutor(8) as pool:  # file systems commit together what is waited for together
            list(pool.map(synced, files))
        write_whole(seal_of(path), json.dumps({"files": described(path)}, indent=1) + "\n")
        synced(seal_of(path).parent)
    except OSError as error:
        raise cannot_write(path, error) from error


def broken(path: Path) -> str | None:
    """Why a sealed file or folder does not count, in words; None when it is whole."""
    try:
        files = json.loads(seal_of(path).read_text(encoding="utf-8"))["files"]
        return differs(path, files)
    except FileNotFoundError:
        return "it was not written to its end"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "its seal cannot be read"


def differs(path: Path, files: dict[str, dict[str, Any]]) -> str | None:
    """The first file that is not what `described` said of it, in words; None when all are."""
    for name, known in files.items():
        file = path if path.is_file() and name == path.name else path / name
        try:
            if file.stat().st_size != known["size"]:
                return f"{name} has {file.stat().st_size:,} bytes instead of {known['size']:,}"
            if sha256_of(file) != known["sha256"]:
                return f"{name} is not what was written"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror or error}"
    return None
