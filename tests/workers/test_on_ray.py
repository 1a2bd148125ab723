"""Jobs on Ray: the same results as here, a killed worker replaced, nothing left behind."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tunewell.errors import DataError, WorkerError
from tunewell.workers import Workers, done

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")]


def values(*args: Any, **options: Any) -> list[Any]:
    return [one.result() for one in done(*args, **options)]


def test_results_are_those_of_this_process(chores, shared, ray_here, tmp_path):
    said: list[str] = []
    here = values(chores.double, range(6), shared())
    there = values(chores.double, range(6), shared(), ray_here, threads=1, in_order=True, echo=said.append)
    assert [row[0] for row in there] == [row[0] for row in here]
    assert {row[1] for row in there} == {1}
    assert os.getpid() not in {row[2] for row in there}
    assert len((tmp_path / "opened").read_text().split()) == len({row[2] for row in there}) <= 2
    assert said == ["workers: Ray on this machine: 2 jobs at once, each with 1 thread"]


def test_order_is_kept(chores, shared, ray_here):
    assert values(chores.late_first, range(4), shared(), ray_here, threads=1, in_order=True, ahead=2) == [0, 1, 2, 3]


def test_a_worker_that_is_killed_is_replaced_and_nothing_is_counted_twice(chores, shared, ray_here, tmp_path):
    said: list[str] = []
    found = [
        (one.at, one.result())
        for one in done(
            chores.dies_once, range(4), shared(), ray_here, threads=1, echo=said.append, name=lambda i: f"item {i}"
        )
    ]
    assert sorted(found) == [(0, 0), (1, 10), (2, 20), (3, 30)]
    assert sorted((tmp_path / "begun").read_text().split()) == ["0", "1", "1", "2", "3"]
    assert "a worker on Ray has died (WorkerCrashedError); item 1 is done again, 1 of 2 times" in "\n".join(said)


def test_mistakes_and_faults_are_told(chores, shared, ray_here):
    found = {one.at: one for one in done(chores.mistaken, range(2), shared(), ray_here, threads=1)}
    assert isinstance(found[1].error, DataError) and found[1].error.remedy == "double it"
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        values(chores.at_fault, [0], shared(), ray_here, threads=1)


def test_more_threads_than_any_machine_has(chores, shared, ray_here):
    with pytest.raises(WorkerError, match="a job takes 64 processors, and the largest machine .* has 2"):
        values(chores.double, [1], shared(), ray_here, threads=64)


def test_settings(ray_here: Workers):
    import ray
    from ray._common.usage import usage_lib

    assert not usage_lib.usage_stats_enabled()
    assert ray.cluster_resources()["CPU"] == 2
    assert os.environ["RAY_AUTH_MODE"] == "token" and len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert not (Path.home() / ".ray" / "auth_token").exists()
