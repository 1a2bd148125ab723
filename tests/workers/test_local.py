"""Jobs side by side in processes of this machine."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

import pytest

from tunewell.errors import DataError, RecipeError, TunewellError, WorkerError
from tunewell.workers import RETRIES, Workers, check_address, done, threads_for
from tunewell.workers import worker as working

TWO = Workers(jobs=2)


def values(*args: Any, **options: Any) -> list[Any]:
    return [one.result() for one in done(*args, **options)]


def test_results_threads_and_what_is_opened_once_a_worker(chores, shared, tmp_path):
    found = sorted(values(chores.double, range(6), shared(), TWO, threads=1))
    assert [row[:2] for row in found] == [[2 * i, 1] for i in range(6)]
    pids = {row[2] for row in found}
    assert os.getpid() not in pids and 1 <= len(pids) <= 2
    assert sorted(map(int, (tmp_path / "opened").read_text().split())) == sorted(pids)
    for pid in pids:  # ended with the last job
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_one_job_is_done_by_this_process(chores, shared, tmp_path):
    found = values(chores.double, range(3), shared(), Workers())
    assert {row[2] for row in found} == {os.getpid()}
    assert not (tmp_path / "opened").exists()


def test_order_is_kept_where_it_is_asked_for(chores, shared, tmp_path):
    assert values(chores.late_first, range(4), shared(), TWO, threads=1, in_order=True) == [0, 1, 2, 3]
    for i in range(4):
        (tmp_path / f"done-{i}").unlink()
    assert values(chores.late_first, range(4), shared(), TWO, threads=1) == [1, 2, 3, 0]


def test_no_more_items_are_read_than_may_wait(chores, shared):
    read: list[int] = []

    def items():
        for i in range(40):
            read.append(i)
            yield i

    taken = 0
    for one in done(chores.double, items(), shared(), TWO, threads=1, in_order=True, ahead=2):
        assert one.at == taken
        taken += 1
        assert len(read) <= taken - 1 + 4
    assert taken == 40


def test_a_worker_that_is_killed_is_replaced_and_nothing_is_counted_twice(chores, shared, tmp_path):
    said: list[str] = []
    found = [(one.at, one.result()) for one in done(chores.dies_once, range(4), shared(), TWO, threads=1,
                                                    echo=said.append, name=lambda i: f"item {i}")]  # fmt: skip
    assert sorted(found) == [(0, 0), (1, 10), (2, 20), (3, 30)]
    assert sorted((tmp_path / "begun").read_text().split()) == ["0", "1", "1", "2", "3"]
    (told,) = [line for line in said if "done again" in line]
    assert "was ended by SIGKILL; item 1 is done again, 1 of 2 times" in told


def test_a_job_that_no_worker_lives_through_ends_the_command(chores, shared):
    with pytest.raises(WorkerError, match=f"item 7: its worker has died {RETRIES + 1} times.*SIGKILL"):
        values(chores.always_dies, [7], shared(), TWO, threads=1, name=lambda i: f"item {i}")


def test_a_mistake_in_a_job_is_told_as_it_would_be_here(chores, shared):
    found = {one.at: one for one in done(chores.mistaken, range(3), shared(), TWO, threads=1)}
    assert found[2].result() == 2
    here = next(one for one in done(chores.mistaken, range(3), shared()) if one.error)
    assert type(found[1].error) is type(here.error) is DataError
    assert str(found[1].error) == str(here.error)


def test_a_fault_of_ours_comes_with_the_workers_trace(chores, shared):
    with pytest.raises(RuntimeError, match=r"in a worker .*ZeroDivisionError(.|\n)*chores.py"):
        values(chores.at_fault, [0], shared(), TWO, threads=1)


def test_workers_end_with_their_command(chores, shared, tmp_path):
    """Also in the middle of their jobs: as after Ctrl-C, the generator is closed."""
    going = done(chores.sleeps, [0, 1], shared(), TWO, threads=1)
    import threading

    def stop() -> None:
        until = time.monotonic() + 60
        while not all((tmp_path / f"pid-{i}").exists() for i in (0, 1)) and time.monotonic() < until:
            time.sleep(0.05)
        import signal

        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop).start()
    with pytest.raises(KeyboardInterrupt):
        next(going)
    for i in (0, 1):
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / f"pid-{i}").read_text()), 0)


def test_a_worker_that_does_not_see_a_file_says_so(chores, shared, tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("text,label\n")
    common = working.described(chores.double, shared(sees=[str(file)]), 1)
    file.write_text("others, of another size\n")
    with pytest.raises(WorkerError, match="sees another file"):
        working.understood(0, working.answer(working.json.dumps({**common, "item": 1})), "")
    file.unlink()
    with pytest.raises(WorkerError) as told:
        working.understood(0, working.answer(working.json.dumps({**common, "item": 1})), "")
    assert "does not see this path" in str(told.value) and str(file) in str(told.value)
    assert "file system that all machines share" in str(told.value)


def test_a_worker_with_other_versions_says_so(chores, shared):
    common = working.described(chores.double, shared(), 1)
    common["versions"] = {**common["versions"], "torch": "1.0"}
    with pytest.raises(WorkerError, match=f"the worker on {platform.node()} has torch .* instead of 1.0"):
        working.understood(0, working.answer(working.json.dumps({**common, "item": 1})), "")


def test_threads():
    assert threads_for(Workers(jobs=3), 5) == 5
    assert threads_for(Workers(ray="auto"), None) == 1
    assert threads_for(Workers(jobs=10_000), None) == 1


@pytest.mark.parametrize("address", ["local", "auto", "10.0.0.1:6379", "head.example:6379", "[::1]:6379"])
def test_addresses(address):
    check_address(address)


@pytest.mark.parametrize(
    "address", ["", "head", "head:", ":6379", "head:0", "head:99999", "http://head:1", "ray://h:1"]
)
def test_what_is_no_address(address):
    with pytest.raises(RecipeError, match="address"):
        Workers(ray=address)


def test_jobs_are_counted_from_one():
    with pytest.raises(RecipeError, match="jobs: 0"):
        Workers(jobs=0)


def test_without_ray_the_line_that_installs_it_is_told(monkeypatch, shared, chores):
    monkeypatch.setattr("tunewell.extras.find_spec", lambda name: None)
    with pytest.raises(TunewellError) as told:
        values(chores.double, [1], shared(), Workers(ray="local"))
    assert "ray is not installed" in str(told.value)
    assert "pip install 'tunewell[ray]'" in str(told.value)


def test_an_address_that_does_not_answer(monkeypatch, shared: Any, chores: Any):
    """Refused, and silent for longer than we wait; neither needs Ray."""
    import socket

    monkeypatch.setattr("tunewell.extras.find_spec", lambda name: name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(WorkerError, match=f"(?s)ray {address}: no Ray cluster can be joined: .*refused.*ray start"):
        values(chores.double, [1], shared(), Workers(ray=address))

    def silent(*args: Any, **keys: Any) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", silent)
    with pytest.raises(WorkerError, match="no answer within 10 s"):
        values(chores.double, [1], shared(), Workers(ray=address))


def test_two_processes_do_not_tune_in_one_folder(tmp_path: Path):
    from tunewell.errors import TrainingError
    from tunewell.workers.job import alone_in

    with alone_in(tmp_path / "tuning"):
        with pytest.raises(TrainingError, match="still tuning here"), alone_in(tmp_path / "tuning", patience=0.1):
            pass
        with alone_in(tmp_path / "other", patience=0.1):
            pass
    with alone_in(tmp_path / "tuning", patience=0.1):
        pass
