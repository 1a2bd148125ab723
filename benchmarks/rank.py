"""Does a ranking without tuning agree with real tuning? Kendall's tau on a zoo of base models, and what it costs.

The zoo, the tasks and the real results are those of rank_truth.py; what is not there yet is tuned first (--no-tune
takes what is there). Every candidate is then scored by `tunewell rank` on the same training rows, and by
with --peer by transformer-ranker (`pip install 'tunewell[bench]'`). Reported for the four tasks of REPORT:
tau-b of the score and the real test score, the mean with a bootstrap interval over models, what the best by rank
loses against the best by tuning, and the processor time of ranking over that of tuning. The score that leads was
chosen on the tasks of CHOICE alone (--choice prints that table).

    python benchmarks/rank.py --data-root DATA --work FOLDER
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from common import record
from rank_truth import CHOICE, REPORT, collect, keys_of, known, make_zoo, options, write_task


def score_all(work: Path, root: Path, tasks: list[str], models: list[str], seed: int, options: Any) -> dict[Any, Any]:
    """Score every model on every task, ours and (with --peer) the peer's; what is there is kept."""
    rows, zoo = options.rows, make_zoo(work / "models")
    end = "" if rows is None else f"-{rows}"
    files = {"ours": work / f"scores{end}.jsonl"} | ({"peer": work / f"peer{end}.jsonl"} if options.peer else {})
    for who, path in files.items():
        for task in tasks:
            train, test = write_task(root, task, work / "tasks", options.times)
            keys = keys_of(task, train, test, seed=seed, epochs=3)
            for model in models:
                if (task, model, seed) not in known(path):
                    found = (ours if who == "ours" else peer)(keys, zoo[model], rows)
                    record(path, {"task": task, "model": model, "seed": seed, **found})
                    print(f"{who} {task:<14} {model:<22} {found['cpu']:.1f} s", flush=True)
    scores, others = known(files["ours"]), known(files["peer"]) if options.peer else {}
    from scipy.stats import rankdata

    from tunewell.rank.order import HALVES

    for task in tasks:  # the order of a ranking depends on all its candidates
        rows_of = [row for k, row in scores.items() if k[0] == task]
        ranks = sum(rankdata([row["scores"][half] for row in rows_of]) for half in HALVES)
        for row, r in zip(rows_of, ranks, strict=True):
            row["lead"] = float(r)
    return {k: {**row, "peer": others.get(k, {}).get("peer", {}), "peer_cpu": others.get(k, {}).get("cpu")}
            for k, row in scores.items()}  # fmt: skip


def ours(keys: dict[str, Any], model: Path, rows: int | None) -> dict[str, Any]:
    """All scores of one candidate and the processor time of the whole command's work."""
    import tunewell

    started = time.process_time()
    ranking = tunewell.rank(models=[str(model)], rows=rows, fresh=True, echo=lambda line: None, progress=False, **keys)
    best = ranking.best
    cost = {"seconds": best.tuning_seconds, "memory": best.memory_mb, "step": best.step_seconds}
    return {"scores": best.scores, "cpu": time.process_time() - started, "cost": cost}


def peer(keys: dict[str, Any], model: Path, rows: int | None) -> dict[str, Any]:
    """transformer-ranker as it comes (H-score, LogME for scores; mean of the layers) on the same rows, cut where ours
    are: it has no setting for the length, and would read all 512 tokens."""
    import logging

    from datasets import Dataset
    from transformer_ranker import TransformerRanker
    from transformers import AutoTokenizer

    from tunewell.rank.rows import ROWS, draw
    from tunewell.recipe_file import load_recipe
    from tunewell.stages.prepare import prepare

    logging.getLogger("transformer_ranker").setLevel(logging.ERROR)
    started = time.process_time()
    sample = draw(prepare(load_recipe(None, **keys)), rows or ROWS, keys["seed"])
    tokenizer = AutoTokenizer.from_pretrained(model)
    most = keys["max_length"] // (2 if sample.spec.pair else 1) - 2

    def cut(texts: list[str]) -> list[str]:
        ends = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
        return [t[: o[min(most, len(o)) - 1][1]] for t, o in zip(texts, ends, strict=True)]

    columns: dict[str, Any] = {"text": cut(sample.rows["text"][:]), "label": sample.targets.tolist()}
    pairs = {}
    if sample.spec.pair:
        columns["second"], pairs = cut(sample.rows["text_pair"][:]), {"text_pair_column": "second"}
    estimator = "logme" if sample.spec.regression else "hscore"
    ranker = TransformerRanker(Dataset.from_dict(columns), text_column="text", label_column="label", **pairs)
    found = ranker.run(models=[str(model)], estimator=estimator, layer_aggregator="layermean", device="cpu")
    return {"peer": {"peer": next(iter(found.scores.values()))}, "cpu": time.process_time() - started}


# ---------------------------------------------------------------- comparison


