"""What dropout on attention weights costs: a forward and a backward pass with it and without, in turn.

Batches of the same number of tokens, as few long texts or many short ones. The ratio of the two is what counts.

    python benchmarks/attention_dropout.py
    python benchmarks/attention_dropout.py --lengths 64 512 --turns 10
"""

from __future__ import annotations

import time

import numpy as np

from common import parser, record


def main() -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    from tunewell.models.load import locate
    from tunewell.train.attention import attention_dropout
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

        def step(value: float | None, batch: dict = batch) -> float:
            started = time.perf_counter()
            with attention_dropout(model, value), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                loss = model(**batch).loss
            loss.backward()
            model.zero_grad()
            return time.perf_counter() - started

        step(None), step(0.0)
        taken = [(step(None), step(0.0)) for _ in range(options.turns)]
        with_it, without = np.median(np.array(taken), axis=0)
        record(
            options.output, {"benchmark": "attention_dropout", "length": length, "with": with_it, "without": without}
        )
        print(
            f"{rows} texts of {length} tokens: {with_it:.2f} s with the model's dropout, {without:.2f} s without it, "
            f"{with_it / without:.2f} times"
        )


if __name__ == "__main__":
    main()
