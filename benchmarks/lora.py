"""Does LoRA learn less and forget less (Biderman et al., 2024)? A decoder on a language it does not know.

SmolLM2-135M-Instruct, trained on English, learns Multi30k en -> de. Learned: bits a byte of held-out answers, against
the model as it was. Forgotten: bits a byte on WikiText-2, tuned minus base. Whole weights at the usual rate and at a
fifth of it, adapters of rank 8 and 64 and those made to forget less, all on the same rows, batches, epochs and seed;
TRL's SFTTrainer with PEFT's LoRA beside them, with the rates of ours.

    pip install 'tunewell[generate,bench]'
    python benchmarks/lora.py --data-root DATA --seeds 1
"""

from __future__ import annotations

import json
import math
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from common import once, parser, spread

BATCH, EPOCHS, RATE = 8, 3, 5e-5
LORA: dict[str, Any] = {"strategy": ["lora"], "learning_rate": RATE, "lora_rate_factor": 10, "lora_alpha": 16}
HOW: dict[str, dict[str, Any]] = {
    "whole": {"strategy": ["plain"], "learning_rate": RATE},
    "whole, a fifth of the rate": {"strategy": ["plain"], "learning_rate": RATE / 5},
    "lora 8": {**LORA, "lora_rank": 8},
    "lora 64": {**LORA, "lora_rank": 64},
    "corda 64": {**LORA, "lora_rank": 64, "lora_variant": "corda"},
    "osf 64": {**LORA, "lora_rank": 64, "lora_variant": "osf", "lora_rate_factor": 1},
    "trl lora 8": {"trl": 8},
    "trl lora 64": {"trl": 64},
}


def pairs(root: str, split: str, n: int, seed: int) -> list[dict[str, str]]:
    """Rows of prompt and completion."""
    lines = (Path(root) / "multi30k" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in random.Random(seed).sample(lines, n)]
    return [{"prompt": "Translate into German: " + row["en"], "completion": row["de"]} for row in rows]


def passages(root: str, n: int) -> list[str]:
    """Paragraphs of WikiText-2's validation part, cut at 500 characters."""
    lines = (Path(root) / "wikitext2" / "valid.txt").read_text(encoding="utf-8").splitlines()
    long = [line.strip() for line in lines if len(line) > 300 and not line.strip().startswith("=")]
    return [text[:500] for text in random.Random(0).sample(long, min(n, len(long)))]


def messages(row: dict[str, str]) -> list[dict[str, str]]:
    return [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]


def figures(model: Any, tokenizer: Any, job: dict[str, Any], test: list[dict[str, str]]) -> dict[str, float]:
    """Bits a byte of the test answers and of WikiText-2."""
    import torch

    from tunewell.retention.language import surprise_of
    from tunewell.tasks.generation.writers import CausalWriter

    model.eval()
    texts = passages(job["root"], job["passages"])
    general = np.sum(surprise_of(model, tokenizer)(texts)) / math.log(2) / sum(len(t.encode()) for t in texts)
    writer = CausalWriter(None, tokenizer, 256)
    nats, size = 0.0, 0
    for row in test:
        made = writer.encode(messages(row))
        ids, labels = torch.tensor([made.ids]), torch.tensor(made.labels)
        with torch.no_grad():
            logp = model(input_ids=ids).logits[0].float().log_softmax(-1)
        at = (labels >= 0).nonzero()[:, 0]
        nats -= float(logp[at - 1, labels[at]].sum())
        size += len(row["completion"].encode())
    return {"task": nats / math.log(2) / size, "wikitext": float(general)}


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """One way of tuning; runs in the child process."""
    import torch
    from transformers import AutoModelForCausalLM

    from tunewell.models.load import load_tokenizer, locate

    if job["threads"]:
        torch.set_num_threads(job["threads"])
    path = locate(job["model"])
    tokenizer = load_tokenizer(job["model"], path)
    test = pairs(job["root"], "test_2016_flickr", job["test_rows"], 0)
    train = pairs(job["root"], "train", job["rows"], job["seed"])
    base = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    before = figures(base, tokenizer, job, test)
    started, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        if "trl" in job["how"]:
            model = with_trl(base, tokenizer, train, job, folder)
        else:
            model = with_tunewell(path, train, test, job, folder)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        after = figures(model, tokenizer, job, test)
    return {"before": before, "after": after, "seconds": seconds, "cpu_seconds": cpu}


