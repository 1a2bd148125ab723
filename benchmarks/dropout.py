"""Tuning with the dropout that tunewell draws on processors, and with torch's own, in turn.

Everything else is the same: model, rows, seed, strategy `plain`, no validation. Processor time of tuning, peak memory
of a process of its own, and macro-F1 on test rows.

    python benchmarks/dropout.py --data-root DATA
"""

from __future__ import annotations

import json
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from common import child, file_of, parser, record, spread


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """One tuning; runs in the child process."""
    import tunewell
    from tunewell.train import dropout

    if job["torchs"]:
        dropout.quick_dropout = nullcontext
    with tempfile.TemporaryDirectory() as folder:
        run = tunewell.run(
            train=job["train"], test=job["test"], text="text", label="label", model=job["model"], seed=job["seed"],
            strategy=["plain"], max_train_samples=job["rows"], validation_size=0, num_train_epochs=job["epochs"],
            max_length=job["max_length"], threads=job["threads"], probes=["none"], explain=0, monitor="off",
            output_dir=str(Path(folder) / "run"), progress=False, echo=lambda line: None,
        )  # fmt: skip
        return {
            "cpu_seconds": run.training.cpu_seconds,
            "peak_mb": run.training.peak_memory_mb,
            "f1_macro": run.metrics["f1_macro"].value,
        }


def main() -> None:
    args = parser(__doc__ or "")
    args.add_argument("--sets", nargs="+", default=["sst2", "imdb"])
    args.add_argument("--rows", type=int, default=600)
    args.add_argument("--epochs", type=float, default=1.0)
    args.add_argument("--max-length", type=int, default=384)
    args.add_argument("--threads", type=int, default=1)
    options = args.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    print(
        f"{'set':<10} {'seed':>4} {'torch, s':>9} {'ours, s':>9} {'ratio':>6} {'MB':>6} {'MB':>6} {'F1':>7} {'F1':>7}"
    )
    for name in options.sets:
        ratios = []
        for seed in options.seeds:
            job = {
                "train": str(file_of(options.data_root, name, "train")), "model": options.model, "seed": seed,
                "test": str(file_of(options.data_root, name, "test")), "rows": options.rows, "epochs": options.epochs,
                "max_length": options.max_length, "threads": options.threads,
            }  # fmt: skip
            torchs, ours = (child(__file__, {**job, "torchs": t}) for t in (True, False))
            ratios.append(torchs["cpu_seconds"] / ours["cpu_seconds"])
            print(
                f"{name:<10} {seed:>4} {torchs['cpu_seconds']:>9.1f} {ours['cpu_seconds']:>9.1f} {ratios[-1]:>6.2f} "
                f"{torchs['peak_mb']:>6.0f} {ours['peak_mb']:>6.0f} "
                f"{torchs['f1_macro']:>6.3f} {ours['f1_macro']:>6.3f}",
                flush=True,
            )
            for which, row in (("torch", torchs), ("tunewell", ours)):
                record(options.output, {"benchmark": "dropout", "set": name, "seed": seed, "dropout": which, **row})
        print(f"{name:<10} mean ratio {spread(ratios)}", flush=True)


if __name__ == "__main__":
    main()
