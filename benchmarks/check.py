"""The data check on many short rows: rows a second and peak memory.

Synthetic reviews with planted faults (see `write`): exact duplicates, near duplicates, copies under
another label, labels in other case, e-mail addresses. Each size is checked by `tunewell check` in a
process of its own, from the CSV file to the findings, tokens of the model counted; the planted rows are
counted again in what it found (near duplicates within and across splits). `CPU s` is the processor time
of the check, which other work on the machine does not lengthen.

    python benchmarks/check.py
"""

from __future__ import annotations

import csv
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from common import child, parser, record

WORDS = 20_000  # different words
MOOD = 40  # words of each label; a row has one or two of its own label's
LEAST, MOST = 6, 18  # words a row
LABELS = ("negative", "neutral", "positive")
DUPLICATE, NEAR, CONFLICT, EMAIL = 0.01, 0.01, 0.005, 0.001  # shares of the rows


def write(path: Path, rows: int, seed: int) -> dict[str, int]:
    """A CSV of `rows` reviews; returns how many of each fault were planted."""
    rng = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(WORDS)]
    moods = {label: words[i * MOOD : (i + 1) * MOOD] for i, label in enumerate(LABELS)}
    kept: list[tuple[list[str], str]] = []
    planted = dict.fromkeys(("duplicates", "near-duplicates", "conflicting-labels", "email"), 0)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(rows):
            chance, label = rng.random(), rng.choice(LABELS)
            text = rng.choices(words, k=rng.randint(LEAST, MOST) - 2) + rng.choices(moods[label], k=2)
            rng.shuffle(text)
            if kept and chance < DUPLICATE:
                text, label = kept.pop(rng.randrange(len(kept)))
                planted["duplicates"] += 1
            elif kept and chance < DUPLICATE + NEAR:
                text, label = kept.pop(rng.randrange(len(kept)))
                text = [*text, "!!"]
                planted["near-duplicates"] += 1
            elif kept and chance < DUPLICATE + NEAR + CONFLICT:
                text, was = kept.pop(rng.randrange(len(kept)))
                label = "negative" if was != "negative" else "positive"
                planted["conflicting-labels"] += 2
            elif chance < DUPLICATE + NEAR + CONFLICT + EMAIL:
                text = [*text, f"{rng.choice(words)}@example.org"]
                planted["email"] += 1
            elif len(text) >= 12 and len(kept) < rows // 10:
                kept.append((text, label))
            writer.writerow([" ".join(text), label])
    return planted


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """One check of the whole file; runs in the child process."""
    from tunewell.memory import peak_memory_mb
    from tunewell.recipe_file import load_recipe
    from tunewell.run import check_only

    with tempfile.TemporaryDirectory() as folder:
        recipe = load_recipe(
            train=job["file"],
            text="text",
            label="label",
            task="text-classification",
            model=job["model"],
            output_dir=str(Path(folder) / "run"),
        )
        started, busy = time.perf_counter(), time.process_time()
        report = check_only(recipe, echo=lambda line: None)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - busy
    found: dict[str, int] = {}
    for finding in report.findings:
        # a near duplicate may stand in another split than its original: then it is near-leakage
        code = "near-duplicates" if finding.code == "near-leakage" else finding.code
        found[code] = found.get(code, 0) + finding.count
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "peak_mb": round(peak_memory_mb()),
        "rows_read": report.rows,
        "found": found,
    }


def main() -> None:
    args = parser(__doc__ or "")
    args.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    options = args.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    print(f"{'rows':>9} {'seconds':>8} {'rows/s':>8} {'CPU s':>8} {'peak MB':>8}  found of planted")
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "reviews.csv"
            planted = write(file, rows, options.seeds[0])
            row = child(__file__, {"file": str(file), "model": options.model, "rows": rows})
        del row["file"]
        found = ", ".join(f"{name} {row['found'].get(name, 0):,}/{n:,}" for name, n in planted.items())
        seconds, busy = row["seconds"], row["cpu_seconds"]
        figures = f"{rows:>9,} {seconds:>8.1f} {rows / seconds:>8,.0f} {busy:>8.1f} {row['peak_mb']:>8,}"
        print(f"{figures}  {found}", flush=True)
        record(options.output, {"benchmark": "check", "planted": planted, **row})


if __name__ == "__main__":
    main()
