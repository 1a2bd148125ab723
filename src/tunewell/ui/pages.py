"""Pages made from templates: language, theme, escaping, and an error page that names what, where, expected, remedy."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse

from tunewell import __version__
from tunewell.errors import TunewellError
from tunewell.ui.words import WORDS

LANG, THEME = "tunewell-lang", "tunewell-theme"  # cookies: a taste, no secret


def language(request: Request) -> str:
    """en or zh: as the address asks, else as it last did, else as the browser prefers."""
    for asked in (request.query_params.get("lang"), request.cookies.get(LANG)):
        if asked in WORDS:
            return asked
    return preferred(request.headers.get("accept-language", ""))


def preferred(header: str) -> str:
    """The first language of an Accept-Language header that there are words in.

    >>> preferred("fr, zh-CN;q=0.8, en;q=0.7"), preferred("en;q=0.3, zh;q=0.9"), preferred("")
    ('zh', 'zh', 'en')
    """
    wanted: list[tuple[float, int, str]] = []
    for i, part in enumerate(header.split(",")[:20]):
        name, _, weight = part.strip().partition(";q=")
        try:
            wanted.append((-float(weight or 1), i, name.strip().lower()[:2]))
        except ValueError:
            continue
    return next((name for weight, _, name in sorted(wanted) if name in WORDS and weight < 0), "en")


@cache
def templates() -> Any:
    from tunewell.report.engine import engine
    from tunewell.report.explanations import pieces_of

    return engine("tunewell.ui", pieces=pieces_of, bytes=size, p=p_value)


def size(count: int) -> str:
    """Bytes for people.

    >>> size(900), size(17_671_552)
    ('900 B', '17.7 MB')
    """
    amount = float(count)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def p_value(value: float | None) -> str:
    """A p-value for people.

    >>> p_value(0.03125), p_value(0.00001)
    ('0.0312', '< 0.0001')
    """
    return "–" if value is None else "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def fragment(request: Request, name: str, /, **values: Any) -> str:
    """A template as text, in the request's language."""
    lang = language(request)
    made: str = templates().get_template(name).render(w=WORDS[lang], lang=lang, **values)
    return made


def page(
    request: Request, name: str, /, *, title: str, here: str = "", status: int = 200, **values: Any
) -> HTMLResponse:
    """A whole page.

    Args:
        title: of the window, in the request's language. here: the entry of the menu that it belongs to.
    """
    lang = language(request)
    theme = request.cookies.get(THEME)
    html = templates().get_template(name).render(
        w=WORDS[lang],
        lang=lang,
        title=title,
        here=here,
        folder=request.app.state.place.name,
        theme=theme if theme in ("light", "dark") else "",
        other=f"?{_with(request.query_params, 'zh' if lang == 'en' else 'en')}",
        version=__version__,
        **values,
    )  # fmt: skip
    response = HTMLResponse(html, status)
    if request.query_params.get("lang") == lang:
        response.set_cookie(LANG, lang, samesite="strict", max_age=31_536_000)
    response.headers["vary"] = "Cookie, Accept-Language"
    return response


def _with(query: Any, lang: str) -> str:
    from urllib.parse import urlencode

    return urlencode([(k, v) for k, v in query.multi_items() if k not in ("lang", "token")] + [("lang", lang)])


def problem(request: Request, error: TunewellError | str, status: int) -> HTMLResponse:
    """The page of an error."""
    if isinstance(error, str):
        error = TunewellError(error)
    return page(
        request, "problem.html", title=WORDS[language(request)]["e_title"], status=status, error=error
    )  # fmt: skip


def words(request: Request) -> Mapping[str, str]:
    """The words of the request's language."""
    return WORDS[language(request)]
