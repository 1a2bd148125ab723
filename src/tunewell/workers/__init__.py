"""Independent jobs, done side by side: here one after the other, in local processes, or on Ray.

There is one way through: a command names a function, what all jobs share and one item a job, and takes the results as
they come. What a worker gets and gives back is JSON, so that a result is the same bits wherever it was made (with the
same number of threads on the same kind of processor), and only the process that gave the command writes results.
A worker that dies is replaced and its job done again; what was finished before stays.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tunewell.errors import RecipeError, TunewellError, WorkerError

RETRIES = 2  # times that a job is done again whose worker has died
LOCAL = "local"  # `--ray local`: a Ray of this command's own, on this machine


@dataclass(frozen=True)
class Workers:
    """Where jobs are done.

    Attributes:
        jobs: how many at once; None for one here, and for as many as there are processors on Ray.
        ray: "local" starts Ray on this machine, "auto" or HOST:PORT joins a cluster; None for no Ray.
    """

    jobs: int | None = None
    ray: str | None = None

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise RecipeError(f"`jobs: {self.jobs}`", where="jobs", expected="a whole number from 1")
        if self.ray is not None:
            check_address(self.ray)

    @property
    def here(self) -> bool:
        """Whether jobs are done by this process."""
        return self.ray is None and self.jobs in (None, 1)

    @property
    def told(self) -> str:
        """As the user would write it."""
        return f"--ray {self.ray}" if self.ray else f"--jobs {self.jobs}"


HERE = Workers()


def check_address(address: str) -> None:
    """Raises RecipeError for what is no address of a cluster."""
    host, _, port = address.rpartition(":")
    if address in (LOCAL, "auto") or (host and "/" not in address and port.isdigit() and 0 < int(port) < 65536):
        return
    client = address.startswith("ray://")
    raise RecipeError(
        f"`{address}` is " + ("an address for Ray's client, which is not used here" if client else "no address"),
        where="ray",
        expected="local, auto, or HOST:PORT of a cluster's head, such as 10.0.0.1:6379",
        remedy="give the command on a machine of the cluster, with --ray auto" if client else "",
    )


@dataclass(frozen=True)
class Shared:
    """What all jobs share: in this process as it is, in a worker opened from its description.

    Attributes:
        here: called in this process. open: a function of a module, called in a worker with `about`.
        about: JSON-like. sees: paths that a worker must see as they are here.
    """

    here: Callable[[], Any]
    open: Callable[[dict[str, Any]], Any]
    about: dict[str, Any]
    sees: Sequence[str] = ()


@dataclass(frozen=True)
class Done:
    """One finished job: its place among the items, and what came of it or the error that it ended with."""

    at: int
    value: Any = None
    error: TunewellError | None = None
    where: str = ""  # the machine, where it is not this one

    def result(self) -> Any:
        """What came of it; raises its error."""
        if self.error is not None:
            raise self.error
        return self.value


class Pool(Protocol):
    """Workers that have been started; `size` of them with `threads` threads each."""

    size: int
    threads: int
    told: str

    def start(self, number: int, request: str) -> None:
        """Hand over a job; it waits where all workers are busy."""

    def next(self) -> tuple[int, str | None, str]:
        """Wait for a job: its number, its answer (None where its worker has died), and where or why."""

    def close(self) -> None:
        """End the workers, with whatever they are doing."""


def threads_for(workers: Workers, asked: int | None) -> int:
    """Threads of one job: as the recipe says; else this machine's processors shared out, on Ray one.

    >>> threads_for(Workers(ray="local"), None), threads_for(Workers(jobs=2), 3)
    (1, 3)
    """
    if asked:
        return asked
    return 1 if workers.ray else max(1, processors() // (workers.jobs or 1))


def processors() -> int:
    """Processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def open_pool(workers: Workers, threads: int) -> Pool:
    """Start workers; close them again.

    Raises:
        TunewellError: Ray is not installed, or the address does not answer.
    """
    if workers.ray is not None:
        from tunewell.workers.on_ray import RayPool

        return RayPool(workers.ray, workers.jobs, threads)
    from tunewell.workers.local import LocalPool

    return LocalPool(workers.jobs or 1, threads)


