"""Several processes that tune one model: `torchrun --nproc-per-node 2 -m tunewell run …`.

Process 0 does the whole run and alone writes the run folder; the others wait, and take part in each tuning. A step's
rows are those of one process, dealt out; gradients are averaged (DDP; with `fsdp` in parts, see train/sharding.py), and
what process 0 decides is told to all. Decisions travel as JSON, numbers as tensors.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewell.errors import RecipeError, TrainingError

if TYPE_CHECKING:
    import numpy as np
    import torch

    from tunewell.stages.job import Job

PATIENCE = timedelta(days=7)  # others wait while process 0 checks data and measures probes
_begun = False


def size() -> int:
    """How many processes work on this run, as torchrun says."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ["RANK"]) if size() > 1 else 0


def begin() -> None:
    """Meet the other processes; nothing when there are none, or they have met."""
    global _begun
    if size() == 1 or _begun:
        return
    import torch
    import torch.distributed as dist

    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:  # all on this machine
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    _begun = True
    atexit.register(_part)


def _part() -> None:
    import torch.distributed as dist

    with contextlib.suppress(Exception):
        dist.destroy_process_group()


def together() -> bool:
    """Whether there are others, and they have met."""
    return _begun


def refuse_alone(what: str) -> None:
    """Raises RecipeError where several processes were started for something that one does."""
    if size() > 1 and not _begun:
        raise RecipeError(
            f"{size()} processes were started, and {what} is done by one",
            where="torchrun",
            expected="`torchrun … -m tunewell run`, the only command that several processes share",
            remedy="start it without torchrun",
        )


def refuse(job: Job) -> None:
    """Raises RecipeError where a job cannot be tuned by several processes."""
    if not _begun:
        return
    for name, what in (("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")):
        if os.environ.get(name, "false").lower() in ("true", "1"):
            raise RecipeError(
                f"`accelerate launch` asks for its own {what}, which would shard the model a second time",
                where=name,
                expected="`torchrun`, or `accelerate launch` without it",
                remedy="leave it out; `fsdp: true` in the recipe shards the model",
            )
    recipe = job.recipe
    problem = ""
    if held := [s for s in recipe.strategies if s in ("sam", "prompt", "fewshot", "auto")]:
        problem = f"`strategy: {held[0]}`"
    elif "freeze" in recipe.strategies and recipe.freeze == "gradual":
        problem = "`freeze: gradual`"
    elif recipe.augment != ["none"]:
        problem = "`augment`"
    elif recipe.learning_rate == "auto":
        problem = "`learning_rate: auto`"
    elif recipe.unlabelled is not None:
        problem = "`unlabelled`"
    elif recipe.framework != "pytorch":
        problem = f"`framework: {recipe.framework}`"
    if problem:
        raise RecipeError(
            f"{problem} is tuned by one process, and {size()} were started",
            where="torchrun",
            expected="a run without sam, prompt, fewshot, auto, augment, unlabelled texts and gradual thawing",
            remedy="start it without torchrun",
        )


# ---------------------------------------------------------------- what is said


def told(what: Any = None) -> Any:
    """What process 0 says (anything that JSON holds), at every process; itself where there is one process."""
    if not _begun:
        return what
    import torch
    import torch.distributed as dist

    content = list(json.dumps(what).encode()) if rank() == 0 else []
    length = torch.tensor([len(content)])
    dist.broadcast(length, 0)
    data = torch.tensor(content, dtype=torch.uint8) if content else torch.zeros(int(length), dtype=torch.uint8)
    dist.broadcast(data, 0)
    return json.loads(bytes(data.tolist()))


def total(values: Sequence[float]) -> list[float]:
    """The sums over processes of a few numbers."""
    if not _begun:
        return list(values)
    import torch
    import torch.distributed as dist

    numbers = torch.tensor(list(values), dtype=torch.float64)
    dist.all_reduce(numbers)
    return numbers.tolist()


def share(count: float) -> float:
    """What a mean over `count` items of this process is to be multiplied by, so that the mean of it over processes,
    as gradients are averaged, is the mean over the items of all.

    >>> share(3)
    1.0
    """
    return count * size() / max(total([count])[0], 1.0) if _begun else 1.0


