"""Charts on what tuning changed: layers, and the map of texts before and after."""

from __future__ import annotations

from tunewell.explain.drift import Drift, MovedText
from tunewell.report import charts
from tunewell.results import Estimate
from tunewell.shown import cut

TONES = ("main", "other", "good", "bad", "quiet")
POINTS = 150  # texts drawn in each map


def drift_charts(found: Drift, w: dict[str, str]) -> dict[str, str]:
    """`drift_weights`, `drift_cka`, `drift_decision`, `drift_before` and `drift_after` as SVG."""
    layers = found.layers
    names = [w["d_embeddings"] if one.layer == 0 else str(one.layer) for one in layers]
    made = {
        "drift_weights": charts.bars(
            [(n, round(100 * one.weights, 2), f"{n}: {one.weights:.2%}") for n, one in zip(names, layers, strict=True)],
            title=w["d_weights"],
            left=120,
        )
    }
    series = [(w["d_task"], "main", _points([(one.layer, one.cka_task) for one in layers]))]
    if found.general_texts:
        series.append((w["d_general"], "other", _points([(one.layer, one.cka_general) for one in layers])))
    made["drift_cka"] = _lines(series, w["d_cka"], "CKA", w)
    series = []
    if layers[0].decided is not None:
        series.append((w["d_decided"], "good", [(float(one.layer), one.decided or 0.0) for one in layers]))
    if layers[0].probe_tuned is not None:
        series.append((w["d_probe_tuned"], "main", _points([(one.layer, one.probe_tuned) for one in layers])))
        series.append((w["d_probe_base"], "other", _points([(one.layer, one.probe_base) for one in layers])))
    if series:
        made["drift_decision"] = _lines(series, w["d_decision"], w["d_share"], w)
    labels = sorted({t.label for t in found.texts})
    if len(labels) > len(TONES):
        labels = []
    step = max(1, len(found.texts) // POINTS)
    for name, when in (("drift_before", "base"), ("drift_after", "tuned")):
        dots = [(*getattr(t, when), _tone(t, labels), _tip(t)) for t in found.texts[::step]]
        # the other map's corners too, so that both have the same axes
        ends = [getattr(t, o) for t in found.texts for o in ("base", "tuned")]
        low = (min(x for x, _ in ends), min(y for _, y in ends))
        high = (max(x for x, _ in ends), max(y for _, y in ends))
        bars = [(low[0], low[1], low[0], high[0], low[1], high[1], "none")]
        made[name] = charts.scatter(
            dots,
            title=w["d_" + when],
            x_label=w["d_axis"].format(n=1, share=f"{found.explained[0]:.0%}"),
            y_label=w["d_axis"].format(n=2, share=f"{found.explained[1]:.0%}"),
            radius=4,
            bars=bars,
        )
    return made


def legend(found: Drift) -> list[tuple[str, str]]:
    """(label, tone) of the maps; empty where there are more labels than tones."""
    labels = sorted({t.label for t in found.texts})
    return list(zip(labels, TONES, strict=False)) if len(labels) <= len(TONES) else []


def _points(values: list[tuple[int, Estimate | None]]) -> list[tuple[float, float]]:
    return [(float(k), e.value) for k, e in values if e is not None and e.value is not None]


def _lines(series: list, title: str, y_label: str, w: dict[str, str]) -> str:
    return charts.lines(series, title=title, x_label=w["d_layer"], y_label=y_label, dots=True, height=280)


def _tone(t: MovedText, labels: list[str]) -> str:
    return TONES[labels.index(t.label)] if labels else "main"


def _tip(t: MovedText) -> str:
    return f"{t.label}: {cut(t.text, 100)}"
