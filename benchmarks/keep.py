"""What keeping costs: plain tuning against `keep: 0.98` or any strategies, same rows, seeds and base model.

For each set and seed all are whole runs in processes of their own. Reported: the test metric, the
mean and worst retention on the report halves (nothing was chosen on them), and the ratio of tuning
times (teachers included; choosing and reporting are not tuning); between strategies in processor time,
which other programs on the machine disturb less than the clock.

    python benchmarks/keep.py --data-root DATA
    python benchmarks/keep.py --data-root DATA --sets sst2 --rows 2000 --seeds 1 --strategies distill lpft+distill all
    python benchmarks/keep.py --data-root DATA --rows 800 --test-rows 500 --strategies auto --keys max_length=48

A strategy is a name of the table, several joined by `+`, and recipe keys after a colon:
`freeze:freeze=head_only`, `ewc:ewc_weight=10`; `all` stands for every strategy of the table. With --output FILE each
of them is kept as it ends, and those that are there already are not run again.
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from common import child, file_of, once, parser, record, spread


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """One run; runs in the child process."""
    import tunewell

    with tempfile.TemporaryDirectory() as folder:
        wanted = ("model", "train", "test", "seed", "keep", "max_train_samples", "strategy")
        keys = {k: job[k] for k in wanted if job.get(k) is not None} | job.get("keys", {})
        run = tunewell.run(
            **keys,
            text="text",
            label="label",
            task="text-classification",
            # one folder for all strategies of a seed: check, baselines and base model are measured once
            output_dir=job.get("folder") or str(Path(folder) / "run"),
            echo=lambda line: None,
            progress=False,
            raise_on_gate=False,
        )
        summary, retention = run.summary, run.retention
        assert retention is not None
        return {
            "metric": summary.metric,
            "score": summary.test.value,
            "low": summary.test.low,
            "high": summary.test.high,
            "n": summary.test.n,
            "retention": retention.mean.value,
            "retention_low": retention.mean.low,
            "worst": retention.worst.value,
            "worst_probe": retention.worst_probe,
            "kept": summary.kept,
            "chosen": next(c.name for c in run.choice.candidates if c.chosen),
            "seconds": summary.seconds,
            "cpu_seconds": run.training.cpu_seconds,
            "costs": run.choice.costs,
            "probes": {p.name: p.retention.value for p in retention.probes},
        }


def parse(text: str) -> dict[str, Any]:
    """`lpft+distill:distill_weight=1` as recipe keys.

    >>> parse("lpft+distill:distill_weight=1")
    {'strategy': ['lpft', 'distill'], 'keys': {'distill_weight': '1'}}
    """
    names, _, keys = text.partition(":")
    return {"strategy": names.split("+"), "keys": dict(k.split("=", 1) for k in keys.split(",") if k)}


def show(name: str, how: str, row: dict[str, Any]) -> None:
    print(
        f"{name:<15} seed {row['seed']} {how:<24} {row['metric']} {row['score']:.4f} "
        f"[{row['low']:.4f}, {row['high']:.4f}] "
        f"retention {row['retention']:.4f} worst {row['worst']:.4f} "
        f"({row['worst_probe']}) "
        f"train {row['seconds']['train']:.1f} s ({row['cpu_seconds']:.1f} s of processor), "
        f"total {row['seconds']['total']:.1f} s  {row['chosen']}",
        flush=True,
    )


def compare(name: str, jobs: dict[int, dict[str, Any]], options: Any) -> None:
    """Every strategy on one set, plain first: a table of means over seeds."""
    from tunewell.strategies import STRATEGIES

    named = [s for text in options.strategies for s in (STRATEGIES if text == "all" else [text])]
    hows = list(dict.fromkeys(["plain", *named]))
    rows: dict[str, list[dict[str, Any]]] = {how: [] for how in hows}
    for job in jobs.values():
        with tempfile.TemporaryDirectory() as folder:
            for how in hows:
                keep = {"keep": options.keep} if how.startswith("auto") else {}
                asked = parse(how)
                asked["keys"] = parse(":" + ",".join(options.keys))["keys"] | asked["keys"]
                run = {"set": name, "how": how, **job, **keep, **asked, "folder": str(Path(folder) / "run")}
                row, _ = once(__file__, run, "keep", options.output, apart=("folder", "test"))
                rows[how].append(row)
                show(name, how, row)
    print(f"\n{name}, {len(jobs)} seeds\n| strategy | {rows['plain'][0]['metric']} | retention | worst | time ratio |")
    print("|---|---|---|---|---|")
    for how, found in rows.items():
        ratio = [r["cpu_seconds"] / p["cpu_seconds"] for r, p in zip(found, rows["plain"], strict=True)]
        cells = [spread([r[k] for r in found]) for k in ("score", "retention", "worst")]
        print(f"| {how} | {' | '.join(cells)} | {np.mean(ratio):.2f} |", flush=True)


def main() -> None:
    args = parser(__doc__ or "")
    args.add_argument("--sets", nargs="+", default=["ag_news", "sst2", "clinc150_small"])
    args.add_argument("--keep", type=float, default=0.98)
    args.add_argument("--rows", type=int, default=None, help="training rows at most")
    args.add_argument("--strategies", nargs="+", default=None, help="compare these with plain tuning instead")
    args.add_argument("--test-rows", type=int, default=2000, help="test rows at most, a sample; 0 for all")
    args.add_argument("--keys", nargs="+", default=[], help="recipe keys of all strategies, such as learning_rate=1e-4")
    options = args.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in options.sets:
            test = sample(file_of(options.data_root, name, "test"), options.test_rows, Path(folder) / f"{name}.jsonl")
            one_set(name, test, options)


def sample(file: Path, rows: int, target: Path) -> Path:
    """The file, or a seeded sample of its lines, the same for every seed and strategy."""
    lines = file.read_text(encoding="utf-8").rstrip("\n").split("\n")
    if not rows or len(lines) <= rows:
        return file
    target.write_text("\n".join(random.Random(0).sample(lines, rows)) + "\n", encoding="utf-8")
    return target


def one_set(name: str, test: Path, options: Any) -> None:
    jobs = {
        seed: {
            "model": options.model,
            "train": str(file_of(options.data_root, name, "train")),
            "test": str(test),
            "test_rows": options.test_rows,
            "seed": seed,
            "max_train_samples": options.rows,
        }
        for seed in options.seeds
    }
    if options.strategies:
        compare(name, jobs, options)
        return
    pairs = []
    for job in jobs.values():
        with tempfile.TemporaryDirectory() as folder:
            run = {**job, "folder": str(Path(folder) / "run")}
            plain, kept = (child(__file__, {**run, "keep": keep}) for keep in (None, options.keep))
        pairs.append((plain, kept))
        for how, row in (("plain", plain), ("keep", kept)):
            record(options.output, {"benchmark": "keep", "set": name, "how": how, **row})
            show(name, how, row)
    ratio = [k["seconds"]["train"] / p["seconds"]["train"] for p, k in pairs]
    processor = [k["cpu_seconds"] / p["cpu_seconds"] for p, k in pairs]
    print(
        f"{name:<15} mean: score {spread([p['score'] for p, _ in pairs])} plain, "
        f"{spread([k['score'] for _, k in pairs])} keep, "
        f"difference {spread([k['score'] - p['score'] for p, k in pairs])}; retention "
        f"{spread([p['retention'] for p, _ in pairs])} plain, {spread([k['retention'] for _, k in pairs])} keep; "
        f"time ratio {np.mean(ratio):.2f}, of processor time {np.mean(processor):.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
