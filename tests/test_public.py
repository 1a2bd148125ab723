"""The public names of the package: light to import, and the same object whichever way they are reached."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import tunewell
from tunewell.errors import RecipeError


def test_run_is_callable_before_and_after_its_module_is_imported() -> None:
    first = tunewell.run
    from tunewell.run import Run, run

    assert tunewell.run is first
    assert callable(tunewell.run)
    assert inspect.signature(tunewell.run) == inspect.signature(run)
    assert (tunewell.run.__call__.__doc__ or "").startswith("The main job")
    assert tunewell.Run is Run
    with pytest.raises(RecipeError, match="unknown key `trian`; did you mean `train`"):
        tunewell.run(trian="a.csv")


def test_all_names_resolve() -> None:
    for name in tunewell.__all__:
        assert getattr(tunewell, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        tunewell.nonsense  # noqa: B018


def test_import_is_light() -> None:
    code = "import sys, tunewell; print([m for m in ('torch', 'transformers', 'numpy', 'click') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
