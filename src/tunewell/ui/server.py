"""Running the app until Ctrl-C."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Callable
from typing import Any

from tunewell.hosts import hosts_for
from tunewell.ui.app import create_app
from tunewell.ui.jobs import Queue
from tunewell.ui.places import Place


def serve(place: Place, sock: socket.socket, *, host: str, ready: Callable[[str], Any]) -> None:
    """Answer on a bound socket; returns after SIGINT or SIGTERM, once a run that was started here has saved.

    Args:
        host: the address that the socket is bound to. ready: called with the address to open, key included.
    """
    import uvicorn

    token = secrets.token_urlsafe(24)
    queue = Queue(place)
    app = create_app(place, token=token, hosts=hosts_for(host), queue=queue)
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    url = f"http://{shown}:{sock.getsockname()[1]}/?token={token}"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready(url)

    config = uvicorn.Config(
        app, log_level="error", access_log=False, server_header=False, ws="none", timeout_graceful_shutdown=3
    )
    try:
        with contextlib.suppress(KeyboardInterrupt):
            Server(config).run(sockets=[sock])
    finally:
        queue.close()
