"""The base model rewrites training answers: what it is asked, row by row, and what it writes, batch by batch."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.folder import fingerprint
from tunewell.results import write_whole
from tunewell.strategies.sdft import filled
from tunewell.tasks.generation.rendering import prompt_ids
from tunewell.tasks.generation.writers import CausalWriter, Decoding

if TYPE_CHECKING:
    from tunewell.tasks.generation.conversations import Message

TOKENS = 16  # that a short answer may be longer whatever the ratio says


@dataclass(frozen=True)
class Request:
    """What the base model is asked about the row at place `at`.

    Attributes:
        length: tokens of the request. limit: tokens of the rewritten answer at most.
    """

    at: int
    messages: list[Message]
    length: int
    limit: int


@dataclass(frozen=True)
class Written:
    """An answer, and whether the model ended it within its limit."""

    text: str
    ended: bool


def instruction_of(conversation: Sequence[Message]) -> str:
    """What the last answer of a conversation answers."""
    return str(conversation[-2]["content"])


def requests(
    tokenizer: Any,
    conversations: Sequence[Sequence[Message]],
    *,
    template: str,
    ratio: float,
    most: int,
    window: int,
) -> tuple[list[Request], dict[int, str]]:
    """What is to be rewritten: the last answer of each conversation, asked for in place of its last question.

    Args:
        template: see `strategies.sdft.filled`. ratio: how many times longer than its original an answer may be.
        most: tokens of an answer at most. window: of the model, which request and answer must fit.

    Returns:
        The requests, and place -> why the answer there is not asked for (codes of `agreement.REASONS`).
    """
    asked: list[Request] = []
    left: dict[int, str] = {}
    for at, conversation in enumerate(conversations):
        answer = conversation[-1]
        if answer.get("weight") == 0:
            left[at] = "no-loss"
            continue
        if len(conversation) < 2 or conversation[-2]["role"] != "user":
            left[at] = "no-question"
            continue
        content = filled(template, instruction_of(conversation), answer["content"])
        messages = [*conversation[:-2], {"role": "user", "content": content}]
        size = len(tokenizer(answer["content"], add_special_tokens=False, verbose=False)["input_ids"])
        limit = min(most, math.ceil(ratio * size) + TOKENS)
        length = len(prompt_ids(tokenizer, messages))
        if length + limit > window:
            left[at] = "window"
            continue
        asked.append(Request(at, messages, length, limit))
    return asked, left


def rewriter(
    model: Any, tokenizer: Any, *, window: int, most: int, temperature: float, seed: int, batch_size: int, bf16: bool
) -> CausalWriter:
    """The base model, ready to rewrite; it takes the likeliest words at temperature 0 and draws them above it."""
    decoding = Decoding(
        max_new_tokens=most, do_sample=temperature > 0, temperature=temperature or 1.0, seed=seed
    )  # fmt: skip
    return CausalWriter(model, tokenizer, window, decoding, batch_size, bf16)


def batches(writer: CausalWriter, asked: Sequence[Request]) -> list[np.ndarray]:
    """Places of requests of like length, a batch at a time."""
    lengths = np.array([r.length for r in asked], dtype=np.int64)
    return [np.asarray(index) for index in writer.batches(lengths)] if len(asked) else []


def write_all(
    writer: CausalWriter, asked: Sequence[Request], parts: Path, progress: Callable[[int], None]
) -> tuple[dict[int, Written], float]:
    """Every request's answer, each batch kept in a file of `parts`, so that one that is there is not written again.

    Args:
        progress: told of the rows of each batch.

    Returns:
        place of the row -> what was written, and the seconds that it took, those of earlier tries among them.
    """
    from dataclasses import replace

    out: dict[int, Written] = {}
    seconds, decoding = 0.0, writer.decoding
    for number, index in enumerate(batches(writer, asked)):
        path = parts / f"{number:06d}.json"
        found = _part(path, [asked[i].at for i in index])
        if found is None:
            started = time.perf_counter()
            writer.decoding = replace(decoding, seed=(decoding.seed + number) % 2**32)
            texts, ended = writer.write([asked[i].messages for i in index], limits=[asked[i].limit for i in index])
            rows = [[asked[i].at, t, bool(e)] for i, t, e in zip(index, texts, ended, strict=True)]
            found = {"seconds": time.perf_counter() - started, "rows": rows}
            write_whole(path, json.dumps({**found, "hash": fingerprint(rows)}, ensure_ascii=False))
        seconds += float(found["seconds"])
        out |= {int(at): Written(str(text), bool(end)) for at, text, end in found["rows"]}
        progress(len(index))
    writer.decoding = decoding
    return out, seconds


def _part(path: Path, places: list[int]) -> dict[str, Any] | None:
    """A batch that was written before; None where it is not there, damaged, or of other rows."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        whole = found["hash"] == fingerprint(found["rows"])
        return dict(found) if whole and [row[0] for row in found["rows"]] == places else None
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
