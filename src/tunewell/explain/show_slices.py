"""Error slices for a terminal."""

from __future__ import annotations

from tunewell.explain.slices import Slices
from tunewell.shown import cut

TEXT = 100  # characters of an example


def lines_of(found: Slices) -> list[str]:
    """The slices as lines of text, or that there are none."""
    from tunewell.cli.show import interval, number, printable, table

    half = found.rows // 2
    about = f"{found.rows:,} test rows, {found.errors:.1%} with an error ({found.error}); {half:,} of them held out"
    if not found.slices:
        return [about, f"no kind of texts errs more than chance explains ({found.tested} clusters tested)"]
    rows = [("words", "rows", "errors", "95 % interval", "elsewhere", "p (Holm)")]
    for s in found.slices:
        rows.append(
            (printable(", ".join(s.words)) or "(no word of its own)", f"{s.n:,}", number(s.rate.value),
             interval(s.rate), number(s.rest.value), f"{s.p:.2g}")
        )  # fmt: skip
    lines = [about, "", table(rows, right=(1, 2, 4, 5)), "", "error rates are of the held-out half", ""]
    for s in found.slices:
        lines.append(printable(", ".join(s.words)) + ":")
        for e in s.examples:
            lines.append(
                f"  {printable(cut(e.text, TEXT))}  ({printable(e.label)}, answered {printable(e.prediction)})"
            )
    return lines
