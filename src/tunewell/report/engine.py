"""The template engine of all pages: strict about names, and everything from data is escaped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunewell.errors import RecipeError


def engine(package: str = "tunewell.report", **filters: Callable[..., Any]) -> Any:
    """The templates of a package, those of reports beneath them, with the filters that all use (`number`, `interval`,
    `duration`) and a page's own."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    from tunewell.report.verdict import duration, interval, number

    made = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("tunewell.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"number": number, "interval": interval, "duration": duration, **filters}
    return made


def page_of(
    template: str, folder: Path, record: Any, lang: str, parts: Callable[[dict[str, str]], dict[str, Any]]
) -> str:
    """A page of its own about one record (`p` in its template), as HTML.

    Args:
        parts: what else the template asks for, given the words of the language.

    Raises:
        RecipeError: an unknown language.
    """
    from tunewell.report.words import WORDS

    if lang not in WORDS:
        raise RecipeError(f"`lang: {lang}`", where="lang", expected=" or ".join(WORDS))
    w = WORDS[lang]
    about = {"w": w, "lang": lang, "p": record, "name": folder.resolve().name}
    return engine().get_template(template).render(**about, environment=environment_of(folder), **parts(w))


def environment_of(folder: Path) -> dict[str, Any]:
    """What a folder's work ran on; blanks where its environment.json is missing or damaged."""
    try:
        return json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"created": "", "tunewell": "", "command": "", "packages": {}}
