"""Instruction tuning beside TRL's SFTTrainer: the same decoder, tokens, batches, steps, seed and precision.

The rows are stories that the model goes on with: prompts and answers of mixed length, from packaged news and forum
posts. Both tune on the very same tokens in the same order, and print the loss of each step. Time is from the end
of the first step to the end of the last one; loading, validation and saving are left out for both. Speed counts
the tokens of rows, not those of padding.

    pip install 'tunewell[generate,bench]'
    python benchmarks/sft.py --steps 20 --seeds 1 --threads 2

With `--cpu_time` speed is per second of processor time instead of wall time, which a busy machine does not change.
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

from common import child, parser, record

ENGINES = ("trl", "tunewell")
RATE, WARMUP = 5e-5, 0.1


def conversations(n: int, seed: int) -> list[list[dict[str, str]]]:
    """Openings of packaged texts as prompts, what follows as answers; between 10 and 400 words in all."""
    from tunewell.data.packaged import lee_stories, newsgroups

    rng = random.Random(seed)
    texts = [*lee_stories("odd"), *(post for post, _ in newsgroups("odd")[:1500])]
    rng.shuffle(texts)
    out = []
    for text in texts:
        words = text.split()[: min(400, round(rng.lognormvariate(4.2, 0.8)))]
        cut = round(len(words) * rng.uniform(0.3, 0.8))
        if len(words) >= 10:
            prompt = "Go on with this text: " + " ".join(words[:cut])
            out.append([{"role": "user", "content": prompt}, {"role": "assistant", "content": " ".join(words[cut:])}])
    return out[:n]


def clock(cpu: bool) -> Any:
    """A Trainer callback that takes the time at the end of each step."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.times: list[float] = []
            self.losses: list[float] = []

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.times.append(time.process_time() if cpu else time.perf_counter())

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                self.losses.append(float(logs["loss"]))

    return Clock()


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """One engine; runs in the child process."""
    import torch
    from transformers import AutoModelForCausalLM, set_seed

    from tunewell.models.load import load_tokenizer, locate
    from tunewell.tasks.generation.writers import CausalWriter
    from tunewell.train.batching import RandomBatches

    torch.set_num_threads(job["threads"])
    path = locate(job["model"])
    tokenizer = load_tokenizer(job["model"], path)
    writer = CausalWriter(None, tokenizer, job["max_length"])
    rows = [writer.encode(messages) for messages in conversations(job["rows"], job["seed"])]
    set_seed(job["seed"])
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    watch = clock(job["cpu_time"])
    with tempfile.TemporaryDirectory() as folder:
        (with_trl if job["engine"] == "trl" else with_tunewell)(job, model, tokenizer, writer, rows, watch, folder)
    # the batches after the first step, as both draw them
    order = RandomBatches(len(rows), rows=job["batch"], seed=job["seed"])
    batches: list[list[int]] = []
    while len(batches) < job["steps"]:
        batches += list(order)
        order.set_epoch(order.epoch + 1)
    timed = batches[1 : job["steps"]]
    tokens = sum(len(rows[i].ids) for batch in timed for i in batch)
    cells = sum(len(batch) * max(len(rows[i].ids) for i in batch) for batch in timed)
    seconds = watch.times[-1] - watch.times[0]
    return {
        "losses": watch.losses,
        "tokens_per_second": tokens / seconds,
        "seconds": seconds,
        "padding_share": 1 - tokens / cells,
        "answer_share": sum(y >= 0 for row in rows for y in row.labels) / sum(len(row.ids) for row in rows),
    }


