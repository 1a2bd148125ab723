"""What do texts without labels bring? The same few labels with and without a pool, and each method with no guard.

For each set, number of labels and seed the same rows are drawn from train: so many of each class, `--validation` rows
to judge by (0: the guard goes by cross-validation), and a pool of `--pool` others whose labels are not read. All are
scored on the same seeded sample of test: `without` (labelled rows alone), each method whether or not the guard let it
through, and `guarded`, which is what a user gets. Seconds are those of all tunings of a run.

    python benchmarks/unlabelled.py --data-root DATA --sets ag_news sst2 --shots 8 32 --seeds 1 2 3 --output pool.jsonl

`plain` passes over its rows ten times: three passes over sixteen rows are three steps. Measurements that stand in
`--output` are not made again.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from common import file_of, once, parser, spread

SETS = ("ag_news", "sst2")
METHODS = ("self_training", "propagation", "pretraining", "consistency")


def read(root: str, name: str, split: str) -> list[dict[str, str]]:
    with file_of(Path(root), name, split).open(encoding="utf-8") as file:
        return [{"text": r["text"], "label": str(r["label"])} for r in map(json.loads, file)]


def draw(job: dict[str, Any]) -> dict[str, list[dict[str, str]]]:
    """`shots` rows of each class, validation and pool from the other training rows, a sample of test."""
    from tunewell.data.split import text_key

    train, test = read(job["root"], job["set"], "train"), read(job["root"], job["set"], "test")
    some = np.random.default_rng(0).permutation(len(test))[: job["sample"]]
    parts: dict[str, list[dict[str, str]]] = {
        "train": [],
        "validation": [],
        "pool": [],
        "test": [test[i] for i in some],
    }
    taken = {text_key(row["text"]) for row in parts["test"]}
    of_class: dict[str, list[dict[str, str]]] = {row["label"]: [] for row in train}
    for i in np.random.default_rng(job["seed"]).permutation(len(train)):
        row, key = train[i], text_key(train[i]["text"])
        if key in taken:
            continue
        taken.add(key)
        if len(of_class[row["label"]]) < job["shots"]:
            of_class[row["label"]].append(row)
        elif len(parts["validation"]) < job["validation"]:
            parts["validation"].append(row)
        elif len(parts["pool"]) < job["pool"]:
            parts["pool"].append(row)
    parts["train"] = [row for label in sorted(of_class) for row in of_class[label]]
    return parts


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """One cell; runs in the child process."""
    import tunewell

    parts = draw(job)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, rows in parts.items():
            if rows:
                kept = [{"text": r["text"]} for r in rows] if name == "pool" else rows
                text = "\n".join(json.dumps(row, ensure_ascii=False) for row in kept)
                (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
        judged = {"validation": str(folder / "validation.jsonl")} if parts["validation"] else {"validation_size": 0}
        run = tunewell.run(
            train=str(folder / "train.jsonl"), test=str(folder / "test.jsonl"), unlabelled=str(folder / "pool.jsonl"),
            unlabelled_methods=job["methods"], strategy=[job["strategy"]], model=job["model"], seed=job["seed"],
            probes=["none"], monitor="off", explain=0, output_dir=str(folder / "run"), progress=False,
            echo=lambda line: print(line, file=sys.stderr),
            **{"num_train_epochs": 10, **judged, **job["keys"]},
        )  # fmt: skip
        found = run.unlabelled
        assert found is not None
        tuned = [p.parent.name for p in (run.dir / "train").glob("*/tuned.safetensors")]
        asked = [name for name in tuned if name in ("without", *job["methods"])]
        return {
            "accuracy": {name: on_test(run, name, parts["test"]) for name in asked}
            | {"guarded": run.metrics["accuracy"].value},
            "judged": found.judged,
            "chosen": found.chosen,
            "methods": {
                m.method: {
                    "difference": m.comparison.difference.model_dump(), "helps": m.helps, "rows": m.rows,
                    "confidence": m.confidence.value if m.confidence else None, "seconds": m.seconds, "about": m.about,
                }
                for m in found.methods
            },
            "train_seconds": run.training.seconds,
        }  # fmt: skip


def on_test(run: Any, name: str, rows: list[dict[str, str]]) -> float:
    """Test accuracy of one candidate, chosen or not."""
    from safetensors.torch import load_file

    from tunewell.models.embed import logits

    answerer = run.predictor
    answerer.model.load_state_dict(load_file(str(run.dir / "train" / name / "tuned.safetensors")))
    found = logits(answerer.model, answerer.tokenizer, [r["text"] for r in rows], max_length=answerer.max_length)
    return float(np.mean([answerer.labels[i] == r["label"] for i, r in zip(found.argmax(1), rows, strict=True)]))


def main() -> None:
    args = parser(__doc__ or "")
    args.add_argument("--sets", nargs="+", default=list(SETS))
    args.add_argument("--shots", type=int, nargs="+", default=[8, 32])
    args.add_argument("--strategies", nargs="+", default=["plain", "fewshot"])
    args.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    args.add_argument("--pool", type=int, default=2000, help="texts without labels")
    args.add_argument("--validation", type=int, default=64, help="validation rows; 0 for cross-validation")
    args.add_argument("--sample", type=int, default=1000, help="test rows")
    args.add_argument("--keys", type=json.loads, default={}, help="further recipe keys, as JSON")
    options = args.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    columns = ["without", *options.methods, "guarded"]
    found: dict[tuple[str, str, int], list[dict[str, float]]] = {}
    chosen: dict[tuple[str, str, int], list[str]] = {}
    for seed in options.seeds:
        for shots in options.shots:
            for name in options.sets:
                for strategy in options.strategies:
                    job = {
                        "set": name, "shots": shots, "seed": seed, "strategy": strategy, "root": str(options.data_root),
                        "model": options.model, "sample": options.sample, "pool": options.pool, "keys": options.keys,
                        "validation": options.validation, "methods": options.methods,
                    }  # fmt: skip
                    started = time.perf_counter()
                    row, fresh = once(__file__, job, "unlabelled", options.output)
                    if fresh:
                        scores = ", ".join(f"{k} {row['accuracy'][k]:.4f}" for k in columns if k in row["accuracy"])
                        used = row["chosen"] or "without"
                        print(
                            f"{name}, {shots} a class, {strategy}, seed {seed}: {scores} ({used}), "
                            f"in all {time.perf_counter() - started:.0f} s",
                            flush=True,
                        )
                    found.setdefault((name, strategy, shots), []).append(row["accuracy"])
                    chosen.setdefault((name, strategy, shots), []).append(row["chosen"] or "without")
    print(f"\n{'accuracy':<32}" + "".join(f"{c:>20}" for c in columns) + "  used")
    for (name, strategy, shots), rows in found.items():
        cells = [spread(v) if (v := [r[c] for r in rows if c in r]) else "-" for c in columns]
        line = f"{f'{name}, {strategy}, {shots} a class':<32}" + "".join(f"{c:>20}" for c in cells)
        print(line + "  " + ", ".join(chosen[name, strategy, shots]))


if __name__ == "__main__":
    main()
