"""The only training loop: a thin subclass of `transformers.Trainer`.

What it changes, and why:

- Batches of like length under a token budget (batching.py) instead of random ones padded to their longest row.
- The loss is a sum over rows divided by the planned rows of an optimiser step. Trainer 5.23 divides
  wrongly for classification heads that accept `**kwargs` (transformers#47688); here the gradient is
  the same for 32 × 1, 8 × 4 accumulated, or two processes, and a row counts the same in a short batch.
- Strategies add their terms once a step, and have their say around it (hooks.py).
- A non-finite loss or gradient is never filtered from the log: the step is skipped, counted and shown.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer

from tunewell import processes
from tunewell.seal import SEAL
from tunewell.train.agree import agreed
from tunewell.train.batching import LikeLengthBatches, RandomBatches
from tunewell.train.checkpoint import LoopState, seal_and_rotate
from tunewell.train.dynamics import RecordDynamics
from tunewell.train.hooks import hooks
from tunewell.train.optimisers import ADAMW, PRODIGY
from tunewell.train.packing import BOUNDS
from tunewell.train.plan import not_finite
from tunewell.train.progress import SEEN, Counts
from tunewell.train.stop import ValidationLeft
from tunewell.train.strategy_calls import StrategyCalls, climb, grouped, load_states, save_states

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from tunewell.strategies.fewshot import ClassBatches
    from tunewell.tasks.base import TokenLoss
    from tunewell.train.frozen import Kept
    from tunewell.train.guard import Guard
    from tunewell.train.hooks import Strategy
    from tunewell.train.sharding import Sharded
    from tunewell.train.stop import StopInOrder

SCHEDULER = "scheduler.pt"  # Trainer's name
MAX_BAD_STEPS = 10  # non-finite steps in a row after which tuning stops


class TunewellTrainer(Trainer):
    """Args beyond Trainer's: see `tunewell.train.tune`.

    `counts` holds what was seen so far, resumed parts included.
    """

    def __init__(
        self,
        *,
        batches: LikeLengthBatches | RandomBatches | ClassBatches,
        row_loss: Callable[..., torch.Tensor] | None,
        model_loss: Callable[..., torch.Tensor] | None = None,
        token_loss: TokenLoss | None = None,
        rate_factors: dict[str, float] | None = None,
        strategies: Sequence[Strategy] = (),
        validate: Callable[[Any], dict[str, float]] | None = None,
        carried: Sequence[Any] = (),
        keep_checkpoints: int = 2,
        guard: Guard | None = None,
        kept: Kept | None = None,
        optim: str = ADAMW,
        sharded: Sharded | None = None,
        stop: StopInOrder | None = None,
        **options: Any,
    ) -> None:
        self.sharded = sharded
        super().__init__(**options)
        self.loop_state = LoopState(self)
        self.carried = [*strategies, *carried, self.loop_state]  # whose state a checkpoint holds
        self.keep_checkpoints = keep_checkpoints
        self.guard = guard
        self.kept = kept
        self.optim = optim
        self.stop = stop
        self.owed = False  # the validation of this step was left out, or left, for a stop
        self._resumed: str | None = None  # the checkpoint that this tuning goes on from
        self.add_callback(StrategyCalls(self, strategies))
        self.batches, self.row_loss, self.strategies, self.validate = batches, row_loss, strategies, validate
        self.model_loss = model_loss  # of outputs and labels, where logits alone do not do
        self.token_loss = token_loss
        self.rate_factors = rate_factors or {}
        self.loss_is_scaled_for_ga = True
        self._bad_in_a_row = 0
        self._bad_micro = self._climbed = False
        self._extra_done_at = -1
        self.step_dropped = self._ended = False
        self.grad_norm = math.nan  # of the step at work, before it is clipped
        self.seen = [0] * len(SEEN)  # of this step, where several processes count together

    @property
    def counts(self) -> Counts:
        return next(c for c in self.callback_handler.callbacks if isinstance(c, Counts))

    @property
    def dynamics(self) -> RecordDynamics | None:
        return next((c for c in self.callback_handler.callbacks if isinstance(c, RecordDynamics)), None)

    def get_train_dataloader(self) -> DataLoader:
        from torch.utils.data import DataLoader

        assert self.train_dataset is not None
        if processes.together():  # Accelerate would deal out whole batches
            from accelerate.data_loader import DataLoaderShard

            return DataLoaderShard(
                self.train_dataset,
                device=self.args.device,
                batch_sampler=self.batches,
                collate_fn=self.data_collator,
            )
        loader: DataLoader = DataLoader(
            self.train_dataset,
            batch_sampler=self.batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
        )
        return self.accelerator.prepare(loader)

    def create_optimizer(self, model: Any = None) -> Any:
        """Groups of parameters by their learning rate: a new head's, and what strategies ask for."""
        factors = [self.rate_factors, *(f(self.model) for f in hooks(self.strategies, "rate_factors"))]
        if self.optim == PRODIGY:
            factors = []
        if self.optimizer is None and (any(factors) or self.optim != ADAMW):
            self.optimizer = grouped(self, self.model, factors)
        return super().create_optimizer(model)

    def _move_model_to_device(self, model: Any, device: torch.device) -> None:
        if self.sharded is None:  # parts are where they belong
            super()._move_model_to_device(model, device)

    # ------------------------------------------------------------ checkpoints

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if self.sharded is None:
            super().save_model(output_dir, _internal_call)
            return
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        self.sharded.save(folder, self.optimizer)
        save_states(self.carried, folder)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.sharded is None:
            super()._save_optimizer_and_scheduler(output_dir)
        elif self.args.should_save:  # the moments stand beside the weights
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER)  # type: ignore[union-attr]

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.sharded is None or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        self.sharded.load_moments(Path(checkpoint), self.optimizer)
        scheduler: Any = self.lr_scheduler
        scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER, weights_only=True))
        for group, rate in zip(scheduler.optimizer.param_groups, scheduler.get_last_lr(), strict=True):
            group["lr"] = rate

    def _load_best_model(self) -> None:
        if self.sharded is None:
            super()._load_best_model()
        else:
            self.sharded.load(Path(str(self.state.best_model_checkpoint)))

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """The model and what strategies carry, by process 0; Trainer calls it at all."""
        if not self.args.should_save:
            return
        super()._save(output_dir, state_dict)
        save_states(self.carried, output_dir or str(self.args.output_dir))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Trainer's checkpoint, sealed as the last thing; older ones go only after that.

        Raises:
            OSError: it cannot be written; what there is of it is removed.
        """
        path = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        if self.stop is not None:
            self.stop.saving()
        if self.args.should_save:  # written once more after a validation that was owed
            (path / SEAL).unlink(missing_ok=True)
        for gather in hooks(self.carried, "gather"):
            gather()
        try:
            super()._save_checkpoint(model, trial)
        except Exception as error:
            shutil.rmtree(path, ignore_errors=True)
            # torch and safetensors tell of a full disk in exceptions of their own
            told = type(error).__name__ == "SafetensorError" or "StreamWriter" in str(error)
            if told or (isinstance(error, RuntimeError) and "write" in str(error)):
                raise OSError(str(error).splitlines()[0]) from error
            raise
        processes.wait()  # every process has a file in it
        if self.args.should_save:
            seal_and_rotate(path, keep=self.keep_checkpoints, best=self.state.best_model_checkpoint)
        processes.wait()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.sharded is not None:
            self.sharded.load(Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        load_states(self.carried, resume_from_checkpoint)
        self._resumed = resume_from_checkpoint
        if self.sharded is not None:
            self.sharded.share_out(self.carried)

    def _init_training_state(self, *arguments: Any, **options: Any) -> Any:
        """Trainer's, after which the best checkpoint is one of this folder, and a tuning that had ended has."""
        found = super()._init_training_state(*arguments, **options)
        self._ended = self.control.should_training_stop
        best = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.best_global_step}"
        if best.is_dir():
            self.state.best_model_checkpoint = str(best)
        return found

    def _run_epoch(self, *arguments: Any, **options: Any) -> None:
        """Trainer would take one more step of a tuning whose last checkpoint says that it had ended."""
        if self._ended:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*arguments, **options)

    def _get_num_items_in_batch(self, batch_samples: list, device: Any) -> torch.Tensor | None:
        """Tokens with loss in all batches of an optimiser step, of all processes; None for a loss of rows."""
        if self.token_loss is None or not batch_samples:
            return None
        tokens = torch.stack([self.token_loss.count(batch["labels"]) for batch in batch_samples]).sum().to(device)
        return self.accelerator.gather(tokens).sum() if self.accelerator.num_processes > 1 else tokens

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        idle = inputs.pop("idle", None)
        if self.token_loss is not None:
            assert num_items_in_batch is not None
            with torch.autocast(self.args.device.type, dtype=torch.bfloat16, enabled=self.args.bf16):
                outputs, nats = self.token_loss.learn(model, self.accelerator.unwrap_model(model), inputs)
            self._tell_guard(model, nats, lambda: int(self.token_loss.count(inputs["labels"])))  # type: ignore[union-attr]
            # processes average their gradients, and each has only its own tokens above the line
            loss = nats * self.accelerator.num_processes / num_items_in_batch.clamp(min=1)
            return self._with_terms(model, loss, inputs, outputs, None, None, return_outputs, counted=idle is None)
        labels, rows = inputs.pop("labels"), inputs.pop("row", None)
        with self._from_memory(model, inputs, rows):
            outputs = model(**inputs)
        rows_a_step = self.batches.rows * self.args.gradient_accumulation_steps
        if self.model_loss is not None:
            losses = self.model_loss(outputs, labels)
        else:
            assert self.row_loss is not None
            losses = self.row_loss(outputs.logits, labels)
        if idle is None:
            self._tell_guard(model, losses.sum(), lambda: len(losses))
        if model.training:
            for row_losses in hooks(self.strategies, "row_losses"):
                losses = row_losses(self.accelerator.unwrap_model(model), outputs, labels, losses)
        # processes average their gradients, and each has only its own rows above the line
        loss = losses.sum() * self.accelerator.num_processes / rows_a_step
        if idle is not None:
            loss, rows = loss * 0, None
        return self._with_terms(model, loss, inputs, outputs, rows, labels, return_outputs, counted=idle is None)

    def _from_memory(self, model: Any, inputs: dict[str, Any], rows: Any) -> contextlib.AbstractContextManager[None]:
        """Where the layers below are frozen, what they say of training rows is known."""
        if self.kept is None or rows is None or not model.training:
            return contextlib.nullcontext()
        return self.kept.reading(rows, inputs["attention_mask"])

    def _tell_guard(self, model: Any, summed: torch.Tensor, count: Callable[[], int]) -> None:
        """The task's own loss, without the terms of strategies."""
        if self.guard is not None and model.training and not self._climbed:
            self.guard.add(float(summed.detach()), count())

    def _with_terms(
        self,
        model: Any,
        loss: torch.Tensor,
        inputs: dict[str, Any],
        outputs: Any,
        rows: Any,
        labels: Any,
        both: bool,
        counted: bool = True,
    ) -> Any:
        """Count what was seen, and add the terms of strategies to the task's loss."""
        if model.training:
            if counted and not self._climbed:  # the same rows again are not new rows
                if BOUNDS in inputs:
                    tokens, bounds = inputs["input_ids"].numel(), inputs[BOUNDS]
                    found = (len(bounds) - 1, tokens, tokens, int(bounds.diff().square().sum()))
                else:
                    mask = inputs["attention_mask"]
                    found = (len(mask), int(mask.sum()), mask.numel(), mask.numel() * mask.shape[-1])
                if processes.together():
                    self.seen = [a + b for a, b in zip(self.seen, found, strict=True)]
                else:
                    self.counts.add(**dict(zip(SEEN, found, strict=True)))
                if rows is not None and self.dynamics is not None:
                    self.dynamics.add(rows, outputs.logits, labels)
            step = self.state.global_step
            if self._extra_done_at != step:  # once an optimiser step, at its first micro-batch
                self._extra_done_at = step
                for extra_loss in hooks(self.strategies, "extra_loss"):
                    term = extra_loss(self.accelerator.unwrap_model(model), step)
                    if term is not None:
                        loss = loss + term
                for batch_loss in hooks(self.strategies, "batch_loss"):
                    seen = {k: v for k, v in inputs.items() if k != "labels"} | ({} if counted else {"idle": True})
                    term = batch_loss(self.accelerator.unwrap_model(model), seen, outputs, step)
                    if term is not None:
                        loss = loss + term
                for labelled_loss in hooks(self.strategies, "labelled_loss"):
                    term = labelled_loss(self.accelerator.unwrap_model(model), outputs, labels, step)
                    if term is not None:
                        loss = loss + term
        return (loss, outputs) if both else loss

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        perturb = hooks(self.strategies, "perturb")
        if perturb:
            extra = self._extra_done_at

            def backward() -> torch.Tensor:
                self._extra_done_at = extra  # the added term belongs to both passes
                return super(TunewellTrainer, self).training_step(model, dict(inputs), num_items_in_batch)

            loss = climb(self, self.accelerator.unwrap_model(model), perturb, backward)
        else:
            loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            for after_backward in hooks(self.strategies, "after_backward"):
                after_backward(self.accelerator.unwrap_model(model), self.state.global_step)
        if not math.isfinite(loss.item()):
            self._bad_micro = True
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        self._drop_bad_step(model, norm)
        return norm

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        if grad_norm is None:
            grad_norm = super()._get_grad_norm(model, grad_norm)
            self._drop_bad_step(model, grad_norm)
        return grad_norm

    def _drop_bad_step(self, model: Any, norm: Any) -> None:
        """A step with a non-finite loss or gradient changes nothing: its gradients are dropped."""
        self.grad_norm = float(norm)
        self._bad_micro = bool(processes.total([self._bad_micro])[0])  # at any process
        if not self._bad_micro and math.isfinite(self.grad_norm):
            self._bad_in_a_row = 0
            self.step_dropped = False
            return
        self._bad_micro, self.step_dropped = False, True
        step = self.state.global_step + 1
        self.counts.nonfinite_steps.append(step)
        self._bad_in_a_row += 1
        for parameter in model.parameters():
            parameter.grad = None
        if self._bad_in_a_row >= MAX_BAD_STEPS:
            raise not_finite(MAX_BAD_STEPS, step, self.args.learning_rate)

    # ------------------------------------------------------------ validation

    def _maybe_log_save_evaluate(self, *arguments: Any, **options: Any) -> None:
        """Trainer's; asked to stop, a checkpoint is saved first of all, and validation is owed (see stop.py)."""
        if self.stop is not None and self.stop.agreed:
            self.owed = self.control.should_evaluate
            self.control.should_evaluate, self.control.should_save = False, True
        try:
            super()._maybe_log_save_evaluate(*arguments, **options)
        except ValidationLeft:
            self.owed, self.control.should_evaluate, self.control.should_save = True, False, True
            super()._maybe_log_save_evaluate(*arguments, **options)
        if self.owed:  # who had the signal before lets the tuning go on
            self.make_up()

    def make_up(self) -> None:
        """The validation that the step at hand is owed, and the checkpoint after it."""
        self.owed = False
        self.control.should_evaluate = self.control.should_save = True
        self._maybe_log_save_evaluate(self._tr_loss, None, self.model, None, self.state.epoch, None, time.time())

    def go_on(self) -> None:
        """After all that begins with a tuning: a validation that its checkpoint owes, as if it came after the step."""
        self.loop_state.put()
        if self.owed:
            self._load_rng_state(self._resumed)
            self.control.should_training_stop = self._ended
            self.make_up()
            self._ended = self.control.should_training_stop

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Validation by our own scorer: length-sorted, the task's metrics; by process 0, which tells the others."""
        assert self.validate is not None
        metrics: dict[str, float] | None = {}
        if self.sharded is not None:
            metrics = self.sharded.validated(self.strategies, self.validate)
        elif self.args.process_index == 0:
            with contextlib.suppress(ValidationLeft), contextlib.ExitStack() as stack:
                metrics = None
                for validating in hooks(self.strategies, "validating"):
                    stack.enter_context(validating(self.model))
                if self.stop is not None:
                    stack.enter_context(self.stop.leaving(self.model))
                metrics = self.validate(self.model)
        if metrics is not None:
            metrics = {f"{metric_key_prefix}_{k}": float(v) for k, v in metrics.items()}
        metrics = processes.told(metrics)
        if metrics is None:
            assert self.stop is not None
            self.stop.ask()
            raise ValidationLeft
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        if processes.together():
            agreed(self.control)
        return metrics
