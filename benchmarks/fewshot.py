"""A few labels a class: tunewell's `fewshot`, SetFit with its defaults, plain tuning and a linear probe on one model.

For each set, number of labels and seed the same rows are drawn from train (so many of each class) and all methods are
scored on the same seeded sample of test. Seconds are those of training alone, in a process of its own; without
validation rows for anyone. `plain` passes over its rows ten times: three passes over sixteen rows are three steps.

    python benchmarks/fewshot.py --data-root DATA --sets sst2 ag_news --shots 8 16 --seeds 1 2 --output fewshot.jsonl

SetFit is no dependency: `--setfit-python PYTHON` names an interpreter that has `setfit` (1.2) installed; without it
SetFit is left out. Its defaults are those of `setfit.TrainingArguments`: all pairs, one epoch, batches of 16 pairs.
Their number grows with the square of the rows, so that a cell with more than `--pairs` pairs takes `num_iterations=20`,
as in the paper, and says so. Measurements that stand in `--output` are not made again.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from common import file_of, once, parser, spread

SETS = ("sst2", "ag_news", "amazon", "clinc150_small")
METHODS = ("fewshot", "plain", "setfit")
SETFIT = Path(__file__).with_name("fewshot_setfit.py")


def draw(job: dict[str, Any]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """`shots` training rows of each class and `sample` test rows."""
    parts = []
    for split in ("train", "test"):
        with file_of(Path(job["root"]), job["set"], split).open(encoding="utf-8") as file:
            parts.append([{"text": r["text"], "label": str(r["label"])} for r in map(json.loads, file)])
    train, test = parts
    order = np.random.default_rng(job["seed"]).permutation(len(train))
    taken: dict[str, list[dict[str, str]]] = {row["label"]: [] for row in train}
    for i in order:
        if len(taken[train[i]["label"]]) < job["shots"]:
            taken[train[i]["label"]].append(train[i])
    some = np.random.default_rng(0).permutation(len(test))[: job["sample"]]
    return [row for label in sorted(taken) for row in taken[label]], [test[i] for i in some]


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """One method in one cell; runs in the child process."""
    rows, test = draw(job)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, part in (("train", rows), ("test", test)):
            text = "\n".join(json.dumps(row, ensure_ascii=False) for row in part)
            (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
        return setfit(job, rows, folder) if job["method"] == "setfit" else ours(job, folder)


def ours(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    import tunewell

    more = {"strategy": ["fewshot"]} if job["method"] == "fewshot" else {"strategy": ["plain"], "num_train_epochs": 10}
    run = tunewell.run(
        train=str(folder / "train.jsonl"), test=str(folder / "test.jsonl"), model=job["model"], seed=job["seed"],
        probes=["auto" if job["kept"] and job["method"] == "fewshot" else "none"], explain=0, validation_size=0,
        monitor="off", output_dir=str(folder / "run"), progress=False, echo=lambda line: print(line, file=sys.stderr),
        **{**more, **job["keys"]},
    )  # fmt: skip
    linear = next(b for b in run.baselines if b.name == "linear-probe")
    return {
        "accuracy": run.metrics["accuracy"].value,
        "train_seconds": run.training.seconds,
        "cpu_seconds": run.training.cpu_seconds,
        "linear_probe": linear.evaluation.metrics["accuracy"].value,
        "retention": run.retention.mean.value if run.retention else None,
        "steps": run.training.steps,
    }


def setfit(job: dict[str, Any], rows: list[dict[str, str]], folder: Path) -> dict[str, Any]:
    """SetFit in the interpreter that has it."""
    from tunewell.models.load import locate

    n, classes = len(rows), len({row["label"] for row in rows})
    same = classes * job["shots"] * (job["shots"] + 1) // 2  # a text with itself is a pair too
    pairs = 2 * max(same, n * (n - 1) // 2 - classes * job["shots"] * (job["shots"] - 1) // 2)
    asked = {
        "model": locate(job["model"]), "train": str(folder / "train.jsonl"), "test": str(folder / "test.jsonl"),
        "seed": job["seed"], "iterations": 20 if pairs > job["pairs"] else None, "output": str(folder / "setfit"),
    }  # fmt: skip
    done = subprocess.run(
        [job["setfit_python"], str(SETFIT), json.dumps(asked)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"setfit failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1]) | {"pairs_there": pairs, "iterations": asked["iterations"]}


def main() -> None:
    args = parser(__doc__ or "")
    args.add_argument("--sets", nargs="+", default=list(SETS))
    args.add_argument("--shots", type=int, nargs="+", default=[4, 8, 16, 64])
    args.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    args.add_argument("--sample", type=int, default=1000, help="test rows")
    args.add_argument("--pairs", type=int, default=100_000, help="pairs up to which SetFit takes all of them")
    args.add_argument("--setfit-python", default=None, help="an interpreter with setfit installed")
    args.add_argument("--kept", action="store_true", help="measure what fewshot keeps of the base model too")
    args.add_argument("--keys", type=json.loads, default={}, help="further recipe keys, as JSON")
    options = args.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    found: dict[tuple[str, int, str], list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for seed in options.seeds:
        for shots in options.shots:
            for name in options.sets:
                for method in options.methods:
                    if method == "setfit" and options.setfit_python is None:
                        continue
                    job = {
                        "set": name, "shots": shots, "seed": seed, "method": method, "root": str(options.data_root),
                        "model": options.model, "sample": options.sample, "pairs": options.pairs, "keys": options.keys,
                        "setfit_python": options.setfit_python, "kept": options.kept,
                    }  # fmt: skip
                    started = time.perf_counter()
                    row, fresh = once(__file__, job, "fewshot", options.output)
                    if fresh:
                        print(
                            f"{name}, {shots} a class, seed {seed}, {method}: {row['accuracy']:.4f}, training "
                            f"{row['train_seconds']:.0f} s, in all {time.perf_counter() - started:.0f} s",
                            flush=True,
                        )
                    found.setdefault((name, shots, method), []).append(row["accuracy"])
                    seconds.setdefault(method, []).append(row["train_seconds"])
                    if method == "fewshot":
                        found.setdefault((name, shots, "linear-probe"), []).append(row["linear_probe"])
    columns = [*options.methods, "linear-probe"]
    print(f"\n{'accuracy':<24}" + "".join(f"{c:>20}" for c in columns))
    for name in options.sets:
        for shots in options.shots:
            cells = [spread(v) if (v := found.get((name, shots, c))) else "-" for c in columns]
            print(f"{f'{name}, {shots} a class':<24}" + "".join(f"{c:>20}" for c in cells))
    print(f"{'training, all cells (s)':<24}" + "".join(f"{sum(seconds.get(c, [])):>20.0f}" for c in columns[:-1]))


if __name__ == "__main__":
    main()
