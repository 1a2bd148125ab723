"""`fsdp`: two processes that each hold a part of the model give what one process gives, within float noise."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import pair  # noqa: E402

NAMES = ("classes", "recalled", "adapted", "scores", "packed", "anchored", "translation", "questions")


@pytest.fixture(scope="module")
def tunings(cases, tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("sharded")
    started = pair.start(folder / "two", {name: {**cases[name], "fsdp": True} for name in NAMES})
    return pair.alone(folder / "one", {name: cases[name] for name in NAMES}), pair.finish(folder / "two", started)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_parts_of_a_model_learn_what_the_whole_learns(tunings, name):
    one, two = tunings
    pair.same(one / name, two / name)
    assert "tune: weights, gradients and moments are in 2 parts" in (two / name / "said.txt").read_text()
