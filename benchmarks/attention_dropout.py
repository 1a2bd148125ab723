"""What dropout costs on a processor: a forward and a backward pass with torch's, with tunewell's, and with none on
attention weights, in turn.

Batches of the same number of tokens, as few long texts or many short ones. Processor time; the ratios are what counts.

    python benchmarks/attention_dropout.py
    python benchmarks/attention_dropout.py --lengths 64 512 --turns 10
"""

from __future__ import annotations

import time
from contextlib import nullcontext

import numpy as np

from common import parser, record


def main() -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    from tunewell.models.load import locate
    from tunewell.train.attention import attention_dropout
    from tunewell.train.dropout import quick_dropout
    from tunewell.train.tune import use_bf16

    args = parser(__doc__ or "")
    args.add_argument("--lengths", type=int, nargs="+", default=[32, 128, 384])
    args.add_argument("--tokens", type=int, default=6144, help="tokens a batch")
    args.add_argument("--turns", type=int, default=5)
    options = args.parse_args()
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(locate(options.model), num_labels=2).train()
    bf16 = use_bf16(None)
    for length in options.lengths:
        rows = max(1, options.tokens // length)
        batch = {"input_ids": torch.randint(1000, 5000, (rows, length)), "labels": torch.randint(0, 2, (rows,))}
        batch["attention_mask"] = torch.ones_like(batch["input_ids"])
        batch["attention_mask"][0, -1] = 0  # some padding, as batches have

        def step(quick: bool, value: float | None, batch: dict = batch) -> float:
            started = time.process_time()
            drawn = quick_dropout() if quick else nullcontext()
            autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16)
            with drawn, attention_dropout(model, value), autocast:
                loss = model(**batch).loss
            loss.backward()
            model.zero_grad()
            return time.process_time() - started

        ways = [(False, None), (True, None), (False, 0.0), (True, 0.0)]
        for way in ways:
            step(*way)
        taken = [[step(*way) for way in ways] for _ in range(options.turns)]
        torchs, ours, without, neither = np.median(np.array(taken), axis=0)
        found = {"torch": torchs, "tunewell": ours, "torch_without": without, "tunewell_without": neither}
        record(options.output, {"benchmark": "attention_dropout", "length": length, **found})
        print(
            f"{rows} texts of {length} tokens: {torchs:.2f} s with torch's dropout, {ours:.2f} s with tunewell's "
            f"({torchs / ours:.2f} times as fast); without it on attention weights {without:.2f} and {neither:.2f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
