"""The service is tested where it is installed."""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("fastapi") is None:  # tunewell[serve]
    collect_ignore_glob = ["test_*.py"]