def done(
    do: Callable[[Any, Any], Any],
    items: Iterable[Any],
    shared: Shared,
    workers: Workers = HERE,
    *,
    threads: int | None = None,
    name: Callable[[Any], str] = str,
    echo: Callable[[str], None] = lambda line: None,
    in_order: bool = False,
    ahead: int | None = None,
) -> Generator[Done]:
    """Do `do(shared, item)` for each item; results as they come, or in the order of the items.

    Close the generator (`contextlib.closing`), or let it end, to end the workers.

    Args:
        do: a function of a module; takes and gives back what JSON can hold.
        threads: of one job, see `threads_for`.
        name: what an item is called when its worker has died. echo: told of that, and of where jobs are done.
        in_order: results that come too early are held back.
        ahead: how many jobs a worker are begun at most before the first of them is taken; all, when missing. With it
            `items` is read bit by bit, and no more than so many items and results are held.

    Raises:
        WorkerError: a job's worker died again and again, or workers cannot see what they must.
        TunewellError: see `open_pool`. A mistake in a job is in its `Done`.
    """
    if workers.here:
        here = shared.here()
        for at, item in enumerate(items):
            try:
                yield Done(at, do(here, item))
            except TunewellError as error:
                yield Done(at, error=error)
        return
    pool = open_pool(workers, threads_for(workers, threads))
    try:
        echo(f"workers: {pool.told}, each with {pool.threads} thread{'s' if pool.threads > 1 else ''}")
        yield from _side_by_side(do, items, shared, pool, name=name, echo=echo, in_order=in_order, ahead=ahead)
    finally:
        pool.close()


def _side_by_side(
    do: Callable[[Any, Any], Any],
    items: Iterable[Any],
    shared: Shared,
    pool: Pool,
    *,
    name: Callable[[Any], str],
    echo: Callable[[str], None],
    in_order: bool,
    ahead: int | None,
) -> Iterator[Done]:
    from tunewell.workers.worker import described, understood

    common = described(do, shared, pool.threads)
    coming = iter(enumerate(items))
    most = None if ahead is None else ahead * pool.size
    running: dict[int, tuple[str, Any]] = {}  # number -> request, item
    lost: dict[int, int] = {}
    held: dict[int, Done] = {}
    turn, ended = 0, False
    while True:
        while not ended and (most is None or len(running) + len(held) < most):
            following = next(coming, None)
            if following is None:
                ended = True
                break
            number, item = following
            request = json.dumps({**common, "item": item})
            running[number] = (request, item)
            pool.start(number, request)
        if not running and not held:
            return
        if not (in_order and turn in held):
            number, answer, where = pool.next()
            request, item = running[number]
            if answer is None:
                lost[number] = lost.get(number, 0) + 1
                if lost[number] > RETRIES:
                    raise WorkerError(
                        f"{name(item)}: its worker has died {lost[number]} times; at last {where}",
                        where="workers",
                        expected="workers that live as long as a job takes",
                        remedy="look whether memory is short: fewer --jobs, or a smaller per_device_train_batch_size",
                    )
                echo(f"workers: {where}; {name(item)} is done again, {lost[number]} of {RETRIES} times")
                pool.start(number, request)
                continue
            del running[number]
            held[number] = understood(number, answer, where)
        for at in [turn] if in_order else sorted(held):
            if at in held:
                yield held.pop(at)
                turn = at + 1 if in_order else turn


def module_function(function: Callable[..., Any]) -> str:
    """How a worker finds a function: module:name."""
    assert "<" not in function.__qualname__, f"{function.__qualname__} is no function of a module"
    return f"{function.__module__}:{function.__qualname__}"


def seen(path: str | Path) -> list[Any]:
    """A path that a worker must see, and the size of its file (None for a folder)."""
    place = Path(path).absolute()
    return [str(place), place.stat().st_size if place.is_file() else None]


__all__ = ["HERE", "LOCAL", "RETRIES", "Done", "Shared", "Workers", "check_address", "done", "threads_for"]
