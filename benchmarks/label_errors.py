"""Are planted label errors found? A tenth of the labels turned round, a plain run, and who stands at the top.

For each set and seed: 10 % of the training labels are changed to another class drawn at random, the run is tuned on
that file, and `tunewell influence RUN --label-errors` ranks its rows. Reported: the share of the planted errors among
the top 10 % of suspects, of the whole ranking and of each witness alone; cleanlab's ranking by the same out-of-fold
probabilities as it would be used by default (`pip install cleanlab`; its licence is AGPL, so tunewell does not depend
on it), and, with --correct, the test score after tuning on the file with the top tenth given their likely labels.

    python benchmarks/label_errors.py --data-root DATA
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from common import child, file_of, parser, record, spread

SETS = {"ag_news": 4000, "sst2": 2000}
SHARE = 0.1


def main() -> None:
    args = parser(__doc__ or "")
    args.add_argument("--sets", nargs="+", default=list(SETS))
    args.add_argument("--epochs", type=float, default=3)
    args.add_argument("--threads", type=int, default=None)
    args.add_argument("--correct", action="store_true", help="also tune on the corrected file")
    options = args.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    for name in options.sets:
        found: list[dict[str, Any]] = []
        for seed in options.seeds:
            job = {
                "set": name,
                "train": str(file_of(options.data_root, name, "train")),
                "test": str(file_of(options.data_root, name, "test")),
                "rows": SETS.get(name),
                "model": options.model,
                "seed": seed,
                "epochs": options.epochs,
                "threads": options.threads,
                "correct": options.correct,
            }
            row = child(__file__, job)
            record(options.output, {"benchmark": "label_errors", **row})
            found.append(row["recall"])
            shown = ", ".join(f"{k} {v:.3f}" for k, v in row["recall"].items())
            print(f"{name:<8} seed {seed}: {shown}; {row['seconds']:.0f} s", flush=True)
            if options.correct:
                print(f"{name:<8} seed {seed}: test {row['scores']}", flush=True)
        for key in found[0]:
            print(f"{name:<8} {key:<12} {spread([f[key] for f in found])}", flush=True)


def plant(train: str, rows: int | None, seed: int) -> tuple[list[dict[str, Any]], np.ndarray]:
    """The first rows of a set with a tenth of the labels changed; (n,) which ones."""
    with Path(train).open(encoding="utf-8") as file:
        data = [json.loads(line) for line in file][:rows]
    labels = sorted({row["label"] for row in data})
    # a stream of its own: the run draws its splits from the same seed
    rng = np.random.default_rng([seed, 2_024])
    wrong = np.zeros(len(data), dtype=bool)
    wrong[rng.permutation(len(data))[: round(SHARE * len(data))]] = True
    for i in np.flatnonzero(wrong):
        data[i] = {**data[i], "label": str(rng.choice([name for name in labels if name != data[i]["label"]]))}
    return data, wrong


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """One planted file, one run, one ranking; runs in the child process."""
    import time

    from tunewell.explain.influence.label_errors import label_errors

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        data, wrong = plant(job["train"], job["rows"], job["seed"])
        train = folder / "train.jsonl"
        train.write_text("".join(json.dumps(row) + "\n" for row in data), encoding="utf-8")
        before = tune(job, train, folder / "run")
        started = time.perf_counter()
        found = label_errors(folder / "run")
        seconds = time.perf_counter() - started
        wrong = wrong[found.file.rows - 1]
        recall = {"ranking": top(-found.suspicion, wrong)}
        for name in ("p_base", "p_tuned", "neighbours", "margin"):
            recall[name] = top(found.columns[name], wrong)
        recall["self_influence"] = top(-found.columns["self_influence"], wrong)
        flagged = {
            "precision": float(wrong[found.flagged].mean()) if found.flagged.any() else None,
            "recall": float(found.flagged[wrong].mean()),
        }
        recall |= cleanlab(found, wrong)
        scores = {"with errors": before}
        if job["correct"]:
            rows = [dict(row) for row in data]
            for i in found.order[: int(wrong.sum())]:
                rows[int(found.file.rows[i]) - 1]["label"] = found.likely[i]
            corrected = folder / "corrected.jsonl"
            corrected.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            scores["corrected"] = tune(job, corrected, folder / "again")
        return {"recall": recall, "flagged": flagged, "seconds": seconds, "scores": scores}


def tune(job: dict[str, Any], train: Path, output: Path) -> float | None:
    """A plain run without probes; its test score."""
    import tunewell

    run = tunewell.run(
        train=str(train),
        test=job["test"],
        text="text",
        label="label",
        task="text-classification",
        model=job["model"],
        seed=job["seed"],
        num_train_epochs=job["epochs"],
        threads=job["threads"],
        probes="none",
        output_dir=str(output),
        echo=lambda line: None,
        progress=False,
        raise_on_gate=False,
    )
    return run.summary.test.value


def top(trust: np.ndarray, wrong: np.ndarray) -> float:
    """Share of the planted errors among as many rows with the least trust."""
    return float(wrong[np.argsort(trust, kind="stable")[: int(wrong.sum())]].mean())


def cleanlab(found: Any, wrong: np.ndarray) -> dict[str, float]:
    """cleanlab's default ranking by out-of-fold probabilities on the base model's embeddings and on the tuned one's."""
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        return {}
    from tunewell.explain.influence.out_of_fold import out_of_fold
    from tunewell.explain.influence.witnesses import forward

    rows = found.file
    passes, labels = forward(rows, echo=lambda line: None, progress=False), rows.targets()
    recalls = {}
    for name, x in (("cleanlab_base", passes.base), ("cleanlab_tuned", passes.tuned)):
        p = out_of_fold(rows.spec, x, labels, seed=0).astype(np.float64)
        recalls[name] = top(get_label_quality_scores(labels, p / p.sum(axis=1, keepdims=True)), wrong)
    return recalls


if __name__ == "__main__":
    main()
