"""The user's cache folder: assets and converted data files live there, safe to delete at any time."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder(*parts: str) -> Path:
    """A folder below tunewell's cache; it need not exist yet.

    `$TUNEWELL_CACHE` names the cache; otherwise it is where the platform keeps caches
    (`$XDG_CACHE_HOME` or `~/.cache` on Linux, `~/Library/Caches` on macOS, `%LOCALAPPDATA%` on Windows).
    """
    named = os.environ.get("TUNEWELL_CACHE")
    if named:
        root = Path(named).expanduser()
    elif sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "tunewell" / "Cache"
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches" / "tunewell"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tunewell"
    return root.absolute().joinpath(*parts)
