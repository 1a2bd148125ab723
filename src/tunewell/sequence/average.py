"""Weight averaging between the body before a task and after it, chosen on what may be looked at.

(1 − α) · before + α · after (WiSE-FT; Wortsman et al., 2022); heads that were trained along move the
same way, the new head's last layer is fitted again for each α on the new task's training rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.results import Candidate, Estimate
from tunewell.sequence.heads import body_of, head_of, last_linear
from tunewell.sequence.memory import Stored

if TYPE_CHECKING:
    from tunewell.sequence.job import TaskJob
    from tunewell.sequence.state import State


def choose_alpha(
    job: TaskJob,
    model: Any,
    state: State | None,
    heads: dict[str, Any],
    stored: Sequence[Stored],
    *,
    memory_length: int,
    retention: Callable[[Any], Any] | None,
    keep: float | None,
) -> float:
    """Score every α, leave the best in `model` and return it.

    A candidate's score is the mean over tasks of the new task's validation accuracy and, for each
    earlier task, the accuracy on its stored rows; where none are stored, the share of the new task's
    validation rows that its head answers as it did before. With `keep`, candidates whose retention on
    the select half is below it are out.
    """
    from tunewell.models.embed import encode
    from tunewell.retention.budget import choose
    from tunewell.sequence.heads import attach, run_heads
    from tunewell.stages.job import Job
    from tunewell.strategies.averaging import interpolate

    after = {"body": body_of(model), "own": head_of(model)}
    follow = model.task_heads.copies() if hasattr(model, "task_heads") else dict(heads)
    start = state.body if state is not None else body_of(Job.fresh_model(job))
    rows = job.splits["validation"]
    pairs = list(rows["text_pair"]) if job.spec.pair else None
    validation = encode(job.tokenizer, list(rows["text"]), pairs, job.max_length)
    options: dict[str, Any] = {"batch_size": job.recipe.per_device_eval_batch_size, "bf16": job.bf16}
    model.load_state_dict(start, strict=False)
    before = run_heads(model, job.tokenizer, validation, heads, **options)[0] if heads and not stored else {}
    candidates, made = [], []
    for alpha in sorted({*job.recipe.average_alphas, 1.0} - {0.0}, reverse=True):
        body = interpolate(start, after["body"], alpha)
        moved = {t: interpolate(heads[t], head, alpha) for t, head in follow.items()}
        model.load_state_dict({**body, **after["own"]}, strict=False)
        if alpha < 1:
            _refit(job, model)
        own = head_of(model)
        logits, _ = run_heads(model, job.tokenizer, validation, {"": own, **moved}, **options)
        scores = [float((logits[""].argmax(1) == job.targets("validation")).mean())]
        if stored:
            scores += [_stored_accuracy(job, model, s, moved.get(s.head, own), memory_length, options) for s in stored]
        else:
            scores += [float((logits[t].argmax(1) == before[t].argmax(1)).mean()) for t in heads]
        kept = retention(model) if retention is not None else None
        candidates.append(
            Candidate(
                name=f"alpha {alpha:g}", strategy=("average",), parameters={"alpha": alpha},
                score=Estimate(value=float(np.mean(scores)), n=len(rows)),
                retention_mean=kept.mean if kept else None, retention_worst=kept.worst if kept else None, meets=None,
            )
        )  # fmt: skip
        made.append((body, own, moved))
        extra = f", retention {kept.mean.value:.4f}" if kept and kept.mean.value is not None else ""
        job.echo(f"average: alpha {alpha:g}: mean score {np.mean(scores):.4f}{extra}")
    choice = choose(candidates, keep=keep, keep_worst=None)
    best = next(k for k, c in enumerate(choice.candidates) if c.chosen)
    body, own, moved = made[best]
    model.load_state_dict({**body, **own}, strict=False)
    if hasattr(model, "task_heads"):
        attach(model, moved)
    return float(candidates[best].parameters["alpha"])


def _refit(job: TaskJob, model: Any) -> None:
    import torch

    from tunewell.sequence.job import fit_last_layer

    weights, bias = fit_last_layer(job, model)
    layer = last_linear(model)[1]
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights))
        layer.bias.copy_(torch.from_numpy(bias))


def _stored_accuracy(job: TaskJob, model: Any, stored: Stored, head: Any, length: int, options: Any) -> float:
    from tunewell.models.embed import encode
    from tunewell.sequence.heads import run_heads

    encoded = encode(job.tokenizer, stored.texts, stored.pairs, length)
    logits, _ = run_heads(model, job.tokenizer, encoded, {"": head}, **options)
    return float((logits[""].argmax(1) == stored.targets).mean())
