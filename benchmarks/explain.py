"""Are explanations of words true, do people agree, and how fast are they?

For each set and seed a model is tuned (or read from --runs) and three things are measured:

1. faithfulness: comprehensiveness and sufficiency (ERASER) of each method and of `auto` on the same test texts,
   against random orders of the same words; the difference of `auto` to each is paired by text;
2. plausibility: area under the precision-recall curve and token F1 against the words that people highlighted
   (yelp_hat, with the models tuned on yelp), against random scores and captum's integrated gradients as they come;
3. speed: integrated gradients against a plain loop of captum over the same texts, with the convergence delta of both
   and their distance from a fine integral;
4. calibration: the error (ECE) on test before and after the map fitted on validation, and how often prediction sets
   hold the truth against what they promise; read from the run;
5. a planted shortcut: a word without meaning is put in front of most rows of one label; is it found, and what is the
   accuracy on rows without it, before and after it is taken out of the training rows?

Intervals are 95 % t intervals over texts; with several seeds, over all texts of all seeds.

    python benchmarks/explain.py --data-root DATA
    python benchmarks/explain.py --data-root DATA --sets sst2 --seeds 1 --texts 16 --annotations 0
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from common import file_of, parser, record, spread

METHODS = (
    "random", "rollout", "gradient_x_input", "smoothgrad", "lime", "integrated_gradients", "attnlrp", "occlusion",
    "shapley",
)  # fmt: skip
TAG, PLANTED = "xq7", 0.6  # the planted word, and the share of its label's rows that get it
Faith = dict[str, list[tuple[float, float]]]  # method -> (comprehensiveness, sufficiency) a text


def tuned(options: argparse.Namespace, name: str, seed: int, root: Path) -> Any:
    """The run of a set and seed; one that is finished already is read back."""
    import tunewell

    if (root / f"{name}-{seed}" / "summary.json").is_file():
        return tunewell.load_run(root / f"{name}-{seed}")
    return tunewell.run(
        train=str(file_of(options.data_root, name, "train")),
        test=str(file_of(options.data_root, name, "test")),
        model=options.model,
        probes=["none"],
        explain=0,
        max_length=128,
        max_train_samples=options.rows,
        num_train_epochs=options.epochs,
        seed=seed,
        output_dir=str(root / f"{name}-{seed}"),
        echo=lambda line: None,
        progress=False,
    )


def texts_of(options: argparse.Namespace, name: str, seed: int) -> list[str]:
    with file_of(options.data_root, name, "test").open(encoding="utf-8") as file:
        rows = [json.loads(line)["text"] for line in file]
    drawn = np.random.default_rng(seed).permutation(len(rows))[: options.texts]
    return [rows[i] for i in drawn]


# ---------------------------------------------------------------- 1. faithfulness


def faithfulness(predictor: Any, texts: list[str], methods: list[str], seed: int) -> tuple[Faith, str, float]:
    """Figures a text and method, those of random orders and of `auto`; what auto took; the largest relative delta."""
    from tunewell.explain.faithfulness import measure
    from tunewell.explain.scorer import Scorer
    from tunewell.explain.segment import items_of
    from tunewell.explain.texts import explained
    from tunewell.explain.tokens import CANDIDATES, integrated_gradients, method

    scorer = Scorer(predictor.model, predictor.tokenizer, predictor.spec)
    items = items_of(predictor.tokenizer, texts, None, predictor.max_length)
    targets = scorer.logits(items).argmax(axis=1)
    found: Faith = {}
    delta = 0.0
    for name in methods:
        started = time.perf_counter()
        made = method(name).attribute(scorer, items, targets, seed=seed)
        seconds = time.perf_counter() - started
        true = measure(scorer, items, targets, [a.scores for a in made], seed=seed)
        found[name] = [(f.comprehensiveness, f.sufficiency) for f in true]
        found["random orders"] = [(f.comprehensiveness_random, f.sufficiency_random) for f in true]
        if name == "integrated_gradients":
            floor = integrated_gradients.FLOOR
            delta = max(max(0.0, a.delta - floor) / max(abs(a.total), 1e-9) for a in made)
        print(f"  {name:<22} {seconds:7.1f} s, {np.mean([a.passes for a in made]):.0f} passes a text", flush=True)
    some = [name for name in CANDIDATES if name in methods]
    chosen = list(explained(predictor, texts, budget=float("inf"), seed=seed, candidates=some))
    found["auto"] = [(e.faithfulness.comprehensiveness, e.faithfulness.sufficiency) for e in chosen]
    return found, chosen[0].method, delta


def table(found: Faith) -> None:
    auto = np.asarray(found["auto"])
    print(f"  {'':<22} {'comprehensiveness':<20} {'sufficiency':<20} auto − it, both")
    for name, values in sorted(found.items(), key=lambda pair: np.mean([c - s for c, s in pair[1]])):
        comp, suff = np.asarray(values).T
        gain = auto - np.asarray(values)
        against = "" if name == "auto" else f"{spread(list(gain[:, 0]))}, {spread(list(gain[:, 1]))}"
        print(f"  {name:<22} {spread(list(comp)):<20} {spread(list(suff)):<20} {against}", flush=True)


# ---------------------------------------------------------------- 2. plausibility


def plausibility(options: argparse.Namespace, predictor: Any, methods: list[str], seed: int) -> dict[str, list[float]]:
    """AUPRC of each method against each annotation; human words are parted by spaces and get their parts' sum."""
    from tunewell.explain.faithfulness import plausibility as agreement
    from tunewell.explain.scorer import Scorer
    from tunewell.explain.segment import items_of
    from tunewell.explain.tokens import method

    with (Path(options.data_root) / "yelp_hat" / "part1.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    rows = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))[: options.annotations]]
    texts = sorted({row["text"] for row in rows})
    items = dict(zip(texts, items_of(predictor.tokenizer, texts, None, predictor.max_length), strict=True))
    scorer = Scorer(predictor.model, predictor.tokenizer, predictor.spec)
    targets = scorer.logits(list(items.values())).argmax(axis=1)
    out: dict[str, list[float]] = defaultdict(list)
    made = {name: method(name).attribute(scorer, list(items.values()), targets, seed=seed) for name in methods}
    scores = {name: {t: a.scores for t, a in zip(texts, found, strict=True)} for name, found in made.items()}
    theirs = captum_loop(scorer, list(items.values()), targets, steps=50, zero=True)
    scores["captum defaults"] = dict(zip(texts, theirs, strict=True))
    for name, by_text in scores.items():
        for row in rows:
            text = row["text"]
            human = humans_words(text, row["words"])
            if len(human) != len(row["highlighted"]):
                continue
            spans = items[text].spans
            seen = [k for k, (start, _) in enumerate(human) if spans and start < spans[-1][1]]
            sums = np.zeros(len(human))
            for (start, _), score in zip(spans, by_text[text], strict=True):
                place = next((k for k, (a, b) in enumerate(human) if a <= start < b), None)
                if place is not None:
                    sums[place] += score
            found = agreement(sums[seen], np.asarray(row["highlighted"])[seen])
            if found is not None:
                out[name].append(found.auprc)
                out[f"{name}, token F1"].append(found.token_f1)
                if name == methods[0]:
                    out["share highlighted"].append(found.prevalence)
    return out


def humans_words(text: str, words: list[str]) -> list[tuple[int, int]]:
    """Characters of the annotators' words in the text; empty words stand where they would."""
    spans, at = [], 0
    for word in words:
        start = text.find(word, at)
        if start < 0:
            return []
        spans.append((start, start + len(word)))
        at = start + len(word)
    return spans


# ---------------------------------------------------------------- 3. speed


def captum_loop(scorer: Any, items: list, targets: np.ndarray, *, steps: int, zero: bool) -> list[np.ndarray]:
    """captum's LayerIntegratedGradients, a text at a time, as its tutorial has it; scores (W,) a text."""
    import torch
    from captum.attr import LayerIntegratedGradients

    def forward(ids: Any, types: Any, mask: Any, target: Any) -> Any:
        kinds = {} if types is None else {"token_type_ids": types}
        logits = scorer.model(input_ids=ids, attention_mask=mask, **kinds).logits
        return scorer.log_odds(logits, target.expand(len(ids)))

    theirs = LayerIntegratedGradients(forward, scorer.model.get_input_embeddings())
    empty = scorer.tokenizer.pad_token_id if zero else scorer.tokenizer.mask_token_id
    out = []
    for item, target in zip(items, targets, strict=True):
        ids = torch.as_tensor(item.ids)[None]
        types = None if item.types is None else torch.as_tensor(item.types)[None]
        start = torch.where(torch.as_tensor(item.word_of >= 0)[None], empty, ids)
        more = (types, torch.ones_like(ids), torch.tensor([int(target)]))
        found = theirs.attribute(ids, start, additional_forward_args=more, n_steps=steps)
        out.append(item.to_words(found.sum(dim=-1)[0].detach().double().numpy()))
    return out


def speed(predictor: Any, texts: list[str]) -> dict[str, float]:
    from tunewell.explain.scorer import Scorer
    from tunewell.explain.segment import items_of
    from tunewell.explain.tokens import integrated_gradients as ours

    scorer = Scorer(predictor.model, predictor.tokenizer, predictor.spec)
    items = items_of(predictor.tokenizer, texts, None, predictor.max_length)
    targets = scorer.logits(items).argmax(axis=1)
    fine = ours.attribute(scorer, items, targets, tolerance=1e-4)
    started = time.process_time()
    mine = ours.attribute(scorer, items, targets)
    own = time.process_time() - started
    started = time.process_time()
    theirs = captum_loop(scorer, items, targets, steps=50, zero=False)
    loop = time.process_time() - started

    def off(found: list[np.ndarray]) -> np.ndarray:
        return np.array(
            [np.abs(f - a.scores).max() / max(np.abs(a.scores).max(), 1e-9) for f, a in zip(found, fine, strict=True)]
        )

    def delta(found: list[np.ndarray]) -> float:
        return float(max(abs(f.sum() - a.total) / max(abs(a.total), 1e-9) for f, a in zip(found, fine, strict=True)))

    ours_off, theirs_off = off([a.scores for a in mine]), off(theirs)
    return {
        "seconds": own, "captum_seconds": loop, "ratio": loop / own, "passes": float(np.mean([a.passes for a in mine])),
        "tokens": float(np.mean([len(item.ids) for item in items])),
        "delta": delta([a.scores for a in mine]), "captum_delta": delta(theirs),
        "off_median": float(np.median(ours_off)), "captum_off_median": float(np.median(theirs_off)),
        "off_largest": float(ours_off.max()), "captum_off_largest": float(theirs_off.max()),
        "within_1e-3": float(np.mean(ours_off <= 1e-3)), "captum_within_1e-3": float(np.mean(theirs_off <= 1e-3)),
    }  # fmt: skip


# ---------------------------------------------------------------- 4. calibration


def calibration(run: Any) -> dict[str, float]:
    """Figures of calibration.json: ECE before and after, coverage less the promise for each set."""
    found = run.calibration
    out = {"ece_before": found.before["ece"].value, "ece_after": found.after["ece"].value}
    out["ece_after_high"] = found.after["ece"].high
    for c in found.sets:
        out[f"{c.method} {c.coverage:g}"] = c.measured.value - c.coverage
    return out


# ---------------------------------------------------------------- 5. a planted shortcut


def shortcut(options: argparse.Namespace, name: str, seed: int, root: Path) -> dict[str, Any]:
    """What is found of a planted word, and accuracy (shares) on test rows without it and with it put the wrong way."""
    rng = np.random.default_rng(seed)
    files: dict[str, list[dict[str, Any]]] = {}
    for split in ("train", "test"):
        with file_of(options.data_root, name, split).open(encoding="utf-8") as file:
            files[split] = [json.loads(line) for line in file]
    files["train"] = [files["train"][i] for i in rng.permutation(len(files["train"]))[: options.rows]]
    one = sorted({row["label"] for row in files["train"]})[0]

    def planted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        hit = rng.random(len(rows)) < PLANTED
        return [
            {**row, "text": f"{TAG} {row['text']}"} if h and row["label"] == one else row
            for h, row in zip(hit, rows, strict=True)
        ]

    work = root / f"{name}-{seed}-shortcut"
    work.mkdir(parents=True, exist_ok=True)
    marked = {split: planted(rows) for split, rows in files.items()}
    write(work / "train.jsonl", marked["train"])
    write(work / "test.jsonl", marked["test"])
    first = short_run(options, work, "train.jsonl", work / "before", seed, explain=1)
    words = [s.word for s in first.explanations.shortcuts]
    clean = [
        {**row, "text": " ".join(w for w in row["text"].split() if w.lower() not in words)} for row in marked["train"]
    ]
    write(work / "mended.jsonl", clean)
    second = short_run(options, work, "mended.jsonl", work / "after", seed, explain=0)
    plain = [row["text"] for row in files["test"]]
    labels = np.array([row["label"] for row in files["test"]])
    turned = [f"{TAG} {text}" if label != one else text for text, label in zip(plain, labels, strict=True)]
    out: dict[str, Any] = {"found": words, "planted_found": TAG in words}
    for when, run in (("before", first), ("after", second)):
        out[f"without_{when}"] = float(np.mean(np.array(run.predict(plain)) == labels))
        out[f"wrong_way_{when}"] = float(np.mean(np.array(run.predict(turned)) == labels))
    return out


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def short_run(options: argparse.Namespace, work: Path, train: str, to: Path, seed: int, *, explain: int) -> Any:
    import tunewell

    return tunewell.run(
        train=str(work / train), test=str(work / "test.jsonl"), model=options.model, probes=["none"],
        explain=explain, max_length=128, num_train_epochs=options.epochs, seed=seed, output_dir=str(to),
        echo=lambda line: None, progress=False,
    )  # fmt: skip


# ---------------------------------------------------------------- all


def main() -> None:
    args = parser(__doc__ or "")
    args.add_argument("--sets", nargs="+", default=["sst2", "yelp"])
    args.add_argument("--texts", type=int, default=200, help="test texts a set and seed")
    args.add_argument("--annotations", type=int, default=900, help="annotations of yelp_hat/part1; 0 for none")
    args.add_argument("--speed-texts", type=int, default=100, help="texts timed; 0 for none")
    args.add_argument("--shortcut", nargs="*", default=["sst2"], help="sets in which a shortcut is planted")
    args.add_argument("--methods", nargs="+", default=list(METHODS))
    args.add_argument("--rows", type=int, default=2000, help="training rows")
    args.add_argument("--epochs", type=float, default=3.0)
    args.add_argument("--runs", type=Path, default=None, help="folder where tuned models stay and are found again")
    options = args.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.sets:
            one_set(options, name, options.runs or Path(scratch))


def one_set(options: argparse.Namespace, name: str, root: Path) -> None:
    every: Faith = defaultdict(list)
    human: dict[str, list[float]] = defaultdict(list)
    for seed in options.seeds:
        run = tuned(options, name, seed, root)
        print(f"{name} seed {seed}: {run.summary.metric} {run.summary.test.value:.4f}", flush=True)
        texts = texts_of(options, name, seed)
        found, chosen, delta = faithfulness(run.predictor, texts, options.methods, seed)
        print(f"  auto took {chosen}; integrated gradients' largest delta {delta:.2%} of the score", flush=True)
        for method, values in found.items():
            every[method] += values
        means = {k: [float(x) for x in np.mean(v, axis=0)] for k, v in found.items()}
        row = {"benchmark": "explain", "set": name, "seed": seed, "auto": chosen, "delta": delta, "means": means}
        if options.speed_texts:
            row["speed"] = figures = speed(run.predictor, texts[: options.speed_texts])
            print("  speed: " + ", ".join(f"{k} {v:.3g}" for k, v in figures.items()), flush=True)
        if options.annotations and name == "yelp":
            for method, values in plausibility(options, run.predictor, options.methods, seed).items():
                human[method] += values
            row["auprc"] = {k: float(np.mean(v)) for k, v in human.items()}
        row["calibration"] = figures = calibration(run)
        print("  calibration: " + ", ".join(f"{k} {v:+.4f}" for k, v in figures.items()), flush=True)
        if name in options.shortcut:
            row["shortcut"] = planted = shortcut(options, name, seed, root)
            print("  shortcut: " + ", ".join(f"{k} {v}" for k, v in planted.items()), flush=True)
        record(options.output, row)
    print(f"{name}: all seeds, {len(every['auto'])} texts")
    table(every)
    for method, values in sorted(human.items(), key=lambda pair: np.mean(pair[1])):
        print(f"  agreement, AUPRC unless said: {method:<32} {spread(values)}  ({len(values)} annotations)", flush=True)


if __name__ == "__main__":
    main()
