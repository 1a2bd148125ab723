"""Running the service: socket, signals, a shutdown that loses no request.

SIGTERM or SIGINT: new connections are refused from then on; requests on open connections are still
answered, each with `Connection: close`; once all are answered the process exits with 0. A second
signal ends it at once. SIGHUP: the models are loaded again and swapped in.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from tunewell.errors import TunewellError
from tunewell.hosts import hosts_for, is_loopback
from tunewell.serving.app import Limits, Service, create_app
from tunewell.serving.models import Models

IDLE_SECONDS = 0.5  # that open connections without a request have to send one before they are closed
BACKLOG = 512
GIL_SECONDS = 0.001  # between the event loop and the thread with the model; Python's own 5 ms shows in the latency


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet; port 0 takes a free one.

    Raises:
        TunewellError: the port is taken or not allowed, or there is no such host.
    """
    where = f"{host}:{port}"
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
    except socket.gaierror as error:
        raise TunewellError(
            f"no such host: {error.strerror}",
            where=where,
            expected="an address of this machine",
            remedy="--host 127.0.0.1",
        ) from None
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        what, remedy = f"cannot listen: {error.strerror}", "another --port, or --port 0 for a free one"
        if error.errno == errno.EADDRINUSE:
            what = "the port is taken by another program"
        elif error.errno == errno.EADDRNOTAVAIL:
            remedy = "--host 127.0.0.1, or --host 0.0.0.0 for all addresses of this machine"
        raise TunewellError(what, where=where, expected="a free port of this machine", remedy=remedy) from None
    return sock


class Server(uvicorn.Server):
    """Uvicorn with the shutdown described above."""

    def __init__(self, config: uvicorn.Config, service: Service, ready: Callable[[], None], say: Callable[[str], None]):
        super().__init__(config)
        self.service, self.ready, self.say = service, ready, say
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The event loop handles signals, see `startup`; none is raised again, since 0 is the exit code."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        for name, handle in (("SIGTERM", self._stop), ("SIGINT", self._stop), ("SIGHUP", self._reload)):
            number = getattr(signal, name, None)
            if number is None:
                continue
            try:
                loop.add_signal_handler(number, handle)
            except NotImplementedError:  # Windows
                signal.signal(number, lambda *_, call=handle: loop.call_soon_threadsafe(call))
        self.ready()

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _stop(self) -> None:
        if self.service.draining:
            self.should_exit = self.force_exit = True
            return
        self.service.draining = True
        for server in self.servers:
            server.close()
        self._start(self._drain())

    async def _drain(self) -> None:
        """Wait until no connection has a request, at least `IDLE_SECONDS` for those that may be sending one."""
        self.say("stopping: answering what is under way")
        loop = asyncio.get_running_loop()
        end = loop.time() + IDLE_SECONDS
        while self.server_state.connections and loop.time() < end:
            await asyncio.sleep(0.02)
        self.should_exit = True

    def _reload(self) -> None:
        self._start(self._load_again())

    async def _load_again(self) -> None:
        for outcome in await self.service.load_again():
            if isinstance(outcome, TunewellError):
                self.say(f"not loaded again, the old model goes on: {outcome}")
            else:
                self.say(f"loaded again: {outcome.name}, version {outcome.version}")


def serve(
    models: Models,
    sock: socket.socket,
    *,
    limits: Limits,
    api_key: str | None,
    host: str,
    allowed_hosts: tuple[str, ...],
    cors: tuple[str, ...],
    ready: Callable[[], None],
    say: Callable[[str], None],
) -> None:
    """Answer until a signal ends it.

    Args:
        sock: from `bind`. host: what it is bound to.
        allowed_hosts, cors: further names of the service, and origins whose pages may call it, see `tunewell.hosts`.
        ready: called once requests are taken.
        say: told what goes on.
    """
    sys.setswitchinterval(GIL_SECONDS)

    async def run() -> None:
        service = Service(models, limits, api_key=api_key, beyond=not is_loopback(host))
        config = uvicorn.Config(
            create_app(service, hosts=hosts_for(host, allowed_hosts), cors=cors),
            http="httptools" if _have("httptools") else "h11",
            ws="none",
            lifespan="on",
            log_level="error",
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=int(limits.timeout) + 1,
        )
        await Server(config, service, ready, say).serve(sockets=[sock])

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(run())


def _have(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


def _loop_factory() -> Any:
    if not _have("uvloop"):
        return None
    import uvloop

    return uvloop.new_event_loop
