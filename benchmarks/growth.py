"""Time and memory of one epoch as the rows grow: is the time linear, does the memory stay?

Rows are those of the public sets cut to their first words, each with a running number, so that no two are alike and
all sizes have like lengths. Every size is a process of its own. Reported are the seconds for all of tuning (reading the
rows into tokens, validation on 200 rows and checkpoints included) and the peak memory of the process.

    python benchmarks/growth.py --data-root DATA --model splade-tiny --sizes 1000 10000 100000
"""

from __future__ import annotations

import json
import tempfile
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from common import child, file_of, parser, record


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """One size; runs in the child process."""
    from tunewell.memory import peak_memory_mb
    from tunewell.recipe_file import load_recipe
    from tunewell.run import tune_only

    with tempfile.TemporaryDirectory() as folder:
        recipe = load_recipe(
            model=job["model"], train=job["train"], validation=job["validation"], text="text", label="label",
            strategy="plain", probes="none", seed=job["seed"], num_train_epochs=1, threads=job["threads"] or None,
            duplicates="keep", output_dir=str(Path(folder) / "run"),
        )  # fmt: skip
        tune_only(recipe, echo=lambda line: None, progress=False)
        training = json.loads((Path(folder) / "run" / "train" / "training.json").read_text())
    return {
        "seconds": training["seconds"],
        "cpu_seconds": training["cpu_seconds"],
        "tokens": training["tokens"],
        "tuning_peak_mb": training["peak_memory_mb"],
        "peak_mb": round(peak_memory_mb()),
    }


def write(root: Path | None, sets: list[str], words: int, sizes: list[int], folder: Path) -> dict[int, Path]:
    """A file of each size, and 200 more rows for validation under the size 0."""
    texts = []
    for name in sets:
        for line in file_of(root, name, "train").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            texts.append((" ".join(row["text"].split()[:words]), str(row["label"])))
    places = {}
    for size in (0, *sizes):
        rows = islice(enumerate(cycle(texts)), size or 200)
        path = folder / f"{size}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for i, (text, label) in rows:
                row = {"text": f"{text} {size} {i}", "label": label}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        places[size] = path
    return places


def main() -> None:
    args = parser(__doc__ or "")
    args.add_argument("--sets", nargs="+", default=["ag_news"])
    args.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    args.add_argument("--words", type=int, default=20)
    args.add_argument("--threads", type=int, default=0, help="0 for as many as there are cores")
    options = args.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    print(f"{'rows':>9} {'seed':>4} {'s':>8} {'cpu s':>8} {'tokens':>11} {'cpu µs/token':>13} {'MB':>7}")
    with tempfile.TemporaryDirectory() as folder:
        files = write(options.data_root, options.sets, options.words, options.sizes, Path(folder))
        for seed in options.seeds:
            for size in options.sizes:
                job = {
                    "model": options.model, "train": str(files[size]), "validation": str(files[0]), "rows": size,
                    "seed": seed, "threads": options.threads,
                }  # fmt: skip
                row = child(__file__, job)
                record(options.output, {"benchmark": "growth", **row})
                each = 1e6 * row["cpu_seconds"] / row["tokens"]
                print(
                    f"{size:>9,} {seed:>4} {row['seconds']:>8.1f} {row['cpu_seconds']:>8.1f} {row['tokens']:>11,} "
                    f"{each:>13.1f} {row['peak_mb']:>7,}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
