"""Classes by likelihood: a decoder is asked in words which class fits, and each class is as likely as its name.

The name of a class stands as an answer behind the prompt, through the model's chat template, with the token that
ends a turn. Its log-likelihood is the sum over its tokens, or their mean, which does not favour short names.
Calibration (Zhao et al., 2021, Calibrate Before Use) divides by what the model would answer to texts without
content, "N/A", "[MASK]" and none at all.

Shapes: n texts, C classes, A tokens of a name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.tasks.generation.loss import IGNORED

if TYPE_CHECKING:
    from tunewell.tasks.generation.conversations import Message
    from tunewell.tasks.spec import TaskSpec

CONTENT_FREE = ("N/A", "[MASK]", "")
NAMED = 30  # classes that a prompt names; with more it would be longer than the text
TOKENS_A_BATCH = 2048
VARIANTS = (("mean", True), ("mean", False), ("sum", True), ("sum", False))


def verbalised(label: str) -> str:
    """The name of a class as words.

    >>> verbalised("very_good"), verbalised("card-arrival"), verbalised("2")
    ('very good', 'card-arrival', '2')
    """
    return " ".join(label.replace("_", " ").split()) or label


def question(labels: Sequence[str], text: str, pair: str | None = None) -> list[Message]:
    """What a decoder is asked about a text."""
    names = ", ".join(verbalised(label) for label in labels)
    ask = f"Which of these fits the text: {names}?" if len(labels) <= NAMED else "What is the text about?"
    body = text if pair is None else f"{text}\n\n{pair}"
    return [{"role": "user", "content": f"{ask} Answer with one of them alone.\n\nText: {body}"}]


def conversation(labels: Sequence[str], label: str, text: str, pair: str | None = None) -> list[Message]:
    """The question about a text and its answer, to learn from."""
    return [*question(labels, text, pair), {"role": "assistant", "content": verbalised(label)}]


@dataclass
class LabelLikelihood:
    """A decoder that tells classes apart by the likelihood of their names.

    Attributes:
        normalise: "sum" or "mean" of the log-likelihoods of a name's tokens.
        free: (C,) log-probabilities of the classes for texts without content; zeros without calibration.
    """

    model: Any
    tokenizer: Any
    labels: tuple[str, ...]
    max_length: int
    batch_size: int = 16
    bf16: bool = False
    normalise: str = "sum"
    free: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def answers(self) -> list[list[int]]:
        """The tokens of each class's name with the end of a turn, as they stand behind a prompt."""
        from tunewell.tasks.generation.rendering import ensure_template, render

        ensure_template(self.tokenizer)
        out = []
        for label in self.labels:
            made = render(self.tokenizer, conversation(self.labels, label, "a"))
            out.append([i for i, learnt in zip(made.ids, made.learnt, strict=True) if learnt])
        return out

    def prompts(self, texts: Sequence[str], pairs: Sequence[str] | None) -> list[list[int]]:
        """Tokens of the questions; a text too long loses its end, so that the question is whole."""
        from tunewell.tasks.generation.rendering import ensure_template, prompt_ids

        ensure_template(self.tokenizer)
        second = pairs if pairs is not None else [None] * len(texts)
        # what stands behind a text: tokens that two questions with other texts have in common at their ends
        one, other = (prompt_ids(self.tokenizer, question(self.labels, t)) for t in ("x", "7"))
        behind = next(k for k in range(len(one) + 1) if one[len(one) - k - 1 :] != other[len(other) - k - 1 :])
        out = []
        for text, pair in zip(texts, second, strict=True):
            ids = prompt_ids(self.tokenizer, question(self.labels, text, pair))
            if len(ids) > self.max_length:
                ids = [*ids[: max(1, self.max_length - behind)], *ids[len(ids) - behind :]]
            out.append(ids)
        return out

    def log_likelihoods(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """(n, C) log-likelihood of each class's name behind each question, summed or averaged over its tokens.

        The question is read once; its keys and values serve for every class.
        """
        import torch
        from transformers import DynamicCache

        from tunewell.models.embed import like_length

        prompts, names = self.prompts(texts, pairs), self.answers()
        model, device = self.model, self.model.device
        training = model.training
        model.eval()
        out = np.zeros((len(prompts), len(names)))
        fill = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        lengths = np.array([len(p) for p in prompts], dtype=np.int64)
        try:
            for index in like_length(lengths, self.batch_size, TOKENS_A_BATCH):
                width = int(lengths[index].max())
                ids = torch.full((len(index), width), int(fill), dtype=torch.long)
                mask = torch.zeros_like(ids)
                for j, i in enumerate(index):
                    n = len(prompts[i])
                    ids[j, width - n :], mask[j, width - n :] = torch.tensor(prompts[i]), 1
                ids, mask = ids.to(device), mask.to(device)
                places = (mask.cumsum(1) - 1).clamp(min=0)
                with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16):
                    cache = DynamicCache(config=model.config)
                    first = model(
                        input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache,
                        use_cache=True, logits_to_keep=1,
                    ).logits[:, -1]  # fmt: skip
                    start = torch.log_softmax(first.float(), -1)
                    for c, name in enumerate(names):
                        total = start[:, name[0]]
                        if len(name) > 1:
                            tail = torch.tensor([name[:-1]], device=device).expand(len(index), -1)
                            longer = torch.cat([mask, mask.new_ones(tail.shape)], 1)
                            at = places[:, -1:] + 1 + torch.arange(tail.shape[1], device=device)
                            logits = model(
                                input_ids=tail, attention_mask=longer, position_ids=at, past_key_values=cache,
                                use_cache=True,
                            ).logits  # fmt: skip
                            cache.crop(-tail.shape[1])  # the question alone again
                            wanted = torch.tensor(name[1:], device=device)
                            each = torch.log_softmax(logits.float(), -1)
                            total = total + each[:, torch.arange(len(wanted)), wanted].sum(1)
                        out[index, c] = total.cpu().numpy()
        finally:
            model.train(training)
        return out / np.array([len(name) for name in names]) if self.normalise == "mean" else out

    def calibrate(self) -> None:
        """Measure what the model answers to texts without content."""
        from scipy.special import softmax

        self.free = np.log(softmax(self.log_likelihoods(CONTENT_FREE), axis=1).mean(0))

    def scores(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """(n, C) probabilities of the classes."""
        if not len(texts):
            return np.empty((0, len(self.labels)), dtype=np.float32)
        return probabilities(self.log_likelihoods(texts, pairs), self.free)


def probabilities(logs: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Log-likelihoods (n, C), less those of texts without content (C,), as probabilities.

    >>> probabilities(np.log([[0.6, 0.3]]), np.log([0.6, 0.3])).round(3).tolist()
    [[0.5, 0.5]]
    """
    from scipy.special import softmax

    return softmax(logs - free if len(free) else logs, axis=1).astype(np.float32)


def zero_shot(
    scorer: LabelLikelihood,
    spec: TaskSpec,
    rows: dict[str, tuple[Sequence[str], Sequence[str] | None]],
    targets: np.ndarray,
) -> tuple[str, dict[str, np.ndarray]]:
    """The base model without any tuning, in the variant that is best on validation.

    Args:
        rows: split -> texts and second texts; `targets` of validation.

    Returns:
        The variant in words, and split -> (n, C) probabilities.
    """
    from tunewell.evaluate.metrics import score

    lengths = np.array([len(name) for name in scorer.answers()])
    scorer.normalise = "sum"
    sums = {name: scorer.log_likelihoods(texts, pairs) for name, (texts, pairs) in rows.items()}
    empty = scorer.log_likelihoods(CONTENT_FREE)
    best: tuple[float, str, dict[str, np.ndarray]] | None = None
    for normalise, calibrated in VARIANTS:
        over = lengths if normalise == "mean" else 1
        free = (
            np.log(probabilities(empty / over, np.zeros(0)).astype(np.float64).mean(0)) if calibrated else np.zeros(0)
        )
        made = {name: probabilities(logs / over, free) for name, logs in sums.items()}
        value = score(spec.metric, spec, made["validation"], targets)
        if best is None or value > best[0]:
            best = (value, normalise + (", calibrated" if calibrated else ""), made)
    assert best is not None
    return best[1], best[2]


def encoded(scorer: LabelLikelihood, texts: Sequence[str], pairs: Sequence[str] | None, labels: Sequence[str]) -> list:
    """Questions and answers as rows to tune on; see `generation.writers.Encoded`."""
    from tunewell.tasks.generation.writers import Encoded

    names = dict(zip(scorer.labels, scorer.answers(), strict=True))
    out = []
    for ids, label in zip(scorer.prompts(texts, pairs), labels, strict=True):
        answer = names[label]
        out.append(Encoded([*ids, *answer], [IGNORED] * len(ids) + answer, 0, True))
    return out
