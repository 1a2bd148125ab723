"""Tune a model in TensorFlow: the counterpart of train/tune.py, with the same rows, batches, rates and seeds.

The loop is short because a strategy has no say in it but distillation, whose general texts and teacher are those
of PyTorch's. Dropout draws other masks than PyTorch does; without it the losses are the same up to rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.results import Training

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.backends.tensorflow.model import Classifier
    from tunewell.recipe import Recipe
    from tunewell.tasks import TaskSpec
    from tunewell.train.hooks import Strategy
    from tunewell.train.plan import Plan


def tune(
    model: Any,
    tokenizer: Any,
    spec: TaskSpec,
    train: Dataset,
    *,
    recipe: Recipe,
    max_length: int,
    targets: np.ndarray,
    validate: Callable[[Classifier], dict[str, float]],
    strategies: Sequence[Strategy],
    folder: Path,
    echo: Callable[[str], None] = print,
    progress: bool = True,
    callbacks: Sequence[Any] = (),
    pace: tuple[int, int] | None = None,
) -> Training:
    """Tune `model`, a PyTorch model, by its twin in TensorFlow; afterwards it holds the best weights.

    Args:
        train, targets, folder: as in `tunewell.train.tune.tune`.
        validate: the twin -> metrics on validation, with the headline metric under its name.
        callbacks: `TrainerCallback`s, told of steps and logs beside our own.
        pace: as there.

    Raises:
        ModelError: the twin does not give PyTorch's logits, before or after tuning.
        TrainingError: the loss stays non-finite, or memory runs out.
    """
    from tunewell.backends.tensorflow.engine import tensorflow
    from tunewell.train.plan import out_of_memory

    tf = tensorflow("framework: tensorflow", recipe.threads)
    tf.config.experimental.enable_op_determinism()  # sums in one order: the same seed gives the same model
    loop = Loop(model, tokenizer, spec, train, recipe, max_length, targets, strategies, folder, echo, pace)
    try:
        loop.run(validate, progress, callbacks)
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise out_of_memory(loop.plan.rows) from error
    return loop.close()


class Loop:
    """One tuning: what it is made of, and where it stands."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        spec: TaskSpec,
        train: Dataset,
        recipe: Recipe,
        max_length: int,
        targets: np.ndarray,
        strategies: Sequence[Strategy],
        folder: Path,
        echo: Callable[[str], None],
        pace: tuple[int, int] | None = None,
    ) -> None:
        from transformers import Trainer, TrainerControl, TrainerState

        from tunewell.backends.tensorflow.losses import loss_for
        from tunewell.backends.tensorflow.model import Classifier
        from tunewell.backends.tensorflow.parity import gate
        from tunewell.backends.tensorflow.steps import Steps
        from tunewell.train.batching import Collator
        from tunewell.train.losses import balanced_weights
        from tunewell.train.plan import plan
        from tunewell.train.rates import fixed_rate, head_factors, peak_rate
        from tunewell.train.tune import encode_rows, lengths_of, tokens_of

        self.cpu, self.started = time.process_time(), time.perf_counter()
        self.model, self.tokenizer, self.spec, self.recipe = model.eval(), tokenizer, spec, recipe
        self.strategies, self.folder, self.echo = strategies, folder, echo
        self.encoded = encode_rows(train, spec, tokenizer, max_length, targets)
        self.collate = Collator(
            tokenizer.pad_token_id or 0,
            float_labels=spec.problem_type != "single_label_classification",
            padding_side=tokenizer.padding_side,
        )
        lengths = lengths_of(self.encoded)
        self.plan: Plan = plan(recipe, lengths, pace=pace)
        self.twin = Classifier.of(model, tokens_of(self.encoded))
        self.apart = {"before": self._gate(gate, "before tuning")}
        self.rate = fixed_rate(recipe.learning_rate) or peak_rate(model)
        balanced = recipe.class_weight == "balanced"
        decayed: Any = Trainer.get_decay_parameter_names  # asks the model alone, not a trainer
        self.steps = Steps(
            self.twin,
            loss_for(
                spec,
                recipe.loss,
                label_smoothing=recipe.label_smoothing_factor,
                focal_gamma=recipe.focal_gamma,
                class_weights=balanced_weights(spec, targets).numpy() if balanced else None,
            ),
            labels_like(spec),
            decayed=set(decayed(None, model)),
            weight_decay=recipe.weight_decay,
            factors=head_factors(model, recipe.head_rate_factor),
            max_norm=recipe.max_grad_norm,
        )
        self.rates = rates(recipe.lr_scheduler_type, self.rate, self.plan)
        self.distill = self._distillation(float(lengths.mean()))
        self.state, self.control = TrainerState(max_steps=self.plan.steps), TrainerControl()
        self.waited = self.bad = 0  # validations without a better score, steps that were dropped, in a row
        self.logged: list[float] = []  # losses since the last log entry

    def _gate(self, gate: Callable[..., float], when: str) -> float:
        where = self.recipe.model
        return gate(self.model, self.twin, self.tokenizer, self.encoded, where=where, when=when)

    def _distillation(self, tokens: float) -> Any:
        """The strategy `distill`, its batches and its teacher's embeddings ready; None where it is not asked for."""
        from tunewell.train.hooks import Tuning

        chosen = next((s for s in self.strategies if s.name == "distill"), None)
        if chosen is not None:
            chosen.prepare(  # type: ignore[attr-defined]
                Tuning(
                    model=self.model,
                    tokenizer=self.tokenizer,
                    steps=self.plan.steps,
                    rows=self.plan.rows,
                    tokens=tokens * self.plan.rows * self.plan.accumulate,
                    seed=self.recipe.seed,
                    bf16=False,
                    cache=self.folder / "cache",
                    echo=self.echo,
                )
            )
        return chosen

    # ------------------------------------------------------------ the loop

    def run(self, validate: Callable[[Classifier], dict[str, float]], progress: bool, more: Sequence[Any]) -> None:
        """From the last checkpoint, if there is one, to the last step, or to where validation has stopped it."""
        from tunewell.backends.tensorflow.checkpoint import load_last
        from tunewell.train.dynamics import FILE, RecordDynamics
        from tunewell.train.progress import Bar, Counts, MetricsFile
        from tunewell.train.stop import StopInOrder

        epochs = -(-self.plan.steps // self.plan.steps_an_epoch)
        self.counts = Counts()
        self.dynamics = RecordDynamics(len(self.encoded), epochs, self.spec.problem_type, self.folder / FILE)
        bar, file = Bar("tuning", self.spec.metric, progress), MetricsFile(self.folder / "metrics.jsonl")
        stop = StopInOrder(self.echo)
        self.watchers = [self.counts, self.dynamics, bar, file, *more, stop]
        if (found := load_last(self.folder / "checkpoints", self.steps, self.echo)) is not None:
            self._resume(*found)
        self._tell("on_train_begin")
        with stop.listening():
            self._epochs(validate)
        self._tell("on_train_end")

    def _epochs(self, validate: Callable[[Classifier], dict[str, float]]) -> None:
        plan, state = self.plan, self.state
        while state.global_step < plan.steps and not self.control.should_training_stop:
            epoch, done = divmod(state.global_step, plan.steps_an_epoch)
            plan.batches.set_epoch(epoch)
            batches = list(plan.batches)
            self._tell("on_epoch_begin")
            for place in range(done, plan.steps_an_epoch):
                self.control.should_save = False
                self._step(batches[place * plan.accumulate : (place + 1) * plan.accumulate])
                if state.global_step % plan.every == 0 or state.global_step >= plan.steps:
                    self._validate(validate)
                    self._save()
                elif self.control.should_save:  # asked to stop
                    self._save()
                if state.global_step >= plan.steps or self.control.should_training_stop:
                    break

    def _step(self, batches: list[list[int]]) -> None:
        """One optimiser step; one that is not finite is dropped."""
        from tunewell.train.plan import not_finite
        from tunewell.train.trainer import MAX_BAD_STEPS

        state, step = self.state, self.state.global_step
        self._tell("on_step_begin")
        loss, gradients = 0.0, None
        for i, rows in enumerate(batches):
            value, found = self._batch(rows, step * self.plan.accumulate + i)
            loss, gradients = loss + value, _added(gradients, found)
        if self.distill is not None and self.distill.weight and step % self.distill.every == 0:
            value, found = self._towards_teacher(step)
            loss, gradients = loss + value, _added(gradients, found)
        assert gradients is not None
        norm = self.steps.norm(gradients)
        if math.isfinite(loss) and math.isfinite(norm):
            self.steps.update(gradients, norm, self.rates[step])
            self.bad = 0
        else:
            self.bad += 1
            self.counts.nonfinite_steps.append(step + 1)
            if self.bad >= MAX_BAD_STEPS:
                raise not_finite(self.bad, step + 1, self.rate)
        state.global_step = step + 1
        state.epoch = state.global_step / self.plan.steps_an_epoch
        self.logged.append(loss)
        if state.global_step == 1 or state.global_step % max(1, self.plan.steps // 200) == 0:
            self._log(
                {
                    "loss": sum(self.logged) / len(self.logged),
                    "grad_norm": norm,
                    "learning_rate": self.rates[step],
                }
            )
            self.logged = []
        self._tell("on_step_end")

    def _batch(self, rows: list[int], number: int) -> tuple[float, list[Any]]:
        """Loss and gradients of one batch; what it holds is counted."""
        import torch

        batch = self.collate([self.encoded[i] for i in rows])
        labels, place = batch.pop("labels"), batch.pop("row")
        mask = batch["attention_mask"]
        pairs = mask.numel() * mask.shape[-1]
        self.counts.add(rows=len(mask), tokens=int(mask.sum()), cells=mask.numel(), pairs=pairs)
        arrays = {k: v.numpy() for k, v in batch.items()}
        wanted = labels.numpy()
        planned = self.plan.rows * self.plan.accumulate
        value, logits, found = self.steps.gradient(
            arrays,
            wanted if wanted.dtype == np.float32 else wanted.astype(np.int32),
            (self.recipe.seed, number),
            planned,
        )
        self.dynamics.add(place, torch.from_numpy(logits), labels)
        return value, found

    def _towards_teacher(self, step: int) -> tuple[float, list[Any]]:
        own = self.distill
        place = step // own.every % len(own.batches)
        batch = {k: v.numpy() for k, v in own.batches[place].items()}
        return self.steps.towards(
            batch, own.teacher[place].numpy(), own.weight * own.every, (self.recipe.seed, -1 - step)
        )

    def _validate(self, validate: Callable[[Classifier], dict[str, float]]) -> None:
        """Score, keep the best weights, and decide whether to go on."""
        from tunewell.backends.tensorflow.checkpoint import save_best

        metrics = {f"eval_{k}": v for k, v in validate(self.twin).items()}
        self._log(metrics)
        score, state = metrics[f"eval_{self.spec.metric}"], self.state
        if state.best_metric is None or score > state.best_metric:
            state.best_metric, state.best_global_step, self.waited = score, state.global_step, 0
            save_best(self.folder / "checkpoints", state.global_step, self.twin.values())
        else:
            self.waited += 1
        if self.recipe.early_stopping_patience and self.waited >= self.recipe.early_stopping_patience:
            self.control.should_training_stop = True
        self._tell("on_evaluate", metrics=metrics)

    def _save(self) -> None:
        """Write where we stand."""
        from tunewell.backends.tensorflow.checkpoint import save

        state = self.state
        about = {
            "step": state.global_step,
            "best": [state.best_global_step, state.best_metric],
            "waited": self.waited,
            "bad": self.bad,
            "logged": self.logged,
            "stop": self.control.should_training_stop,
            "log": state.log_history,
            "counts": self.counts.state()["attributes"],
        }
        noted = {name: tensor.numpy() for name, tensor in self.dynamics.state().items()}
        best, keep = state.best_global_step or 0, self.recipe.save_total_limit
        save(self.folder / "checkpoints", self.steps, about, noted, best=best, keep=keep)
        self._tell("on_save")

    def _resume(self, found: dict[str, Any], noted: dict[str, np.ndarray]) -> None:
        import torch

        self.dynamics.load_state({name: torch.from_numpy(array) for name, array in noted.items()})
        state = self.state
        state.global_step, state.log_history = found["step"], found["log"]
        state.epoch = state.global_step / self.plan.steps_an_epoch
        state.best_global_step, state.best_metric = found["best"]
        self.waited, self.control.should_training_stop = found["waited"], found["stop"]
        self.bad, self.logged = found["bad"], found["logged"]
        for name, value in found["counts"].items():
            setattr(self.counts, name, value)
        self.echo(f"tune: continuing from step {state.global_step}")

    def _log(self, entry: dict[str, float]) -> None:
        self.state.log_history.append({**entry, "epoch": self.state.epoch, "step": self.state.global_step})
        self._tell("on_log", logs=entry)

    def _tell(self, event: str, **more: Any) -> None:
        for watcher in self.watchers:
            getattr(watcher, event)(None, self.state, self.control, **more)

    # ------------------------------------------------------------ the end

    def close(self) -> Training:
        """The best weights as PyTorch reads them, compared once more; the record."""
        from safetensors.torch import load_file

        from tunewell.backends.tensorflow.checkpoint import best_file
        from tunewell.backends.tensorflow.parity import gate
        from tunewell.memory import peak_memory_mb
        from tunewell.train.progress import plain

        written = load_file(str(best_file(self.folder / "checkpoints", self.state.best_global_step or 0)))
        self.model.load_state_dict(written, strict=False)  # what is no parameter stays as it was
        self.twin.load({name: tensor.numpy() for name, tensor in written.items()})
        self.apart["after"] = self._gate(gate, "after tuning")
        self.echo(
            f"tune: TensorFlow and PyTorch differ by {self.apart['before']:.1e} in a logit before tuning, "
            f"{self.apart['after']:.1e} after"
        )
        state, counts = self.state, self.counts
        return Training(
            strategy=tuple(s.name for s in self.strategies),
            steps=state.global_step,
            epochs=round(float(state.epoch or 0), 4),
            best_step=state.best_global_step or state.global_step,
            best_score=state.best_metric,
            stopped_early=state.global_step < self.plan.steps,
            learning_rate=self.rate,
            precision="fp32",
            examples=counts.examples,
            tokens=counts.tokens,
            padding_share=counts.padding / max(1, counts.padding + counts.tokens),
            seconds=counts.earlier + time.perf_counter() - self.started,
            peak_memory_mb=peak_memory_mb(),
            parameters=sum(p.numel() for p in self.model.parameters()),
            trainable_parameters=sum(int(np.prod(v.shape)) for v in self.twin.variables.values()),
            cpu_seconds=round(time.process_time() - self.cpu, 2),
            nonfinite_steps=tuple(counts.nonfinite_steps),
            planned_steps=self.plan.steps,
            eval_steps=self.plan.every,
            history=tuple(plain(entry) for entry in state.log_history),
            framework="tensorflow",
            parity=self.apart,
        )


def labels_like(spec: TaskSpec) -> Any:
    """The shape and kind of a batch's labels."""
    import tensorflow as tf

    if spec.regression:
        return tf.TensorSpec([None], tf.float32)
    return tf.TensorSpec([None, spec.outputs], tf.float32) if spec.multi_label else tf.TensorSpec([None], tf.int32)


def rates(schedule: str, peak: float, plan: Plan) -> list[float]:
    """The learning rate of each step, by Transformers' own schedules."""
    import torch
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    scheduler = get_scheduler(schedule, optimizer, num_warmup_steps=plan.warmup, num_training_steps=plan.steps)
    out = []
    for _ in range(plan.steps):
        out.append(float(scheduler.get_last_lr()[0]))
        optimizer.step()
        scheduler.step()
    return out


def _added(total: list[Any] | None, found: list[Any]) -> list[Any]:
    return found if total is None else [a + b for a, b in zip(total, found, strict=True)]
