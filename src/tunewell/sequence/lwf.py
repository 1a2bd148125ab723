"""Learning without Forgetting: earlier heads keep their answers on the new task's inputs.

Before a task is tuned, every earlier head answers all its training rows once. While it is tuned, the
heads are held to those answers by the distillation loss of the paper (Li & Hoiem, 2016, equations 2
to 4): −Σ y' log ŷ' with probabilities raised to 1/T and normalised, T = 2, summed over earlier heads.
No row of an earlier task is needed. The heads are trained along, as in the paper.

`Features` holds the body instead: its states on the new task's inputs stay near those it had before the
task, ‖e − e₀‖² / ‖e₀‖² of the mean-pooled states and of the first token's, which many heads read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tunewell.seal import broken, seal
from tunewell.sequence.heads import read_out, run_heads, summary_of
from tunewell.sequence.past import Past
from tunewell.sequence.replay import live_head
from tunewell.sequence.watch import Rows

if TYPE_CHECKING:
    from tunewell.train.hooks import Tuning, Weights


def distillation_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 2.0) -> torch.Tensor:
    """Mean over rows of −Σ_c y'_c log ŷ'_c for logits (B, C)."""
    wanted = torch.softmax(teacher / temperature, dim=1)
    return -(wanted * torch.log_softmax(student / temperature, dim=1)).sum(1).mean()


def state_distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean over rows and kinds of ‖s − t‖² / ‖t‖² for states (B, 2, H)."""
    from tunewell.strategies.distillation import relative_distance

    return relative_distance(student.flatten(0, 1), teacher.flatten(0, 1))


class Teacher:
    """What the body and earlier heads say of the new task's rows before it is tuned; computed once, kept on disk."""

    def __init__(self, past: Past) -> None:
        self.past = past
        self._ready: Any = None

    def prepare(self, tuning: Tuning) -> None:
        from tunewell.models.embed import encode

        past = self.past
        if self._ready is tuning:
            return
        self._ready = tuning
        pairs = list(past.rows["text_pair"]) if past.spec.pair else None
        encoded = encode(tuning.tokenizer, list(past.rows["text"]), pairs, past.max_length)
        self.rows = Rows(encoded["input_ids"])
        path = tuning.cache / "teacher.npz"
        if path.is_file() and broken(path) is None:
            with np.load(path, allow_pickle=False) as file:
                self.logits = {name[7:]: file[name] for name in file.files if name.startswith("logits.")}
                self.states = file["states"]
        else:
            tuning.echo(f"teacher: {len(past.rows):,} rows of this task by the body and {len(past.heads)} heads so far")
            self.logits, self.states = run_heads(tuning.model, tuning.tokenizer, encoded, past.heads, bf16=tuning.bf16)
            self._save(path)
            seal(path)
        past.watch.attach(tuning.model)

    def _save(self, path: Any) -> None:
        import io

        from tunewell.results import write_whole

        buffer = io.BytesIO()
        arrays = {f"logits.{task}": values for task, values in self.logits.items()}
        np.savez(buffer, states=self.states, **arrays)
        write_whole(path, buffer.getvalue())

    def batch(self) -> np.ndarray:
        """Rows of the batch that passes through the body."""
        return self.rows.of(self.past.watch.ids, self.past.watch.mask)


class LearningWithoutForgetting:
    name = "lwf"
    title = "Learning without Forgetting: earlier heads keep their answers on the new task's inputs"
    paper = "Li & Hoiem, 2016, Learning without Forgetting"

    def __init__(self, past: Past, teacher: Teacher, *, weight: float = 1.0, temperature: float = 2.0) -> None:
        self.past, self.teacher, self.weight, self.temperature = past, teacher, weight, temperature

    def prepare(self, tuning: Tuning) -> None:
        if self.past.heads:
            self.teacher.prepare(tuning)

    def extra_loss(self, model: Any, step: int) -> torch.Tensor | None:
        if not self.past.heads or not self.weight:
            return None
        watch, rows = self.past.watch, self.teacher.batch()
        total = torch.zeros((), device=model.device)
        for task in self.past.heads:
            logits = read_out(model, live_head(model, task), watch.hidden, watch.mask).float()
            wanted = torch.from_numpy(self.teacher.logits[task][rows]).to(model.device)
            total = total + distillation_loss(logits, wanted, self.temperature)
        return self.weight * total

    def variants(self, base: Weights, tuned: Weights) -> Iterator[tuple[dict[str, float], Weights]]:
        return iter(())


class Features:
    name = "features"
    title = "Distillation of the previous body's states on the new task's inputs"
    paper = "Li & Hoiem, 2016, with embeddings for logits"

    def __init__(self, past: Past, teacher: Teacher, *, weight: float = 1.0) -> None:
        self.past, self.teacher, self.weight = past, teacher, weight

    def prepare(self, tuning: Tuning) -> None:
        if self.past.heads:
            self.teacher.prepare(tuning)

    def extra_loss(self, model: Any, step: int) -> torch.Tensor | None:
        if not self.past.heads or not self.weight:
            return None
        watch = self.past.watch
        wanted = torch.from_numpy(self.teacher.states[self.teacher.batch()]).to(model.device)
        return self.weight * state_distance(summary_of(watch.hidden, watch.mask), wanted)

    def variants(self, base: Weights, tuned: Weights) -> Iterator[tuple[dict[str, float], Weights]]:
        return iter(())
