"""How many labels does selection save? Rounds of labelling simulated on labelled sets, with a linear probe.

A pool is labelled in rounds, the rows of each chosen by a method from what a linear probe on the base model's
embeddings has learned so far (from nothing in the first round). After each round the probe is fitted anew and scored
on test rows. Reported: the labels needed to reach 95 % of the score with the whole pool, mean over seeds with its
interval, relative to choosing at random.

    python benchmarks/active.py --data-root DATA --seeds 1 2 3 4 5

The learner is a linear probe on frozen embeddings, for every method alike; tuning at each round would say more, and
take days on a processor.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from common import child, file_of, parser, record, spread

SETS = {"ag_news": "ag_news", "clinc150": "clinc150_small", "dbpedia": "dbpedia", "sst2": "sst2"}
METHODS = ("random", "auto", "margin", "entropy", "badge", "cal", "coreset", "typiclust", "diverse_margin")
POOL, TEST = 4000, 2000
GOAL = 0.95
ROUNDS = 40


def texts_of(path: str, n: int, seed: int) -> tuple[list[str], list[str]]:
    with Path(path).open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    some = np.random.default_rng(seed).permutation(len(rows))[:n]
    return [rows[i]["text"] for i in some], [str(rows[i]["label"]) for i in some]


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """All methods and seeds of one set; runs in the child process, where embeddings are computed once."""
    from sklearn.metrics import f1_score

    from tunewell.models.embed import embed
    from tunewell.models.load import load_encoder
    from tunewell.selection.advice import probe
    from tunewell.selection.candidates import Candidates
    from tunewell.selection.methods import METHODS as KNOWN
    from tunewell.selection.methods import settle
    from tunewell.train.tune import use_bf16

    encoder = load_encoder(job["model"])
    bf16 = use_bf16(None)
    texts, labels = texts_of(job["train"], POOL, 0)
    test_texts, test_labels = texts_of(job["test"], TEST, 0)
    x, t = (embed(encoder.model, encoder.tokenizer, part, max_length=128, bf16=bf16) for part in (texts, test_texts))
    classes = sorted(set(labels))
    y, truth = (np.array([classes.index(c) for c in part]) for part in (labels, test_labels))

    def score(rows: np.ndarray) -> float:
        if len(set(y[rows])) < 2:
            return 0.0
        return float(f1_score(truth, probe(x[rows], y[rows]).predict(t), average="macro", labels=range(len(classes))))

    full = score(np.arange(len(y)))
    batch = max(10, len(classes))
    found: dict[str, Any] = {}
    for name in job["methods"]:
        needed, curves, started = [], [], time.perf_counter()
        for seed in job["seeds"]:
            rng = np.random.default_rng([seed, 7])
            taken: list[int] = []
            curve = []
            while len(taken) < len(y):
                left = np.setdiff1d(np.arange(len(y)), taken)
                rows = np.array(taken, dtype=np.int64)
                known = sorted(set(y[rows].tolist()))
                p = q = None
                if len(known) > 1:
                    model = probe(x[rows], y[rows])
                    p, q = model.predict_proba(x[left]), model.predict_proba(x[rows])
                counts = np.array([int((y[rows] == c).sum()) for c in known])
                candidates = Candidates(x[left], x[rows], p, q, None, counts)
                method = settle(name, candidates)
                if p is None and KNOWN[method].model:  # without labels there is nothing to be unsure of
                    method = "random"
                places, _ = KNOWN[method].choose(candidates, min(batch, len(left)), rng)
                taken += left[places].tolist()
                curve.append((len(taken), score(np.array(taken))))
                if curve[-1][1] >= GOAL * full:
                    break
                if len(taken) >= ROUNDS * batch:
                    break
            reached = curve[-1][1] >= GOAL * full
            needed.append(curve[-1][0] if reached else None)
            curves.append(curve)
        found[name] = {"needed": needed, "curves": curves, "seconds": time.perf_counter() - started}
        print(name, needed, file=sys.stderr, flush=True)
    return {"full": full, "batch": batch, "pool": len(y), "found": found}


def main() -> None:
    args = parser(__doc__ or "")
    args.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    args.add_argument("--methods", nargs="+", default=list(METHODS))
    options = args.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    for name in options.sets:
        paths = {split: str(file_of(options.data_root, SETS[name], split)) for split in ("train", "test")}
        job = {"set": name, "model": options.model, "methods": options.methods, "seeds": options.seeds, **paths}
        row = child(__file__, job)
        record(options.output, {"benchmark": "active", **row})
        cap = ROUNDS * row["batch"]
        chance = [n or cap for n in row["found"]["random"]["needed"]] if "random" in row["found"] else None
        print(f"{name}: F1 {row['full']:.3f} with {row['pool']:,} labels, rounds of {row['batch']}")
        for method, found in row["found"].items():
            counts = [n or cap for n in found["needed"]]
            missed = sum(n is None for n in found["needed"])
            ratio = f"{np.mean(counts) / np.mean(chance):.2f} of random's" if chance else ""
            late = f", {missed} of {len(counts)} not within {cap:,}" if missed else ""
            print(f"  {method:<16}{spread([float(c) for c in counts])} labels, {ratio}{late}", flush=True)


if __name__ == "__main__":
    main()
