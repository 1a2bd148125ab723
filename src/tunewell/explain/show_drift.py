"""Drift for a terminal."""

from __future__ import annotations

from tunewell.explain.drift import Drift
from tunewell.results import Estimate
from tunewell.shown import cut

SHOWN = 5


def lines_of(found: Drift) -> list[str]:
    """A table of layers, when the answer is made, and the texts that moved most."""
    from tunewell.cli.show import printable, table

    rows = [
        ("layer", "weights moved", "CKA task", "CKA general", "attention, nats", "decided", "probe before", "after")
    ]
    for one in found.layers:
        rows.append(
            (
                "embeddings" if one.layer == 0 else str(one.layer),
                f"{one.weights:.2%}",
                _value(one.cka_task),
                _value(one.cka_general),
                _value(one.entropy_shift, "+.3f"),
                "–" if one.decided is None else f"{one.decided:.0%}",
                _value(one.probe_base),
                _value(one.probe_tuned),
            )
        )
    lines = [table(rows, right=range(1, 8)), "", f"all weights moved by {found.weights:.2%} of their size"]
    if found.depth is not None:
        lines.append(f"answers stay what they will be from layer {found.depth:.1f} on, of {len(found.layers) - 1}")
    lines += ["", "moved most (cosine distance between base and tuned state):"]
    for t in found.texts[:SHOWN]:
        lines.append(printable(f"  {t.distance:.3f}  {t.label} → {t.prediction}  {cut(t.text, 90)}"))
    return lines


def _value(e: Estimate | None, form: str = ".3f") -> str:
    return "–" if e is None or e.value is None else format(e.value, form)
