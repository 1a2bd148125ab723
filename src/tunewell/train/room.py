"""A tuning that fits into memory: batches of as many rows as there is room for, layers' answers computed again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewell.errors import RecipeError
from tunewell.train.plan import out_of_memory

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from tunewell.recipe import Recipe

CHOSEN = "batch.json"  # in the folder of a tuning: a run that is resumed goes on with the same batches
A_WEIGHT = 12  # bytes of a weight's gradient and AdamW's two moments
BESIDE = 1.5  # what a step holds at its height over what the backward pass needs: gradients of answers, scratch space
USABLE = 0.9  # of the free memory
CGROUP = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> float:
    """Memory that a tuning may take on a device: of the machine, of the container that it is in, of the card."""
    import psutil
    import torch

    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + held)
    free = float(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):  # "max" without a limit
        limit = int((CGROUP / "memory.max").read_text())
        free = min(free, float(limit - int((CGROUP / "memory.current").read_text())))
    return max(0.0, free)


@contextmanager
def keeping(model: Any) -> Iterator[dict[int, int]]:
    """Within, what autograd keeps for a backward pass, weights left out: address of a storage -> its bytes."""
    import torch

    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}
    alive = []  # a storage that is freed could give its place to another

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        yield kept


def kept_bytes(model: Any, value: Callable[[], torch.Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass of `value()`, weights left out.

    Takes nothing from the random numbers that follow.
    """
    import torch

    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), keeping(model) as kept:
        value()
    return sum(kept.values())


def fitting(
    recipe: Recipe,
    model: Any,
    rows: int,
    encoded: Dataset,
    longest: int,
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
    learn: Callable[[dict[str, Any]], torch.Tensor],
    *,
    folder: Path,
    bf16: bool,
    echo: Callable[[str], None],
) -> Recipe:
    """The recipe with as many rows a batch as memory has room for, and as many more batches a step.

    The most rows, of those that the planned ones can be divided by, for which what the longest row keeps for its
    backward pass has room, that many times, beside gradients and moments. A step adds up as many rows as before.

    Args:
        rows: of a batch, as planned. longest: place of the longest row. learn: a batch -> its loss, one value.
        folder: of the tuning; what was chosen stands there, and is taken from there by a run that is resumed.

    Raises:
        TrainingError: not one row fits. RecipeError: several processes, whose memory this one does not know.
    """
    import torch

    from tunewell import processes

    if processes.together():
        raise RecipeError(
            "`auto_find_batch_size` looks at the memory of one process, and these are several",
            where="auto_find_batch_size",
            expected="a run in one process",
            remedy="set per_device_train_batch_size and gradient_accumulation_steps",
        )
    file = folder / CHOSEN
    fit: dict[str, int] | None = None
    with suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(file.read_text(encoding="utf-8"))
        if int(found["of"]) == rows and int(found["rows"]) > 0 and rows % int(found["rows"]) == 0:
            fit = found
    if fit is None:
        batch = {k: v.to(model.device) for k, v in collate([encoded[longest]]).items()}
        training = model.training
        model.train()
        try:
            with (
                checkpointed(model, recipe.activation_checkpointing),
                torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bf16),
            ):
                a_row = kept_bytes(model, lambda: learn(batch)) * BESIDE
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise out_of_memory(1) from error
        finally:
            model.train(training)
        beside = A_WEIGHT * sum(p.numel() for p in model.parameters() if p.requires_grad)
        free = free_bytes(model.device) * USABLE
        taken = next((n for n in range(rows, 0, -1) if rows % n == 0 and beside + n * a_row <= free), 0)
        if not taken:
            raise out_of_memory(1)
        fit = {"rows": taken, "of": rows}
        if taken < rows:
            echo(
                f"tune: {rows} rows a batch would take about {(beside + rows * a_row) / 2**30:.1f} GB and "
                f"{free / 2**30:.1f} GB are free: {taken} rows a batch, gradients of {rows // taken} added up"
            )
        from tunewell.results import write_whole

        write_whole(file, json.dumps(fit))
    return recipe.model_copy(
        update={
            "per_device_train_batch_size": fit["rows"],
            "gradient_accumulation_steps": recipe.gradient_accumulation_steps * (rows // fit["rows"]),
        }
    )


@contextmanager
def checkpointed(model: Any, wanted: bool = True) -> Iterator[None]:
    """Within, the answers of `model`'s layers are computed again in the backward pass (Chen et al., 2016).

    Dropout draws the same again, so that gradients are the same to the bit. Without `wanted` nothing changes.

    Raises:
        RecipeError: a model that cannot do it.
    """
    if not wanted:
        yield
        return
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise RecipeError(
            f"models of the kind {model.config.model_type} keep what their layers say: they cannot compute it again",
            where="activation_checkpointing",
            expected="a model that supports activation checkpointing, as most of Transformers do",
            remedy="leave it out, and take a smaller per_device_train_batch_size with more gradient_accumulation_steps",
        )
    from tunewell.train.packing import attending, configs_of, kinds_of

    configs = configs_of(model)

    def contexts() -> tuple[Any, Any]:
        """For a layer now, and for when it is computed again: packed rows have an attention of their own, which is set
        for the forward pass alone."""
        return nullcontext(), attending(configs, kinds_of(configs))

    model.activation_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})
    try:
        yield
    finally:
        model.activation_checkpointing_disable()
