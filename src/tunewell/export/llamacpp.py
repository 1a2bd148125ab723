"""llama.cpp beside the source model: does it read the same tokens, find the same ones likely, write the same text?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.data.cells import Rows
from tunewell.errors import ModelError
from tunewell.export.gguf import begins
from tunewell.results import Record

if TYPE_CHECKING:
    from tunewell.tasks.generation.writers import CausalWriter

PROMPTS, LONGEST = 16, 32  # asked, and tokens of an answer
FIRST = {"f32": 0.1, "f16": 0.1, "q8_0": 0.5}  # largest difference of a first token's log-probability, in nats
SAMPLE = (
    "Name three colours of the flag of France.",
    "What is 12 + 30? Answer with the number 42 if you agree.",
    "Translate to German: the room was small, and we liked it!",
    "用一句话介绍北京。",
    "  Write a haiku\n\nabout   rain – “softly” 100 %.",
    "naïve café: what do these words have in common?",
)


class Written(Record):
    """A GGUF file read by llama.cpp, beside its source model; both answer greedily.

    Attributes:
        prompts: asked; real: whether they are test rows of the run.
        first: largest difference of the log-probability of the first token that llama.cpp writes, in nats; of one that
            ends a character, since llama.cpp tells nothing of tokens inside of one.
        same: share of prompts with the same text. leading: mean share of the source's text, by characters, up to where
            the two part.
        tokens_per_second: of llama.cpp and of the source, one prompt after the other on this machine.
    """

    prompts: int
    real: bool
    first: float
    same: float
    leading: float
    tokens_per_second: dict[str, float]

    def lines(self) -> list[str]:
        """What to tell."""
        which = "test rows" if self.real else "sample prompts"
        rates = self.tokens_per_second
        return [
            f"compared on {self.prompts} {which} in llama.cpp: first tokens {self.first:.2g} nats apart at most, the "
            f"same text on {self.same:.0%}, the same beginning for {self.leading:.0%} of the text",
            f"{rates['llama.cpp']:,.0f} tokens/s against {rates['source']:,.0f} in PyTorch",
        ]


class Llama:
    """A GGUF file in llama.cpp; its server ends with the object."""

    def __init__(self, file: Path, window: int, threads: int) -> None:
        import xllamacpp

        options = xllamacpp.CommonParams()
        options.model.path = str(file)
        options.n_ctx, options.n_parallel, options.warmup = window, 1, False
        options.cpuparams.n_threads = options.cpuparams_batch.n_threads = threads
        options.verbosity = 0
        self.server = xllamacpp.Server(options)

    def write(self, prompt: str | list[int], tokens: int) -> tuple[str, int, tuple[int, float] | None]:
        """The greedy answer to a text (or tokens), the tokens read, and id and log-probability of the first token that
        ends a character; None where the answer is empty."""
        asked = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "n_probs": 1, "cache_prompt": False}
        found = self.server.handle_completions(asked)
        answer = found["choices"][0]
        told = (answer.get("logprobs") or {}).get("content") or []
        first = (int(told[0]["id"]), float(told[0]["logprob"])) if told else None
        return answer["text"], int(found["usage"]["prompt_tokens"]), first


def compare(writer: CausalWriter, file: Path, run: Path, *, weights: str) -> Written:
    """Ask both the same.

    Raises:
        ModelError: llama.cpp cannot read the file, reads other tokens, or finds other ones likely.
    """
    import torch

    texts, real = prompts_of(run)
    rows = [writer.prompt(writer.conversation(t)) for t in texts]
    asked = [readable(writer.tokenizer, ids) for ids in rows]
    try:
        llama = Llama(file, max(map(len, rows)) + LONGEST + 8, torch.get_num_threads())
    except Exception as error:
        raise ModelError(
            f"llama.cpp cannot read what was written: {error}", where=str(run), remedy="please report this architecture"
        ) from error
    theirs, ours, apart, seconds = [], [], [], [0.0, 0.0]
    for ids, prompt in zip(rows, asked, strict=True):
        started = time.perf_counter()
        answer, read, first = llama.write(prompt, LONGEST)
        seconds[0] += time.perf_counter() - started
        if read != len(ids):
            raise ModelError(
                f"llama.cpp reads {read} tokens where the model reads {len(ids)}",
                where=str(run),
                expected="the same tokenizer",
                remedy="please report this tokenizer",
            )
        started = time.perf_counter()
        own, expected = _greedy(writer, ids)
        seconds[1] += time.perf_counter() - started
        own, answer = whole(own), whole(answer)
        theirs.append(answer)
        ours.append(own)
        if first is not None:
            apart.append(abs(first[1] - float(expected[first[0]])))
        elif own:
            raise ModelError(
                "llama.cpp answers nothing where the model does",
                where=str(run),
                expected=f"an answer such as {own[:40]!r}",
                remedy="please report this architecture",
            )
    if not apart:
        raise ModelError(
            "none of its answers has a whole character, so that nothing can be compared",
            where=str(run),
            expected="a model that writes text",
        )
    count = sum(len(writer.tokenizer(t, add_special_tokens=False)["input_ids"]) for t in ours)
    found = Written(
        prompts=len(rows),
        real=real,
        first=max(apart, default=0.0),
        same=float(np.mean([a == b for a, b in zip(ours, theirs, strict=True)])),
        leading=float(np.mean([leading(a, b) for a, b in zip(ours, theirs, strict=True)])),
        tokens_per_second={
            name: round(count / max(s, 1e-9), 1) for name, s in zip(("llama.cpp", "source"), seconds, strict=True)
        },
    )
    if not found.first <= FIRST[weights]:
        raise ModelError(
            f"llama.cpp finds other tokens likely: {found.first:.2g} nats apart",
            where=str(run),
            expected=f"at most {FIRST[weights]:g} with {weights} weights",
            remedy="please report this architecture" if weights != "q8_0" else "export with --weights f16",
        )
    return found


def readable(tokenizer: Any, ids: Sequence[int]) -> str | list[int]:
    """The text that is read as these tokens; the tokens themselves where none is, as where a window cuts a word."""
    begun = begins(tokenizer)
    if begun and list(ids[:1]) != [tokenizer.bos_token_id]:
        return list(ids)
    rest = list(ids[1:] if begun else ids)
    text = str(tokenizer.decode(rest, clean_up_tokenization_spaces=False))
    return text if list(tokenizer(text, add_special_tokens=False)["input_ids"]) == rest else list(ids)


def _greedy(writer: CausalWriter, ids: Sequence[int]) -> tuple[str, np.ndarray]:
    """The source's greedy answer, and (V,) the log-probabilities where its first token that ends a character stands."""
    import torch

    asked = torch.tensor([list(ids)], device=writer.model.device)
    with torch.inference_mode():
        out = writer.model.generate(
            input_ids=asked, attention_mask=torch.ones_like(asked), max_new_tokens=LONGEST, do_sample=False,
            temperature=None, top_p=None, top_k=None, pad_token_id=writer._pad, eos_token_id=writer.ends(),
            return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
    written = out.sequences[0, len(ids) :]
    text = str(writer.tokenizer.decode(written, skip_special_tokens=True))
    ends = (k for k in range(len(written)) if "\ufffd" not in str(writer.tokenizer.decode(written[: k + 1])))
    return text, out.logits[next(ends, 0)][0].float().log_softmax(0).cpu().numpy()


def whole(text: str) -> str:
    """A text without the marks of characters that were not written to their end, which llama.cpp leaves out.

    >>> whole(" a flag\ufffd")
    'a flag'
    """
    return text.replace("\ufffd", "").strip()


def leading(ours: str, theirs: str) -> float:
    """Share of a text, by characters, that another one begins with.

    >>> leading("a red flag", "a red fox"), leading("", "x"), leading("", "")
    (0.7, 0.0, 1.0)
    """
    if not ours:
        return float(not theirs)
    n = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    return n / len(ours)


def prompts_of(run: Path) -> tuple[list[str], bool]:
    """Test rows of a run, evenly over its file; else sample prompts."""
    path = run / "predictions.csv"
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            texts = [row["text"] for row in Rows(file) if row.get("text")]
        if texts:
            return texts[:: max(1, len(texts) // PROMPTS)][:PROMPTS], True
    return list(SAMPLE), False
