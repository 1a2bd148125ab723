"""Files to conversations: messages (also OpenAI's fine-tuning files), prompt and completion, Alpaca, ShareGPT.

A conversation is a list of {"role": system | user | assistant | tool, "content": text}; an assistant's message
with "weight": 0 carries no loss, as in OpenAI's files. It ends with the last answer of the assistant.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunewell.errors import DataError, nearest
from tunewell.tasks.rows import opened

if TYPE_CHECKING:
    from tunewell.data.load import Loaded
    from tunewell.recipe import Recipe

Message = dict[str, Any]
ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool",
}  # fmt: skip
FORMATS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("messages", ("messages",)),
    ("ShareGPT", ("conversations",)),
    ("prompt and completion", ("prompt", "completion")),
    ("Alpaca", ("instruction", "output")),
    ("prompt and completion", ("prompt", "response")),
    ("prompt and completion", ("instruction", "response")),
)


def format_of(loaded: Loaded, recipe: Recipe) -> tuple[str, tuple[str, ...]]:
    """The format of a file and its columns.

    Raises:
        DataError: a named column is missing, or no format fits.
    """
    names = loaded.dataset.column_names
    for key in ("messages", "source", "target"):
        asked = getattr(recipe, key)
        if asked is not None and asked not in names:
            raise DataError(
                f"no column `{asked}`",
                where=loaded.source,
                expected="one of " + ", ".join(names),
                remedy=nearest(asked, names),
            )
    if recipe.messages:
        return "messages", (recipe.messages,)
    if recipe.source and recipe.target:
        return "prompt and completion", (recipe.source, recipe.target)
    if {"preferred_output", "non_preferred_output"} <= set(names) or {"chosen", "rejected"} <= set(names):
        raise DataError(
            "holds preferences, two answers a prompt of which one is better",
            where=loaded.source,
            expected="one answer a prompt, to be learned as it is",
            remedy="write a file with the prompt and the better answer alone",
        )
    for name, columns in FORMATS:
        if set(columns) <= set(names):
            return name, columns
    raise DataError(
        "no format of instructions fits its columns",
        where=loaded.source,
        expected="messages; prompt and completion; instruction and output (Alpaca); conversations (ShareGPT)",
        remedy=f"name them: --source COLUMN --target COLUMN (the file has {', '.join(names[:10])})",
    )


def conversations(loaded: Loaded, recipe: Recipe) -> tuple[list[dict[str, Any]], dict[str, int], Counter[str]]:
    """Canonical rows: `messages` (JSON), `text` (all before the last answer), `label` (the last answer)."""
    name, columns = format_of(loaded, recipe)
    rows: list[dict[str, Any]] = []
    dropped: Counter[str] = Counter()
    mended: Counter[str] = Counter()
    for number, row in enumerate(loaded.dataset, 1):
        where = f"{loaded.source}:{number}"
        messages = messages_of(name, columns, row, where)
        calls = sum(m.pop("call", False) for m in messages)
        mended["a call of a tool carries no loss"] += calls > 0
        if messages and messages[-1]["role"] == "assistant" and messages[-1].get("weight") == 0 and calls:
            dropped["the last answer is a call of a tool"] += not messages[-1]["content"].strip()
            if not messages[-1]["content"].strip():
                continue
        last = max((i for i, m in enumerate(messages) if m["role"] == "assistant"), default=None)
        if last is None or not messages[last]["content"].strip():
            dropped["no answer of the assistant"] += 1
            continue
        if not any(m["role"] == "user" and m["content"].strip() for m in messages[:last]):
            dropped["no question before the answer"] += 1
            continue
        mended["what follows the last answer was left out"] += last + 1 < len(messages)
        rows.append(canonical(messages[: last + 1], loaded.source, number, row.get(recipe.group or "")))
    return rows, dict(dropped), mended


def canonical(messages: Sequence[Message], source: str, number: int, group: Any = None) -> dict[str, Any]:
    """One canonical row of a conversation that ends with an answer."""
    before = "\n".join(m["content"] for m in messages[:-1])
    return {
        "text": before,
        "label": messages[-1]["content"],
        "messages": json.dumps(list(messages), ensure_ascii=False),
        "group": str(group) if group is not None else before,
        "row": number,
        "source": source,
    }


def messages_of(name: str, columns: Sequence[str], row: dict[str, Any], where: str) -> list[Message]:
    """The conversation of one row.

    Raises:
        DataError: not a list of messages, or an unknown role.
    """
    if name in ("messages", "ShareGPT"):
        return _listed(row[columns[0]], where)
    if name == "Alpaca":
        extra = _text(row.get("input"))
        prompt = _text(row[columns[0]]) + (f"\n\n{extra}" if extra.strip() else "")
        system = _text(row.get("system"))
        return [
            *([{"role": "system", "content": system}] if system.strip() else []),
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": _text(row[columns[1]])},
        ]
    prompt, completion = (row[c] for c in columns)
    first = _listed(prompt, where) if _is_list(prompt) else [{"role": "user", "content": _text(prompt)}]
    last = _listed(completion, where) if _is_list(completion) else [{"role": "assistant", "content": _text(completion)}]
    return [*first, *last]


def _calls(message: dict[str, Any]) -> bool:
    return bool(opened(message.get("tool_calls")) or opened(message.get("function_call")))


def _is_list(value: Any) -> bool:
    found = opened(value)
    return isinstance(found, list) and any(isinstance(m, dict) for m in found)


def _text(value: Any) -> str:
    return "" if value is None or value != value else str(value)


def _listed(value: Any, where: str) -> list[Message]:
    expected = 'a list of {"role": "user", "content": "…"}'
    value = opened(value)
    if not isinstance(value, list) or not all(isinstance(m, dict) for m in value):
        raise DataError("is not a list of messages", where=where, expected=expected)
    out = []
    for message in value:
        role = message.get("role") or message.get("from")
        content = message.get("content") if message.get("content") is not None else message.get("value")
        known = ROLES.get(str(role).lower())
        if known is None:
            raise DataError(
                f"unknown role {role!r}", where=where, expected=", ".join(ROLES), remedy=nearest(str(role), ROLES)
            )
        if isinstance(content, list):  # OpenAI's parts; only text can be learned here
            content = "".join(_text(part.get("text")) for part in content if isinstance(part, dict))
        made: Message = {"role": known, "content": _text(content)}
        if known == "assistant" and not made["content"].strip() and _calls(message):
            made |= {"weight": 0, "call": True}  # the template may show it; as text there is nothing to learn
        if message.get("weight") in (0, "0", 0.0, False):
            made["weight"] = 0
        out.append(made)
    return out
