"""Does a method know which training rows a prediction rests on? The linear datamodelling score.

Park et al., 2023: train on random halves of the rows; the sum of a method's scores over the rows of a half should
rank the halves as the model's true output (log odds of the right class) on a test text does. Reported is Spearman's
correlation over the halves, averaged over test texts, with a 95 % bootstrap interval over the texts. Two models that
are quick to train again: the tiny encoder, tuned whole, and logistic regression on frozen embeddings ("heads").

    python benchmarks/influence.py --data-root DATA
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from common import file_of, parser, record

MAX_LENGTH, BATCH = 64, 16


def main() -> None:
    args = parser(__doc__ or "")
    args.set_defaults(model="splade-tiny")
    args.add_argument("--sets", nargs="+", default=["sst2", "ag_news"])
    args.add_argument("--rows", type=int, default=600)
    args.add_argument("--tests", type=int, default=100)
    args.add_argument("--halves", type=int, default=60)
    args.add_argument("--learning-rate", type=float, default=3e-4)
    args.add_argument("--epochs", type=int, default=3)
    args.add_argument("--keep", type=Path, default=None, help="folder where the retrained outputs are kept")
    options = args.parse_args()
    for name in options.sets:
        study(name, options)


def study(name: str, options: Any) -> None:
    """Train on halves once, then score every method on the same outputs."""
    from tunewell.explain.influence import DEFAULT, METHODS
    from tunewell.explain.influence.index import in_memory, query

    train, test = (
        [json.loads(line) for line in file_of(options.data_root, name, split).open(encoding="utf-8")]
        for split in ("train", "test")
    )
    train, test = train[: options.rows], test[: options.tests]
    task = Task(options, train, test)
    truth, halves = task.retrained(name)
    predictor = task.predictor(task.tune(np.arange(len(train)), seed=0))
    started = time.perf_counter()
    index = in_memory(predictor, task.texts, None, task.targets)
    built = time.perf_counter() - started
    asked = query(predictor, task.test_texts, None, task.test_targets)
    print(
        f"{name}: {len(train)} rows, {len(halves)} halves, {len(test)} test texts; index in {built:.1f} s", flush=True
    )
    methods = {n: m.scores for n, m in METHODS.items()}
    methods["similarity"] = lambda index, query: neighbours().similarity(index.features, query.features)
    methods["chance"] = lambda index, query: np.random.default_rng(0).normal(size=(len(query.which), len(index)))
    for method, scores in methods.items():
        started = time.perf_counter()
        found = scores(index, asked)
        seconds = time.perf_counter() - started
        each = correlations(found, halves, truth)
        low, high = interval(each)
        row = {"benchmark": "influence", "set": name, "model": options.model, "method": method, "lds": each.mean(),
               "low": low, "high": high, "seconds": seconds, "rows": len(train), "halves": len(halves)}  # fmt: skip
        record(options.output, row)
        mark = " (default)" if method == DEFAULT else ""
        print(f"{name:<8} {method:<11} LDS {each.mean():.3f} [{low:.3f}, {high:.3f}] {seconds:.2f} s{mark}", flush=True)


def neighbours() -> Any:
    from tunewell.explain.influence import neighbours as module

    return module


def correlations(scores: np.ndarray, halves: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(q,) Spearman's correlation of predicted and true outputs over the halves.

    Args:
        scores: (q, n). halves: (m, n) booleans. truth: (m, q).
    """
    from scipy.stats import spearmanr

    predicted = halves.astype(np.float64) @ scores.T
    return np.array([spearmanr(predicted[:, j], truth[:, j]).statistic for j in range(len(scores))])


def interval(values: np.ndarray) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (2000, len(values)))].mean(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


class Task:
    """One set and a model that is trained on parts of it."""

    def __init__(self, options: Any, train: list[dict], test: list[dict]) -> None:
        from tunewell.models.embed import encode
        from tunewell.models.load import load_tokenizer, locate
        from tunewell.tasks import TaskSpec

        self.options = options
        labels = sorted({row["label"] for row in train})
        self.spec = TaskSpec("text-classification", tuple(labels))
        self.texts, self.test_texts = [r["text"] for r in train], [r["text"] for r in test]
        self.targets = np.array([labels.index(r["label"]) for r in train])
        self.test_targets = np.array([labels.index(r["label"]) for r in test])
        self.tokenizer = load_tokenizer(options.model, locate(options.model))
        self.encoded = encode(self.tokenizer, self.texts, None, MAX_LENGTH)

    def predictor(self, model: Any) -> Any:
        from tunewell.predict import Predictor

        return Predictor(model, self.tokenizer, self.spec, MAX_LENGTH)

    def tune(self, rows: np.ndarray, seed: int) -> Any:
        """The base model tuned on some rows: AdamW, warm-up and linear decay; small enough to be told at a glance."""
        import torch

        from tunewell.models.embed import pad
        from tunewell.models.load import load_classifier

        model = load_classifier(self.options.model, self.spec, seed=seed).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.options.learning_rate, weight_decay=0.01)
        steps = self.options.epochs * -(-len(rows) // BATCH)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / (0.1 * steps)) * max(0.0, 1 - step / steps)
        )
        rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        for _ in range(self.options.epochs):
            order = rng.permutation(rows)
            for start in range(0, len(order), BATCH):
                batch = order[start : start + BATCH]
                logits = model(**pad(self.tokenizer, self.encoded, batch)).logits
                loss = torch.nn.functional.cross_entropy(logits, torch.as_tensor(self.targets[batch]))
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
        return model.eval()

    def outputs(self, model: Any) -> np.ndarray:
        """(q,) log odds of the right class."""
        from scipy.special import log_softmax, logsumexp

        from tunewell.models.embed import logits

        log_p = log_softmax(logits(model, self.tokenizer, self.test_texts, max_length=MAX_LENGTH).astype(float), axis=1)
        right = np.eye(len(self.spec.labels), dtype=bool)[self.test_targets]
        return log_p[right] - logsumexp(np.where(right, -np.inf, log_p), axis=1)

    def retrained(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(m, q) true outputs, means over two seeds, and (m, n) the halves."""
        from tqdm import tqdm

        o, n = self.options, len(self.texts)
        kept = o.keep / f"{name}-{o.model}-{n}-{o.halves}-{o.epochs}-{o.learning_rate:g}.npz" if o.keep else None
        if kept is not None and kept.is_file():
            with np.load(kept) as file:
                return file["truth"], file["halves"]
        rng = np.random.default_rng(0)
        halves = np.stack([np.isin(np.arange(n), rng.permutation(n)[: n // 2]) for _ in range(o.halves)])
        truth = np.stack(
            [
                np.mean([self.outputs(self.tune(np.flatnonzero(half), seed)) for seed in (1, 2)], axis=0)
                for half in tqdm(halves, desc=name)
            ]
        )
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.savez(kept, truth=truth, halves=halves)
        return truth, halves


if __name__ == "__main__":
    main()
