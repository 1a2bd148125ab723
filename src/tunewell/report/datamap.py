"""The page of `tunewell prune`: the data map and what was kept, made from prune.json alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunewell.prune.records import MapPoint, Pruning
from tunewell.report import charts
from tunewell.report.engine import page_of
from tunewell.report.words import WORDS
from tunewell.results import write_whole

OFTEN, SELDOM = 2 / 3, 1 / 3  # shares of the epochs in which a row was right
LOST = {"a duplicate of a row with the same label": "dm_duplicate", "a test text": "dm_test_text"}


def build(path: str | Path, record: Pruning, lang: str = "en") -> Path:
    """Write the page."""
    path = Path(path)
    write_whole(path, render(path.parent, record, lang))
    return path


def render(folder: Path, record: Pruning, lang: str = "en") -> str:
    """The page as HTML. All text from data is escaped by the template.

    Raises:
        RecipeError: an unknown language.
    """
    from markupsafe import Markup

    def parts(w: dict[str, str]) -> dict[str, Any]:
        return {"verdict": sentences(record, lang), "chart": Markup(_map(record, w))}

    return page_of("datamap.html", folder, record, lang, parts)


def sentences(record: Pruning, lang: str = "en") -> list[str]:
    """What was kept, and how it was chosen."""
    w = WORDS[lang]
    out = [
        w["dm_kept"].format(
            kept=f"{record.kept:,}",
            rows=f"{record.rows:,}",
            share=f"{record.kept / max(1, record.rows):.0%}",
            method=record.method,
        )
    ]
    if record.tried:
        out.append(w["dm_auto"].format(n=f"{record.judged_on:,}"))
        if record.method == "random":
            out.append(w["dm_auto_random"])
    for why, n in record.left_out.items():
        out.append(w["dm_lost"].format(n=f"{n:,}", why=w[LOST[why]] if why in LOST else why))
    out.append(w["dm_recorded"].format(tunings=record.tunings, epochs=record.epochs, model=record.model))
    return out


def tone(point: MapPoint) -> str:
    """The colour of a row on the map, by how often it was right; those not kept are faint.

    >>> p = dict(row=1, label="a", text="", variability=0, confidence=1, forgetting=0, el2n=0)
    >>> tone(MapPoint(**p, correctness=1.0, kept=True)), tone(MapPoint(**p, correctness=0.2, kept=False))
    ('good', 'bad faint')
    """
    right = "good" if point.correctness >= OFTEN else "bad" if point.correctness <= SELDOM else "main"
    return right if point.kept else f"{right} faint"


def _map(record: Pruning, w: dict[str, str]) -> str:
    def tip(p: MapPoint) -> str:
        about = [
            f"{w['dm_row']} {p.row}: {p.label}",
            f"{w['dm_confidence']} {p.confidence:.2f}, {w['dm_variability']} {p.variability:.2f}",
            f"{w['dm_forgetting']} {p.forgetting:g}, {w['dm_el2n']} {p.el2n:.2f}",
            p.text[:90],
        ]
        return " · ".join([*about, *([w["dm_is_kept"]] if p.kept else [])])

    # those that are kept are drawn last, so that they stand in front
    points: list[Any] = [
        (p.variability, p.confidence, tone(p), tip(p)) for p in sorted(record.points, key=lambda p: p.kept)
    ]
    if not points:
        return ""
    return charts.scatter(
        points, title=w["dm_map"], x_label=w["dm_variability"], y_label=w["dm_confidence"], radius=3, height=420
    )
