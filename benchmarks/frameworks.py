"""One recipe in PyTorch and in TensorFlow: accuracy, time, and how near the two are on the same weights.

Claims: the same recipe gives a model as good in either framework; weights tuned in one give the other's
probabilities within 1e-4; a SavedModel gives them too. Both frameworks compute in fp32.

    python benchmarks/frameworks.py --data-root data --seeds 1 --rows 600
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from common import child, file_of, parser, record, spread

FRAMEWORKS = ("pytorch", "tensorflow")


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Tune in one framework and answer the test rows; of TensorFlow also its twin and the SavedModel."""
    from tunewell.predict import Predictor, load_predictor
    from tunewell.recipe_file import load_recipe
    from tunewell.results import Training
    from tunewell.run import tune_only

    folder = Path(job["work"]) / f"{job['framework']}-{job['seed']}"
    recipe = load_recipe(
        model=job["model"], train=job["train"], test=job["test"], framework=job["framework"],
        max_train_samples=job["rows"], num_train_epochs=job["epochs"], seed=job["seed"], probes=["none"], bf16=False,
        monitor="off", threads=job["threads"], output_dir=str(folder), early_stopping_patience=0, metric="accuracy",
    )  # fmt: skip
    tune_only(recipe, echo=lambda line: None, progress=False)
    training = Training.load(folder / "train" / "training.json")
    rows = [json.loads(line) for line in Path(job["test"]).read_text(encoding="utf-8").splitlines()]
    texts, labels = [r["text"] for r in rows], np.array([str(r["label"]) for r in rows])
    predictor = Predictor.load(folder)
    scores, seconds = timed(predictor, texts)
    out = {
        "accuracy": round(float((np.array(predictor.labels)[scores.argmax(1)] == labels).mean()), 4),
        "tuning_seconds": round(training.seconds, 1),
        "cpu_seconds": round(training.cpu_seconds, 1),
        "rows_a_second": round(training.examples / training.seconds, 1),
        "answering_seconds": {"pytorch": seconds},
        "peak_memory_mb": round(training.peak_memory_mb),
    }
    if job["framework"] == "tensorflow":
        from tunewell.export.run import export

        with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as file:  # rows to compare on
            csv.writer(file).writerows([("text",), *((t,) for t in texts)])
        twin, again = timed(load_predictor(folder, framework="tensorflow"), texts)
        done = export(folder, folder / "saved", to="savedmodel")
        assert done.parity is not None
        out["answering_seconds"]["tensorflow"] = again
        out |= {
            "logits_apart": training.parity,
            "probabilities_apart": float(np.abs(twin - scores).max()),
            "savedmodel": done.parity.model_dump(),
        }
    return out


def timed(predictor: Any, texts: list[str]) -> tuple[np.ndarray, float]:
    """Probabilities, and the seconds that they took after a first few."""
    predictor.raw_scores(texts[:64])
    started = time.perf_counter()
    scores = predictor.raw_scores(texts)
    return scores, round(time.perf_counter() - started, 2)


def sample(source: Path, target: Path, rows: int, seed: int) -> str:
    """A file with `rows` of a set's rows, drawn by `seed`."""
    lines = source.read_text(encoding="utf-8").splitlines()
    chosen = np.random.default_rng(seed).permutation(len(lines))[:rows]
    target.write_text("\n".join(lines[i] for i in sorted(chosen)) + "\n", encoding="utf-8")
    return str(target)


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--set", default="sst2")
    options.add_argument("--rows", type=int, default=600, help="training rows")
    options.add_argument("--test-rows", type=int, default=500)
    options.add_argument("--epochs", type=float, default=3)
    options.add_argument("--threads", type=int, default=2)
    chosen = options.parse_args()
    if chosen.child:
        print(json.dumps(measure(json.loads(chosen.child))))
        return
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in FRAMEWORKS}
    with tempfile.TemporaryDirectory() as work:
        files = {
            split: sample(file_of(chosen.data_root, chosen.set, split), Path(work) / f"{split}.jsonl", rows, 0)
            for split, rows in (("train", chosen.rows), ("test", chosen.test_rows))
        }
        for seed in chosen.seeds:
            for framework in FRAMEWORKS:
                job = {"framework": framework, "seed": seed, "rows": chosen.rows, "epochs": chosen.epochs,
                       "model": chosen.model, "threads": chosen.threads, "work": work, **files}  # fmt: skip
                row = child(__file__, job)
                record(chosen.output, row)
                found[framework].append(row)
                print(f"seed {seed}, {framework}: {row}", file=sys.stderr, flush=True)
    print(f"{chosen.set}, {chosen.rows} rows, {chosen.epochs:g} epochs, fp32, {chosen.threads} threads\n")
    columns = {"accuracy": "accuracy", "tuning, s": "tuning_seconds", "processor, s": "cpu_seconds"}
    print(f"{'':<12}" + "".join(f"{title:>20}" for title in columns))
    for name, rows in found.items():
        print(f"{name:<12}" + "".join(f"{spread([r[key] for r in rows]):>20}" for key in columns.values()))
    pairs = list(zip(*found.values(), strict=True))
    ratios = [spread([b[k] / a[k] for a, b in pairs]) for k in ("tuning_seconds", "cpu_seconds")]
    print(f"\nTensorFlow over PyTorch: time {ratios[0]}, processor time {ratios[1]}")
    ours = found["tensorflow"]
    print(f"logits apart before tuning {max(r['logits_apart']['before'] for r in ours):.1e}, "
          f"after {max(r['logits_apart']['after'] for r in ours):.1e}")  # fmt: skip
    print(f"probabilities of the same weights apart: {max(r['probabilities_apart'] for r in ours):.1e}")
    print(f"SavedModel: apart {max(r['savedmodel']['largest'] for r in ours):.1e}, the same answer on "
          f"{min(r['savedmodel']['same'] for r in ours):.1%}")  # fmt: skip
    for size, rate in ours[0]["savedmodel"]["rows_per_second"].items():
        print(f"  {size}: {rate:,.0f} rows/s, PyTorch {ours[0]['savedmodel']['source_rows_per_second'][size]:,.0f}")


if __name__ == "__main__":
    main()
