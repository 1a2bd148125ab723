"""A pool of prompts and answers in two languages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

GERMAN = [("rot", "Zimmer"), ("blau", "Sitz"), ("grün", "Essen"), ("schwarz", "Telefon"), ("weiß", "Zimmer")]
ENGLISH = [("red", "room"), ("blue", "seat"), ("green", "meal"), ("black", "phone"), ("white", "hotel")]
KEYS: dict[str, Any] = {
    "bf16": False, "threads": 1, "learning_rate": 1e-3, "max_length": 128, "lora_rank": 4, "lora_rate_factor": 1.0,
    "per_device_train_batch_size": 4, "num_train_epochs": 2, "progress": False,
}  # fmt: skip


def german(i: int) -> dict[str, str]:
    colour, thing = GERMAN[i % 5]
    return {"prompt": f"das {thing} {i}", "completion": f"das {thing} war {colour}"}


def english(i: int) -> dict[str, str]:
    colour, thing = ENGLISH[i % 5]
    return {"prompt": f"say {thing} {i}", "completion": f"the {thing} was {colour}"}


def save(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
