"""Jobs that workers can load, and a Ray of two processors, started once where Ray is installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tunewell.workers import Shared, Workers

HERE = str(Path(__file__).parent)


@pytest.fixture(scope="session", autouse=True)
def chores() -> Iterator[ModuleType]:
    """The module `chores`, which workers find too."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [HERE, before]))
    sys.path.insert(0, HERE)
    import chores

    yield chores
    sys.path.remove(HERE)
    if before is None:
        os.environ.pop("PYTHONPATH")
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture
def shared(chores: ModuleType, tmp_path: Path) -> Callable[..., Shared]:
    """What jobs share: a folder."""
    about = {"folder": str(tmp_path)}

    def make(**more: Any) -> Shared:
        return Shared(lambda: about, chores.opened, about, **more)

    return make


@pytest.fixture(scope="session")
def ray_here(chores: ModuleType) -> Iterator[Workers]:
    """`--ray local`, on a Ray that is started once for all tests."""
    if find_spec("ray") is None:  # not imported here: it reads its settings when it is
        pytest.skip("ray is not installed")
    from tunewell.workers.on_ray import RayPool

    pool = RayPool("local", 2, 1)
    yield Workers(ray="local")
    pool.close()


@pytest.fixture(params=["processes", pytest.param("ray", marks=pytest.mark.slow)])
def workers_asked(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What is asked for: two processes, or Ray."""
    if request.param == "ray":
        request.getfixturevalue("ray_here")
        return {"ray": "local", "jobs": 2}
    return {"jobs": 2}
