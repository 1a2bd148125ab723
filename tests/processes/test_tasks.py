"""Every task in two processes on gloo gives what one process gives, within float noise."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import pair

NAMES = ("scores", "answers", "packed", "anchored", "likelihood", "translation", "questions")


@pytest.fixture(scope="module")
def tunings(request, cases, tmp_path_factory) -> tuple[Path, Path]:
    folder, cases = tmp_path_factory.mktemp("tunings"), {name: cases[name] for name in pair.asked(request)}
    started = pair.start(folder / "two", cases)
    return pair.alone(folder / "one", cases), pair.finish(folder / "two", started)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_give_what_one_gives(tunings, name):
    one, two = tunings
    pair.same(one / name, two / name)
