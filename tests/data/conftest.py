"""A web server on this machine."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest


@pytest.fixture
def serving() -> Iterator[Callable[[Any], str]]:
    """serving(handler): the address of a server that answers by it, until the test ends."""
    with ExitStack() as open_ones:

        def serve(handler: Any) -> str:
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
            open_ones.callback(server.server_close)
            open_ones.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            return f"http://127.0.0.1:{server.server_address[1]}"

        yield serve
