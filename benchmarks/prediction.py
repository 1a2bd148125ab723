"""Texts answered a second: a tuned model in a `transformers` pipeline, and in tunewell.

One tuned model, the same texts in the same order, answers of both compared. The pipeline is asked as its documentation
shows (one text after the other), and with `batch_size=32` beside it. Loading is left out, the first 16 texts are
answered once before. Tunewell is asked for labels with its defaults: bfloat16 where the processor has it, close calls
again in fp32, which are counted (`again`).

    python benchmarks/prediction.py --data-root DATA --sets sst2 imdb
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from common import child, file_of, parser, record, spread

ENGINES = ("pipeline", "pipeline in batches", "tunewell")


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """One engine; runs in the child process."""
    import torch

    from tunewell.data.load import load
    from tunewell.memory import peak_memory_mb

    if job["threads"]:
        torch.set_num_threads(job["threads"])
    texts = list(load(job["test"]).dataset["text"])[: job["texts"]]
    answer, predictor = tunewell(job) if job["engine"] == "tunewell" else (pipeline(job), None)
    answer(texts[:16])
    before = getattr(predictor, "again", 0)
    started = time.perf_counter()
    answers = answer(texts)
    seconds = time.perf_counter() - started
    again = getattr(predictor, "again", 0) - before
    return {"again": again, "seconds": round(seconds, 3), "peak_mb": round(peak_memory_mb()), "answers": answers}


def pipeline(job: dict[str, Any]) -> Any:
    from transformers import pipeline

    model = str(Path(job["run"]) / "model")
    ask: Any = pipeline("text-classification", model=model)
    options = {"batch_size": 32} if job["engine"].endswith("batches") else {}
    return lambda texts: [
        found["label"] for found in ask(texts, truncation=True, max_length=job["max_length"], **options)
    ]


def tunewell(job: dict[str, Any]) -> Any:
    from tunewell.predict import load_predictor

    predictor = load_predictor(job["run"])
    return lambda texts: [str(label) for label in predictor.predict(texts)], predictor


def main() -> None:
    args = parser(__doc__ or "")
    args.add_argument("--sets", nargs="+", default=["sst2", "imdb"])
    args.add_argument("--texts", type=int, default=500, help="texts to answer, at most")
    args.add_argument("--rows", type=int, default=400, help="rows that the model is tuned on")
    args.add_argument("--max-length", type=int, default=256)
    args.add_argument("--threads", type=int, default=0, help="0 for as many as there are cores")
    options = args.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    print(f"{'set':<10} {'seed':>4} {'engine':<20} {'texts/s':>8} {'MB':>6} {'same answers':>12} {'again':>6}")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.sets:
            ratios: dict[str, list[float]] = {engine: [] for engine in ENGINES[:-1]}
            for seed in options.seeds:
                found = {row["engine"]: row for row in once(options, name, seed, Path(folder))}
                for engine in ratios:
                    ratios[engine].append(found[engine]["seconds"] / found["tunewell"]["seconds"])
            for engine, values in ratios.items():
                print(f"{name:<10} tunewell over {engine}: {spread(values)}", flush=True)


def once(options: Any, name: str, seed: int, folder: Path) -> list[dict[str, Any]]:
    """The engines in turn, on one model."""
    from tunewell.recipe_file import load_recipe
    from tunewell.run import tune_only

    run = folder / f"{name}-{seed}"
    recipe = load_recipe(
        model=options.model, train=str(file_of(options.data_root, name, "train")), text="text", label="label",
        strategy="plain", probes="none", seed=seed, max_train_samples=options.rows, max_length=options.max_length,
        num_train_epochs=2, output_dir=str(run),
    )  # fmt: skip
    tune_only(recipe, echo=lambda line: None, progress=False)
    job = {
        "run": str(run), "test": str(file_of(options.data_root, name, "test")), "texts": options.texts,
        "max_length": options.max_length, "threads": options.threads, "seed": seed, "set": name,
    }  # fmt: skip
    rows = [child(__file__, {**job, "engine": engine}) for engine in ENGINES]
    for row in rows:
        answers = row.pop("answers")
        row["rate"] = round(len(answers) / row["seconds"], 1)
        if row["engine"] == ENGINES[0]:
            first = answers
        row["same"] = sum(a == b for a, b in zip(answers, first, strict=True)) / len(answers)
        print(
            f"{name:<10} {seed:>4} {row['engine']:<20} {row['rate']:>8,} {row['peak_mb']:>6} {row['same']:>12.1%} "
            f"{row['again']:>6}",
            flush=True,
        )
        record(options.output, {"benchmark": "prediction", **row})
    return rows


if __name__ == "__main__":
    main()
