"""The template engine of all pages: strict about names, and everything from data is escaped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def engine(**filters: Callable[..., Any]) -> Any:
    """The templates with the filters that all use (`number`, `interval`, `duration`) and a page's own."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from tunewell.report.verdict import duration, interval, number

    made = Environment(
        loader=PackageLoader("tunewell.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"number": number, "interval": interval, "duration": duration, **filters}
    return made
