"""Is half of the data enough? Full data against a kept share by each method of `tunewell prune`, at the same steps.

For each set and seed: all training rows are tuned on once for scores (`--tunings` seeds, `--epochs` epochs); then a run
is tuned on all rows, and one on the share that each method keeps, `random` among them. Every run has the same number of
steps and the same validation and test rows, none of which a method could choose. Differences from `random` and from the
full data are paired by seed, with Student's 95 % interval over seeds.

    python benchmarks/prune.py --data-root DATA --sets sst2 ag_news --rows 4000 --shares 0.1 0.3 0.5 --seeds 1 2 3

Measurements that stand in `--output` are not made again.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from common import file_of, once, parser, spread

SETS = ("sst2", "ag_news")
METHODS = ("random", "el2n", "forgetting", "ambiguous", "easy", "hard", "auto")
BATCH = 16


def draw(job: dict[str, Any]) -> dict[str, list[dict[str, str]]]:
    """Seeded training, validation and test rows."""
    parts = []
    for split in ("train", "test"):
        with file_of(Path(job["root"]), job["set"], split).open(encoding="utf-8") as file:
            parts.append([{"text": r["text"], "label": str(r["label"])} for r in map(json.loads, file)])
    pool, test = parts
    order = np.random.default_rng(job["seed"]).permutation(len(pool))
    held = min(job["validation"], len(pool) // 5)
    some = np.random.default_rng(0).permutation(len(test))[: job["sample"]]
    return {
        "validation": [pool[i] for i in order[:held]],
        "train": [pool[i] for i in order[held : held + job["rows"]]],
        "test": [test[i] for i in some],
    }


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """One set and seed, all shares and methods; runs in the child process. Scores are made once for all of them."""
    import tunewell
    from tunewell.prune.run import prune

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    with tempfile.TemporaryDirectory() as place:
        folder, rows = Path(place), draw(job)
        for name, part in rows.items():
            text = "\n".join(json.dumps(row, ensure_ascii=False) for row in part)
            (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
        files = {name: str(folder / f"{name}.jsonl") for name in ("validation", "test")}
        steps = max(1, round(job["full_epochs"] * max(job["shares"]) * len(rows["train"]) / BATCH))

        def tuned(train: Path, name: str) -> float | None:
            run = tunewell.run(
                train=str(train), **files, text="text", label="label", model=job["model"], seed=job["seed"],
                probes=["none"], explain=0, monitor="off", calibrate="none", max_steps=steps,
                early_stopping_patience=0, per_device_train_batch_size=BATCH, output_dir=str(folder / name),
                progress=False, echo=say, **job["keys"],
            )  # fmt: skip
            return run.metrics["accuracy"].value

        found: dict[str, Any] = {"steps": steps, "full": tuned(folder / "train.jsonl", "full"), "kept": {}}
        for share in job["shares"]:
            for method in job["methods"]:
                out = folder / f"{method}-{share:g}.jsonl"
                done = prune(
                    folder / "train.jsonl", out, keep_share=share, method=method, tunings=job["tunings"],
                    num_train_epochs=job["epochs"], model=job["model"], seed=job["seed"], **files, text="text",
                    label="label", output_dir=str(folder / "scores"), echo=say, progress=False, **job["keys"],
                )  # fmt: skip
                found["kept"][f"{method} {share:g}"] = {
                    "accuracy": tuned(out, f"{method}-{share:g}"), "rows": done.record.kept,
                    "method": done.record.method, "left_out": done.record.left_out,
                }  # fmt: skip
        return found


def main() -> None:
    args = parser(__doc__ or "")
    args.add_argument("--sets", nargs="+", default=list(SETS))
    args.add_argument("--rows", type=int, default=4000, help="training rows")
    args.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.3, 0.5])
    args.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    args.add_argument("--tunings", type=int, default=1, help="tunings whose scores are averaged")
    args.add_argument("--epochs", type=float, default=5, help="of these tunings")
    args.add_argument("--full-epochs", type=float, default=3, help="passes over the largest share; sets the steps")
    args.add_argument("--validation", type=int, default=500, help="validation rows")
    args.add_argument("--sample", type=int, default=1000, help="test rows")
    args.add_argument("--keys", type=json.loads, default={}, help="further recipe keys, as JSON")
    options = args.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    if "random" not in options.methods:
        sys.exit("name random among --methods: the others are held against it")
    for name in options.sets:
        rows = []
        for seed in options.seeds:
            job = {
                "set": name, "seed": seed, "root": str(options.data_root), "model": options.model,
                "rows": options.rows, "shares": options.shares, "methods": options.methods,
                "tunings": options.tunings, "epochs": options.epochs, "full_epochs": options.full_epochs,
                "validation": options.validation, "sample": options.sample, "keys": options.keys,
            }  # fmt: skip
            row, _ = once(__file__, job, "prune", options.output)
            rows.append(row)
            print(f"{name}, seed {seed}: all rows {row['full']:.4f}, {row['steps']} steps", flush=True)
        print(f"\n{name:<24}{'accuracy':>20}{'less random':>22}{'less all rows':>22}")
        print(f"{'all rows':<24}{spread([r['full'] for r in rows]):>20}")
        for share in options.shares:
            for method in options.methods:
                key = f"{method} {share:g}"
                own = np.array([r["kept"][key]["accuracy"] for r in rows])
                random = np.array([r["kept"][f"random {share:g}"]["accuracy"] for r in rows])
                full = np.array([r["full"] for r in rows])
                less = "-" if method == "random" else spread((own - random).tolist())
                chose = ",".join(sorted({r["kept"][key]["method"] for r in rows})) if method == "auto" else ""
                print(
                    f"{f'{share:.0%} {method}':<24}{spread(own.tolist()):>20}{less:>22}"
                    f"{spread((own - full).tolist()):>22}  {chose}",
                    flush=True,
                )
        print()


if __name__ == "__main__":
    main()
