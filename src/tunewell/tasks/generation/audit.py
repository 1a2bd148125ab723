"""Before any training: which tokens of which rows carry loss, what is cut, and what one row looks like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import DataError
from tunewell.tasks.generation.loss import IGNORED
from tunewell.tasks.generation.writers import CausalWriter, Encoded, Seq2SeqWriter

if TYPE_CHECKING:
    from datasets import Dataset

LISTED = 3
LOOKED_AT = 2000
# of chat templates that data may have been rendered with before
MARKS = ("<|im_start|>", "<|im_end|>", "[INST]", "[/INST]", "<<SYS>>", "<|start_header_id|>", "<|eot_id|>",
         "<start_of_turn>", "<end_of_turn>", "<|assistant|>", "<|user|>", "<|endoftext|>", "### Response:",
         "### Instruction:")  # fmt: skip


def encode_rows(
    writer: CausalWriter | Seq2SeqWriter,
    rows: Dataset,
    conversations: Sequence[list[dict[str, Any]]],
    overlength: str,
) -> tuple[list[Encoded], np.ndarray, dict[str, Any]]:
    """Training rows as tokens, the places of those that are used, and the audit.

    Args:
        conversations: of the rows, as the model is to read them.
        overlength: "truncate" keeps a row that is too long, without the beginning of a conversation or the end of
            a source; "drop" leaves it out; "error" ends here.

    Raises:
        DataError: a row without a token that carries loss; a row too long under `error`; no row left.
    """
    encoded: list[Encoded] = []
    used: list[int] = []
    masked: list[str] = []
    long: list[str] = []
    for i, (row, messages) in enumerate(zip(rows, conversations, strict=True)):
        made = writer.encode(messages)
        where = f"{row['source']}:{row['row']}"
        if all(y == IGNORED for y in made.labels):
            masked.append(where)
            continue
        if made.cut:
            long.append(where)
            if overlength == "drop":
                continue
        encoded.append(made)
        used.append(i)
    if masked:
        raise DataError(
            f"{len(masked):,} rows have no token that carries loss: nothing can be learned from them",
            where=", ".join(masked[:LISTED]) + (", …" if len(masked) > LISTED else ""),
            expected="an answer of the assistant, not all of them with `weight: 0`",
            remedy="remove these rows",
        )
    if long and overlength == "error":
        raise DataError(
            f"{len(long):,} rows are longer than {writer.max_length} tokens",
            where=", ".join(long[:LISTED]) + (", …" if len(long) > LISTED else ""),
            expected="rows that fit (`overlength: error`)",
            remedy="raise max_length, or choose `overlength: truncate` or `drop`",
        )
    if not encoded:
        raise DataError(
            f"all {len(rows):,} rows are longer than {writer.max_length} tokens and were dropped",
            where="overlength: drop",
            expected="rows that fit",
            remedy="raise max_length, or choose `overlength: truncate`",
        )
    tokens = sum(len(e.ids) + (0 if writer.shift else len(e.labels)) for e in encoded)  # source and target
    learnt = sum(y != IGNORED for e in encoded for y in e.labels)
    audit = {
        "rows": len(rows),
        "rows_with_loss": len(encoded),
        "rows_too_long": len(long),
        "overlength": overlength,
        "max_length": writer.max_length,
        "tokens": tokens,
        "tokens_with_loss": learnt,
        "tokens_cut": sum(e.cut for e in encoded),
        "rows_that_learn_to_end": sum(e.ended for e in encoded),
        "answers_cut": sum(e.answer_cut > 0 for e in encoded),
        "answers_hidden_by_template": sum(e.unlearnt for e in encoded),
        "end_tokens": [writer.tokenizer.decode([i]) for i in writer.ends()],
        **(template_against_data(writer, [conversations[i] for i in used]) if writer.shift else {}),
        "sample": sample(writer, encoded[0]),
    }
    return encoded, np.array(used, dtype=np.int64), audit


def sample(writer: CausalWriter | Seq2SeqWriter, row: Encoded) -> list[dict[str, Any]]:
    """A row as stretches of text, learnt or not."""
    from tunewell.tasks.generation.rendering import Rendered, decoded_sample

    if not writer.shift:
        decode = writer.tokenizer.decode
        return [{"text": decode(row.ids), "learnt": False}, {"text": decode(row.labels), "learnt": True}]
    learnt = [y != IGNORED for y in row.labels]
    return decoded_sample(writer.tokenizer, Rendered(row.ids, learnt, row.ended))


def sentence(audit: dict[str, Any]) -> str:
    """The audit in one line."""
    long = audit["rows_too_long"]
    done = "left out" if audit["overlength"] == "drop" else "cut"
    return (
        f"audit: {audit['rows_with_loss']:,} of {audit['rows']:,} rows carry loss, on "
        f"{audit['tokens_with_loss']:,} of {audit['tokens']:,} tokens; {audit['rows_that_learn_to_end']:,} learn to end"
        + (f"; {long:,} rows longer than {audit['max_length']} tokens were {done}" if long else "")
        + (f", {audit['answers_cut']:,} of them in an answer" if audit.get("answers_cut") else "")
    )


def template_against_data(
    writer: CausalWriter | Seq2SeqWriter, talks: Sequence[list[dict[str, Any]]]
) -> dict[str, Any]:
    """What the chat template does to the data, counted over at most LOOKED_AT conversations.

    Returns:
        own_template: the tokenizer brought one. added_by_template: a system prompt of its own, put before
        conversations that have none. rows_with_marks: a message holds a mark of this or another template.
        rows_not_shown: a message does not stand in what the model reads.
    """
    from tunewell.tasks.generation.rendering import PLAIN, rendered_text

    tokenizer = writer.tokenizer
    marks = {t for t in tokenizer.all_special_tokens if len(t) > 2} | set(MARKS)
    out: dict[str, Any] = {"own_template": tokenizer.chat_template != PLAIN, "added_by_template": "", "looked_at": 0}
    out |= {"rows_with_marks": 0, "marks": [], "rows_not_shown": 0, "roles_not_shown": []}
    seen: set[str] = set()
    hidden: set[str] = set()
    for talk in talks[:LOOKED_AT]:
        whole = rendered_text(tokenizer, talk)
        found = {mark for mark in marks for m in talk if mark in m["content"]}
        lost = {m["role"] for m in talk if m["content"].strip() and m["content"].strip() not in whole}
        out["looked_at"] += 1
        out["rows_with_marks"] += bool(found)
        out["rows_not_shown"] += bool(lost)
        seen |= found
        hidden |= lost
    out["marks"], out["roles_not_shown"] = sorted(seen), sorted(hidden)
    alone = next((t for t in talks[:LOOKED_AT] if t[0]["role"] == "user"), None)
    if alone is not None:  # what stands before the first turn although the data has nothing there
        before = rendered_text(tokenizer, alone).partition(alone[0]["content"].strip())[0]
        for mark in sorted(tokenizer.all_special_tokens, key=len, reverse=True):
            before = before.replace(mark, "\n")
        lines = [line.strip() for line in before.splitlines()]
        out["added_by_template"] = " ".join(x for x in lines if x and x.lower() not in ("system", "user", "user:"))
    return out


def highlighted(parts: Sequence[dict[str, Any]], *, colour: bool, longest: int = 600) -> str:
    """A sample for a terminal: what is learnt in green, or between ⟦ and ⟧ where there are no colours.

    >>> highlighted([{"text": "say one: ", "learnt": False}, {"text": "one", "learnt": True}], colour=False)
    'say one: ⟦one⟧'
    """
    first, last = ("\x1b[32m", "\x1b[0m") if colour else ("⟦", "⟧")
    texts = []
    for part in parts:
        text = part["text"]
        if len(text) > longest:
            text = text[: longest // 2] + " … " + text[-longest // 2 :]
        texts.append(f"{first}{text}{last}" if part["learnt"] else text)
    return "".join(texts)


def inputs_of(encoded: Sequence[Encoded]) -> dict[str, list]:
    """Columns for the training loop."""
    return {"input_ids": [e.ids for e in encoded], "labels": [e.labels for e in encoded]}
