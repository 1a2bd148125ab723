"""Charts as inline SVG: they follow the page's light or dark colours, print sharply and need no script.

Each mark carries its figures in a <title> and in data-tip, which the page's small script shows on
hover and on keyboard focus. Colours are CSS variables of the page (a palette that colour-blind
readers can tell apart: Okabe & Ito, 2008).

A page with Bokeh inline would carry 1.35 MB of scripts and draw on canvases that know nothing of the
page's colour scheme; these few functions make pages of some 100 kB.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tunewell.shown import cut

WIDTH = 640


@dataclass(frozen=True)
class Point:
    """A value with its interval: `low` and `high` may be None. `tone` names a colour of the page."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    tone: str = "main"
    tip: str = ""


def ticks(low: float, high: float, n: int = 5) -> list[float]:
    """Round numbers that cover [low, high].

    >>> ticks(0.12, 0.87)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    >>> ticks(0.5, 0.5 + 1e-15, 4)
    [0.5, 0.75]
    """
    apart = high - low > 1e-8 * max(abs(high), abs(low))  # else rounding alone holds them apart
    span = high - low if apart else max(abs(high), 1.0)
    raw = span / n
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def number(value: float) -> str:
    """A short number for an axis.

    >>> number(0.00015), number(1e-4), number(2.5e6), number(0.82)
    ('1.5e-04', '1e-04', '2.5e+06', '0.82')
    """
    if value == 0:
        return "0"
    small_or_large = abs(value) < 1e-3 or abs(value) >= 1e6
    return f"{value:.1e}".replace(".0e", "e") if small_or_large else f"{value:,.4g}"


def _svg(height: float, body: Sequence[str], title: str, width: int = WIDTH) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{escape(title, quote=True)}" '
        f'class="chart">{"".join(body)}</svg>'
    )


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _mark(x: float, y: float, tone: str, tip: str, r: float = 5) -> str:
    safe = escape(tip, quote=True)
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" class="mark {tone}" tabindex="0" data-tip="{safe}">'
        f"<title>{safe}</title></circle>"
    )


def _upright(y: float, text: str) -> str:
    """The label of a vertical axis."""
    turned = f'transform="translate(14 {y:.0f}) rotate(-90)"'
    return f'<text {turned} text-anchor="middle" class="axis">{escape(text)}</text>'


def _wrapped(text: str, n: int, most: int = 3) -> list[str]:
    """Up to `most` lines of at most n characters, cut at spaces where there are any.

    >>> _wrapped("base model, frozen + logistic regression", 22)
    ['base model, frozen +', 'logistic regression']
    """
    lines: list[str] = []
    while len(text) > n and len(lines) < most - 1:
        at = text.rfind(" ", 0, n + 1)
        at = at if at > 0 else n
        lines.append(text[:at])
        text = text[at:].strip()
    return [*lines, cut(text, n)]


def intervals(
    points: Sequence[Point], *, title: str, line: float | None = None, line_label: str = "", left: int = 210
) -> str:
    """One row a point: its value and interval along a common axis; `line` marks a floor."""
    values = [v for p in points for v in (p.value, p.low, p.high) if v is not None] + (
        [line] if line is not None else []
    )
    axis = ticks(min(values), max(values))
    low, high = axis[0], axis[-1]
    labels = [_wrapped(p.label, 24) for p in points]
    row, top = 2 + 15 * max(2, *map(len, labels)), 22
    bottom = top + row * len(points)

    def x(v: float) -> float:
        return left + (v - low) / (high - low or 1) * (WIDTH - left - 24)

    body = []
    for t in axis:
        body += [_line(x(t), top - 4, x(t), bottom, "grid"), _text(x(t), bottom + 16, number(t), "tick", "middle")]
    if line is not None:
        body += [
            _line(x(line), top - 8, x(line), bottom, "floor"),
            _text(x(line), top - 4, line_label, "tick", "middle"),
        ]
    for i, p in enumerate(points):
        y = top + row * (i + 0.5)
        for j, part in enumerate(labels[i]):
            body.append(_text(left - 12, y + 4 + 14 * (j - (len(labels[i]) - 1) / 2), part, "label", "end"))
        if p.low is not None and p.high is not None:
            body.append(_line(x(p.low), y, x(p.high), y, f"bar {p.tone}"))
        body.append(_mark(x(p.value), y, p.tone, p.tip or f"{p.label}: {p.value:.4f}"))
    return _svg(bottom + 26, body, title)


