"""What it costs to keep: tuning with distillation or general text beside plain tuning, the same steps.

Same model, rows, epochs, batches and seed; the strategies in turn in processes of their own, validation off, so that a
step is all that differs. Time is that of tuning with all that a strategy prepares (texts drawn, a teacher's answers),
in processor time and by the clock, over plain tuning's.

    python benchmarks/cost_of_keeping.py --data-root DATA --sets sst2 ag_news
    python benchmarks/cost_of_keeping.py --data-root DATA --model SmolLM2-135M-Instruct --written --rows 60 \\
        --strategies rehearse distill

With `--written` each text is a prompt and its label the answer to learn, which decoders are tuned for.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from common import file_of, once, parser, spread


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """One tuning; runs in the child process."""
    from tunewell.recipe_file import load_recipe
    from tunewell.run import tune_only

    with tempfile.TemporaryDirectory() as folder:
        task = "text-generation" if job["written"] else "text-classification"
        recipe = load_recipe(
            model=job["model"], train=job["train"], task=task, text="text", label="label",
            strategy=[job["strategy"]], seed=job["seed"], max_train_samples=job["rows"], num_train_epochs=job["epochs"],
            validation_size=0, probes="none", threads=job["threads"] or None, output_dir=str(Path(folder) / "run"),
        )  # fmt: skip
        tune_only(recipe, echo=lambda line: None, progress=False)
        training = json.loads((Path(folder) / "run" / "train" / "training.json").read_text())
    return {key: training[key] for key in ("seconds", "cpu_seconds", "steps", "tokens", "peak_memory_mb")}


def main() -> None:
    args = parser(__doc__ or "")
    args.add_argument("--sets", nargs="+", default=["sst2", "ag_news"])
    args.add_argument("--strategies", nargs="+", default=["distill", "anchor", "ewc"])
    args.add_argument("--rows", type=int, default=1000, help="training rows at most")
    args.add_argument("--epochs", type=float, default=3.0)
    args.add_argument("--threads", type=int, default=1, help="0 for as many as there are cores")
    args.add_argument("--written", action="store_true", help="texts are prompts, labels the answers to learn")
    options = args.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    print(f"{'set':<10} {'strategy':<12} {'processor time over plain':>26} {'clock over plain':>20} {'MB':>7}")
    for name in options.sets:
        found: dict[str, list[dict[str, Any]]] = {}
        for seed in options.seeds:
            for strategy in ("plain", *options.strategies):
                job = {
                    "set": name, "train": str(file_of(options.data_root, name, "train")), "strategy": strategy,
                    "seed": seed, "model": options.model, "rows": options.rows, "epochs": options.epochs,
                    "threads": options.threads, "written": options.written,
                }  # fmt: skip
                row, _ = once(__file__, job, "cost_of_keeping", options.output)
                found.setdefault(strategy, []).append(row)
        for strategy in options.strategies:
            cpu, clock = (
                spread([a[key] / b[key] for a, b in zip(found[strategy], found["plain"], strict=True)])
                for key in ("cpu_seconds", "seconds")
            )
            peak = max(row["peak_memory_mb"] for row in found[strategy])
            print(f"{name:<10} {strategy:<12} {cpu:>26} {clock:>20} {peak:>7,.0f}", flush=True)


if __name__ == "__main__":
    main()
