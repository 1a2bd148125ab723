"""Wall time and memory of tuning: `transformers.Trainer` with its defaults against tunewell.

Same model, rows, epochs and seed, in one run on one machine, each in a process of its own, in turn
(A B A B …) so that drift of the machine falls on both. Time is that of tuning: `Trainer.train()`
there, tokenisation not counted; here `tune()` with tokenisation, validation and checkpoints. A tenth of
the training rows is held out for validation and learned by neither. The
test metric is macro-F1 (or accuracy, printed beside it) of the final model in fp32.

With `--freeze head_only last_2` the same parameters are held in both: those that tunewell's `strategy: freeze` holds.
`--batch` gives both that many rows a step; without it each has its own default.

    python benchmarks/speed.py --data-root DATA
    python benchmarks/speed.py --data-root DATA --freeze head_only last_2
    python benchmarks/speed.py --data-root DATA --sets imdb --rows 300 --epochs 1 --max-length 512 --test-rows 200

The last column is the share of this machine's measured peak of matrix products that tunewell's tuning reached.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

from common import child, file_of, parser, record, spread


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """One tuning; runs in the child process."""
    import datasets
    from sklearn.metrics import accuracy_score, f1_score

    from tunewell.data.load import load
    from tunewell.memory import peak_memory_mb
    from tunewell.models.embed import logits

    datasets.disable_progress_bars()
    train, test = (load(job[k]).dataset for k in ("train", "test"))
    labels = sorted(set(map(str, train["label"])))
    if job["test_rows"]:
        test = test.select(range(min(len(test), job["test_rows"])))
    with tempfile.TemporaryDirectory() as folder:
        how = with_trainer if job["how"] == "trainer" else with_tunewell
        model, tokenizer, seconds, share = how(job, train, labels, Path(folder))
    peak = peak_memory_mb()
    answers = logits(model, tokenizer, list(test["text"]), max_length=job["max_length"]).argmax(1)
    truth = [labels.index(str(label)) for label in test["label"]]
    return {
        "seconds": round(seconds, 2),
        "peak_mb": round(peak),
        "share_of_peak": share,
        "rows": len(train),
        "f1_macro": float(f1_score(truth, answers, average="macro")),
        "accuracy": float(accuracy_score(truth, answers)),
    }


def with_trainer(
    job: dict[str, Any], train: Any, labels: list[str], folder: Path
) -> tuple[Any, Any, float, float | None]:
    """`transformers.Trainer` as it comes: nothing set but epochs, seed and folder."""
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    from tunewell.models.load import locate

    path = locate(job["model"])
    set_seed(job["seed"])
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=len(labels))
    rows = train.map(
        lambda r: {
            **tokenizer(r["text"], truncation=True, max_length=job["max_length"]),
            "labels": labels.index(str(r["label"])),
        },
        remove_columns=train.column_names,
    )
    if job["freeze"] != "none":
        hold(model, job["freeze"])
    batch = {"per_device_train_batch_size": job["batch"]} if job["batch"] else {}
    arguments = TrainingArguments(
        output_dir=str(folder), num_train_epochs=job["epochs"], seed=job["seed"], disable_tqdm=True, **batch
    )
    trainer = Trainer(model, arguments, train_dataset=rows, data_collator=DataCollatorWithPadding(tokenizer))
    started = time.perf_counter()
    trainer.train()
    return model.eval(), tokenizer, time.perf_counter() - started, None


def hold(model: Any, freeze: str) -> None:
    """Hold the parameters that `strategy: freeze` holds."""
    from tunewell.strategies.layers import depths, head_depth

    places, layers = depths(model), head_depth(model) - 1
    lowest = layers + 1 - (0 if freeze == "head_only" else int(freeze.removeprefix("last_")))
    for name, p in model.named_parameters():
        p.requires_grad_(places[name] >= lowest)


def with_tunewell(
    job: dict[str, Any], train: Any, labels: list[str], folder: Path
) -> tuple[Any, Any, float, float | None]:
    """tunewell plain with its defaults, validation and choice of the best epoch included."""
    from tunewell.predict import Predictor
    from tunewell.recipe_file import load_recipe
    from tunewell.run import tune_only

    recipe = load_recipe(
        model=job["model"],
        train=job["train"],
        test=job["test"],
        text="text",
        label="label",
        task="text-classification",
        **({"strategy": "plain"} if job["freeze"] == "none" else {"strategy": "freeze", "freeze": job["freeze"]}),
        **({"per_device_train_batch_size": job["batch"]} if job["batch"] else {}),
        probes="none",
        seed=job["seed"],
        num_train_epochs=job["epochs"],
        max_length=job["max_length"],
        validation=job["validation"],
        output_dir=str(folder / "run"),
        **job["keys"],
    )
    tune_only(recipe, echo=lambda line: None, progress=False)
    training = json.loads((folder / "run" / "train" / "training.json").read_text())
    predictor = Predictor.load(folder / "run")
    share = (training["accounting"] or {}).get("share_of_peak")
    return predictor.model, predictor.tokenizer, training["seconds"], share


def main() -> None:
    args = parser(__doc__ or "")
    args.add_argument("--sets", nargs="+", default=["sst2", "ag_news"])
    args.add_argument("--epochs", type=float, default=3.0)
    args.add_argument("--max-length", type=int, default=128)
    args.add_argument("--test-rows", type=int, default=2000)
    args.add_argument("--rows", type=int, default=0, help="training rows at most; 0 for all")
    args.add_argument("--freeze", nargs="+", default=["none"], help="none, head_only, last_K")
    args.add_argument("--batch", type=int, default=0, help="rows a step in both; 0 for each one's own default")
    args.add_argument("--keys", type=json.loads, default={}, help="further recipe keys of tunewell, as JSON")
    options = args.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    print(
        f"{'set':<10} {'freeze':<10} {'seed':>4} {'Trainer s':>10} {'tunewell s':>10} {'ratio':>6} {'MB':>6} {'MB':>6} "
        f"{'ratio':>6} {'F1':>7} {'F1':>7} {'of peak':>7}"
    )
    with tempfile.TemporaryDirectory() as folder:
        compare(options, folder)


def held_out(file: Path, seed: int, folder: Path, most: int = 0) -> dict[str, str]:
    """A tenth of the rows for validation, the rest for training; the same files for both sides."""
    lines = file.read_text(encoding="utf-8").rstrip("\n").split("\n")
    random.Random(seed).shuffle(lines)
    lines = lines[: most or None]
    cut = len(lines) // 10
    out = {}
    for split, part in (("validation", lines[:cut]), ("train", lines[cut:])):
        path = folder / f"{file.parent.name}-{seed}-{split}.jsonl"
        path.write_text("\n".join(part) + "\n", encoding="utf-8")
        out[split] = str(path)
    return out


def compare(options: Any, folder: str) -> None:
    for name, freeze in product(options.sets, options.freeze):
        rows = []
        for seed in options.seeds:
            job = {
                "model": options.model,
                **held_out(file_of(options.data_root, name, "train"), seed, Path(folder), options.rows),
                "test": str(file_of(options.data_root, name, "test")),
                "epochs": options.epochs,
                "seed": seed,
                "max_length": options.max_length,
                "test_rows": options.test_rows,
                "freeze": freeze,
                "batch": options.batch,
                "keys": options.keys,
            }
            a, b = (child(__file__, {**job, "how": how}) for how in ("trainer", "tunewell"))
            rows.append((a, b))
            print(
                f"{name:<10} {freeze:<10} {seed:>4} {a['seconds']:>10.1f} {b['seconds']:>10.1f} "
                f"{a['seconds'] / b['seconds']:>6.2f} {a['peak_mb']:>6} {b['peak_mb']:>6} "
                f"{b['peak_mb'] / a['peak_mb']:>6.2f} {a['f1_macro']:>7.4f} {b['f1_macro']:>7.4f} "
                f"{b['share_of_peak'] or 0:>7.2f}",
                flush=True,
            )
            for row in (a, b):
                record(options.output, {"benchmark": "speed", "set": name, **row})
        print(
            f"{name:<10} {freeze:<10} mean: time ratio {spread([a['seconds'] / b['seconds'] for a, b in rows])}, "
            f"memory ratio {spread([b['peak_mb'] / a['peak_mb'] for a, b in rows])}, F1 difference "
            f"{spread([b['f1_macro'] - a['f1_macro'] for a, b in rows])}",
            flush=True,
        )


if __name__ == "__main__":
    main()
