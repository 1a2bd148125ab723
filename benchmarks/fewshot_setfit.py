"""SetFit's side of fewshot.py: its own defaults, in an interpreter that has `setfit`. Called with one JSON argument."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main() -> None:
    asked = json.loads(sys.argv[1])
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    parts = {
        name: [json.loads(line) for line in Path(asked[name]).read_text(encoding="utf-8").split("\n")]
        for name in ("train", "test")
    }
    model = SetFitModel.from_pretrained(asked["model"], labels=sorted({row["label"] for row in parts["train"]}))
    more = {"num_iterations": asked["iterations"]} if asked["iterations"] else {}
    arguments = TrainingArguments(
        output_dir=asked["output"], seed=asked["seed"], save_strategy="no", report_to="none",
        show_progress_bar=False, **more,
    )  # fmt: skip
    started, cpu = time.perf_counter(), time.process_time()
    Trainer(model=model, args=arguments, train_dataset=Dataset.from_list(parts["train"])).train()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    answers = model.predict([row["text"] for row in parts["test"]])
    right = [str(a) == row["label"] for a, row in zip(answers, parts["test"], strict=True)]
    figures = {"accuracy": sum(right) / len(right), "train_seconds": seconds, "cpu_seconds": round(cpu, 2)}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
