"""Tunings of small runs, one after the other, alone or as one of several processes: `python jobs.py CASES.json`.

CASES.json: {"folder": …, "cases": {name: recipe keys}}. Process 0 leaves folder/name/train as a run has it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def tuned(folder: Path, cases: dict[str, dict[str, Any]]) -> None:
    """Tune each case in a run folder of its own."""
    from tunewell import processes
    from tunewell.recipe_file import load_recipe
    from tunewell.stages.job import Job
    from tunewell.stages.preflight import preflight
    from tunewell.stages.tune import tune

    processes.begin()
    if processes.rank():
        processes.assist()
        return
    for name, keys in cases.items():
        lines: list[str] = []
        with Job(load_recipe(**keys), output_dir=folder / name, echo=lines.append, progress=False) as job:
            preflight(job)
            processes.refuse(job)
            job.begin()
            tune(job)
        (folder / name / "said.txt").write_text("\n".join(lines), encoding="utf-8")
    processes.dismiss(folder)


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    tuned(Path(given["folder"]), given["cases"])