def with_trl(
    job: dict[str, Any], model: Any, tokenizer: Any, writer: Any, rows: list[Any], watch: Any, folder: str
) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    data = Dataset.from_list([{"input_ids": row.ids, "labels": row.labels} for row in rows])
    config = SFTConfig(
        output_dir=folder, per_device_train_batch_size=job["batch"], max_steps=job["steps"], learning_rate=RATE,
        warmup_steps=math.ceil(WARMUP * job["steps"]), lr_scheduler_type="linear", weight_decay=0.01, max_grad_norm=1.0,
        bf16=job["bf16"], optim="adamw_torch_fused", seed=job["seed"], data_seed=job["seed"], logging_steps=1,
        save_strategy="no", report_to=[], max_length=job["max_length"], gradient_checkpointing=False, use_cpu=True,
        disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = SFTTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer, callbacks=[watch])
    trainer.train()


def with_tunewell(
    job: dict[str, Any], model: Any, tokenizer: Any, writer: Any, rows: list[Any], watch: Any, folder: str
) -> None:
    import numpy as np
    from datasets import Dataset

    from tunewell.models.heads import prepared
    from tunewell.recipe import Recipe
    from tunewell.tasks import TaskSpec
    from tunewell.tasks.base import Inputs
    from tunewell.tasks.generation.audit import inputs_of
    from tunewell.tasks.generation.learning import token_loss
    from tunewell.train.tune import tune

    recipe = Recipe(
        per_device_train_batch_size=job["batch"], max_steps=job["steps"], learning_rate=RATE, warmup_ratio=WARMUP,
        bf16=job["bf16"], seed=job["seed"], early_stopping_patience=0,
    )  # fmt: skip
    inputs = Inputs(
        Dataset.from_dict(inputs_of(rows)), writer.collate, writer.loss, job["max_length"],
        lambda m: token_loss(m, writer, packing=job["packing"]),
    )  # fmt: skip
    tune(
        prepared(model), tokenizer, TaskSpec("text-generation", metric="steps"), inputs.rows, recipe=recipe,
        max_length=job["max_length"], targets=np.empty(0), validate=lambda m: {"steps": 0.0}, strategies=[],
        folder=Path(folder), progress=False, callbacks=[watch], inputs=inputs,
        echo=lambda line: print(line, file=sys.stderr),
    )  # fmt: skip


def main() -> None:
    args = parser(__doc__ or "")
    args.set_defaults(model="SmolLM2-135M-Instruct")
    args.add_argument("--steps", type=int, default=20)
    args.add_argument("--rows", type=int, default=400, help="rows to draw batches from")
    args.add_argument("--batch", type=int, default=8)
    args.add_argument("--max_length", type=int, default=512)
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--fp32", action="store_true", help="fp32 instead of bf16, for both")
    args.add_argument("--padded", action="store_true", help="tunewell pads too, rows of like length together")
    args.add_argument("--cpu_time", action="store_true", help="processor time instead of wall time")
    options = args.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    for seed in options.seeds:
        done = {}
        for engine in ENGINES:
            job = {
                "engine": engine, "seed": seed, "model": options.model, "bf16": not options.fp32,
                "packing": False if options.padded else None,
                **{k: getattr(options, k) for k in ("steps", "rows", "batch", "max_length", "threads", "cpu_time")},
            }  # fmt: skip
            done[engine] = child(__file__, job)
            record(options.output, {"benchmark": "sft", **done[engine]})
        theirs, ours = (done[engine]["losses"] for engine in ENGINES)
        steps = list(zip(theirs, ours, strict=True))
        print(f"seed {seed}: loss of each step")
        for step, (a, b) in enumerate(steps, 1):
            print(f"  {step:>4}  trl {a:.4f}  tunewell {b:.4f}  {b - a:+.4f}")
        print(f"  largest difference {max(abs(a - b) for a, b in steps):.4f}")
        speeds = [done[engine]["tokens_per_second"] for engine in ENGINES]
        print(
            f"  tokens/s: trl {speeds[0]:.0f}, tunewell {speeds[1]:.0f}, ratio {speeds[1] / speeds[0]:.2f} "
            f"(padding in TRL's batches {done['trl']['padding_share']:.0%}, answers {done['trl']['answer_share']:.0%} "
            "of the tokens)",
            flush=True,
        )


if __name__ == "__main__":
    main()
