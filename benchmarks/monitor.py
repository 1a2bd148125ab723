"""How well does the monitor's estimate foretell what the probes measure?

For every set, strategy, learning rate and seed a model is tuned; at a few steps along the way the statistics of
the monitor's sample are read and the retention suite is measured. Over all these checkpoints: Spearman's
correlation of each statistic with the mean retention of the probes, with a 95 % bootstrap interval over tunings
(checkpoints of one tuning are not independent), the slope of retention on the statistic, and the mean absolute error:
of a statistic with that slope, of `kept_estimate` as it is.

    python benchmarks/monitor.py --data-root FOLDER                              # MiniLM, some hours
    python benchmarks/monitor.py --data-root FOLDER --model splade-tiny --rows 400 --seeds 1    # minutes
"""

from __future__ import annotations

import json
import tempfile
import time
from typing import Any

import numpy as np

from benchmarks.common import child, file_of, parser, record

STRATEGIES = ("plain", "lpft", "l2sp", "lora", "distill")
STATISTICS = ("structure", "cka", "neighbours", "cosine", "distance")


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Tune once; a row for each checkpoint."""
    import torch
    from transformers import TrainerCallback

    from tunewell.recipe_file import load_recipe
    from tunewell.retention.estimate import statistics
    from tunewell.retention.forgetting import compare
    from tunewell.stages.job import Job
    from tunewell.stages.tune import tune

    if job["threads"]:
        torch.set_num_threads(job["threads"])
    rows: list[dict[str, Any]] = []
    keys = {k: job[k] for k in ("model", "train", "test", "seed", "max_train_samples", "learning_rate", "threads")}
    recipe = load_recipe(
        **keys, strategy=[job["strategy"]], monitor="watch", num_train_epochs=job["epochs"], early_stopping_patience=0
    )

    class Look(TrainerCallback):
        """Measures at fixed steps; its time is no part of the monitor's."""

        def __init__(self, work: Job) -> None:
            self.work, self.suite = work, work.task.suite(work, job["half"])
            if hasattr(self.suite, "counted"):
                self.suite = self.suite.counted()
            self.before = self.suite.measure(work.task.probed(work, work.task.base_model(work)))

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.steps = set(np.linspace(0, state.max_steps, job["points"] + 1)[1:].round().astype(int).tolist())

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            if state.global_step not in self.steps:
                return
            after = self.suite.measure(self.work.task.probed(self.work, model))
            kept = compare(self.before, after, seed=1, n_boot=2)
            monitor = self.work.monitor
            found = monitor.read(model)
            if monitor.kind == "cosine":
                found |= statistics(monitor._base["vectors"], monitor._vectors(model))
            probes = {p.name: p.retention.value for p in kept.probes}
            rows.append({"step": state.global_step, "kept": kept.mean.value, "worst": kept.worst.value,
                         "probes": probes, **found})  # fmt: skip

    with tempfile.TemporaryDirectory() as folder, Job(recipe, output_dir=folder, progress=False) as work:
        started = time.perf_counter()
        work.callbacks = [Look(work)]
        training = tune(work)
    assert training.monitor is not None
    return {"rows": rows, "seconds": round(time.perf_counter() - started, 1), "share": training.monitor.share}


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(x, y)[0]) if x.std() and y.std() else float("nan")


def summary(tunings: list[list[dict[str, Any]]], statistic: str, seed: int = 0) -> dict[str, float]:
    """Correlation with its interval, slope through (1, 1), and the mean absolute error with that slope."""
    rng = np.random.default_rng(seed)

    def columns(chosen: list[list[dict[str, Any]]]) -> tuple[np.ndarray, np.ndarray]:
        flat = [r for rows in chosen for r in rows if r["kept"] is not None]
        return np.array([r[statistic] for r in flat]), np.array([r["kept"] for r in flat])

    x, y = columns(tunings)
    draws = []
    for _ in range(1000):
        chosen = [tunings[i] for i in rng.integers(0, len(tunings), len(tunings))]
        draws.append(spearman(*columns(chosen)))
    low, high = np.nanquantile(draws, [0.025, 0.975])
    lost, gone = 1 - x, 1 - y
    slope = float((lost * gone).sum() / max((lost * lost).sum(), 1e-12))
    error = float(np.abs((x if statistic == "kept_estimate" else 1 - slope * lost) - y).mean())
    return {"spearman": spearman(x, y), "low": float(low), "high": float(high), "slope": slope, "error": error,
            "n": len(x)}  # fmt: skip


def main() -> None:
    args = parser(__doc__ or "")
    args.add_argument("--sets", nargs="+", default=["ag_news", "sst2", "clinc150_small"])
    args.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    args.add_argument("--rates", nargs="+", type=float, default=[5e-5, 1e-4, 3e-4])
    args.add_argument("--rows", type=int, default=3000, help="training rows at most")
    args.add_argument("--epochs", type=float, default=3.0)
    args.add_argument("--points", type=int, default=6, help="checkpoints of a tuning")
    args.add_argument("--half", choices=["select", "report"], default="report", help="half of the probes")
    args.add_argument("--threads", type=int, default=None)
    options = args.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    tunings: list[list[dict[str, Any]]] = []
    shares: list[float] = []
    for name in options.sets:
        for strategy in options.strategies:
            for rate in options.rates:
                for seed in options.seeds:
                    job = {
                        "model": options.model, "train": str(file_of(options.data_root, name, "train")),
                        "test": str(file_of(options.data_root, name, "test")), "seed": seed, "strategy": strategy,
                        "learning_rate": rate, "max_train_samples": options.rows, "epochs": options.epochs,
                        "points": options.points, "half": options.half, "threads": options.threads,
                    }  # fmt: skip
                    row = child(__file__, job)
                    record(options.output, {"benchmark": "monitor", "set": name, **row})
                    tunings.append(row["rows"])
                    shares.append(row["share"])
                    end = row["rows"][-1]
                    figures = f"kept {end['kept']:.4f}, estimate {end['kept_estimate']:.4f}"
                    share = f"{100 * row['share']:.1f} % of the time"
                    print(f"{name:<15} {strategy:<8} {rate:.0e} seed {seed}: {figures}, {share}", flush=True)
    known = [s for s in (*STATISTICS, "kept_estimate") if s in tunings[0][0]]
    print(f"\n{options.model}: {len(tunings)} tunings, monitor {100 * np.mean(shares):.1f} % of tuning's time")
    print("| statistic | Spearman with mean retention | 95 % | slope | mean error | n |")
    print("|---|---|---|---|---|---|")
    for statistic in known:
        s = summary(tunings, statistic)
        print(f"| {statistic} | {s['spearman']:.3f} | {s['low']:.3f} to {s['high']:.3f} | {s['slope']:.3f} "
              f"| {s['error']:.4f} | {s['n']} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
