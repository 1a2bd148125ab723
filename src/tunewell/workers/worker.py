"""What a worker does: reads a job, opens what it shares with others (once), does it, answers.

A request and an answer are one line of JSON each. `python -m tunewell.workers.worker` is a local worker, which reads
requests from standard input until it ends; on Ray each request is one task that calls `answer`.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewell import errors

if TYPE_CHECKING:
    from tunewell.workers import Done, Shared

PACKAGES = ("tunewell", "torch", "transformers", "tokenizers", "numpy")  # whose versions decide results
_opened: dict[str, Any] = {}  # what jobs share; the last one only


# ---------------------------------------------------------------- on the side of the command


def described(do: Callable[..., Any], shared: Shared, threads: int) -> dict[str, Any]:
    """What is the same in all requests."""
    from tunewell.workers import module_function, seen

    return {
        "do": module_function(do),
        "open": module_function(shared.open),
        "about": shared.about,
        "sees": [seen(path) for path in shared.sees],
        "threads": threads,
        "cwd": os.getcwd(),
        "node": platform.node(),
        "versions": versions(),
    }


def understood(number: int, answer: str, where: str) -> Done:
    """An answer as the command takes it.

    Raises:
        WorkerError: workers differ from this machine, or do not see what they must.
        RuntimeError: a fault of ours, with the worker's trace.
    """
    from tunewell.workers import Done

    found = json.loads(answer)
    if "fault" in found:
        raise RuntimeError(f"in a worker ({where or 'this machine'}): {found['fault']}\n{found['trace']}")
    if "error" in found:
        kind = getattr(errors, found["error"].pop("kind"), errors.TunewellError)
        error = kind(found["error"].pop("what"), **found["error"])
        if isinstance(error, errors.WorkerError):
            raise error
        return Done(number, error=error, where=where)
    return Done(number, found["value"], where=where)


def versions() -> dict[str, str]:
    """Python and the packages on which results depend."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    from tunewell import __version__

    for package in PACKAGES:
        try:
            found[package] = __version__ if package == "tunewell" else version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


# ---------------------------------------------------------------- on the side of the worker


def answer(request: str) -> str:
    """Do a job and tell what came of it; errors are told, not raised."""
    try:
        asked = json.loads(request)
        _prepare(asked)
        value = _function(asked["do"])(_shared(asked), asked["item"])
        return json.dumps({"value": value})
    except errors.TunewellError as error:
        told = {"kind": type(error).__name__, "what": error.what}
        return json.dumps({"error": {**told, **{k: getattr(error, k) for k in ("where", "expected", "remedy")}}})
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        return json.dumps({"fault": f"{type(error).__name__}: {text}", "trace": traceback.format_exc()})


def _prepare(asked: dict[str, Any]) -> None:
    """The same versions, threads, folder and files as where the command was given."""
    there, mine, node = asked["versions"], versions(), platform.node()
    differ = [f"{k} {mine.get(k)} instead of {v}" for k, v in there.items() if mine.get(k) != v]
    if differ:
        raise errors.WorkerError(
            f"the worker on {node} has {', '.join(differ)}",
            where="workers",
            expected="the same versions on all machines, so that results do not depend on where they are made",
            remedy="install the same: pip install -c constraints.txt tunewell",
        )
    for path, size in [(asked["cwd"], None), *asked["sees"]]:
        place = Path(path)
        if not place.exists() or (size is not None and place.stat().st_size != size):
            what = "sees another file" if place.exists() else "does not see"
            raise errors.WorkerError(
                f"the worker on {node} {what}" + ("" if place.exists() else " this path"),
                where=path,
                expected=f"the same as on {asked['node']}, under the same path",
                remedy="put data, models and runs on a file system that all machines share",
            )
    os.chdir(asked["cwd"])
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # torch reads them when it is imported
        os.environ[name] = str(asked["threads"])
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(asked["threads"])


def _shared(asked: dict[str, Any]) -> Any:
    key = json.dumps([asked["open"], asked["about"]], sort_keys=True)
    if key not in _opened:
        _opened.clear()
        _opened[key] = _function(asked["open"])(asked["about"])
    return _opened[key]


def _function(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), attribute)
    return found


def main() -> None:
    """Answer requests from standard input on standard output; what others print goes to standard error."""
    import queue
    import signal
    import threading
    import warnings

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which ends its workers
    warnings.simplefilter("ignore")
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    waiting: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            waiting.put(line)
        os._exit(0)  # the command has ended, in whatever way: so does the job

    threading.Thread(target=read, daemon=True).start()
    while True:
        out.write(answer(waiting.get()) + "\n")
        out.flush()


if __name__ == "__main__":
    from tunewell.workers.worker import main as start  # the module that requests name, not `__main__`

    start()
