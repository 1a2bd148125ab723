"""Is the time right that a tuning foretells after its first steps?

Whole runs in processes of their own on several sets and strategies; reported is foretold over taken, of tuning. Run it
on a quiet machine: what else runs meanwhile changes the time taken, and nothing can foretell that.

    python benchmarks/forecast.py --data-root DATA --sets sst2 ag_news imdb --strategies plain distill lora
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from common import file_of, once, parser


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """One run; runs in the child process."""
    import tunewell

    with tempfile.TemporaryDirectory() as folder:
        run = tunewell.run(
            model=job["model"], train=job["train"], text="text", label="label", strategy=[job["strategy"]],
            seed=job["seed"], max_train_samples=job["rows"], probes="none", explain=0, threads=job["threads"] or None,
            early_stopping_patience=0, output_dir=str(Path(folder) / "run"), echo=lambda line: None, progress=False,
        )  # fmt: skip
        training = run.training
        return {"told": training.forecast_seconds, "took": training.seconds, "steps": training.steps}


def main() -> None:
    args = parser(__doc__ or "")
    args.add_argument("--sets", nargs="+", default=["sst2", "ag_news", "imdb"])
    args.add_argument("--strategies", nargs="+", default=["plain", "distill", "lora"])
    args.add_argument("--rows", type=int, default=600, help="training rows at most")
    args.add_argument("--threads", type=int, default=0, help="0 for as many as there are cores")
    options = args.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    ratios = []
    for name in options.sets:
        for strategy in options.strategies:
            for seed in options.seeds:
                job = {
                    "set": name, "train": str(file_of(options.data_root, name, "train")), "strategy": strategy,
                    "seed": seed, "model": options.model, "rows": options.rows, "threads": options.threads,
                }  # fmt: skip
                row, _ = once(__file__, job, "forecast", options.output)
                if row["told"] is None:
                    print(f"{name:<10} {strategy:<10} seed {seed}: {row['steps']} steps are too few to foretell")
                    continue
                ratios.append(row["told"] / row["took"])
                print(
                    f"{name:<10} {strategy:<10} seed {seed}: foretold {row['told']:.1f} s, took {row['took']:.1f} s, "
                    f"ratio {ratios[-1]:.2f}",
                    flush=True,
                )
    if ratios:
        close = np.mean([abs(r - 1) <= 0.2 for r in ratios])
        print(f"{len(ratios)} tunings: ratio {min(ratios):.2f} to {max(ratios):.2f}, within 20 % in {close:.0%}")


if __name__ == "__main__":
    main()
