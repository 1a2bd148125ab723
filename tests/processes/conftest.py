"""Small runs of every task, for tests that tune them in several processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import pair

KEYS = {
    "num_train_epochs": 2, "learning_rate": 1e-3, "bf16": False, "threads": 1, "per_device_train_batch_size": 8,
    "evals_per_epoch": 2, "early_stopping_patience": 0, "probes": ["none"], "general_samples": 32, "max_length": 64,
}  # fmt: skip


@pytest.fixture(scope="session")
def cases(tmp_path_factory, tiny_model, tiny_decoder, tiny_t5, make_reviews, save_csv) -> dict[str, dict]:
    """Recipes by name; the last batch of each epoch has one row, so that it is idle at the second process."""
    folder = tmp_path_factory.mktemp("tasks")
    bert, t5 = pair.without_dropout(tiny_model, folder / "bert"), pair.without_dropout(tiny_t5, folder / "t5")
    rows = make_reviews(60)
    (folder / "general.txt").write_text("\n".join(t for t, _ in make_reviews(48, seed=9)))

    def lines(name: str, made: list[dict]) -> str:
        (folder / name).write_text("\n".join(json.dumps(row) for row in made), encoding="utf-8")
        return str(folder / name)

    def split(name: str, header: tuple[str, ...], made: list[tuple]) -> dict[str, str]:
        ends = {"train": made[:33], "validation": made[33:46], "test": made[46:]}
        return {k: str(save_csv(folder / f"{name}-{k}.csv", v, header)) for k, v in ends.items()}

    def json_split(name: str, made: list[dict]) -> dict[str, str]:
        ends = {"train": made[:33], "validation": made[33:46], "test": made[46:]}
        return {k: lines(f"{name}-{k}.jsonl", v) for k, v in ends.items()}

    general = {"general_text": str(folder / "general.txt")}
    scores = split("scores", ("text", "label"), [(t, str(i % 7 / 2)) for i, (t, _) in enumerate(rows)])
    said = json_split(
        "said", [{"prompt": t, "completion": f"{label} " * (1 + i % 3)} for i, (t, label) in enumerate(rows)]
    )
    pairs = json_split("pairs", [{"source": t, "target": t.upper()[: 8 + i % 9]} for i, (t, _) in enumerate(rows)])
    classes = split("classes", ("text", "label"), rows)
    asked = []
    for i, (text, _) in enumerate(rows):
        word = text.split()[i % 3]
        answers = {"text": [word], "answer_start": [text.index(word)]}
        asked.append({"question": f"which {i % 5}?", "context": text, "answers": answers})
    questions = json_split("asked", asked)
    writer = {"model": str(tiny_decoder), "task": "text-generation", "generation_samples": 4, **general, **said}
    bare = {k: v for k, v in {**KEYS, **general, **classes}.items() if k != "validation"}
    return {
        "classes": {**KEYS, **general, **classes, "model": str(bert), "strategy": ["ewc", "ema", "lpft"],
                    "ema_decay": 0.5},
        "half": {**KEYS, **writer, "bf16": True, "strategy": ["distill"]},
        "recalled": {**bare, "model": str(bert), "validation_size": 0.0, "strategy": ["recadam", "swa", "llrd"],
                     "swa_start": 0.3},
        "adapted": {**KEYS, **writer, "strategy": ["lora"]},
        "scores": {**KEYS, **general, **scores, "model": str(bert), "strategy": ["l2sp", "distill"],
                   "gradient_accumulation_steps": 2},
        "answers": {**KEYS, **writer, "packing": False, "strategy": ["ewc"], "gradient_accumulation_steps": 2},
        "packed": {**KEYS, **writer, "packing": True, "strategy": ["distill", "rehearse", "l2sp"],
                   "gradient_accumulation_steps": 2},
        "anchored": {**KEYS, **writer, "strategy": ["anchor", "sdft"], "anchor_weight": 2.0},
        "likelihood": {**KEYS, **general, **classes, "model": str(tiny_decoder), "classify_by": "likelihood"},
        "translation": {**KEYS, **pairs, "model": str(t5), "task": "translation", "strategy": ["l2sp"],
                        "generation_samples": 4, "gradient_accumulation_steps": 2},
        "questions": {**KEYS, **general, **questions, "model": str(bert), "task": "question-answering",
                      "strategy": ["distill"]},
    }  # fmt: skip