def taus(truth: dict[Any, Any], scores: dict[Any, Any], tasks: list[str], models: list[str]) -> dict[str, Any]:
    """score -> task -> Kendall's tau-b over the models that have both."""
    from scipy.stats import kendalltau

    out: dict[str, dict[str, float]] = {}
    for task in tasks:
        real = real_scores(truth, task)
        have = [m for m in models if m in real and any(k[:2] == (task, m) for k in scores)]
        if len(have) < 4:
            continue
        found = {m: next(v for k, v in scores.items() if k[:2] == (task, m)) for m in have}
        names = {**found[have[0]]["scores"], **found[have[0]].get("peer", {}), "lead": 0}
        for name in names:
            values = [{**found[m]["scores"], **found[m].get("peer", {}), "lead": found[m]["lead"]}[name] for m in have]
            out.setdefault(name, {})[task] = float(kendalltau(values, [real[m] for m in have]).statistic)
    return out


def real_scores(truth: dict[Any, Any], task: str) -> dict[str, float]:
    """model -> mean test score over the seeds that were tuned."""
    each: dict[str, list[float]] = {}
    for (name, model, _), row in truth.items():
        if name == task:
            each.setdefault(model, []).append(row["score"])
    return {model: float(np.mean(values)) for model, values in each.items()}


def spread_over_models(truth: Any, scores: Any, tasks: list[str], models: list[str], name: str) -> tuple[float, float]:
    """95 % bootstrap interval of the mean tau, models drawn with replacement, the same for all tasks."""
    from scipy.stats import kendalltau

    rng, means = np.random.default_rng(0), []
    table = {}
    for task in tasks:
        real = real_scores(truth, task)
        rows = {k[1]: v for k, v in scores.items() if k[0] == task}
        if all(m in real and m in rows for m in models):
            guess = [
                {**rows[m]["scores"], **rows[m].get("peer", {}), "lead": rows[m]["lead"]}.get(name) for m in models
            ]
            if None not in guess:
                table[task] = np.array(guess, dtype=float), np.array([real[m] for m in models])
    if not table:
        return float("nan"), float("nan")
    for _ in range(1000):
        pick = rng.integers(0, len(models), len(models))
        each = [kendalltau(a[pick], b[pick]).statistic for a, b in table.values()]
        means.append(np.nanmean(each) if not np.all(np.isnan(each)) else np.nan)
    return float(np.nanquantile(means, 0.025)), float(np.nanquantile(means, 0.975))


def show(truth: Any, scores: Any, tasks: list[str], models: list[str]) -> dict[str, Any]:
    """Print tau by task for every score, best mean first."""
    found = taus(truth, scores, tasks, models)
    have = [t for t in tasks if any(t in row for row in found.values())]
    print(f"\n{'tau-b':<20}" + "".join(f"{t:>15}" for t in have) + f"{'mean':>9}   95 % interval")
    for name, row in sorted(found.items(), key=lambda item: -float(np.mean(list(item[1].values())))):
        low, high = spread_over_models(truth, scores, have, models, name)
        cells = "".join(f"{row[t]:>15.3f}" if t in row else f"{'–':>15}" for t in have)
        print(f"{name:<20}{cells}{np.mean(list(row.values())):>9.3f}   {low:.2f} to {high:.2f}")
    for task in have:
        real = real_scores(truth, task)
        rows = {k[1]: v for k, v in scores.items() if k[0] == task and k[1] in real}
        chosen = max(rows, key=lambda m: rows[m]["lead"])
        tuning = sum(v["tune_cpu"] for k, v in truth.items() if k[0] == task) / len(
            {k[2] for k in truth if k[0] == task}
        )
        ranking = sum(v["cpu"] for v in rows.values())
        peers = [v["peer_cpu"] for v in rows.values() if v.get("peer_cpu")]
        print(
            f"{task}: rank takes {chosen} ({real[chosen]:.3f}), the best is {max(real, key=lambda m: real[m])} "
            f"({max(real.values()):.3f}); ranking {ranking:.0f} s of processor time, tuning all {tuning:.0f} s: "
            f"{ranking / tuning:.1%}" + (f"; the peer {sum(peers):.0f} s" if len(peers) == len(rows) else "")
        )
    return found


def main() -> None:
    args = options()
    args.add_argument("--rows", type=int, default=None, help="rows that a ranking looks at; by default tunewell's own")
    args.add_argument("--no-tune", action="store_true", help="compare with the real results that are there")
    args.add_argument("--peer", action="store_true", help="transformer-ranker on the same rows too")
    args.add_argument("--choice", action="store_true", help="the tasks on which the leading score was chosen")
    chosen = args.parse_args()
    tasks = [t for t in chosen.tasks if t in (CHOICE if chosen.choice else REPORT)]
    if not chosen.no_tune:
        collect(chosen.data_root, chosen.work, tasks, chosen.models, chosen.seeds, chosen.epochs, chosen.times)
    truth = known(chosen.work / "truth.jsonl")
    tasks = [t for t in tasks if all(m in real_scores(truth, t) for m in chosen.models)]
    scores = score_all(chosen.work, chosen.data_root, tasks, chosen.models, chosen.seeds[0], chosen)
    found = show(truth, scores, tasks, chosen.models)
    if chosen.output:
        record(chosen.output, {"benchmark": "rank", "tasks": tasks, "tau": json.loads(json.dumps(found))})


if __name__ == "__main__":
    main()
