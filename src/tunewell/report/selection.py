"""The page of `tunewell prune` on written answers, made from prune.json alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunewell.prune.records import Selection
from tunewell.report import charts
from tunewell.report.engine import page_of
from tunewell.report.words import WORDS
from tunewell.results import write_whole

LOST = {
    "a duplicate with the same answer": "sel_duplicate", "a prompt of the test file": "sel_test_text",
    "longer than max_length": "sel_dropped", "without a question or an answer": "sel_empty",
    "beyond max_train_samples": "sel_beyond",
}  # fmt: skip


def build(path: str | Path, record: Selection, lang: str = "en") -> Path:
    """Write the page."""
    path = Path(path)
    write_whole(path, render(path.parent, record, lang))
    return path


def render(folder: Path, record: Selection, lang: str = "en") -> str:
    """The page as HTML. All text from data is escaped by the template.

    Raises:
        RecipeError: an unknown language.
    """
    from markupsafe import Markup

    def parts(w: dict[str, str]) -> dict[str, Any]:
        return {
            "verdict": sentences(record, lang),
            "chart": Markup(_histogram(record, w)),
            "score": w[f"sel_score_{record.method}"],
        }

    return page_of("selection.html", folder, record, lang, parts)


def sentences(record: Selection, lang: str = "en") -> list[str]:
    """What was kept, and how it was chosen."""
    w, r = WORDS[lang], record
    share = f"{r.kept / max(1, r.rows):.1%}"
    out = [w["dm_kept"].format(kept=f"{r.kept:,}", rows=f"{r.rows:,}", share=share, method=r.method)]
    out.append(
        w[f"sel_how_{r.method}"].format(
            n=f"{r.target_n:,}", target=r.target, model=r.model, warm=f"{r.warm_rows:,}", epochs=len(r.rates)
        )
    )
    for why, n in r.left_out.items():
        out.append(w["dm_lost"].format(n=f"{n:,}", why=w[LOST[why]] if why in LOST else why))
    return out


def _histogram(record: Selection, w: dict[str, str]) -> str:
    """How many rows have which score: all, and those that are kept."""
    if len(record.bins) < 2:
        return ""

    def line(of: str) -> list[tuple[float, float]]:
        return [((b.low + b.high) / 2, float(getattr(b, of))) for b in record.bins]

    return charts.lines(
        [(w["sel_all"], "main", line("rows")), (w["dm_is_kept"], "good", line("kept"))],
        title=w["sel_scores"], x_label=w[f"sel_score_{record.method}"], y_label=w["dm_rows"],
    )  # fmt: skip
