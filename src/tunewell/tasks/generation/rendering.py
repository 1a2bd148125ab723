"""A conversation as tokens, and which of them carry loss: the assistant's words and the token that ends its turn.

The whole conversation goes through the model's own chat template once and is tokenised once. An answer is what
the template adds when the answer is added; its tokens are found by their characters, so that no token is learnt
that the model would not see when it answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunewell.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunewell.tasks.generation.conversations import Message

# for models that bring no template; saved with the tuned model
PLAIN = (
    "{% for m in messages %}{{ m['role'].capitalize() + ': ' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


@dataclass(frozen=True)
class Rendered:
    """A conversation as the model reads it.

    Attributes:
        ids: (T,) tokens. learnt: (T,) whether a token carries loss.
        ended: the last answer's end token is among the learnt.
        unlearnt: answers without loss although they should have: the template shows them otherwise later on.
    """

    ids: list[int]
    learnt: list[bool]
    ended: bool
    unlearnt: int = 0


def ensure_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Give the tokenizer a plain template if it has none; whether it brought its own."""
    if tokenizer.chat_template:
        return True
    tokenizer.chat_template = PLAIN
    return False


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """What the model reads before it answers."""
    text = _render(tokenizer, messages, True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def end_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end an answer: the end of the text, and what the template puts behind an answer."""
    out = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    asked = [{"role": "user", "content": "a"}]
    try:
        after = _added(tokenizer, asked, {"role": "assistant", "content": "b"})[1]
    except ModelError:
        return out
    token = _first_special(tokenizer, after)
    if token is not None:
        number = tokenizer.convert_tokens_to_ids(token)
        if isinstance(number, int) and number not in out:
            out.append(number)
    return out


def rendered_text(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """A conversation as the template shows it."""
    return _render(tokenizer, messages, False)


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> Rendered:
    """A conversation that ends with an answer.

    Raises:
        ModelError: the template fails, or shows the last answer in no way that can be told from its prompt.
    """
    whole = _render(tokenizer, messages, False)
    spans: list[tuple[int, int]] = []
    unlearnt, cut = 0, len(whole)
    for i, message in enumerate(messages):
        if message["role"] != "assistant" or message.get("weight") == 0:
            continue
        try:
            before, added = _added(tokenizer, messages[:i], message)
        except ModelError:
            if i == len(messages) - 1:
                raise
            unlearnt += 1
            continue
        if not whole.startswith(before + added):  # an earlier answer that the template later shows otherwise
            unlearnt += 1
            continue
        token = _first_special(tokenizer, added)
        end = len(before) + (added.index(token) + len(token) if token else len(added.rstrip()))
        spans.append((len(before), end))
        if i == len(messages) - 1:
            cut = end  # nothing after the end token is read or learnt
    whole = whole[:cut]
    encoded: Any = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids: list[int] = list(encoded["input_ids"])
    learnt = [
        any(a <= start and end <= b and end > start for a, b in spans) for start, end in encoded["offset_mapping"]
    ]
    ends = set(end_ids(tokenizer))
    last_counts = messages[-1].get("weight") != 0
    if last_counts and ids and ids[-1] not in ends and tokenizer.eos_token_id is not None:
        ids.append(int(tokenizer.eos_token_id))
        learnt.append(True)
    return Rendered(ids, learnt, bool(ids) and last_counts and ids[-1] in ends and learnt[-1], unlearnt)


def _added(tokenizer: PreTrainedTokenizerBase, before: Sequence[Message], answer: Message) -> tuple[str, str]:
    """The prompt, and what the template adds to it for an answer."""
    prompt = _render(tokenizer, before, True)
    whole = _render(tokenizer, [*before, answer], False)
    if not whole.startswith(prompt):
        raise ModelError(
            "its chat template shows a prompt otherwise once it is answered, so the answer cannot be told apart",
            where=str(tokenizer.name_or_path),
            expected="a template whose prompt stays as it is",
        )
    return prompt, whole[len(prompt) :]


def _first_special(tokenizer: PreTrainedTokenizerBase, text: str) -> str | None:
    """The special token that comes first in a text."""
    places = [(text.index(t), t) for t in tokenizer.all_special_tokens if t and t in text]
    return min(places)[1] if places else None


def _render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], prompt: bool) -> str:
    plain = [{"role": m["role"], "content": m["content"]} for m in messages]
    try:
        return str(tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=prompt))
    except Exception as error:  # templates are programs: they raise what they like
        raise ModelError(
            f"its chat template cannot show a conversation: {str(error).splitlines()[0][:200]}",
            where=str(tokenizer.name_or_path),
            expected="roles and an order of messages that the template knows: "
            + ", ".join(m["role"] for m in messages),
        ) from None


def decoded_sample(tokenizer: PreTrainedTokenizerBase, rendered: Rendered) -> list[dict[str, Any]]:
    """Stretches of a conversation as text, each learnt or not, for people to look at."""
    out: list[dict[str, Any]] = []
    start = 0
    for i in range(1, len(rendered.ids) + 1):
        if i == len(rendered.ids) or rendered.learnt[i] != rendered.learnt[start]:
            text = tokenizer.decode(rendered.ids[start:i])
            out.append({"text": text, "learnt": rendered.learnt[start]})
            start = i
    return out