def scatter(
    points: Sequence[tuple[float, float, str, str]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    diagonal: bool = False,
    floor: float | None = None,
    floor_label: str = "",
    bars: Sequence[tuple] = (),
    radius: float = 5,
    height: int = 340,
) -> str:
    """Points (x, y, tone, tip).

    Args:
        diagonal: draw x = y. floor: a vertical line. bars: (x, y, x_low, x_high, y_low, y_high, tone).
    """
    xs = (
        [p[0] for p in points]
        + ([floor] if floor is not None else [])
        + [v for b in bars for v in b[2:4] if v is not None]
    )
    ys = [p[1] for p in points] + [v for b in bars for v in b[4:6] if v is not None]
    if diagonal:
        xs = ys = [*xs, *ys]
    x_axis, y_axis = ticks(min(xs), max(xs)), ticks(min(ys), max(ys))
    left, right, top, bottom = 64, WIDTH - 20, 18, height - 48

    def x(v: float) -> float:
        return left + (v - x_axis[0]) / (x_axis[-1] - x_axis[0]) * (right - left)

    def y(v: float) -> float:
        return bottom - (v - y_axis[0]) / (y_axis[-1] - y_axis[0]) * (bottom - top)

    body = []
    for t in x_axis:
        body += [_line(x(t), top, x(t), bottom, "grid"), _text(x(t), bottom + 16, number(t), "tick", "middle")]
    for t in y_axis:
        body += [_line(left, y(t), right, y(t), "grid"), _text(left - 8, y(t) + 4, number(t), "tick", "end")]
    if diagonal:
        a, b = max(x_axis[0], y_axis[0]), min(x_axis[-1], y_axis[-1])
        body.append(_line(x(a), y(a), x(b), y(b), "floor"))
    if floor is not None:
        body += [
            _line(x(floor), top, x(floor), bottom, "floor"),
            _text(x(floor), top - 5, floor_label, "tick", "middle"),
        ]
    for px, py, x_low, x_high, y_low, y_high, tone in bars:
        if x_low is not None and x_high is not None:
            body.append(_line(x(x_low), y(py), x(x_high), y(py), f"bar thin {tone}"))
        if y_low is not None and y_high is not None:
            body.append(_line(x(px), y(y_low), x(px), y(y_high), f"bar thin {tone}"))
    body += [_mark(x(px), y(py), tone, tip, radius) for px, py, tone, tip in points]
    body += [
        _text((left + right) / 2, height - 8, x_label, "axis", "middle"),
        _upright((top + bottom) / 2, y_label),
    ]
    return _svg(height, body, title)


def lines(
    series: Sequence[tuple[str, str, Sequence[tuple[float, float]]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    marks: Sequence[tuple[float, str]] = (),
    dots: bool = False,
    band: Sequence[tuple[float, float, float]] = (),
    points_of: Sequence[tuple[float, float, str, str]] = (),
    level: float | None = None,
    log: Sequence[float] = (),
    height: int = 260,
) -> str:
    """Lines (name, tone, points).

    Args:
        marks: vertical lines (x, tip), such as steps that were skipped. level: a horizontal one.
        band: an interval around a line, (x, low, high). points_of: single points (x, y, tone, tip).
        log: draw x by its logarithm, with ticks at these values.
    """
    everything = [p for _, _, points in series for p in points] + [p[:2] for p in points_of]
    xs, ys = [p[0] for p in everything] + [m[0] for m in marks], [p[1] for p in everything]
    ys += [v for b in band for v in b[1:]] + ([level] if level is not None else [])
    x_axis, y_axis = list(log) or ticks(min(xs), max(xs)), ticks(min(ys), max(ys), 4)
    left, right, top, bottom = 64, WIDTH - 20, 18, height - 48
    scale = math.log if log else float
    start, end = (scale(min(xs)), scale(max(xs))) if log else (x_axis[0], x_axis[-1])

    def x(v: float) -> float:
        return left + (scale(v) - start) / (end - start) * (right - left)

    def y(v: float) -> float:
        return bottom - (v - y_axis[0]) / (y_axis[-1] - y_axis[0]) * (bottom - top)

    body = []
    for t in x_axis:
        body.append(_text(x(t), bottom + 16, number(t), "tick", "middle"))
    for t in y_axis:
        body += [_line(left, y(t), right, y(t), "grid"), _text(left - 8, y(t) + 4, number(t), "tick", "end")]
    if band:
        around = [f"{x(a):.1f},{y(low):.1f}" for a, low, _ in band]
        around += [f"{x(a):.1f},{y(high):.1f}" for a, _, high in reversed(band)]
        body.append(f'<polygon points="{" ".join(around)}" class="band"/>')
    if level is not None:
        body.append(_line(left, y(level), right, y(level), "floor"))
    for at, tip in marks:
        body.append(_line(x(at), top, x(at), bottom, "floor"))
        body.append(_mark(x(at), top, "bad", tip, 4))
    for name, tone, points in series:
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
        body.append(f'<polyline points="{path}" class="line {tone}"/>')
        step = 1 if dots else max(1, len(points) // 60)
        body += [
            _mark(
                x(a),
                y(b),
                tone + ("" if dots else " faint"),
                f"{name}: {number(b)} ({x_label} {number(a)})",
                4 if dots else 3,
            )
            for a, b in points[::step]
        ]
    body += [_mark(x(a), y(b), tone, tip) for a, b, tone, tip in points_of]
    body += [
        _text((left + right) / 2, height - 8, x_label, "axis", "middle"),
        _upright((top + bottom) / 2, y_label),
    ]
    return _svg(height, body, title)


def bars(rows: Sequence[tuple[str, float, str]], *, title: str, left: int = 170) -> str:
    """Horizontal bars (label, value, tip) from 0."""
    top, row = 8, 24
    most = max((v for _, v, _ in rows), default=0) or 1
    body = []
    for i, (label, value, tip) in enumerate(rows):
        y, safe = top + row * i, escape(tip, quote=True)
        width = value / most * (WIDTH - left - 90)
        body += [
            _text(left - 10, y + 16, cut(label, 24), "label", "end"),
            f'<rect x="{left}" y="{y + 4}" width="{max(width, 1):.1f}" height="{row - 8}" rx="2" '
            f'class="mark main" tabindex="0" '
            f'data-tip="{safe}"><title>{safe}</title></rect>',
            _text(left + width + 6, y + 16, number(value), "tick"),
        ]
    return _svg(top * 2 + row * len(rows), body, title)
