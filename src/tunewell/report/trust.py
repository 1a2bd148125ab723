"""Charts on whether probabilities can be trusted: reliability before and after, risk against coverage."""

from __future__ import annotations

from tunewell.report import charts
from tunewell.results import Calibration, CalibrationBin


def trust_charts(found: Calibration, w: dict[str, str]) -> dict[str, str]:
    """`reliability` and `abstention` as SVG, where there is something to show."""
    made = {}
    changed = found.calibrator.method != "none"
    dots = [_dot(b, "main" if changed else "good", w["t_before"] if changed else "", w) for b in found.bins_before]
    dots += [_dot(b, "good", w["t_after"], w) for b in found.bins_after if changed]
    if dots:
        made["reliability"] = charts.scatter(
            dots, title=w["t_title"], x_label=w["confidence"], y_label=w["accuracy"], diagonal=True
        )
    if found.abstention is not None and len(found.abstention.curve) > 1:
        a = found.abstention
        first = a.curve[0][0]
        made["abstention"] = charts.lines(
            [
                (w["t_risk"], "main", a.curve),
                (w["t_random"], "quiet", [(first, a.error), (1.0, a.error)]),
            ],
            title=w["t_abstain"],
            x_label=w["t_answered"],
            y_label=w["t_risk"],
        )
    return made


def _dot(b: CalibrationBin, tone: str, when: str, w: dict[str, str]) -> tuple[float, float, str, str]:
    rows = w["n_rows"].format(n=f"{b.n:,}")
    said = f"{w['confidence']} {b.confidence:.2f}, {w['accuracy']} {b.accuracy:.2f}, {rows}"
    return b.confidence, b.accuracy, tone, f"{when}: {said}" if when else said
