"""Which base model? Compare candidates without tuning them, then tune the one that ranks first.

python examples/which_model.py                         packaged tweets and all packaged models that fit
python examples/which_model.py --train reviews.csv --model all-MiniLM-L6-v2 splade-tiny
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import tunewell
from tunewell.cli.rank import ranking_table
from tunewell.data.packaged import demo_csv


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", help="table with the columns text and label; packaged tweets when missing")
    parser.add_argument("--model", nargs="+", help="candidates; what is at hand when missing")
    parser.add_argument("--limit", type=int, help="train on this many rows at most")
    parser.add_argument("--output_dir", default="runs/which-model")
    args = parser.parse_args(argv)

    train, label = args.train, "label"
    if train is None:
        train, label = str(demo_csv("runs/tweets.csv", n=4000, seed=42)), "sentiment"
    recipe = {"train": train, "text": "text", "label": label, "max_train_samples": args.limit, "seed": 42}

    ranking = tunewell.rank(models=args.model, **recipe)
    print(ranking_table(ranking))

    run = tunewell.run(model=ranking.best.name, probes="none", output_dir=args.output_dir, **recipe)
    told, took = ranking.best.tuning_seconds, run.summary.seconds["train"]
    print(f"{run.summary.metric} on test: {run.summary.test.value:.3f}")
    print(f"tuning took {took:.0f} s; the ranking had expected {told:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
