"""What keeping costs: plain tuning against `keep: 0.98`, same rows, seeds and base model.

For each set and seed both are whole runs in processes of their own. Reported: the test metric, the
mean and worst retention on the report halves (nothing was chosen on them), and the ratio of tuning
times (teachers included; choosing and reporting are not tuning).

    python benchmarks/keep.py --data-root DATA
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from common import child, file_of, parser, record, spread


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """One run; runs in the child process."""
    import tunewell

    with tempfile.TemporaryDirectory() as folder:
        keys = {k: job[k] for k in ("model", "train", "test", "seed", "keep") if job.get(k) is not None}
        run = tunewell.run(
            **keys,
            text="text",
            label="label",
            task="text-classification",
            output_dir=str(Path(folder) / "run"),
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
            "probes": {p.name: p.retention.value for p in retention.probes},
        }


def main() -> None:
    args = parser(__doc__ or "")
    args.add_argument("--sets", nargs="+", default=["ag_news", "sst2", "clinc150_small"])
    args.add_argument("--keep", type=float, default=0.98)
    options = args.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    for name in options.sets:
        pairs = []
        for seed in options.seeds:
            job = {
                "model": options.model,
                "train": str(file_of(options.data_root, name, "train")),
                "test": str(file_of(options.data_root, name, "test")),
                "seed": seed,
            }
            plain, kept = (child(__file__, {**job, "keep": keep}) for keep in (None, options.keep))
            pairs.append((plain, kept))
            for how, row in (("plain", plain), ("keep", kept)):
                record(options.output, {"benchmark": "keep", "set": name, "how": how, **row})
                print(
                    f"{name:<15} seed {seed} {how:<6} {row['metric']} {row['score']:.4f} "
                    f"[{row['low']:.4f}, {row['high']:.4f}] "
                    f"retention {row['retention']:.4f} worst {row['worst']:.4f} "
                    f"({row['worst_probe']}) "
                    f"train {row['seconds']['train']:.1f} s, total {row['seconds']['total']:.1f} s  {row['chosen']}",
                    flush=True,
                )
        ratio = [k["seconds"]["train"] / p["seconds"]["train"] for p, k in pairs]
        print(
            f"{name:<15} mean: score {spread([p['score'] for p, _ in pairs])} plain, "
            f"{spread([k['score'] for _, k in pairs])} keep, "
            f"difference {spread([k['score'] - p['score'] for p, k in pairs])}; retention "
            f"{spread([p['retention'] for p, _ in pairs])} plain, {spread([k['retention'] for _, k in pairs])} keep; "
            f"time ratio {np.mean(ratio):.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