def with_trl(model: Any, tokenizer: Any, train: list[dict[str, str]], job: dict[str, Any], folder: str) -> Any:
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from tunewell.tasks.generation.writers import CausalWriter

    writer = CausalWriter(None, tokenizer, 256)
    rows = [writer.encode(messages(row)) for row in train]
    config = SFTConfig(
        output_dir=folder, per_device_train_batch_size=BATCH, num_train_epochs=EPOCHS, learning_rate=10 * RATE,
        warmup_steps=math.ceil(0.1 * EPOCHS * len(rows) / BATCH), lr_scheduler_type="linear", weight_decay=0.01,
        bf16=True, seed=job["seed"], save_strategy="no", report_to=[], max_length=256, gradient_checkpointing=False,
        use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = SFTTrainer(
        model=model, args=config, processing_class=tokenizer,
        train_dataset=Dataset.from_list([{"input_ids": row.ids, "labels": row.labels} for row in rows]),
        peft_config=LoraConfig(r=job["how"]["trl"], lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    )  # fmt: skip
    trainer.train()
    merged: Any = trainer.model
    return merged.merge_and_unload()


def with_tunewell(
    path: str, train: list[dict[str, str]], test: list[dict[str, str]], job: dict[str, Any], folder: str
) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    import tunewell

    files = {}
    for name, rows in (("train", train), ("validation", test[:8]), ("test", test[8:16])):  # the figures come apart
        file = Path(folder) / f"{name}.jsonl"
        file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        files[name] = str(file)
    run = tunewell.run(
        **files, **job["how"], model=path, task="text-generation", seed=job["seed"], probes="none",
        per_device_train_batch_size=BATCH, num_train_epochs=EPOCHS, early_stopping_patience=0, evals_per_epoch=1,
        generation_samples=1, max_length=256, max_new_tokens=4, guard="off", explain=0, threads=job["threads"] or None,
        output_dir=str(Path(folder) / "run"), progress=False, echo=lambda line: print(line, file=sys.stderr),
    )  # fmt: skip
    return AutoModelForCausalLM.from_pretrained(str(run.model_path), dtype=torch.float32)


def main() -> None:
    args = parser(__doc__ or "")
    args.set_defaults(model="SmolLM2-135M-Instruct")
    args.add_argument("--how", nargs="+", default=list(HOW), choices=list(HOW))
    args.add_argument("--rows", type=int, default=200, help="sentences to learn from")
    args.add_argument("--test-rows", type=int, default=100)
    args.add_argument("--passages", type=int, default=100, help="passages of WikiText-2")
    args.add_argument("--threads", type=int, default=0, help="0 for as many as there are cores")
    options = args.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    if options.data_root is None:
        args.error("name the folder with the public sets: --data-root FOLDER")
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in options.seeds:
        for name in options.how:
            job = {
                "seed": seed, "how": HOW[name], "model": options.model, "root": str(options.data_root),
                **{k: getattr(options, k) for k in ("rows", "test_rows", "passages", "threads")},
            }  # fmt: skip
            row, _ = once(__file__, job, "lora", options.output)
            found.setdefault(name, []).append(row)
            before, after = row["before"], row["after"]
            print(
                f"seed {seed} {name:<28} answers {before['task']:.3f} -> {after['task']:.3f} bits a byte, "
                f"WikiText-2 {before['wikitext']:.4f} -> {after['wikitext']:.4f} "
                f"({after['wikitext'] - before['wikitext']:+.4f}), {row['cpu_seconds']:.0f} s of processor",
                flush=True,
            )
    print(
        "\n| | learned, bits a byte of answers | forgotten, bits a byte on WikiText-2 | processor, s |\n"
        "|---|---|---|---|"
    )
    for name, rows in found.items():
        learned = [r["before"]["task"] - r["after"]["task"] for r in rows]
        lost = [r["after"]["wikitext"] - r["before"]["wikitext"] for r in rows]
        print(f"| {name} | {spread(learned)} | {spread(lost)} | {np.mean([r['cpu_seconds'] for r in rows]):.0f} |")


if __name__ == "__main__":
    main()
