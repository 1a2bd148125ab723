"""Do learning curves foresee? From a quarter of the labels to the score with all of them.

For each set and seed: nested subsets up to 25 % of the training rows (five sizes, three repeats) are tuned (or fitted
with a linear probe: `--by probe`) and scored; the forecast at 100 % is compared with the mean score of models that
learned from all rows. Reported: mean absolute error in points, and how often the 90 % interval holds the truth, for
all laws together as `tunewell curve` uses them and, beside it, for a guess that the score stays as it is.

    python benchmarks/curve.py --data-root DATA --by probe --seeds 1 2 3 4 5
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from common import child, file_of, parser, record

SETS = {"ag_news": "ag_news", "sst2": "sst2", "dbpedia": "dbpedia", "amazon": "amazon", "yelp": "yelp",
        "clinc150": "clinc150_small"}  # fmt: skip
SHARES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4)
TEST_ROWS = 2000


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Points of one set and seed; runs in the child process."""
    from tunewell.curve.laws import forecast
    from tunewell.curve.measure import measure as points_of
    from tunewell.recipe_file import load_recipe
    from tunewell.stages.job import Job

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with Path(job["test"]).open(encoding="utf-8") as file:
            rows = file.readlines()
        chosen = np.random.default_rng(0).permutation(len(rows))[:TEST_ROWS]
        (folder / "test.jsonl").write_text("".join(rows[i] for i in np.sort(chosen)), encoding="utf-8")
        recipe = load_recipe(
            train=job["train"], test=str(folder / "test.jsonl"), text="text", label="label", task="text-classification",
            model=job["model"], seed=job["seed"], **job["keys"],
        )  # fmt: skip
        say = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
        with Job(recipe, output_dir=folder / "curve", progress=False, echo=say) as work:
            n, classes = len(work.splits["train"]), len(work.spec.labels)
            sizes = sorted({max(round(share * n), classes, 8) for share in SHARES})
            points = points_of(work, [*sizes, n], job["repeats"], job["by"])
        scores = {size: [p.score for p in points if p.size == size] for size in (*sizes, n)}
        law = forecast(sizes, [scores[size] for size in sizes], seed=job["seed"])
        value, low, high = law.at([n])[0]
        return {
            "n": n, "sizes": sizes, "scores": scores, "truth": float(np.mean(scores[n])), "forecast": float(value),
            "low": float(low), "high": float(high), "stays": float(np.mean(scores[sizes[-1]])), "laws": law.weights,
        }  # fmt: skip


def main() -> None:
    args = parser(__doc__ or "")
    args.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    args.add_argument("--by", default="tune", choices=["tune", "probe"])
    args.add_argument("--repeats", type=int, default=3)
    args.add_argument("--keys", type=json.loads, default={}, help="further recipe keys, as JSON")
    options = args.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    found = []
    print("| set | seed | labels | forecast | 90 % interval | truth | a quarter |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in options.sets:
        for seed in options.seeds:
            paths = {split: str(file_of(options.data_root, SETS[name], split)) for split in ("train", "test")}
            job = {
                "set": name, "seed": seed, "by": options.by, "repeats": options.repeats, "keys": options.keys,
                "model": options.model, **paths,
            }  # fmt: skip
            row = child(__file__, job)
            record(options.output, {"benchmark": "curve", **row})
            found.append(row)
            print(
                f"| {name} | {seed} | {row['n']:,} | {row['forecast']:.3f} | {row['low']:.3f} to {row['high']:.3f} | "
                f"{row['truth']:.3f} | {row['stays']:.3f} |",
                flush=True,
            )
    off = np.array([100 * abs(row["forecast"] - row["truth"]) for row in found])
    stays = np.array([100 * abs(row["stays"] - row["truth"]) for row in found])
    held = np.array([row["low"] <= row["truth"] <= row["high"] for row in found])
    print(
        f"mean absolute error {off.mean():.2f} points (that the score stays: {stays.mean():.2f}); "
        f"the interval holds in {held.sum()} of {len(held)} ({held.mean():.0%})"
    )


if __name__ == "__main__":
    main()
