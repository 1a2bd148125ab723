"""Do changed copies of a few rows help? A run without them, with them by each operation, and with mixup.

For each set, number of labels a class and seed the same rows are drawn from train, and validation rows beside them;
all methods are scored on the same seeded sample of test. `with` is what learning from the copies gives at the same
number of steps, `run` what `tunewell run --augment` left after its paired test on validation, `kept` how often that
kept the copies. Differences from `plain` are paired by draw, with Student's 95 % interval over draws.

    python benchmarks/augment.py --data-root DATA --sets sst2 ag_news --shots 8 32 --seeds 1 2 3

`nlpaug` is no dependency: where it is installed its random swap, random deletion and keyboard errors make the copies
of one more method (`nlpaug`), the same number of them, tuned for the same steps. Measurements that stand in
`--output` are not made again.
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from common import file_of, once, parser, spread

SETS = ("sst2", "ag_news")
METHODS = ("plain", "auto", "masked", "backtranslate", "mixup", "nlpaug")


def draw(job: dict[str, Any]) -> dict[str, list[dict[str, str]]]:
    """`shots` training rows of each class, as many for validation as `--validation` says, and test rows."""
    parts = []
    for split in ("train", "test"):
        with file_of(Path(job["root"]), job["set"], split).open(encoding="utf-8") as file:
            parts.append([{"text": r["text"], "label": str(r["label"])} for r in map(json.loads, file)])
    pool, test = parts
    order = np.random.default_rng(job["seed"]).permutation(len(pool))
    taken: dict[str, list[dict[str, str]]] = {row["label"]: [] for row in pool}
    rest = []
    for i in order:
        if len(taken[pool[i]["label"]]) < job["shots"]:
            taken[pool[i]["label"]].append(pool[i])
        else:
            rest.append(pool[i])
    some = np.random.default_rng(0).permutation(len(test))[: job["sample"]]
    train = [row for label in sorted(taken) for row in taken[label]]
    return {"train": train, "validation": rest[: job["validation"]], "test": [test[i] for i in some]}


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """One method in one cell; runs in the child process."""
    import tunewell

    with tempfile.TemporaryDirectory() as place:
        folder, rows = Path(place), draw(job)
        steps = -(-len(rows["train"]) // 16) * job["epochs"]
        if job["method"] == "nlpaug":
            rows["train"] = rows["train"] + by_nlpaug(rows["train"], job)
        for name, part in rows.items():
            text = "\n".join(json.dumps(row, ensure_ascii=False) for row in part)
            (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
        more: dict[str, Any] = {}
        if job["method"] == "mixup":
            more["strategy"] = ["mixup"]
        elif job["method"] not in ("plain", "nlpaug"):
            more |= {"augment": [job["method"]], "augment_factor": job["factor"]}
        run = tunewell.run(
            **{name: str(folder / f"{name}.jsonl") for name in rows}, model=job["model"], seed=job["seed"],
            probes=["none"], explain=0, monitor="off", calibrate="none", max_steps=steps, early_stopping_patience=0,
            output_dir=str(folder / "run"), progress=False, echo=lambda line: print(line, file=sys.stderr),
            **{**more, **job["keys"]},
        )  # fmt: skip
        out = {"accuracy": run.metrics["accuracy"].value, "steps": run.training.planned_steps}
        if run.augmentation is not None:
            found = run.augmentation
            out |= {
                "copies": found.kept, "left_out": found.left_out, "helps": found.helps, "why": found.why,
                "gain": None if found.comparison is None else found.comparison.difference.value,
                "with": with_copies(run, rows["test"], out["accuracy"]),
            }  # fmt: skip
        return out


def with_copies(run: Any, test: list[dict[str, str]], own: float) -> float:
    """Test accuracy of the tuning with copies, whether it was kept or not."""
    if run.augmentation.helps:
        return own
    path = run.dir / "train" / "augmented" / "tuned.safetensors"
    if not path.is_file():
        return own  # no copy was left
    from safetensors.torch import load_file

    predictor = run.predictor
    predictor.model.load_state_dict(load_file(str(path)))
    answers = predictor.predict([row["text"] for row in test])
    return float(np.mean([a == row["label"] for a, row in zip(answers, test, strict=True)]))


def by_nlpaug(rows: list[dict[str, str]], job: dict[str, Any]) -> list[dict[str, str]]:
    """Copies by nlpaug's counterparts of swap, delete and keyboard, in turn."""
    import random

    import nlpaug.augmenter.char as nac
    import nlpaug.augmenter.word as naw

    random.seed(job["seed"])
    np.random.seed(job["seed"])
    made = [
        naw.RandomWordAug(action="swap", aug_p=0.1),
        naw.RandomWordAug(action="delete", aug_p=0.1),
        nac.KeyboardAug(aug_word_p=0.1),
    ]
    out = []
    for copy in range(job["factor"]):
        for i, row in enumerate(rows):
            changed = made[(i + copy) % len(made)].augment(row["text"])
            text = changed[0] if isinstance(changed, list) else changed
            if text.strip() and text != row["text"]:
                out.append({**row, "text": text})
    return out


def main() -> None:
    args = parser(__doc__ or "")
    args.add_argument("--sets", nargs="+", default=list(SETS))
    args.add_argument("--shots", type=int, nargs="+", default=[8, 32, 128])
    args.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    args.add_argument("--factor", type=int, default=2, help="copies of each row")
    args.add_argument("--epochs", type=int, default=10, help="passes over the rows without copies")
    args.add_argument("--validation", type=int, default=200, help="validation rows")
    args.add_argument("--sample", type=int, default=1000, help="test rows")
    args.add_argument("--keys", type=json.loads, default={}, help="further recipe keys, as JSON")
    options = args.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    methods = [m for m in options.methods if m != "nlpaug" or find_spec("nlpaug")]
    if "plain" not in methods:
        sys.exit("name plain among --methods: the others are held against it")
    if left := [m for m in options.methods if m not in methods]:
        print(f"left out, not installed: {', '.join(left)}")
    found: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for seed in options.seeds:
        for shots in options.shots:
            for name in options.sets:
                for method in methods:
                    job = {
                        "set": name, "shots": shots, "seed": seed, "method": method, "root": str(options.data_root),
                        "model": options.model, "sample": options.sample, "factor": options.factor,
                        "epochs": options.epochs, "validation": options.validation, "keys": options.keys,
                    }  # fmt: skip
                    row, _ = once(__file__, job, "augment", options.output)
                    more = f", with copies {row['with']:.4f}, {row['why']}" if "with" in row else ""
                    print(f"{name}, {shots} a class, seed {seed}, {method}: {row['accuracy']:.4f}{more}", flush=True)
                    found.setdefault((name, shots, method), []).append(row)
    print(f"\n{'accuracy':<30}{'':>18}{'with − plain':>20}{'run − plain':>20}{'kept':>8}")
    for (name, shots, method), rows in found.items():
        plain = [r["accuracy"] for r in found[name, shots, "plain"]]
        own = [r["accuracy"] for r in rows]
        cells = [spread([r.get("with", r["accuracy"]) - p for r, p in zip(rows, plain, strict=True)])]
        cells.append(spread([a - p for a, p in zip(own, plain, strict=True)]))
        kept = f"{sum(r['helps'] for r in rows)}/{len(rows)}" if "helps" in rows[0] else "-"
        cells = ["-", "-"] if method == "plain" else cells
        print(f"{f'{name}, {shots} a class, {method}':<30}{spread(own):>18}{cells[0]:>20}{cells[1]:>20}{kept:>8}")


if __name__ == "__main__":
    main()
