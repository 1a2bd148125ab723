"""What stands before every route: who may call, the API key, limits on the body, safe headers, counting.

Plain ASGI, since it runs on every request. Errors have the form of `schema.ErrorResponse`.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from tunewell.errors import TunewellError
from tunewell.hosts import Hosts, foreign, name_of

OPEN = ("/", "/healthz", "/openapi.json", "/favicon.ico")  # no key needed
KNOWN = (*OPEN, "/predict", "/explain", "/influence", "/models", "/metrics", "/reload")
SAFE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
DEFAULT_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """A request is answered with an error."""

    def __init__(
        self,
        status: int,
        what: str,
        *,
        where: str = "",
        expected: str = "",
        remedy: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        self.status, self.headers = status, headers or {}
        self.problem = {"what": what, "where": where, "expected": expected, "remedy": remedy}
        super().__init__(what)

    def body(self) -> bytes:
        return json.dumps({"error": self.problem}, ensure_ascii=True).encode()


def refusal_of(status: int, error: TunewellError) -> Refusal:
    """A user's mistake as an answer."""
    return Refusal(status, error.what, where=error.where, expected=error.expected, remedy=error.remedy)


class Guard:
    """The outermost layer of the app.

    Args:
        api_key: asked for on all but the open paths; None asks for none.
        hosts: that are answered. A request without Host, which no browser sends, is.
        origins: of pages that may call besides the service's own, see `hosts.origin_of`.
        max_body: bytes of a request's body at the most.
        body_seconds: in which the body has to arrive.
        note: told path, status and seconds of every request.
        draining: whether the service is shutting down; answers then close their connections.
    """

    def __init__(
        self,
        app: Any,
        *,
        api_key: str | None,
        hosts: Hosts,
        origins: Iterable[str],
        max_body: int,
        body_seconds: float,
        note: Callable[[str, int, float], None],
        draining: Callable[[], bool],
    ) -> None:
        self.app, self.max_body, self.body_seconds = app, max_body, body_seconds
        self.key = api_key.encode() if api_key else None
        self.hosts, self.origins = hosts, tuple(origins)
        self.note, self.draining = note, draining

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500
        path = scope["path"] if scope["path"] in KNOWN else "other"

        async def send_safely(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", ()))
                has = {name for name, _ in headers}
                headers += [pair for pair in (*SAFE_HEADERS, DEFAULT_POLICY) if pair[0] not in has]
                if self.draining():
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        try:
            self._check_caller(scope)
            self._check_key(scope)
            body = await self._body(scope, receive)
            await self.app(scope, _replay(body, receive), send_safely)
        except Refusal as refusal:
            await answer(refusal, send_safely)
        finally:
            self.note(path, status, time.perf_counter() - started)

    def _check_caller(self, scope: Any) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if (host := headers.get("host", "")) and not self.hosts.known(host):
            raise Refusal(
                421,
                "this service is not known by that name",
                where=f"Host: {host[:100]}",
                expected="the address that `tunewell serve` printed",
                remedy=f"start the service with --allowed_hosts {name_of(host[:100])}, if callers may use this name",
            )
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and foreign(headers, self.origins):
            raise Refusal(
                403,
                "this request comes from a page of another origin",
                where=f"Origin: {headers.get('origin', 'none')[:100]}",
                expected="a program, or a page of this service",
                remedy="start the service with --cors ORIGIN, if pages of that origin may call",
            )

    def _check_key(self, scope: Any) -> None:
        if self.key is None or scope["path"] in OPEN:
            return
        given = []  # each may be there for somebody else, such as a proxy
        for name, value in scope["headers"]:
            if name == b"x-api-key":
                given.append(value)
            elif name == b"authorization" and value[:7].lower() == b"bearer ":
                given.append(value[7:].strip())
        if sum(hmac.compare_digest(key, self.key) for key in given) == 0:
            raise Refusal(
                401,
                "the API key is wrong" if any(given) else "an API key is needed",
                expected="Authorization: Bearer KEY",
                headers={"www-authenticate": "Bearer"},
            )

    async def _body(self, scope: Any, receive: Any) -> bytes:
        """The whole body, within the limits."""
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.max_body:
            raise self._too_large()
        if scope["method"] in ("GET", "HEAD", "OPTIONS") and length == b"0" and b"transfer-encoding" not in headers:
            return b""
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        break
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > self.max_body:
                        raise self._too_large()
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            raise Refusal(
                408, f"the body did not arrive within {self.body_seconds:g} s", headers={"connection": "close"}
            ) from None
        return b"".join(parts)

    def _too_large(self) -> Refusal:
        return Refusal(
            413,
            "the body is too large",
            expected=f"at most {self.max_body:,} bytes",
            remedy="send fewer or shorter texts a request, or start the service with a larger --max-body",
            headers={"connection": "close"},
        )


def _replay(body: bytes, receive: Any) -> Any:
    """A `receive` that gives the body once more."""
    given = False

    async def replayed() -> Any:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replayed


async def answer(refusal: Refusal, send: Any) -> None:
    """Send a refusal as JSON."""
    body = refusal.body()
    headers: Iterable[tuple[str, str]] = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **refusal.headers,
    }.items()
    raw = [(name.encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": refusal.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
