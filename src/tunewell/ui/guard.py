"""What stands before every page: this machine's names only, a session, no other page's requests, safe headers.

- Host: a name that another page could let point here (DNS rebinding) is refused with 421.
- Session: a random token, printed by the command. The address that carries it sets a cookie that scripts cannot
  read and other sites cannot send; without either there is nothing to see (403).
- Origin: a POST must come from a page of this app (CSRF); browsers say where each comes from.
"""

from __future__ import annotations

import hmac
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from tunewell.hosts import Hosts, hosts_for, own_origin, port_of

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SAFE = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", POLICY.encode()),
)


class Guard:
    """The outermost layer of the app.

    Args:
        token: of the session. hosts: under which the app may be called; by default those of the loopback.
    """

    def __init__(self, app: Any, *, token: str, hosts: Hosts | None = None) -> None:
        self.app, self.token = app, token
        self.hosts = hosts_for("127.0.0.1") if hosts is None else hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = _headers(scope)
        host = headers.get("host", "")
        if not self.hosts.known(host):
            await _answer(send, 421, "this app answers under this machine's own name only")
            return
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if given and self._right(given) and scope["method"] in ("GET", "HEAD"):
            cookie = f"{cookie_name(host)}={self.token}; Path=/; HttpOnly; SameSite=Strict"
            await _answer(send, 303, "", ("location", "/"), ("set-cookie", cookie))
            return
        if not self._right(_cookie(headers.get("cookie", ""), cookie_name(host))):
            await _answer(send, 403, "open the address that `tunewell ui` printed: it holds the key to this session")
            return
        if scope["method"] not in ("GET", "HEAD") and not _own(headers, host):
            await _answer(send, 403, "this request does not come from a page of this app")
            return

        async def send_safely(message: Any) -> None:
            if message["type"] == "http.response.start":
                found = list(message.get("headers", ()))
                has = {name.lower() for name, _ in found}
                message = {**message, "headers": [*found, *(pair for pair in SAFE if pair[0] not in has)]}
            await send(message)

        await self.app(scope, receive, send_safely)

    def _right(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())


def cookie_name(host: str) -> str:
    """The session's cookie: browsers do not keep the cookies of two ports apart.

    >>> cookie_name("127.0.0.1:8765")
    'tunewell-8765'
    """
    return f"tunewell-{port_of(host)}"


def _own(headers: dict[str, str], host: str) -> bool:
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return False
    return own_origin(headers.get("origin", ""), host)


def _headers(scope: Any) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return found.value if found is not None else ""


async def _answer(send: Any, status: int, text: str, *more: tuple[str, str]) -> None:
    body = f"tunewell: {text}\n".encode() if text else b""
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()), *SAFE]
    headers += [(name.encode(), value.encode()) for name, value in more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
