"""A number for a pair of texts: how alike are two sentences? (STS-B, 0 to 5)

python examples/pairs_regression.py --limit 1500
python examples/pairs_regression.py --train my-pairs.csv     columns text_a, text_b, score
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import tunewell
from tunewell.data.packaged import sts_pairs


def packaged_pairs(path: Path) -> str:
    """STS-B's training pairs as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text_a", "text_b", "score"])
        writer.writerows(sts_pairs("train"))
    return str(path)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", help="table with the columns text_a, text_b and score; STS-B when missing")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--limit", type=int, help="train on this many rows at most")
    parser.add_argument("--output_dir", default="runs/pairs")
    args = parser.parse_args(argv)

    run = tunewell.run(
        train=args.train or packaged_pairs(Path("runs/sts-b.csv")),
        text="text_a",
        text_pair="text_b",
        label="score",
        task="text-regression",
        metric="spearman",
        model=args.model,
        max_train_samples=args.limit,
        probes="none",  # a similarity probe would ask for what is being learned
        output_dir=args.output_dir,
    )
    for name, estimate in run.metrics.items():
        print(f"{name}: {estimate.value:.3f}")
    pairs = [("a cat sleeps", "a cat is asleep"), ("a cat sleeps", "the market fell")]
    for (a, b), value in zip(pairs, run.predict(*map(list, zip(*pairs, strict=True))), strict=True):
        print(f"{value:.2f}: {a} | {b}")
    print(f"Report: {run.report_path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
