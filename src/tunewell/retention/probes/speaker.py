"""A decoder as what the probes of language ask: how likely texts are, what comes next, what it answers.

Shapes: n texts, T tokens of a text, K likeliest tokens at a place, V entries of the vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch

TOKENS_A_BATCH = 2048
SCORED_A_BATCH = 512  # where all logits are held at once


class Next(NamedTuple):
    """The K likeliest next tokens after every token of a text: `ids` and `logs` (n, T, K); -1 and 0 behind its end."""

    ids: np.ndarray
    logs: np.ndarray


class Speaker:
    """A decoder and its tokenizer, in fp32 or with `bf16` in bfloat16; texts are cut at `max_length` tokens.

    Called with texts it gives the nats of each, all its tokens after the first summed: (n,).
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, max_length: int = 256, batch_size: int = 16, bf16: bool = False
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.max_length, self.batch_size, self.bf16 = max_length, batch_size, bf16

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        from tunewell.tasks.generation.loss import by_row, shifted

        out = np.zeros(len(texts))
        for index, logits, labels in self._logits(texts, self.max_length, TOKENS_A_BATCH):
            out[index] = by_row(*shifted(logits, labels))[0].cpu().numpy()
        return out

    def following(self, texts: Sequence[str], tokens: int, k: int) -> Next:
        """What comes after each of the first `tokens` tokens of texts."""
        import torch

        from tunewell.tasks.generation.loss import IGNORED

        k = min(k, self.model.get_input_embeddings().num_embeddings)
        ids = np.full((len(texts), tokens, k), -1, dtype=np.int32)
        logs = np.zeros((len(texts), tokens, k), dtype=np.float32)
        for index, logits, labels in self._logits(texts, tokens, SCORED_A_BATCH):
            best = torch.log_softmax(logits.float(), dim=-1).topk(k)
            there = (labels != IGNORED).cpu().numpy()
            for j, i in enumerate(index):
                n = int(there[j].sum())
                ids[i, :n] = best.indices[j, :n].cpu().numpy()
                logs[i, :n] = best.values[j, :n].cpu().numpy()
        return Next(ids, logs)

    def answers(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """What the model writes to each prompt by its chat template, greedily."""
        from tunewell.tasks.generation.rendering import ensure_template
        from tunewell.tasks.generation.writers import CausalWriter, Decoding

        tokenizer = copy.deepcopy(self.tokenizer)
        ensure_template(tokenizer)
        writer = CausalWriter(
            self.model, tokenizer, self.max_length, Decoding(max_new_tokens), self.batch_size, bf16=self.bf16
        )
        return writer.write([[{"role": "user", "content": p}] for p in prompts])[0]

    def _logits(
        self, texts: Sequence[str], longest: int, budget: int
    ) -> Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor]]:
        """Places of a batch's texts, their logits (B, T, V) and their tokens (B, T), -100 behind their ends."""
        import torch

        from tunewell.models.embed import like_length
        from tunewell.tasks.generation.loss import IGNORED

        # a start token only where the tokenizer puts one itself: chat models have one that begins a turn
        rows = [list(self.tokenizer(t, verbose=False)["input_ids"])[:longest] for t in texts]
        model = self.model
        training = model.training
        model.eval()
        try:
            for index in like_length(np.array([len(r) for r in rows]), self.batch_size, budget):
                width = max(len(rows[i]) for i in index)
                ids = torch.zeros((len(index), width), dtype=torch.long)
                mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
                for j, i in enumerate(index):
                    n = len(rows[i])
                    ids[j, :n] = labels[j, :n] = torch.tensor(rows[i])
                    mask[j, :n] = 1
                autocast = torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=self.bf16)
                with torch.inference_mode(), autocast:
                    logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits
                    yield index, logits, labels.to(model.device)
        finally:
            model.train(training)


@dataclass(frozen=True)
class SpokenProbe:
    """One probe of one half, for models that write.

    `arrays` asks a `Speaker` (of an encoder-decoder: its writer); `texts` are its items, for people.

    See `retention.probes.Probe` for the rest.
    """

    name: str
    title: str
    metric: str
    kind: str
    texts: tuple[str, ...]
    items: str
    arrays: Callable[[Any], dict[str, np.ndarray]]
    chance: float = 0.0
    counted: bool = True


def own_data(name: str) -> str:
    """A data file that comes with tunewell."""
    return files("tunewell.retention.probes").joinpath("data", name).read_text(encoding="utf-8")
