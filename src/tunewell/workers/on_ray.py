"""Workers on Ray (Moritz et al., 2018): a Ray of the command's own on this machine, or a cluster that runs already.

Each job is one Ray task with its own processors. Ray's own retries are off: a dead worker is noticed here, so that it
is told and counted as everywhere else. Ray's statistics of use, its dashboard and its log lines are off too. A Ray that
is started here listens with a token that only this command knows, and is ended with it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunewell.errors import WorkerError
from tunewell.extras import need
from tunewell.workers import LOCAL, processors

ANSWERS_WITHIN = 10.0  # seconds that an address has to answer
TRIES = 4  # to start Ray on this machine
STORE = 100 * 2**20  # bytes of the object store on this machine, and
STORE_A_WORKER = 12 * 2**20  # so many more for each worker: two blocks of rows with their answers
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else a warning at every task without a GPU
    "RAY_agent_register_timeout_ms": "150000",  # a busy machine starts slowly
    "RAY_worker_niceness": "0",  # as urgent as this command: a worker of 15 starves on a busy machine
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


class RayPool:
    """See `tunewell.workers.Pool`.

    Args:
        address: "local", "auto" or HOST:PORT. jobs: how many at once at most. threads: processors of each.

    Raises:
        TunewellError: Ray is not installed, the address does not answer, or no machine has so many processors.
    """

    def __init__(self, address: str, jobs: int | None, threads: int) -> None:
        reach(address)
        self.threads = threads
        self._running: dict[Any, int] = {}
        self._waiting: list[tuple[int, str]] = []
        self._folder: Path | None = None
        self._ray = ray = _loaded(address)
        self._own = not ray.is_initialized()  # one that this process has begun already is used, and left running
        try:
            if self._own:
                with _handlers_kept():
                    self._begin(address, jobs)
            self.size, nodes, gpus = self._room(jobs)
        except BaseException:
            self.close()
            raise
        place = "this machine" if address == LOCAL else f"the cluster at {address}"
        machines = f", {nodes} machine{'s' if nodes > 1 else ''}" if address != LOCAL else ""
        self.told = f"Ray on {place}{machines}: {self.size} job{'s' if self.size > 1 else ''} at once"
        self._call = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0)(_task())

    def _begin(self, address: str, jobs: int | None) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.CRITICAL}
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        if address != LOCAL:
            self._join(address, quiet)
            return
        count = jobs * self.threads if jobs else max(processors(), self.threads)
        for left in range(TRIES - 1, -1, -1):  # Ray gives its parts 15 s to start, and a busy machine needs longer
            # a short path, since Ray keeps sockets there
            self._folder = Path(tempfile.mkdtemp(prefix="tw-", dir="/tmp" if os.path.isdir("/tmp") else None))
            try:
                self._ray.init(
                    address=LOCAL,
                    num_cpus=count,
                    include_dashboard=False,
                    object_store_memory=STORE + STORE_A_WORKER * count,
                    _temp_dir=str(self._folder),
                    **quiet,
                )
                return
            except Exception as error:
                self._end()
                if not left:
                    raise WorkerError(
                        f"Ray cannot be started: {_line(error)}",
                        where=f"--ray {LOCAL}",
                        expected="a machine with memory and processors to spare for Ray's own processes",
                        remedy="use --jobs instead, which needs none",
                    ) from error

    def _join(self, address: str, quiet: dict[str, Any]) -> None:
        try:
            self._ray.init(address=address, **quiet)
        except Exception as error:
            self._end()
            raise _unreachable(address, _line(error)) from error

    def _room(self, jobs: int | None) -> tuple[int, int, int]:
        """How many jobs fit at once, on how many machines, and with how many GPUs each."""
        alive = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        gpus = 1 if any(node.get("GPU", 0) >= 1 for node in alive) else 0
        each = [int(node.get("CPU", 0) // self.threads) for node in alive]
        if gpus:
            each = [min(n, int(node.get("GPU", 0))) for n, node in zip(each, alive, strict=True)]
        if not sum(each):
            most = max((int(node.get("CPU", 0)) for node in alive), default=0)
            raise WorkerError(
                f"a job takes {self.threads} processors, and the largest machine of the cluster has {most}",
                where="threads",
                expected=f"at most {most}",
            )
        return min(sum(each), jobs or sum(each)), len([n for n in each if n]), gpus

    def start(self, number: int, request: str) -> None:
        self._waiting.append((number, request))
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and len(self._running) < 2 * self.size:  # the next one is there when one ends
            number, request = self._waiting.pop(0)
            self._running[self._call.remote(request)] = number

    def next(self) -> tuple[int, str | None, str]:
        gone = self._ray.exceptions
        ready: list[Any] = []
        while not ready:
            ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=1.0)
        number = self._running.pop(ready[0])
        try:
            node, answer = self._ray.get(ready[0])
            return number, answer, "" if node == socket.gethostname() else node
        except (gone.WorkerCrashedError, gone.NodeDiedError, gone.ObjectLostError, gone.OutOfMemoryError) as error:
            return number, None, f"a worker on Ray has died ({type(error).__name__})"
        finally:
            self._hand_out()

    def close(self) -> None:
        for ref in self._running:
            with contextlib.suppress(Exception):
                self._ray.cancel(ref, force=True)
        self._running.clear()
        self._waiting.clear()
        if self._own:
            self._end()

    def _end(self) -> None:
        with contextlib.suppress(Exception):
            self._ray.shutdown()
        if self._folder is not None:
            _end_parts(self._folder)
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _loaded(address: str) -> Any:
    """The package, set up as we want it: it reads its environment when it is imported."""
    if "ray" not in sys.modules:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        if address == LOCAL and "RAY_AUTH_MODE" not in os.environ:
            os.environ["RAY_AUTH_MODE"] = "token"
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    return ray


def reach(address: str) -> None:
    """Make sure that Ray is installed, and that something answers at an address.

    Raises:
        TunewellError: with what to do.
    """
    need("ray", f"--ray {address}")
    if address in (LOCAL, "auto"):
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWERS_WITHIN).close()
    except OSError as error:
        late = isinstance(error, TimeoutError)
        raise _unreachable(address, f"no answer within {ANSWERS_WITHIN:g} s" if late else _line(error)) from None


def _unreachable(address: str, why: str) -> WorkerError:
    return WorkerError(
        f"no Ray cluster can be joined: {why}",
        where=f"--ray {address}",
        expected="the address of a cluster that runs, with the same versions of Ray and Python, and its token",
        remedy="`ray start --head` on one machine, `ray start --address HOST:PORT` on the others and on this one; "
        "or --ray local",
    )


def _end_parts(folder: Path) -> None:
    """End what is left of a Ray that has not started: its other parts know it by its folder."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(str(folder) in part for part in child.cmdline()):
                child.kill()


def _task() -> Any:
    """The function that Ray carries to its workers; made here, so that a worker without tunewell can say so."""

    def task(request: str) -> tuple[str, str]:
        import json
        import socket

        try:
            from tunewell.workers.worker import answer
        except ImportError as error:
            node = socket.gethostname()
            told = {
                "kind": "WorkerError",
                "what": f"the worker on {node} cannot load tunewell: {error}",
                "where": "workers",
                "expected": "tunewell installed on all machines of the cluster, in the environment that Ray runs in",
                "remedy": "pip install -c constraints.txt 'tunewell[ray]' there",
            }
            return node, json.dumps({"error": told})
        return socket.gethostname(), answer(request)

    return task


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """SIGTERM ends the command as it does without Ray, which puts a handler of its own in its place."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
