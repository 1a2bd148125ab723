"""What a model finds on the rows of a job, found once: the same weights are asked for the same split when the final
weights are chosen, when the threshold is written and when the report is made."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from tunewell.tasks.question_answering.spans import Answerer, Found

if TYPE_CHECKING:
    from tunewell.stages.job import Job

KEPT = 8  # results, the newest


def digest(model: Any) -> str:
    """A hash of all weights of a model."""
    import torch

    out = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        out.update(name.encode())
        out.update(tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return out.hexdigest()


def found_on(job: Job, model: Any, split: str, *, bf16: bool = False) -> list[Found]:
    """The best spans of each row of a split, in its order.

    Args:
        bf16: for a look while tuning, whose weights are not seen again: found anew and not kept.
    """
    recipe, rows = job.recipe, job.splits[split]
    answerer = Answerer(
        model, job.tokenizer, job.max_length, recipe.doc_stride, recipe.max_answer_length, recipe.n_best_size,
        batch_size=recipe.per_device_eval_batch_size, bf16=bf16,
    )  # fmt: skip
    if bf16:
        return answerer.find(list(rows["text"]), list(rows["text_pair"]))
    key = ("found", split, digest(model))
    if key not in job.memory:
        job.memory[key] = answerer.find(list(rows["text"]), list(rows["text_pair"]))
        for old in [k for k in job.memory if k[0] == "found"][:-KEPT]:
            del job.memory[old]
    return job.memory[key]
