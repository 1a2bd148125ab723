"""What a ranking is measured against: a zoo of base models, small tasks, and what tuning really gives on them.

The zoo is made from two packaged encoders: whole, cut to fewer layers, and with layers or embeddings drawn anew.
Every tuning is short (a few hundred rows, three epochs). A result is appended to truth.jsonl as soon as it is there,
so the work can be stopped at any time and goes on where it was.

    python benchmarks/rank_truth.py --data-root DATA --work FOLDER
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import file_of, parser, record

# name -> packaged model, layers kept, layers (counted after the cut) and embeddings drawn anew
ZOO: dict[str, tuple[str, int | None, tuple[int, ...], bool]] = {
    "minilm": ("all-MiniLM-L6-v2", None, (), False),
    "minilm-first4": ("all-MiniLM-L6-v2", 4, (), False),
    "minilm-first2": ("all-MiniLM-L6-v2", 2, (), False),
    "minilm-first1": ("all-MiniLM-L6-v2", 1, (), False),
    "minilm-top1-drawn": ("all-MiniLM-L6-v2", None, (5,), False),
    "minilm-top3-drawn": ("all-MiniLM-L6-v2", None, (3, 4, 5), False),
    "minilm-bottom1-drawn": ("all-MiniLM-L6-v2", None, (0,), False),
    "minilm-words-drawn": ("all-MiniLM-L6-v2", None, (), True),
    "splade": ("splade-tiny", None, (), False),
    "splade-first1": ("splade-tiny", 1, (), False),
    "splade-top1-drawn": ("splade-tiny", None, (1,), False),
    "splade-words-drawn": ("splade-tiny", None, (), True),
}
ROWS, TEST_ROWS, TOKENS = 320, 400, 32


def make_zoo(folder: Path) -> dict[str, Path]:
    """Save the models of the zoo that are not there yet: name -> folder."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    from tunewell.models.load import locate, quietly

    out = {}
    for name, (source, layers, drawn, words) in ZOO.items():
        out[name] = folder / name
        if (out[name] / "tokenizer.json").is_file():
            continue
        with quietly():
            model = AutoModel.from_pretrained(locate(source), dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(locate(source))
        torch.manual_seed(7)
        if layers:
            model.encoder.layer = model.encoder.layer[:layers]
            model.config.num_hidden_layers = layers
        for module in [model.encoder.layer[i] for i in drawn] + ([model.embeddings] if words else []):
            for part in module.modules():
                if isinstance(part, torch.nn.Linear | torch.nn.Embedding):
                    torch.nn.init.normal_(part.weight, std=model.config.initializer_range)
                    if getattr(part, "bias", None) is not None:
                        torch.nn.init.zeros_(part.bias)
                elif isinstance(part, torch.nn.LayerNorm):
                    torch.nn.init.ones_(part.weight)
                    torch.nn.init.zeros_(part.bias)
        model.save_pretrained(out[name])
        tokenizer.save_pretrained(out[name])
    return out


# ---------------------------------------------------------------- tasks


def _read(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _plain(root: Path, name: str, split: str) -> list[dict[str, Any]]:
    return [{"text": r["text"], "label": r["label"]} for r in _read(file_of(root, name, split))]


def _stsb(root: Path, split: str) -> list[dict[str, Any]]:
    rows = _read(file_of(root, "stsb", f"en_{split}"))
    return [{"text": r["text_a"], "text_pair": r["text_b"], "label": float(r["score"])} for r in rows]


STARS = {"very negative": 1.0, "negative": 2.0, "neutral": 3.0, "positive": 4.0, "very positive": 5.0}


def _stars(root: Path, split: str) -> list[dict[str, Any]]:
    return [{**r, "label": STARS[r["label"]]} for r in _plain(root, "yelp", split)]


def _same_topic(root: Path, split: str) -> list[dict[str, Any]]:
    """Pairs of DBpedia's articles: of one class or of two."""
    rng, by_class = random.Random(split), {}
    for row in _plain(root, "dbpedia", split):
        by_class.setdefault(row["label"], []).append(row["text"])
    names, out = sorted(by_class), []
    for i in range(2 * TEST_ROWS):
        a = rng.choice(names)
        b = a if i % 2 else rng.choice([n for n in names if n != a])
        pair = rng.choice(by_class[a]), rng.choice(by_class[b])
        out.append({"text": pair[0], "text_pair": pair[1], "label": "same" if a == b else "other"})
    return out


def _tweets(root: Path, split: str) -> list[dict[str, Any]]:
    import pandas as pd

    from tunewell import assets

    frame = pd.read_csv(assets.fetch("tweets-3-sentiments") / "tweets.csv", encoding="utf-8", encoding_errors="replace")
    text, label = ("text", "sentiment")
    rows = [{"text": str(t), "label": str(s)} for t, s in zip(frame[text], frame[label], strict=True)]
    rows = [r for r in {r["text"]: r for r in rows}.values() if r["text"].strip()]
    random.Random(0).shuffle(rows)
    return rows[:5000] if split == "train" else rows[5000:8000]


# task -> its rows, rows to train on. The combination of scores is chosen on CHOICE and measured on REPORT only.
REPORT: dict[str, tuple[Callable[[Path, str], list[dict[str, Any]]], int]] = {
    "sst2": (lambda root, split: _plain(root, "sst2", split), ROWS),
    "ag_news": (lambda root, split: _plain(root, "ag_news", split), ROWS),
    "clinc150": (lambda root, split: _plain(root, "clinc150_small", split), 3 * ROWS),
    "stsb": (_stsb, 2 * ROWS),
}
CHOICE: dict[str, tuple[Callable[[Path, str], list[dict[str, Any]]], int]] = {
    "dbpedia": (lambda root, split: _plain(root, "dbpedia", split), ROWS),
    "tweets": (_tweets, ROWS),
    "yelp_stars": (_stars, ROWS),
    "dbpedia_pairs": (_same_topic, ROWS),
}
TASKS = REPORT | CHOICE


def _sample(rows: list[dict[str, Any]], n: int, *, by_class: bool) -> list[dict[str, Any]]:
    """A seeded sample; `by_class` takes the classes in turn, so that none is missing."""
    rows = random.Random(1).sample(rows, len(rows))
    if by_class:
        seen: dict[str, int] = {}
        turn = [seen[r["label"]] for r in rows if not seen.update({r["label"]: seen.get(r["label"], 0) + 1})]
        rows = [rows[i] for i in sorted(range(len(rows)), key=lambda i: (turn[i], i))]
    return rows[:n]


def write_task(root: Path, name: str, folder: Path, times: int = 1) -> tuple[Path, Path]:
    """Samples of a task's training and test rows as files, `times` as many as the task's own number; (train, test)."""
    rows_of, size = TASKS[name]
    out = folder / name / "train.jsonl", folder / name / "test.jsonl"
    if not out[1].is_file():
        out[0].parent.mkdir(parents=True, exist_ok=True)
        for path, split, n in ((out[0], "train", times * size), (out[1], "test", times * TEST_ROWS)):
            rows = rows_of(root, split)
            rows = _sample(rows, n, by_class=split == "train" and isinstance(rows[0]["label"], str))
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return out


def keys_of(name: str, train: Path, test: Path, *, seed: int, epochs: float) -> dict[str, Any]:
    """The recipe of a short tuning; the ranking gets the same one."""
    pair = {"text_pair": "text_pair"} if name in ("stsb", "dbpedia_pairs") else {}
    regression = name in ("stsb", "yelp_stars")
    return {
        "train": str(train),
        "test": str(test),
        "text": "text",
        **pair,
        "label": "label",
        "task": "text-regression" if regression else "text-classification",
        "max_length": TOKENS,
        "num_train_epochs": epochs,
        "per_device_train_batch_size": 8,
        "early_stopping_patience": 0,
        "seed": seed,
        "threads": 1,
        "probes": "none",
    }


# ---------------------------------------------------------------- tuning


def tune(keys: dict[str, Any], model: Path, folder: Path) -> dict[str, Any]:
    """Tune for real: the headline metric on test and the processor time of tuning."""
    from tunewell.evaluate.metrics import score
    from tunewell.recipe_file import load_recipe
    from tunewell.stages.job import Job
    from tunewell.stages.tune import tune as tune_stage

    started, wall = time.process_time(), time.perf_counter()
    kept: list[Any] = []
    recipe = load_recipe(None, **keys, model=str(model), output_dir=str(folder), overwrite_output_dir=True)
    with Job(recipe, output_dir=folder, progress=False) as job:
        fresh = job.fresh_model
        job.fresh_model = lambda: kept.append(fresh()) or kept[0]  # type: ignore[method-assign]
        training = tune_stage(job)
        spent = time.process_time() - started
        scores = job.scores(kept[0], "test", bf16=job.bf16)
        return {
            "score": score(job.spec.metric, job.spec, scores, job.targets("test")),
            "metric": job.spec.metric,
            "tune_cpu": round(spent, 2),
            "tune_seconds": round(time.perf_counter() - wall, 2),
            "steps": training.steps,
            "rows": len(job.splits["train"]),
        }


def known(path: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """The results that are there: (task, model, seed) -> result."""
    if not path.is_file():
        return {}
    return {(r["task"], r["model"], r["seed"]): r for r in _read(path)}


def collect(
    root: Path, work: Path, tasks: list[str], models: list[str], seeds: list[int], epochs: float, times: int = 1
) -> Path:
    """Tune every model on every task; results that are there are kept. Returns the file of results."""
    import shutil

    out, zoo = work / "truth.jsonl", make_zoo(work / "models")
    for seed in seeds:
        for task in tasks:
            train, test = write_task(root, task, work / "tasks", times)
            for model in models:
                if (task, model, seed) in known(out):
                    continue
                keys = keys_of(task, train, test, seed=seed, epochs=epochs)
                figures = tune(keys, zoo[model], work / "run")
                shutil.rmtree(work / "run", ignore_errors=True)
                record(out, {"task": task, "model": model, "seed": seed, "epochs": epochs, **figures})
                print(f"{task:<14} {model:<22} seed {seed}: {figures}", flush=True)
    return out


def options() -> Any:
    """The options that both halves of the benchmark take."""
    out = parser(__doc__ or "")
    out.add_argument("--work", type=Path, required=True, help="folder for models, tasks and results; kept for the next")
    out.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    out.add_argument("--models", nargs="+", default=list(ZOO), choices=list(ZOO))
    out.add_argument("--epochs", type=float, default=3)
    out.add_argument("--times", type=int, default=1, help="times as many rows; take another --work for each number")
    return out


if __name__ == "__main__":
    chosen = options().parse_args()
    collect(chosen.data_root, chosen.work, chosen.tasks, chosen.models, chosen.seeds, chosen.epochs, chosen.times)
