"""Who is calling a service of this machine: the names it may be called by, and the pages that may send to it.

What `serve`, `ui` and `label` share. A browser names the host that it believes to talk to. Where another page's name
has been made to point here (DNS rebinding), that page would count as ours, and read every answer; but the name gives
it away. An address (`192.168.1.7`) cannot be made to point elsewhere, so that only names have to be known.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

LOCAL = ("127.0.0.1", "localhost", "[::1]")
_EVERYWHERE = ("0.0.0.0", "::", "")
_NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9_][a-z0-9_.-]*)(:\d{1,5})?")
_USUAL = {"http": ":80", "https": ":443"}


@dataclass(frozen=True)
class Hosts:
    """The Host headers that are answered.

    Attributes:
        names: names and addresses, in small letters, an IPv6 address in brackets; `*.example.org` is every name
            below that one, `*` any name at all.
        addresses: whether any address is answered besides.
    """

    names: frozenset[str]
    addresses: bool = False

    def known(self, host: str) -> bool:
        """Whether a Host header, port or none, is among them.

        >>> ours = Hosts(frozenset({"localhost", "*.example.org"}), addresses=True)
        >>> [ours.known(h) for h in ("localhost:80", "a.example.org", "10.0.0.7:1", "example.com", "localhost.evil")]
        [True, True, True, False, False]
        """
        name = name_of(host)
        if name in self.names or "*" in self.names or (self.addresses and is_address(name)):
            return True
        return any(n.startswith("*.") and name.endswith(n[1:]) for n in self.names)


def hosts_for(bound: str, allowed: Iterable[str] = ()) -> Hosts:
    """The hosts of a service.

    Args:
        bound: what it is bound to: of a loopback address the loopback's names; of 0.0.0.0 and :: besides any
            address and this machine's own name; of one address or name that one.
        allowed: more of them, as `fault_of_host` lets them pass.
    """
    names = {*LOCAL, *(a.lower() for a in allowed)}
    everywhere = bound in _EVERYWHERE
    if everywhere:
        names.add(socket.gethostname().lower())
    else:
        names.add(f"[{bound}]" if ":" in bound else bound.lower())
    return Hosts(frozenset(names), addresses=everywhere)


def is_loopback(bound: str) -> bool:
    """Whether a service that is bound to this is reached from its own machine only.

    >>> [is_loopback(b) for b in ("127.0.0.1", "127.0.0.2", "::1", "localhost", "0.0.0.0", "10.0.0.7", "")]
    [True, True, True, True, False, False, False]
    """
    if bound.lower() == "localhost":
        return True
    return is_address(bound) and ipaddress.ip_address(bound.strip("[]")).is_loopback


def is_address(name: str) -> bool:
    """Whether a host is an address and no name.

    >>> is_address("192.168.1.7"), is_address("[fe80::1]"), is_address("evil.example")
    (True, True, False)
    """
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def name_of(host: str) -> str:
    """A Host header without its port.

    >>> name_of("LocalHost:80"), name_of("[::1]:80")
    ('localhost', '[::1]')
    """
    host = host.lower()
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]


def port_of(host: str) -> str:
    """The port of a Host header, "80" without one."""
    port = host[len(name_of(host)) :].lstrip(":")
    return port if port.isdigit() else "80"


def own_origin(origin: str, host: str) -> bool:
    """Whether an Origin header is that of the host itself."""
    return origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")


def foreign(headers: Mapping[str, str], origins: Iterable[str]) -> bool:
    """Whether a request that changes or asks something comes from a page that may not send it (CSRF).

    Browsers put `Origin` on every POST and say in `Sec-Fetch-Site`, which no page can set, where the page stands
    to the service; programs send neither. A proxy may have changed Host, but not `same-origin`.

    Args:
        headers: of the request, names in small letters. origins: of pages that may, as `origin_of` gives them; "*" any.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site == "same-origin" or "*" in (allowed := set(origins)):
        return False
    if origin is not None and origin.lower() in allowed:
        return False
    if site not in (None, "none"):
        return True
    return origin is not None and not own_origin(origin, headers.get("host", ""))


def fault_of_host(name: str) -> str:
    """What is wrong with a name to be answered to, or "".

    >>> fault_of_host("api.example.org"), fault_of_host("*"), fault_of_host("[fe80::1]")
    ('', '', '')
    >>> fault_of_host("http://api.example.org/")
    'expected a name or address without scheme, port or path, such as api.example.org or *.example.org'
    """
    if name == "*" or _NAME.fullmatch(name.lower()) or (name.startswith("[") and is_address(name)):
        return ""
    return "expected a name or address without scheme, port or path, such as api.example.org or *.example.org"


def origin_of(given: str) -> str | None:
    """An origin as browsers send it, `*` as it is; None for what is no origin.

    >>> origin_of("https://App.example:443"), origin_of("*")
    ('https://app.example', '*')
    >>> [origin_of(o) for o in ("not-a-url", "https://app.example/", "null", "")]
    [None, None, None, None]
    """
    if given == "*":
        return given
    found = _ORIGIN.fullmatch(given.lower())
    if found is None:
        return None
    scheme, name, port = found[1], found[2], found[3] or ""
    return f"{scheme}://{name}{'' if port == _USUAL.get(scheme) else port}"
