"""The try-it page: one file without network, and the policy that lets nothing but its own script run."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files


@cache
def page(package: str = __name__, name: str = "try.html") -> tuple[str, str]:
    """A page of a package and its Content-Security-Policy."""
    html = files(package).joinpath(name).read_text(encoding="utf-8")
    return html, policy(html)


def policy(html: str) -> str:
    """A policy that lets nothing run but the page's own script and style, known by their hashes."""

    def allowed(tag: str) -> str:
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        return " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in found
        )

    return (
        f"default-src 'none'; script-src {allowed('script')}; style-src {allowed('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