def wait() -> None:
    """Until all processes have come here."""
    if _begun:
        import torch.distributed as dist

        dist.barrier()


@contextlib.contextmanager
def zero_first() -> Iterator[None]:
    """Process 0 goes through the block before the others do, so that they find what it has written."""
    if _begun and rank():
        wait()
    yield
    if _begun and rank() == 0:
        wait()


def merged(arrays: Sequence[np.ndarray], there: np.ndarray) -> tuple[np.ndarray, ...]:
    """Arrays of one shape, with the cells that other processes have (`there`, their own mask) put in."""
    import numpy as np
    import torch
    import torch.distributed as dist

    def all_of(array: np.ndarray) -> list[np.ndarray]:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        parts = [torch.empty_like(tensor) for _ in range(size())]
        dist.all_gather(parts, tensor)
        return [p.numpy() for p in parts]

    masks = [m.astype(bool) for m in all_of(there.astype(np.uint8))]
    out = []
    for array in arrays:
        parts = all_of(array)
        whole = parts[0].copy()
        for part, mask in zip(parts[1:], masks[1:], strict=True):
            whole[mask] = part[mask]
        out.append(whole)
    return tuple(out)


@contextlib.contextmanager
def reachable() -> Iterator[None]:
    """A process that has gone is told of in words; its own message stands before.

    Raises:
        TrainingError: in place of what gloo and NCCL raise.
    """
    try:
        yield
    except RuntimeError as error:
        if _begun and any(word in str(error) for word in ("gloo", "NCCL", "Connection closed by peer")):
            raise TrainingError(
                f"process {rank()} has lost another process of this run",
                where="torchrun",
                remedy="what that one said stands above; the same command goes on from the last checkpoint",
            ) from error
        raise


# ---------------------------------------------------------------- a tuning that is shared


class Dealt:
    """A batch sampler that deals the rows of each batch out to the processes in turn.

    Attributes:
        idle: whether the batch given last holds no row for this process; then it is a row that does not count.
    """

    def __init__(self, batches: Any, *, place: int, of: int) -> None:
        self.batches, self.place, self.of, self.idle = batches, place, of, False

    @property
    def rows(self) -> int:
        return int(self.batches.rows)

    def set_epoch(self, epoch: int) -> None:
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            mine = batch[self.place :: self.of]
            self.idle = not mine
            yield mine or batch[:1]


class DealtCollator:
    """Another collator, which says with `idle` that a batch does not count.

    Args:
        ignored: the label of a token without loss, where the loss is one of tokens; an idle batch has no others.
    """

    def __init__(self, collate: Any, batches: Dealt, ignored: int | None = None) -> None:
        self.collate, self.batches, self.ignored = collate, batches, ignored

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        import torch

        out = self.collate(rows)
        if self.batches.idle:
            out["idle"] = torch.ones(1)
            if self.ignored is not None:
                out["labels"] = torch.full_like(out["labels"], self.ignored)
        return out


def summon(job: Job, folder: Path) -> None:
    """Ask the other processes to take part in the tuning that process 0 is about to begin."""
    from tunewell.stages.rewrite import ROWS, wanted

    if _begun and rank() == 0:
        told(
            {
                "recipe": job.recipe.model_dump(mode="json", exclude_unset=True),
                "max_length": job.max_length,
                "candidate": job.candidate,
                "folder": str(folder.absolute()),
                "rewritten": str((job.folder / ROWS).absolute()) if wanted(job.recipe) else None,
            }
        )


def assist() -> str:
    """What the other processes do: take part in tunings until process 0 has finished; the run folder."""
    from tunewell.recipe import Recipe
    from tunewell.stages.job import Job
    from tunewell.stages.tune import tuned_in

    with reachable():
        while "recipe" in (asked := told()):
            with Job(Recipe(**asked["recipe"]), output_dir=None, progress=False) as job:
                job.candidate = asked["candidate"]
                job.__dict__["max_length"] = asked["max_length"]
                job.rewritten = Path(asked["rewritten"]) if asked["rewritten"] else None
                tuned_in(job, Path(asked["folder"]))
    return str(asked["done"])


def dismiss(folder: Path | str) -> None:
    """Process 0 has finished. Where it fails, torchrun ends the others."""
    if _begun and rank() == 0:
        told({"done": str(folder)})
