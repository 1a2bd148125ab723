"""How good is the rate that `learning_rate: auto` takes? Against a grid of nine, each tuned to the end.

Same rows, split, seed and epochs for all. The grid goes from an eighth of the usual rate to 32 times it, in steps of
two. For the usual rate and for the one that `auto` takes: the validation score over the best of the grid, and the test
score, which neither saw. The cost is the time of all tunings of `auto` over that of one at the usual rate.

    python benchmarks/learning_rate.py --data-root DATA
    python benchmarks/learning_rate.py --data-root DATA --model splade-tiny --sets sst2 ag_news --rows 1000 --seeds 1
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import child, file_of, parser, record

STEPS = tuple(2.0**k for k in range(-3, 6))


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """One run; runs in the child process."""
    import tunewell

    with tempfile.TemporaryDirectory() as folder:
        test = Path(folder) / "test.jsonl"
        lines = Path(job["test"]).read_text(encoding="utf-8").splitlines()
        test.write_text("\n".join(random.Random(0).sample(lines, min(len(lines), job["sample"]))), encoding="utf-8")
        run = tunewell.run(
            train=job["train"], test=str(test), model=job["model"], max_train_samples=job["rows"],
            learning_rate=job["rate"], num_train_epochs=job["epochs"], seed=job["seed"], probes="none", explain=0,
            output_dir=folder + "/run", progress=False,
            echo=lambda line: print(line, file=sys.stderr, flush=True),
        )  # fmt: skip
        found = run.rates
        return {
            "rate": run.training.learning_rate,
            "validation": run.choice.chosen.score.value,
            "test": run.summary.test.value,
            "seconds": run.training.seconds,
            "tried": [t.rate for t in found.trials] if found else [],
            "cost": found.cost if found else 1.0,
        }


def main() -> None:
    args = parser(__doc__ or "")
    args.add_argument("--sets", nargs="+", default=["sst2", "ag_news", "clinc150_small", "dbpedia"])
    args.add_argument("--rows", type=int, default=2000)
    args.add_argument("--sample", type=int, default=2000, help="test rows at most")
    args.add_argument("--epochs", type=float, default=3.0)
    args.add_argument("--steps", type=float, nargs="+", default=list(STEPS), help="rates of the grid, times the usual")
    options = args.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    for name in options.sets:
        for seed in options.seeds:
            job = {
                **{split: str(file_of(options.data_root, name, split)) for split in ("train", "test")},
                "model": options.model, "rows": options.rows, "epochs": options.epochs, "seed": seed,
                "sample": options.sample,
            }  # fmt: skip
            auto = child(__file__, job | {"rate": "auto"})
            usual = auto["tried"][0]
            grid = {s: child(__file__, job | {"rate": usual * s}) for s in options.steps}
            best = max(grid.values(), key=lambda g: g["validation"])
            plain = grid.get(1.0) or child(__file__, job | {"rate": usual})
            row = {"set": name, "seed": seed, "model": options.model, "auto": auto, "grid": list(grid.values())}
            record(options.output, {"benchmark": "learning_rate", **row})
            print(f"{name}, seed {seed}: best of the grid {best['rate']:g}, validation {best['validation']:.4f}")
            for said, found in (("usual", plain), ("auto", auto)):
                print(
                    f"  {said:<6}{found['rate']:<9.2g} validation {found['validation']:.4f} "
                    f"({found['validation'] / best['validation']:.3f} of the best), test {found['test']:.4f}"
                )
            print(f"  best on test {max(g['test'] for g in grid.values()):.4f}; auto tried {auto['tried']}, "
                  f"{auto['cost']:.2f} times the time of one", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
