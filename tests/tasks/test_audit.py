"""The supervision audit: what is counted before any training, and what is wrong between template and data."""

from __future__ import annotations

import copy
import json

import pytest
from datasets import Dataset

from tunewell.data.load import load
from tunewell.errors import DataError
from tunewell.recipe import Recipe
from tunewell.tasks.generation.audit import encode_rows, highlighted, sentence
from tunewell.tasks.generation.conversations import conversations
from tunewell.tasks.generation.instructions import findings
from tunewell.tasks.generation.writers import CausalWriter

DEFAULT = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"


@pytest.fixture(scope="module")
def tokenizer(tiny_decoder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_decoder)


def turn(role: str, content: str, **more) -> dict:
    return {"role": role, "content": content, **more}


def audited(tokenizer, *talks, length: int = 128, template: str | None = None) -> dict:
    own = copy.deepcopy(tokenizer)
    own.chat_template = template or own.chat_template
    rows = Dataset.from_list([{"source": "d.jsonl", "row": i} for i in range(1, len(talks) + 1)])
    return encode_rows(CausalWriter(None, own, length), rows, list(talks), "truncate")[2]


ASKED = [turn("user", "say one"), turn("assistant", "one")]


def codes(audit: dict) -> set[str]:
    return {f.code for f in findings({}, audit)}


def test_a_plain_conversation_has_no_findings(tokenizer):
    audit = audited(tokenizer, ASKED)
    assert not codes(audit)
    assert audit["end_tokens"] == ["<|im_end|>"] and audit["own_template"]
    assert highlighted(audit["sample"], colour=False).endswith("assistant\n⟦one<|im_end|>⟧")


def test_answers_that_are_cut_are_counted_apart(tokenizer):
    audit = audited(tokenizer, ASKED, [turn("user", "x"), turn("assistant", "room " * 60)], length=24)
    assert audit["answers_cut"] == 1
    assert "answer-cut" in codes(audit) and sentence(audit).endswith("were cut, 1 of them in an answer")


def test_a_prompt_that_is_cut_is_no_cut_answer(tokenizer):
    audit = audited(tokenizer, [turn("user", "room " * 60), turn("assistant", "one")], length=24)
    assert audit["answers_cut"] == 0 and audit["rows_too_long"] == 1


def test_text_that_was_rendered_before_is_found(tokenizer):
    audit = audited(tokenizer, ASKED, [turn("user", "[INST] say one [/INST]"), turn("assistant", "one")])
    assert (audit["rows_with_marks"], audit["marks"]) == (1, ["[/INST]", "[INST]"])
    assert "template-in-text" in codes(audit)


def test_messages_that_the_template_leaves_out_are_found(tokenizer):
    template = tokenizer.chat_template.replace("for m in messages", "for m in messages if m['role'] != 'system'")
    audit = audited(tokenizer, [turn("system", "be brief"), *ASKED], template=template)
    assert audit["roles_not_shown"] == ["system"] and codes(audit) == {"message-not-shown"}


def test_a_system_prompt_of_the_template_is_told(tokenizer):
    audit = audited(tokenizer, ASKED, template=DEFAULT + tokenizer.chat_template)
    assert audit["added_by_template"] == "Be kind." and codes(audit) == {"system-prompt-added"}


def test_answers_that_are_hidden_later_are_told(tokenizer):
    template = tokenizer.chat_template.replace(
        "m['content']", "(m['content'] if loop.last or m['role'] == 'user' else '')"
    )
    audit = audited(tokenizer, [*ASKED, turn("user", "two"), turn("assistant", "two")], template=template)
    assert audit["answers_hidden_by_template"] == 1 and "answer-hidden" in codes(audit)


# ---------------------------------------------------------------- OpenAI's files


def read(tmp_path, *rows):
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in rows), encoding="utf-8")
    return conversations(load(path), Recipe())


FUNCTION = {"name": "f", "arguments": "{}"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "type": "function", "function": FUNCTION}]}


def test_openai_files_with_tools_are_read(tmp_path):
    """developer, calls of tools without content, tool results, parts of text, names, tools beside the messages."""
    parts = [{"type": "text", "text": "say "}, {"type": "text", "text": "one"}]
    messages = [turn("developer", "be brief"), turn("user", parts, name="ann"), CALL,
                {"role": "tool", "tool_call_id": "a", "content": "1"}, turn("assistant", "one", weight=1)]  # fmt: skip
    rows, dropped, mended = read(tmp_path, {"messages": messages, "parallel_tool_calls": False, "tools": []})
    made = json.loads(rows[0]["messages"])
    assert [m["role"] for m in made] == ["system", "user", "assistant", "tool", "assistant"]
    assert made[1]["content"] == "say one" and made[2]["weight"] == 0 and rows[0]["label"] == "one"
    assert not dropped and mended["a call of a tool carries no loss"] == 1


def test_a_call_of_a_tool_is_no_answer(tmp_path):
    _, dropped, _ = read(tmp_path, {"messages": ASKED}, {"messages": [turn("user", "x"), CALL]})
    assert dropped == {"the last answer is a call of a tool": 1}


@pytest.mark.parametrize(
    "row",
    [
        {"input": {"messages": [turn("user", "x")]}, "preferred_output": [turn("assistant", "a")],
         "non_preferred_output": [turn("assistant", "b")]},
        {"prompt": "x", "chosen": "a", "rejected": "b"},
    ],
)  # fmt: skip
def test_preferences_are_refused(tmp_path, row):
    with pytest.raises(DataError, match="holds preferences"):
        read(tmp_path, row)
