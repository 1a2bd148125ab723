"""Tune one model: encoded rows in, tuned weights and a record of what it took out."""

from __future__ import annotations

import pickle
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import TrainingError
from tunewell.memory import give_back, peak_memory_mb
from tunewell.results import Training
from tunewell.train.plan import TOKENS_A_ROW, out_of_memory, plan

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tunewell.recipe import Recipe
    from tunewell.tasks import TaskSpec
    from tunewell.tasks.base import Inputs
    from tunewell.train.hooks import Strategy
    from tunewell.train.monitor import Monitor


@dataclass(frozen=True)
class Scale:
    """Affine scale of regression labels: trained on (y − mean) / std, shown in the user's units."""

    mean: float = 0.0
    std: float = 1.0

    @classmethod
    def of(cls, targets: np.ndarray) -> Scale:
        std = float(targets.std())
        return cls(float(targets.mean()), std if std > 1e-12 else 1.0)


def encode_rows(
    dataset: Dataset, spec: TaskSpec, tokenizer: PreTrainedTokenizerBase, max_length: int, labels: np.ndarray | None
) -> Dataset:
    """Canonical rows as token ids, with labels beside them; memory-mapped when there are many."""
    keep = [c for c in tokenizer.model_input_names if c != "attention_mask"]

    def encode(batch: dict[str, list], indices: list[int]) -> dict[str, Any]:
        pairs = batch["text_pair"] if spec.pair else None
        encoded = tokenizer(batch["text"], pairs, truncation=True, max_length=max_length)
        out = {k: encoded[k] for k in keep if k in encoded}
        if labels is not None:
            out["labels"] = labels[indices].tolist()
            out["row"] = indices
        return out

    small = len(dataset) < 200_000
    return dataset.map(
        encode,
        batched=True,
        with_indices=True,
        remove_columns=dataset.column_names,
        keep_in_memory=small,
        load_from_cache_file=False,
    )


def lengths_of(encoded: Dataset) -> np.ndarray:
    """(n,) tokens of each row, read from the Arrow offsets."""
    import pyarrow.compute as pc

    return pc.list_value_length(encoded.data.column("input_ids")).to_numpy().astype(np.int64)


def tokens_of(encoded: Dataset) -> np.ndarray:
    """(K,) token ids that occur in encoded rows, ascending, read from the Arrow buffers."""
    import pyarrow.compute as pc

    return np.sort(pc.unique(pc.list_flatten(encoded.data.column("input_ids"))).to_numpy().astype(np.int64))


def use_bf16(wanted: bool | None, device: str | None = None) -> bool:
    """Whether to compute in bf16: as wanted, else where the GPU or the processor computes in it.

    Args:
        device: "cpu" or "cuda" for a model that lies there; by default the GPU where there is one. No other has it.
    """
    import torch

    if wanted is not None:
        return wanted
    if device not in (None, "cpu", "cuda"):
        return False
    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool((check and check()) or (amx and amx()))


def tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    spec: TaskSpec,
    train: Dataset,
    *,
    recipe: Recipe,
    max_length: int,
    targets: np.ndarray,
    validate: Callable[[Any], dict[str, float]] | None,
    strategies: Sequence[Strategy],
    folder: Path,
    echo: Callable[[str], None] = print,
    progress: bool = True,
    callbacks: Sequence[Any] = (),
    inputs: Inputs | None = None,
    monitor: Monitor | None = None,
    pace: tuple[int, int] | None = None,
    validation_rows: int = 0,
) -> Training:
    """Tune `model` in place; afterwards it holds the weights of the best validation score.

    Args:
        train: canonical training rows; targets: their targets (scaled, for regression).
        validate: model -> metrics on validation, with the headline metric under its name; None without validation
            rows: then the last weights stay.
        strategies: prepared here, in order.
        inputs: encoded rows, collator and loss of a task that brings its own (see `tasks.base`); then `train`
            and `targets` are not read.
        folder: for checkpoints and metrics.jsonl; a checkpoint found there is continued.
        monitor: reads along the way what is kept, and may end tuning.
        pace: steps and steps between validations of a tuning that this one is held against; by default the recipe's.
        validation_rows: that `validate` reads, for the forecast of the time.

    Raises:
        TrainingError: the loss stays non-finite, or memory runs out.
    """
    import torch
    from transformers import EarlyStoppingCallback, TrainingArguments

    from tunewell import processes
    from tunewell.tasks.generation.loss import IGNORED
    from tunewell.train.accounting import Energy, account, work_of
    from tunewell.train.agree import Agree
    from tunewell.train.attention import attention_dropout
    from tunewell.train.batching import Collator
    from tunewell.train.checkpoint import last_whole
    from tunewell.train.dropout import quick_dropout
    from tunewell.train.dynamics import FILE, RecordDynamics
    from tunewell.train.forecast import Forecast
    from tunewell.train.frozen import kept_below
    from tunewell.train.guard import Guard
    from tunewell.train.hooks import Tuning, hooks
    from tunewell.train.losses import balanced_weights, loss_for
    from tunewell.train.optimisers import OWN_RATE, PRODIGY, SCHEDULE_FREE, AveragedPoint, tell
    from tunewell.train.progress import Bar, Counts, MetricsFile, plain
    from tunewell.train.rates import fixed_rate, head_factors, peak_rate
    from tunewell.train.room import checkpointed, fitting
    from tunewell.train.stop import StopInOrder
    from tunewell.train.strategy_calls import finish
    from tunewell.train.trackers import tracked
    from tunewell.train.trainer import TunewellTrainer
    from tunewell.train.vocabulary import only_used_rows

    if recipe.fsdp:
        from tunewell.train.sharding import Sharded, check

        check(recipe)
    cpu = time.process_time()
    energy = Energy()
    started = time.perf_counter()  # teachers are counted, see Counts for what a resumed run adds
    bf16 = use_bf16(recipe.bf16)
    if inputs is None:
        weights = balanced_weights(spec, targets) if recipe.class_weight == "balanced" else None
        row_loss: Any = loss_for(
            spec,
            recipe.loss,
            label_smoothing=recipe.label_smoothing_factor,
            focal_gamma=recipe.focal_gamma,
            class_weights=weights,
        )
        encoded = encode_rows(train, spec, tokenizer, max_length, targets)
        collate: Any = Collator(
            tokenizer.pad_token_id or 0,
            float_labels=spec.problem_type != "single_label_classification",
            padding_side=tokenizer.padding_side,
            longest=max_length,
        )
    else:
        row_loss, encoded, collate = None, inputs.rows, inputs.collate
    tokens = inputs.tokens(model) if inputs is not None and inputs.tokens is not None else None
    if tokens is not None:
        collate = tokens.collate

    def learn(batch: dict[str, Any]) -> Any:
        """The loss of a batch, summed."""
        if tokens is not None:
            return tokens.learn(model, model, batch)[1]
        labels, _ = batch.pop("labels"), batch.pop("row", None)
        outputs = model(**batch)
        return (row_loss(outputs.logits, labels) if inputs is None else inputs.loss(outputs, labels)).sum()

    lengths = lengths_of(encoded)
    own = hooks(strategies, "batches")
    planning = partial(
        plan,
        lengths=lengths,
        tokens_a_row=TOKENS_A_ROW if inputs is None else inputs.tokens_a_row,
        random=tokens is not None and tokens.random,
        own=partial(own[0], labels=np.asarray(encoded["labels"])) if own else None,
        pace=pace,
    )
    planned = planning(recipe)
    if recipe.auto_find_batch_size and not own:
        recipe = fitting(
            recipe,
            model,
            planned.rows,
            encoded,
            int(lengths.argmax()),
            collate,
            learn,
            folder=folder,
            bf16=bf16,
            echo=echo,
        )
        planned = planning(recipe)
    rows, steps, accumulate = planned.rows, planned.steps, planned.accumulate
    deal: Any = planned.batches
    if processes.together():
        deal = processes.Dealt(deal, place=processes.rank(), of=processes.size())
        collate = processes.DealtCollator(collate, deal, IGNORED if tokens is not None else None)
    checkpoints = folder / "checkpoints"
    with processes.zero_first():  # it removes what is not whole
        resume = last_whole(checkpoints, echo)
    rate = fixed_rate(recipe.learning_rate) or (OWN_RATE if recipe.optim == PRODIGY else peak_rate(model))
    averaged = AveragedPoint() if recipe.optim == SCHEDULE_FREE else None
    strategies = [*strategies, *([averaged] if averaged is not None else [])]
    fitted = any(getattr(s, "fits_head", False) for s in strategies)
    factors = {} if fitted else head_factors(model, recipe.head_rate_factor)

    tuning = Tuning(
        model=model,
        tokenizer=tokenizer,
        steps=steps,
        rows=rows,
        tokens=float(lengths.mean() * rows * accumulate),
        seed=recipe.seed,
        bf16=bf16,
        cache=folder / "cache",
        echo=echo,
        train=encoded,
        row_loss=row_loss,
        float_labels=spec.problem_type != "single_label_classification",
    )
    if monitor is not None:
        monitor.prepare(model, tokenizer, bf16=bf16, tokens=tuning.tokens, steps=steps, cache=tuning.cache)
    exchange = ExitStack()  # closed when the model is tuned, or tuning has broken off
    dropped = exchange.enter_context(attention_dropout(model, recipe.attention_dropout))
    if recipe.attention_dropout is not None and not dropped:
        echo("tune: found no dropout on attention weights in this model: `attention_dropout` changes nothing")
    exchange.enter_context(checkpointed(model, recipe.activation_checkpointing))
    if not any(getattr(s, "more_rows", False) for s in strategies):  # other texts that are to be learned in full
        exchange.enter_context(only_used_rows(model, tokens_of(encoded)))
    with processes.zero_first():  # what it keeps on the disk is measured once
        for prepare in hooks(strategies, "prepare"):
            prepare(tuning)
    kept = None
    if inputs is None and not processes.together():
        kept = exchange.enter_context(kept_below(model, encoded, collate, bf16=bf16, folder=tuning.cache))
    if kept is not None:
        echo(f"tune: the first {kept.layers} layers are not tuned: what they say of each row is computed once")
    work = work_of(model, kept.layers if kept is not None else 0)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)

    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=accumulate,
        learning_rate=rate,
        num_train_epochs=planned.epochs,
        max_steps=steps,
        warmup_steps=planned.warmup,
        lr_scheduler_type="constant" if averaged is not None else recipe.lr_scheduler_type,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        bf16=bf16 and not recipe.fsdp,  # layers in parts have their own
        optim="adamw_torch_fused",
        eval_strategy="steps" if validate else "no",
        eval_steps=planned.every,
        save_strategy="steps",
        save_steps=planned.every,
        load_best_model_at_end=validate is not None,
        metric_for_best_model=f"eval_{spec.metric}",
        greater_is_better=True,
        logging_strategy="steps",
        logging_steps=max(1, steps // 200),
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to=[t for t in recipe.report_to if t != "none"],
        run_name=folder.parent.name if folder.name == "train" else f"{folder.parent.parent.name}-{folder.name}",
        seed=recipe.seed,
        data_seed=recipe.seed,
        restore_callback_states_from_checkpoint=True,
        disable_tqdm=True,
        dataloader_num_workers=0,
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available() and not _mps(),
        # the answers' hidden states are no outputs, from which alone DDP would see what is in use
        ddp_find_unused_parameters=False if tokens is not None else None,
        ddp_broadcast_buffers=False,
    )
    dynamics = RecordDynamics(len(encoded), -(-steps // planned.steps_an_epoch), spec.problem_type, folder / FILE)
    counts = Counts()
    known = not own and not processes.together()  # each process counts its own tokens
    forecast = Forecast(
        counts, tokens=float(lengths.sum()) * steps / planned.steps_an_epoch if known else 0.0,
        every=planned.every, echo=echo,
        validation=validation_rows * float(lengths.mean()) if validate else 0.0,
    )  # fmt: skip
    watchers = [
        counts,
        forecast,
        dynamics,
        Bar("tuning", spec.metric, progress),
        *([MetricsFile(folder / "metrics.jsonl")] if processes.rank() == 0 else []),
        *callbacks,
    ]
    if monitor is not None:
        watchers.insert(2, monitor)
    if recipe.early_stopping_patience and validate is not None:
        watchers.append(EarlyStoppingCallback(recipe.early_stopping_patience))
    sharded = None
    if recipe.fsdp:
        sharded = Sharded(model, device=arguments.device, bf16=bf16, strategies=strategies)
        sharded.share_out(strategies)
        echo(f"tune: weights, gradients and moments are in {processes.size()} parts")
    guard = None
    if recipe.guard != "off" and not own:  # a strategy with batches of its own does not learn by the task's loss
        guard = Guard(recipe.guard, steps=steps, warmup=int(arguments.warmup_steps), rows=rows * accumulate, echo=echo)
        watchers.insert(2, guard)
    stop = StopInOrder(echo)
    agree = Agree(stop)
    watchers += [stop, agree] if processes.together() else [stop]
    trainer = TunewellTrainer(
        model=model if sharded is None else sharded.model,
        args=arguments,
        train_dataset=encoded,
        eval_dataset=encoded,
        data_collator=collate,
        batches=deal,
        row_loss=row_loss,
        rate_factors=factors,
        model_loss=inputs.loss if inputs is not None else None,
        token_loss=tokens,
        strategies=strategies,
        carried=[
            dynamics,
            *([monitor.memory] if monitor is not None else []),
            *([guard] if guard is not None else []),
            *(c for c in callbacks if hasattr(c, "load_state")),
        ],
        keep_checkpoints=recipe.save_total_limit,
        guard=guard,
        kept=kept,
        optim=recipe.optim,
        sharded=sharded,
        stop=stop,
        validate=validate,
        callbacks=watchers,
    )
    for watcher in (monitor, guard, agree, averaged):
        if watcher is not None:
            watcher.trainer = trainer
    if processes.rank():  # dropout draws other masks for other rows
        torch.manual_seed(recipe.seed + 1_000_003 * processes.rank())
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    if resume is not None:
        echo(f"tune: continuing from {resume.name}")
    beside = tracked(recipe.report_to)
    try:
        quick, reachable = quick_dropout(), processes.reachable()
        with warnings.catch_warnings(), stop.listening(), reachable, closed_on_error(exchange), beside, quick:
            warnings.filterwarnings("ignore", message=".*pin_memory.*")
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise out_of_memory(rows) from error
    except pickle.UnpicklingError as error:
        raise TrainingError(
            f"this checkpoint holds what is no tensor and could be code; it was not run ({str(error).splitlines()[0]})",
            where=str(resume),
            expected="the files that tunewell wrote: another hand has been at them and sealed them anew",
            remedy="delete this checkpoint, and look at who can write there; tuning goes on from the one before",
        ) from error
    except OSError as error:
        raise TrainingError(
            f"cannot write a checkpoint: {error.strerror or error}",
            where=str(checkpoints),
            expected="free disk space and a folder that can be written",
            remedy="free some space and run the same command again; it goes on where it was",
        ) from error
    if sharded is not None:
        sharded.settle(strategies)
    model.eval()
    if guard is not None:
        guard.tell()
    state, counts = trainer.state, trainer.counts
    if monitor is not None and validate is not None and monitor.roll_back(model):
        finish(model, strategies, None)
        state.best_global_step, state.best_metric = monitor.kept_step, validate(model)[spec.metric]
    elif sharded is None or processes.rank() == 0:  # the others have no whole model
        finish(model, strategies, state.best_model_checkpoint)
    if monitor is not None:
        monitor.close(model)
    exchange.close()
    processes.wait()  # all have read the best checkpoint
    found = tell(trainer.optimizer, echo)
    release(trainer)
    history = tuple(plain(entry) for entry in state.log_history)
    parameters = sum(p.numel() for p in model.parameters())
    cells = counts.tokens + counts.padding
    accounting = account(
        work, cells=cells, pairs=counts.pairs, seconds=counts.computing, bf16=bf16, device=str(model.device),
        joules=energy.joules() if resume is None else None,
    )  # fmt: skip
    seconds = counts.earlier + time.perf_counter() - started
    return Training(
        strategy=tuple(s.name for s in strategies if s is not averaged),
        steps=state.global_step,
        epochs=round(float(state.epoch or 0), 4),
        best_step=state.global_step if state.best_global_step is None else state.best_global_step,
        best_score=state.best_metric,
        stopped_early=state.global_step < steps,
        learning_rate=rate if found is None else found,
        precision="bf16" if bf16 else "fp32",
        examples=counts.examples,
        tokens=counts.tokens,
        padding_share=counts.padding / max(1, counts.padding + counts.tokens),
        seconds=seconds,
        forecast_seconds=forecast.seconds,
        peak_memory_mb=peak_memory_mb(),
        parameters=parameters,
        trainable_parameters=trainable,
        cpu_seconds=round(time.process_time() - cpu, 2),
        nonfinite_steps=tuple(counts.nonfinite_steps),
        monitor=monitor.record(seconds) if monitor is not None else None,
        guard=guard.record() if guard is not None else None,
        accounting=accounting,
        planned_steps=steps,
        eval_steps=planned.every,
        history=history,
    )


def release(trainer: Any) -> None:
    """Let go of gradients and the optimiser's moments, which nothing reads once tuning has ended.

    They are two to three times the trained weights, and would stay beside all that a run does next.
    """
    trainer.model.zero_grad(set_to_none=True)
    trainer.optimizer.state.clear()
    give_back()


@contextmanager
def closed_on_error(stack: ExitStack) -> Iterator[None]:
    """Within, an error closes a stack; without one it stays open."""
    try:
        yield
    except BaseException:
        stack.close()
        raise


def _mps() -> bool:
    import torch

    return torch.backends.mps.is_available()


def clear_checkpoints(folder: Path) -> None:
    """Remove the checkpoints once the tuned weights are saved elsewhere."""
    _keep_events(folder)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _keep_events(folder: Path) -> None:
    """TensorBoard's files, which Transformers writes beside the checkpoints, outlive these: in `tensorboard`."""
    events = folder / "checkpoints" / "runs"
    if events.is_dir():
        shutil.copytree(events, folder / "tensorboard", dirs_exist_ok=True)
