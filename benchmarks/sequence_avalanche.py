"""Avalanche's side of sequence.py: its naive, EWC and replay strategies in an interpreter that has `avalanche-lib`.

The same body, heads, rows, order, epochs, batches, optimiser and schedule as tunewell's; its own plugins hold the
earlier tasks. It trains in fp32 on all rows that it is given, and needs none for validation. Called with one JSON
argument.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks import benchmark_from_datasets, task_incremental_benchmark
from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_tensor_classification_dataset
from avalanche.models.dynamic_modules import MultiTaskModule
from avalanche.training.plugins import EWCPlugin, ReplayPlugin, SupervisedPlugin
from avalanche.training.templates import SupervisedTemplate
from transformers import AutoModel, AutoTokenizer


class Heads(MultiTaskModule):
    """A body that all tasks share, and for each task a pooler, dropout and a linear layer over the first token."""

    def __init__(self, folder: str, classes: list[int]) -> None:
        super().__init__()
        self.body = AutoModel.from_pretrained(folder)
        size, pooler = self.body.config.hidden_size, self.body.pooler.dense
        self.body.pooler = None
        self.poolers, self.heads = torch.nn.ModuleList(), torch.nn.ModuleList()
        for n in classes:
            own = torch.nn.Linear(size, size)
            own.load_state_dict(pooler.state_dict())
            head = torch.nn.Linear(size, n)
            torch.nn.init.normal_(head.weight, std=0.02)
            torch.nn.init.zeros_(head.bias)
            self.poolers.append(own)
            self.heads.append(head)
        self.dropout, self.most = torch.nn.Dropout(0.1), max(classes)

    def adaptation(self, experience: Any) -> None:
        """All heads are there from the start."""

    def forward(self, x: torch.Tensor, task_labels: torch.Tensor) -> torch.Tensor:
        """x (B, 2, T): ids and mask; logits (B, most classes of a task), those that a task lacks at −1e4."""
        longest = int(x[:, 1].sum(1).max())
        ids, mask = x[:, 0, :longest], x[:, 1, :longest]
        first = self.body(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
        out = first.new_full((len(x), self.most), -1e4)
        for task in task_labels.unique().tolist():
            at = task_labels == task
            logits = self.heads[task](self.dropout(torch.tanh(self.poolers[task](first[at]))))
            out[at] = torch.nn.functional.pad(logits, (0, self.most - logits.shape[1]), value=-1e4)
        return out


class FreshOptimiser(SupervisedPlugin):
    """For each task a new AdamW, drawn heads faster than the body: 10 % of warm-up, then down to zero in a line.

    Gradients are clipped at norm 1.
    """

    def __init__(self, rate: float, head_factor: float, epochs: int) -> None:
        super().__init__()
        self.rate, self.head_factor, self.epochs = rate, head_factor, epochs

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        groups = [
            {"params": [p], "weight_decay": 0.01 if p.ndim > 1 else 0.0, "lr": self.rate * factor}
            for name, p in strategy.model.named_parameters()
            for factor in [self.head_factor if name.startswith("heads.") else 1.0]
        ]
        strategy.optimizer = torch.optim.AdamW(groups, lr=self.rate)
        steps = self.epochs * -(-len(strategy.adapted_dataset) // strategy.train_mb_size)
        warm = -(-steps // 10)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            strategy.optimizer, lambda i: min((i + 1) / warm, max(0.0, (steps - i) / max(1, steps - warm)))
        )

    def before_update(self, strategy: Any, **_: Any) -> None:
        torch.nn.utils.clip_grad_norm_(strategy.model.parameters(), 1.0)

    def after_update(self, strategy: Any, **_: Any) -> None:
        self.schedule.step()


def rows_of(file: str, most: int, seed: int) -> list[dict[str, str]]:
    """The rows that tunewell's side takes."""
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    return [json.loads(x) for x in (random.Random(seed).sample(lines, most) if most and len(lines) > most else lines)]


def main() -> None:
    job = json.loads(sys.argv[1])
    random.seed(job["seed"])
    np.random.seed(job["seed"])
    torch.manual_seed(job["seed"])
    tokenizer = AutoTokenizer.from_pretrained(job["folder"])
    parts: dict[str, list[Any]] = {"train": [], "test": []}
    classes = []
    for task, name in enumerate(job["order"]):
        rows = {
            s: rows_of(job["files"][name][s], job["rows" if s == "train" else "test_rows"], job["seed"]) for s in parts
        }
        labels = sorted({r["label"] for r in rows["train"]})
        classes.append(len(labels))
        for split, found in rows.items():
            made = tokenizer(
                [r["text"] for r in found], padding="max_length", truncation=True,
                max_length=job["keys"].get("max_length", 128), return_tensors="pt",
            )  # fmt: skip
            x = torch.stack([made["input_ids"], made["attention_mask"]], 1)
            y = torch.tensor([labels.index(r["label"]) for r in found])
            parts[split].append((x, y, task))
    streams = [
        _make_taskaware_tensor_classification_dataset(x, y, targets=y, task_labels=task)
        for x, y, task in parts["train"]
    ]
    model, how = Heads(job["folder"], classes), job["how"]
    plugins: list[Any] = [FreshOptimiser(job["rate"], job["head_factor"], job["epochs"])]
    if how["strategy"] == "ewc":
        plugins.append(EWCPlugin(how["ewc_lambda"]))
    elif how["strategy"] == "replay":
        plugins.append(ReplayPlugin(int(how["memory"] * sum(len(x) for x, _, _ in parts["train"]))))
    strategy = SupervisedTemplate(
        model=model, optimizer=torch.optim.AdamW(model.parameters()), criterion=torch.nn.CrossEntropyLoss(),
        train_mb_size=job["batch"], train_epochs=job["epochs"], plugins=plugins, evaluator=None, device="cpu",
    )  # fmt: skip
    matrix: list[list[float | None]] = []
    started = time.perf_counter()
    for experience in task_incremental_benchmark(
        benchmark_from_datasets(train=streams), reset_task_labels=True
    ).streams["train"]:
        strategy.train(experience)
        model.eval()
        row: list[float | None] = [None] * len(classes)
        for x, y, task in parts["test"][: len(matrix) + 1]:
            with torch.no_grad():
                said = torch.cat([model(b, torch.full((len(b),), task)).argmax(1) for b in x.split(64)])
            row[task] = float((said == y).float().mean())
        matrix.append(row)
    last, diagonal = matrix[-1], [matrix[i][i] for i in range(len(classes))]
    figures = {
        "matrix": matrix,
        "average_accuracy": float(np.mean(last)),
        "backward_transfer": float(np.mean(np.subtract(last, diagonal)[:-1])),
        "seconds": time.perf_counter() - started,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
