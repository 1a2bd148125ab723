"""Classes as words in a gap: an encoder with its masked-language-modelling head answers "TEXT It was [MASK]."

Pattern-exploiting training (PET; Schick and Schütze, 2021) and LM-BFF (Gao, Fisch and Chen, 2021): a pattern puts a
mask beside the text, a verbaliser says which words stand for which class, and the head that the model was pretrained
with scores them. No weight is new, so that a few labels a class go further than under a head drawn at random; and the
untuned model answers too (zero-shot).

The logit of a class is the mean of its words' logits at the mask (PET, section 3.1); probabilities are a softmax over
classes. The pattern lives in the tokenizer, as the template that adds special tokens: a long text is cut, never the
pattern. A folder that was saved is an ordinary masked language model with `tunewell_prompt` in its config.json.

Shapes: B rows, T tokens, H hidden size, V vocabulary, C classes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewell.errors import ModelError, RecipeError

if TYPE_CHECKING:
    import torch

KEY = "tunewell_prompt"  # in config.json
TEXT, PAIR, MASK = "{text}", "{text_pair}", "{mask}"
PARTS = re.compile(r"(\{text\}|\{text_pair\}|\{mask\})")


def check_pattern(pattern: str, *, pair: bool) -> str:
    """What is wrong with a pattern, in words; empty when nothing is."""
    counts = {part: pattern.count(part) for part in (TEXT, MASK, PAIR)}
    if unknown := [p for p in re.findall(r"\{[^}]*\}?", pattern) if p not in counts]:
        return f"`{unknown[0]}` is no place of a pattern"
    wanted = {TEXT: 1, MASK: 1, PAIR: int(pair)}
    for part, n in wanted.items():
        if counts[part] != n:
            times = {0: "not stand", 1: "stand once"}[n]
            why = " (the rows have one text)" if part == PAIR and not pair else ""
            return f"{part} must {times} in it{why}, and stands {counts[part]} times"
    if pair and pattern.index(TEXT) > pattern.index(PAIR):
        return f"{TEXT} must stand before {PAIR}"
    return ""


def patterned(tokenizer: Any, pattern: str, *, pair: bool, max_length: int) -> Any:
    """A copy of a fast tokenizer that puts the pattern around each text (or pair).

    Raises:
        ModelError: not a fast tokenizer with a mask and one special token at either end.
        RecipeError: a pattern without a place for the text or the mask, or longer than the window.
    """
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    if problem := check_pattern(pattern, pair=pair):
        expected = f"{TEXT}, {MASK}" + (f" and {PAIR}" if pair else "")
        raise RecipeError(f"`pattern: {pattern}`: {problem}", where="pattern", expected=expected)
    frame = tokenizer("")["input_ids"]
    if not tokenizer.is_fast or tokenizer.mask_token_id is None or len(frame) != 2:
        raise ModelError(
            "its tokenizer has no mask" if tokenizer.mask_token_id is None else "its tokenizer cannot take a pattern",
            where=str(tokenizer.name_or_path),
            expected="a fast tokenizer of a masked language model",
        )
    pieces: list[str] = ["[begin]"]
    special: list[dict[str, Any]] = [_special("[begin]", frame[:1], tokenizer)]
    for i, part in enumerate(p for p in PARTS.split(pattern) if p):
        if part in (TEXT, PAIR):
            pieces.append("$A" if part == TEXT else "$B:0")
            continue
        ids = [tokenizer.mask_token_id] if part == MASK else tokenizer(part, add_special_tokens=False)["input_ids"]
        if ids:
            pieces.append(f"[part{i}]")
            special.append(_special(f"[part{i}]", ids, tokenizer))
    pieces.append("[end]")
    special.append(_special("[end]", frame[1:], tokenizer))
    taken = sum(len(s["ids"]) for s in special)
    if taken + 4 > max_length:
        raise RecipeError(
            f"`pattern` takes {taken} tokens of a window of {max_length}", where="pattern", expected="a shorter one"
        )
    inner = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    inner.post_processor = TemplateProcessing(
        single=["[begin]", "$A", "[end]"] if pair else pieces,
        pair=pieces if pair else ["[begin]", "$A", "[end]", "$B:1", "[end]"],
        special_tokens=special,
    )
    names = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_max_length=tokenizer.model_max_length,
        model_input_names=tokenizer.model_input_names,
        **{name: token for name in names if (token := getattr(tokenizer, name, None)) is not None},
    )


def _special(name: str, ids: Sequence[int], tokenizer: Any) -> dict[str, Any]:
    return {"id": name, "ids": list(ids), "tokens": tokenizer.convert_ids_to_tokens(list(ids))}


def load_prompted(
    name: str,
    path: str,
    *,
    labels: Sequence[str] = (),
    words: Sequence[Sequence[int]] = (),
    mask: int = -1,
    first: bool = False,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """A masked language model whose logits are those of classes, in fp32.

    Args:
        labels, words, mask, first: classes, the token ids of each class's words, the mask's id, whether it stands
            before the text; of a saved folder they stand in its config.

    Raises:
        ModelError: it has no head for masked words, or lacks some of its weights.
    """
    import torch
    from transformers import AutoModelForMaskedLM

    from tunewell.models.heads import prepared
    from tunewell.models.load import check_weights, load_part

    model, found = load_part(
        AutoModelForMaskedLM.from_pretrained,
        name,
        path,
        "weights",
        revision=revision,
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
        dtype=torch.float32,
        output_loading_info=True,
    )
    if missing := sorted(found["missing_keys"]):
        raise ModelError(
            f"has no head for masked words: {missing[0]} would be drawn at random",
            where=name,
            expected="an encoder with its masked-language-modelling head for `strategy: prompt`",
            remedy="--model splade-tiny (packaged, small) or a hub id such as roberta-base; or another strategy",
        )
    check_weights(model, [], name)
    if labels:
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {label: i for i, label in enumerate(labels)}
        model.config.problem_type = "single_label_classification"
        setattr(model.config, KEY, {"mask": mask, "first": first, "words": [list(w) for w in words]})
    return prepared(prompted(model))


def prompted(model: Any) -> Any:
    """The same model, with weights and names as before, answering with logits (B, C) at the mask."""
    from transformers.modeling_outputs import SequenceClassifierOutput

    whole = type(model)
    words = [list(w) for w in getattr(model.config, KEY)["words"]]

    def forward(self: Any, input_ids: torch.Tensor | None = None, **inputs: Any) -> SequenceClassifierOutput:
        import torch

        if input_ids is None:
            raise ModelError(
                "is asked by a pattern, and explanations that mix token vectors cannot find its mask",
                where="explain",
                expected="a method that leaves words out, such as occlusion",
            )
        inputs.pop("labels", None)
        logits = at_mask(self, whole, input_ids, inputs)  # (B, V)
        return SequenceClassifierOutput(logits=torch.stack([logits[:, w].mean(1) for w in words], dim=1))

    model.__class__ = type(whole.__name__, (whole,), {"forward": forward, "__module__": whole.__module__})
    return model


def at_mask(model: Any, whole: Any, input_ids: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
    """(B, V) logits at the pattern's mask of each row; the head sees only that place where the model allows it.

    A text may hold a mask of its own: the pattern's is the first of the row or the last, by where it stands.

    Args:
        whole: the class of the model before `prompted`.
    """
    import torch

    about = getattr(model.config, KEY)
    rows = torch.arange(len(input_ids), device=input_ids.device)
    masks = input_ids == int(about["mask"])
    place = masks.int().argmax(1)
    if not about["first"]:
        place = input_ids.shape[1] - 1 - masks.flip(1).int().argmax(1)
    head = getattr(model, "cls", None) or getattr(model, "lm_head", None)
    if head is None:
        return whole.forward(model, input_ids=input_ids, **inputs).logits[rows, place]
    hidden = model.base_model(input_ids=input_ids, **inputs).last_hidden_state[rows, place]
    return head(hidden.unsqueeze(1)).squeeze(1)


def is_prompted(folder: str | Path) -> bool:
    """Whether a model folder was saved by `strategy: prompt`."""
    try:
        return KEY in json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False
