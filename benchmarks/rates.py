"""What the learning rate does: the same tuning at rates too low, right, too high, and too high under the guard.

Tweets of three sentiments from the package registry, one packaged model, one seed: only the rate differs. Printed are
test score, last loss and what the guard did; --svg draws the losses as they fall, for docs/concepts/rate.md.

    python benchmarks/rates.py --seeds 1 --model splade-tiny --svg docs/images/rates.svg
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from common import child, parser, record

WAYS = {  # name -> (factor of the model's usual rate, guard, colour)
    "too low (1/16 of the usual)": (1 / 16, "off", "#8a8f98"),
    "the usual rate": (1.0, "off", "#0a7d5a"),
    "too high (64 ×)": (64.0, "off", "#c4502d"),
    "too high, with the guard": (64.0, "watch", "#2f6fb5"),
}
FADE = 0.9
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 640, 300, 56, 16, 44


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """One tuning; runs in the child process."""
    import tunewell
    from tunewell.data.packaged import demo_csv
    from tunewell.models.load import load_encoder
    from tunewell.train.rates import peak_rate

    usual = peak_rate(load_encoder(job["model"]).model)
    with tempfile.TemporaryDirectory() as folder:
        demo_csv(Path(folder) / "tweets.csv", n=job["rows"], seed=42)
        run = tunewell.run(
            train=str(Path(folder) / "tweets.csv"), text="text", label="sentiment", model=job["model"],
            learning_rate=min(1.0, usual * job["factor"]), guard=job["guard"], seed=job["seed"], num_train_epochs=3,
            early_stopping_patience=0, probes="none", explain=0, output_dir=str(Path(folder) / "run"),
            echo=lambda line: None, progress=False,
        )  # fmt: skip
        e = run.evaluation.headline
        guard = run.training.guard
        loss = [(h["step"], float(h["loss"])) for h in run.training.history if "loss" in h]
        return {
            "rate": usual * job["factor"], "metric": run.evaluation.metric, "score": e.value, "low": e.low,
            "high": e.high, "loss": loss, "events": [x.model_dump() for x in guard.events] if guard else [],
            "steps": run.training.steps,
        }  # fmt: skip


def smooth(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Moving averages of the losses, without their bias to 0."""
    level, out = 0.0, []
    for i, (step, loss) in enumerate(points, 1):
        level = FADE * level + (1 - FADE) * loss
        out.append((step, level / (1 - FADE**i)))
    return out


def drawn(rows: list[dict[str, Any]]) -> str:
    """The losses as one SVG whose lines are drawn from left to right when it is opened; still, where asked for."""
    lines = {row["name"]: smooth(row["loss"]) for row in rows}
    most = max(step for points in lines.values() for step, _ in points)
    top = 1.15 * max(points[0][1] for points in lines.values())

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - 12) * step / most

    def y(loss: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * min(loss, top) / top

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT + 24 * len(lines)}" role="img" '
        'aria-label="Training loss by step at four learning rates">',
        "<style>text{font:12px sans-serif;fill:#666}path{fill:none;stroke-width:2;stroke-dasharray:1;"
        "animation:draw 6s linear}@keyframes draw{from{stroke-dashoffset:1}to{stroke-dashoffset:0}}"
        "@media (prefers-reduced-motion:reduce){path{animation:none}}line{stroke:#ccc}</style>",
    ]
    for tick in np.linspace(0, top, 5)[:-1]:
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - 12}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.1f}</text>')
    for tick in range(0, most + 1, max(1, most // 5 // 10 * 10)):
        out.append(f'<text x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick}</text>')
    out.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 8}" text-anchor="middle">step</text>')
    for i, row in enumerate(rows):
        colour, path = row["colour"], " L".join(f"{x(s):.1f} {y(v):.1f}" for s, v in lines[row["name"]])
        at = HEIGHT + 24 * i + 12
        out.append(f'<path d="M{path}" stroke="{colour}" pathLength="1"/>')
        out += [
            f'<circle cx="{x(e["step"]):.1f}" cy="{TOP + 4}" r="4" fill="{colour}"><title>step {e["step"]}: '
            f"{e['what']}</title></circle>"
            for e in row["events"]
        ]
        out.append(f'<rect x="{LEFT}" y="{at - 4}" width="18" height="3" fill="{colour}"/>')
        score = f"{row['metric']} {row['score']:.3f} on test"
        out.append(f'<text x="{LEFT + 26}" y="{at + 2}">{row["name"]}: {score}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def main() -> None:
    args = parser(__doc__ or "")
    args.add_argument("--rows", type=int, default=3000)
    args.add_argument("--svg", type=Path, default=None, help="draw the losses of the first seed")
    options = args.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    for seed in options.seeds:
        rows = []
        for name, (factor, guard, colour) in WAYS.items():
            job = {"factor": factor, "guard": guard, "seed": seed, "model": options.model, "rows": options.rows}
            row = {"name": name, "colour": colour, **child(__file__, job)}
            rows.append(row)
            record(options.output, {"benchmark": "rates", **row})
            done = "; ".join(f"{e['what']} at {e['step']}, {e['rate_after']:.2g}" for e in row["events"])
            last = smooth(row["loss"])[-1][1]
            print(
                f"seed {seed} {name:<30} rate {row['rate']:.2g}: {row['metric']} {row['score']:.3f} "
                f"[{row['low']:.3f}, {row['high']:.3f}], loss at the end {last:.3f}" + (f"; {done}" if done else ""),
                flush=True,
            )
        if options.svg is not None and seed == options.seeds[0]:
            options.svg.write_text(drawn(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
