"""Many tasks in a row: what each strategy keeps, against joint training (the ceiling) and separate models.

For each order, seed and strategy a whole `tunewell sequence` in a process of its own. Reported: average
accuracy with the ratio to joint training, backward and forward transfer, forgetting, the mean retention of
the base model's abilities at the end, tuning time.

    python benchmarks/sequence.py --data-root DATA
    python benchmarks/sequence.py --data-root DATA --rows 1000 --test_rows 1000 --seeds 1

`--avalanche-python PYTHON` names an interpreter that has `avalanche-lib` (0.6): its EWC (at the strength that
`online_ewc_weight` has here: its importances are of the mean of a batch) and its replay run beside ours, with the same
body, heads, rows, epochs, batches, rate and schedule; avalanche-lib is no dependency.

With --output FILE each sequence is kept as it ends, and those that are there already are not run again.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from common import file_of, once, parser, spread

ORDERS = {
    "1": ("ag_news", "amazon", "dbpedia", "yelp", "sst2"),
    "2": ("dbpedia", "amazon", "ag_news", "sst2", "yelp"),
    "3": ("yelp", "sst2", "amazon", "dbpedia", "ag_news"),
}
# name -> strategy and keys
HOW: dict[str, dict[str, Any]] = {
    "joint": {"strategy": "joint"},
    "separate": {"strategy": "separate"},
    "plain": {"strategy": "plain"},
    "lwf": {"strategy": "lwf", "memory": 0},
    "replay 1%": {"strategy": "replay", "memory": 0.01},
    "replay 5%": {"strategy": "replay", "memory": 0.05},
    "der 1%": {"strategy": "der", "memory": 0.01},
    "agem 1%": {"strategy": "agem", "memory": 0.01},
    "average": {"strategy": "average"},
    "l2sp": {"strategy": "l2sp", "memory": 0},
    "ewc": {"strategy": "online_ewc", "memory": 0, "online_ewc_decay": 1},  # all tasks count alike (Huszar, 2018)
    "online_ewc": {"strategy": "online_ewc", "memory": 0},
    "o_lora": {"strategy": "o_lora", "memory": 0},
    "auto 1%": {"strategy": "auto", "memory": 0.01},
    "auto 5%": {"strategy": "auto", "memory": 0.05},
    "auto 0": {"strategy": "auto", "memory": 0},
}
AVALANCHE: dict[str, dict[str, Any]] = {
    "avalanche naive": {"strategy": "naive"},
    "avalanche ewc": {"strategy": "ewc", "ewc_lambda": 1000 / 2 * 16},
    "avalanche replay 5%": {"strategy": "replay", "memory": 0.05},
}
PEER = Path(__file__).with_name("sequence_avalanche.py")


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """One sequence; runs in the child process."""
    if "avalanche_python" in job:
        return avalanche(job)
    from tunewell.sequence.run import run_sequence

    with tempfile.TemporaryDirectory() as folder:
        tasks = []
        for name in job["order"]:
            files = {}
            for split, most in (("train", job["rows"]), ("test", job["test_rows"])):
                lines = Path(job["files"][name][split]).read_text(encoding="utf-8").splitlines()
                if most and len(lines) > most:
                    lines = random.Random(job["seed"]).sample(lines, most)
                path = Path(folder) / f"{name}_{split}.jsonl"
                path.write_text("\n".join(lines) + "\n", encoding="utf-8")
                files[split] = str(path)
            tasks.append({"name": name, **files, "text": "text", "label": "label"})
        keys = {**job["keys"], **job["how"], "model": job["model"], "seed": job["seed"]}
        done = run_sequence(
            {"tasks": tasks, "output_dir": str(Path(folder) / "out"), **keys}, echo=lambda line: None, progress=False
        )
        s = done.summary
        last = s.rows[-1].retention_mean
        return {
            "matrix": s.matrix,
            "average_accuracy": s.average_accuracy,
            "backward_transfer": s.backward_transfer,
            "forward_transfer": s.forward_transfer,
            "forgetting": s.forgetting,
            "intervals": s.intervals,
            "retention": last.value if last is not None else None,
            "stored": s.memory["rows"],
            "seconds": s.seconds,
        }


def avalanche(job: dict[str, Any]) -> dict[str, Any]:
    """One sequence by avalanche, with the settings that tunewell takes by default."""
    from transformers import AutoConfig

    from tunewell.models.load import locate
    from tunewell.recipe import Recipe
    from tunewell.train.rates import peak_rate

    folder, keys = locate(job["model"]), {k: f.default for k, f in Recipe.model_fields.items()} | job["keys"]
    own = SimpleNamespace(config=AutoConfig.from_pretrained(folder))
    asked = {
        **job, "folder": folder, "rate": keys["learning_rate"] or peak_rate(own),
        "head_factor": keys["head_rate_factor"], "epochs": int(keys["num_train_epochs"]),
        "batch": keys["per_device_train_batch_size"],
    }  # fmt: skip
    done = subprocess.run(
        [job["avalanche_python"], str(PEER), json.dumps(asked)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"avalanche failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    args = parser(__doc__ or "")
    args.add_argument("--avalanche-python", default=None, help="an interpreter with avalanche-lib installed")
    args.add_argument("--orders", nargs="+", default=["1"], choices=list(ORDERS))
    args.add_argument("--how", nargs="+", default=list(HOW), help="which of: " + ", ".join(HOW))
    args.add_argument("--rows", type=int, default=0, help="training rows a task at most; 0 for all")
    args.add_argument("--test_rows", type=int, default=0, help="test rows a task at most; 0 for all")
    args.add_argument("--keys", type=json.loads, default={}, help='further keys of the sequence: {"max_length": 64}')
    options = args.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    hows = HOW | (AVALANCHE if options.avalanche_python else {})
    if unknown := [h for h in options.how if h not in hows]:
        args.error(f"unknown --how {', '.join(unknown)}; known: {', '.join(hows)}")
    files = {
        name: {split: str(file_of(options.data_root, name, split)) for split in ("train", "test")}
        for name in {n for o in options.orders for n in ORDERS[o]}
    }
    found: dict[str, list[dict[str, Any]]] = {}
    for order in options.orders:
        for seed in options.seeds:
            ceiling = None
            for name in options.how:
                job = {
                    "order": list(ORDERS[order]), "seed": seed, "how": hows[name], "model": options.model,
                    "keys": options.keys, "rows": options.rows, "test_rows": options.test_rows, "files": files,
                }  # fmt: skip
                if name in AVALANCHE:
                    job["avalanche_python"] = options.avalanche_python
                row, _ = once(__file__, job, "sequence", options.output)
                ceiling = row["average_accuracy"] if name == "joint" else ceiling
                row["of_joint"] = row["average_accuracy"] / ceiling if ceiling else None
                found.setdefault(name, []).append(row)
                print(f"order {order} seed {seed} {name:<10} " + line(row), flush=True)
    for name, rows in found.items():
        ratios = [r["of_joint"] for r in rows if r["of_joint"] is not None]
        moved = [100 * r["backward_transfer"] for r in rows if r["backward_transfer"] is not None]
        print(
            f"{name:<10} mean of {len(rows)}: average accuracy {spread([r['average_accuracy'] for r in rows])}"
            + (f", of joint {np.mean(ratios):.3f}" if ratios else "")
            + (f", backward transfer {spread(moved)} points" if moved else ""),
            flush=True,
        )


def line(row: dict[str, Any]) -> str:
    """The figures of one sequence."""
    parts = [f"accuracy {row['average_accuracy']:.4f}"]
    if "intervals" in row:
        parts.append("[{:.4f}, {:.4f}]".format(*row["intervals"]["average_accuracy"]))
    if row["of_joint"]:
        parts.append(f"of joint {row['of_joint']:.3f}")
    for key in ("backward_transfer", "forward_transfer", "forgetting"):
        if row.get(key) is not None:
            parts.append(f"{key.replace('_', ' ')} {100 * row[key]:+.1f}")
    if row.get("retention") is not None:
        parts.append(f"base abilities {row['retention']:.3f}")
    if "stored" in row:
        parts += [f"stored {row['stored']}", f"train {row['seconds']['train']:.0f} s"]
    return "  ".join(parts)


if __name__ == "__main__":
    main()
