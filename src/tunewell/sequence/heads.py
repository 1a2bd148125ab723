"""A model as a shared body and a head for each task.

The head is everything above the last hidden states: all weights outside `base_model`, and the pooler
of models (BERT) that keep it inside. So an earlier task's reading of the body stays as it was, and
only the body is shared. Heads are run over hidden states that are there already: several heads cost
one pass through the body.

Shapes: B rows, T tokens, H hidden size, C classes, n texts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Head = dict[str, torch.Tensor]  # names as in the whole model -> weights
HOLDER = "task_heads"


def head_names(model: PreTrainedModel) -> list[str]:
    """Names of the weights that make up the head, as in `model.state_dict()`."""
    body = model.base_model_prefix + "."
    return [
        name
        for name in model.state_dict()
        if not name.startswith(f"{HOLDER}.") and (not name.startswith(body) or name.startswith(f"{body}pooler."))
    ]


def head_of(model: PreTrainedModel) -> Head:
    """A copy of the model's own head."""
    state = model.state_dict()
    return {name: state[name].detach().clone().contiguous() for name in head_names(model)}


def body_of(model: PreTrainedModel) -> Head:
    """A copy of the weights that the tasks share, named as in the whole model."""
    own = set(head_names(model))
    return {
        name: tensor.detach().clone().contiguous()
        for name, tensor in model.state_dict().items()
        if name not in own and not name.startswith(f"{HOLDER}.")
    }


class TaskHeads(torch.nn.Module):
    """Heads of other tasks, as parameters of the model in the making: trained, saved and resumed with it."""

    def __init__(self, heads: Mapping[str, Head]) -> None:
        super().__init__()
        for task, head in heads.items():
            own = torch.nn.ParameterDict()
            for name, tensor in head.items():  # a parameter's name may hold no dot
                own[name.replace(".", "/")] = torch.nn.Parameter(tensor.detach().clone())
            self.add_module(task, own)

    def of(self, task: str) -> Head:
        return {name.replace("/", "."): p for name, p in self.get_submodule(task).named_parameters()}

    def copies(self) -> dict[str, Head]:
        return {
            task: {name: p.detach().clone().contiguous() for name, p in self.of(task).items()}
            for task, _ in self.named_children()
        }


def attach(model: PreTrainedModel, heads: Mapping[str, Head]) -> None:
    """Put the heads of other tasks beside the model's own."""
    model.add_module(HOLDER, TaskHeads(heads).to(model.device))


def attached(model: PreTrainedModel, task: str) -> Head:
    """The head of another task as it is in training: parameters, not copies."""
    holder: Any = getattr(model, HOLDER)
    return holder.of(task)


def read_out(model: PreTrainedModel, head: Mapping[str, torch.Tensor], hidden: torch.Tensor, mask: torch.Tensor) -> Any:
    """Logits (B, C) of a head over hidden states (B, T, H) that the body has given.

    The model runs with its body replaced by those states and with the head's weights in place of its
    own, so that any architecture of Transformers does, whatever its head looks like. Nothing stays replaced.
    """
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    base: Any = model.base_model

    def given(*_: Any, **__: Any) -> BaseModelOutputWithPooling:
        pooler = getattr(base, "pooler", None)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden, pooler_output=pooler(hidden) if pooler is not None else None
        )

    base.forward = given
    try:
        # the ids only tell some heads (GPT-like) where a text ends
        inputs = {"input_ids": mask.long(), "attention_mask": mask}
        return torch.func.functional_call(model, dict(head), args=(), kwargs=inputs).logits
    finally:
        del base.forward


def summary_of(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """What is read off hidden states (B, T, H): their mean over tokens and the first token's, (B, 2, H) float32."""
    from tunewell.models.embed import mean_pool

    first = mask.long().argmax(1)  # padding may stand on the left
    return torch.stack(
        [mean_pool(hidden.float(), mask), hidden.float()[torch.arange(len(hidden), device=hidden.device), first]], dim=1
    )


def last_linear(model: PreTrainedModel) -> tuple[str, torch.nn.Linear]:
    """The layer of the head that gives the logits, and its name."""
    named = [
        (name, m)
        for name, m in model.named_modules()
        if isinstance(m, torch.nn.Linear) and m.out_features == model.config.num_labels
    ]
    return named[-1]


@contextlib.contextmanager
def features(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Collects what goes into the last layer of the head, (B, F) a pass, while the context lasts."""
    seen: list[torch.Tensor] = []
    handle = last_linear(model)[1].register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    try:
        yield seen
    finally:
        handle.remove()


def run_heads(
    model: PreTrainedModel,
    tokenizer: Any,
    encoded: Any,
    heads: Mapping[str, Mapping[str, torch.Tensor]],
    *,
    batch_size: int = 64,
    bf16: bool = False,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Every head over the same texts, the body passed once.

    Args:
        encoded: n texts as `models.embed.encode` gives them.

    Returns:
        Logits (n, C) float32 by task, and (n, 2, H): the mean-pooled embeddings and the first token's states.
    """
    from tunewell.models.embed import like_length, pad

    lengths = np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)
    logits: dict[str, Any] = {}
    summary = np.empty((len(lengths), 2, model.config.hidden_size), dtype=np.float32)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode(), torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bf16):
            for index in like_length(lengths, batch_size):
                batch = {k: v.to(model.device) for k, v in pad(tokenizer, encoded, index).items()}
                hidden = model.base_model(**batch).last_hidden_state
                summary[index] = summary_of(hidden, batch["attention_mask"]).cpu().numpy()
                for task, head in heads.items():
                    out = read_out(model, head, hidden, batch["attention_mask"]).float().cpu().numpy()
                    if task not in logits:
                        logits[task] = np.empty((len(lengths), out.shape[1]), dtype=np.float32)
                    logits[task][index] = out
    finally:
        model.train(training)
    return logits, summary
