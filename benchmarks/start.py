"""How fast the command line answers, and how fast and in how much memory `predict` moves rows.

Claims: `tunewell --help` answers in under 0.3 s; predictions of files larger than memory.

    python benchmarks/start.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = (["--help"], ["--version"], ["run", "--help"], ["run", "--keep", "98"])


def start(repeats: int) -> None:
    """Median and worst wall time of commands that load no model."""
    print(f"{'tunewell':<20}{'median':>9}{'worst':>9}")
    for arguments in COMMANDS:
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-m", "tunewell", *arguments], capture_output=True, check=False)
            seconds.append(time.perf_counter() - started)
        print(f"{' '.join(arguments):<20}{statistics.median(seconds):>7.2f} s{max(seconds):>7.2f} s")


def rows(kind: str, n: int) -> dict[str, float]:
    """Read `n` rows, add answers that cost nothing, write them: rows a second and peak memory of this process."""
    from tunewell.data.rows import open_rows
    from tunewell.data.write_rows import Columns, RowWriter
    from tunewell.memory import peak_memory_mb

    answer = {"prediction": "yes", "probabilities": {"no": 0.25, "yes": 0.75}}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / f"in.{kind}", Path(folder) / f"out.{kind}"
        with source.open("w", encoding="utf-8") as file:
            file.write("id,text\n" if kind == "csv" else "")
            for i in range(n):
                text = f"the flight was good and the crew was nice, number {i} of many"
                file.write(f'{i},"{text}"\n' if kind == "csv" else json.dumps({"id": i, "text": text}) + "\n")
        started = time.perf_counter()
        with open_rows(str(source)) as opened:
            columns = Columns(opened.columns, ("no", "yes"), regression=False, multi_label=False)
            with RowWriter(str(target), kind, opened, columns) as writer:
                for chunk in opened:
                    writer.write(chunk, [answer] * len(chunk.texts("text")))
        seconds = time.perf_counter() - started
    return {"rows": n, "rows_per_second": round(n / seconds), "peak_memory_mb": round(peak_memory_mb())}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=20)
    options.add_argument("--child", nargs=2, metavar=("KIND", "ROWS"), help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.child:
        print(json.dumps(rows(chosen.child[0], int(chosen.child[1]))))
        return
    start(chosen.repeats)
    print(f"\n{'predict, no model':<20}{'rows':>12}{'rows/s':>12}{'peak memory':>14}")
    for kind in ("csv", "jsonl"):
        for n in (100_000, 1_000_000):
            line = [sys.executable, __file__, "--child", kind, str(n)]
            found = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
            memory = f"{found['peak_memory_mb']:,} MB"
            print(f"{kind:<20}{n:>12,}{found['rows_per_second']:>12,}{memory:>14}")


if __name__ == "__main__":
    main()
