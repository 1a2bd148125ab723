"""Fully sharded data parallelism (`fsdp: true`): no process holds more than its part of weights, gradients and moments.

Weights, gradients and AdamW's moments of each layer are cut along their first dimension, a part for each process; a
layer's weights are brought together for its forward and its backward pass, and its gradients are summed into the parts
that they belong to (Rajbhandari et al., 2020, ZeRO, stage 3; Zhao et al., 2023, PyTorch FSDP). What is sharded is a
twin of the model that shares its structure. The model itself is empty meanwhile, and is filled at process 0 to be
validated, and when tuning has ended: there alone the weights are whole, without gradients and moments.

Checkpoints hold the parts, a safetensors file of each process, which any number of processes can read.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tunewell import processes
from tunewell.errors import RecipeError
from tunewell.train.hooks import hooks

if TYPE_CHECKING:
    from tunewell.recipe import Recipe
    from tunewell.train.hooks import Weights

PARTS = "parts"  # of a checkpoint: the folder with the parts of its weights and moments
M_MMAP_THRESHOLD, LARGE = -3, 2**18  # glibc's number of the setting; blocks from 256 KB on
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def check(recipe: Recipe) -> None:
    """Raises RecipeError where a recipe's model cannot be sharded: in one process, or for what needs whole weights."""
    if not processes.together():
        raise RecipeError(
            "`fsdp` spreads a model over several processes, and this is one",
            where="fsdp",
            expected="a run that `torchrun` starts with two or more processes",
            remedy="torchrun --nproc-per-node 2 -m tunewell run …, or leave `fsdp` out",
        )
    if problem := unfit(recipe):
        raise RecipeError(
            problem,
            where="fsdp",
            expected="AdamW on weights of 16 or 32 bits, without gpm and without a monitor that decides",
            remedy="leave `fsdp` out: then each process holds the whole model",
        )


def unfit(recipe: Recipe) -> str:
    """What of a recipe needs whole weights, in words; empty where nothing does."""
    if "gpm" in recipe.strategies:
        return "`strategy: gpm` turns the steps of whole layers, of which no process holds more than a part"
    if recipe.optim != "adamw":
        return f"`optim: {recipe.optim}` has not been tried on parts of weights"
    if recipe.load_in_4bit:
        return "`load_in_4bit` packs weights into blocks that cannot be cut"
    if recipe.monitor in ("stop", "rollback"):
        return f"`monitor: {recipe.monitor}` reads whole weights at steps that process 0 alone knows"
    return ""


class Sharded:
    """A model in parts.

    Args:
        plain: the model; it is empty from now on, except within `whole` and after `settle`.
        device: where this process computes.
        bf16: layers compute in bfloat16; weights, sums of gradients and moments stay float32.
        strategies: what the twin's hooks may belong to, which must not be copied.

    Attributes:
        model: the twin, whose weights are DTensors, (n / processes, …) at each process; names are those of `plain`.
    """

    def __init__(self, plain: Any, *, device: torch.device, bf16: bool = False, strategies: Sequence[Any] = ()) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        if device.type == "cpu":
            give_back_memory()
        self.plain = plain.to(device)
        memo: dict[int, Any] = {id(s): s for s in strategies}
        memo |= {id(b): b for b in plain.buffers()}
        memo |= {id(p): torch.nn.Parameter(p.data, requires_grad=p.requires_grad) for p in plain.parameters()}
        self.model: Any = copy.deepcopy(plain, memo)
        mesh = init_device_mesh(device.type, (processes.size(),))
        low, high = (torch.bfloat16, torch.float32) if bf16 else (None, None)
        for block in blocks(self.model):
            fully_shard(block, mesh=mesh, mp_policy=MixedPrecisionPolicy(param_dtype=low, reduce_dtype=high))
        # what is outside of layers stays together from forward to backward: strategies call the body by itself
        policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=high, output_dtype=high)
        fully_shard(self.model, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
        self.model._is_accelerate_prepared = True  # or it would be wrapped in DDP
        self.empty()

    def parameters(self) -> dict[str, Any]:
        return dict(self.model.named_parameters())

    def place(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """This process's part of a tensor that every process has, cut like the parameter `name`; others as they are."""
        from torch.distributed.tensor import DTensor, distribute_tensor

        p: Any = self.parameters().get(name)
        if p is None or isinstance(tensor, DTensor) or tensor.shape != p.shape:
            return tensor
        return distribute_tensor(tensor.to(p.device), p.device_mesh, p.placements, src_data_rank=None)

    # ------------------------------------------------------------ the whole model

    def fill(self) -> None:
        """Bring the weights together in the plain model of process 0; to be called by all."""
        own = dict(self.plain.named_parameters())
        for name, p in self.model.named_parameters():
            tensor = gathered(p)
            if processes.rank() == 0:
                own[name].data = tensor

    def empty(self) -> None:
        for p in self.plain.parameters():
            p.data = p.data.new_empty(0)

    @contextmanager
    def whole(self) -> Iterator[Any]:
        """Within, process 0 has the plain model with its weights."""
        self.fill()
        try:
            yield self.plain
        finally:
            self.empty()

    def validated(self, strategies: Sequence[Any], validate: Callable[[Any], dict[str, float]]) -> dict[str, float]:
        """What process 0 finds with the weights that strategies want scored; nothing at the others."""
        scored = [s for s in strategies if hooks([s], "validating")]
        states = [(s, s.state(), whole_state(s.state())) for s in scored]
        found: dict[str, float] = {}
        with self.whole() as plain:
            if processes.rank() == 0:
                with ExitStack() as stack:
                    for strategy, own, full in states:
                        strategy.load_state(full)
                        stack.callback(strategy.load_state, own)
                        stack.enter_context(strategy.validating(plain))
                    found = validate(plain)
        return found

    def settle(self, strategies: Sequence[Any]) -> None:
        """Tuning has ended: process 0 has the weights, and what strategies carry, as a whole."""
        for strategy in strategies:
            for state in hooks([strategy], "state"):
                full = whole_state(state())
                if processes.rank() == 0:
                    strategy.load_state(full)
        self.fill()

    def share_out(self, carried: Sequence[Any]) -> None:
        """Tensors that strategies and others hold for each weight are cut like it."""
        for shard in hooks(carried, "shard"):
            shard(self.place)

    # ------------------------------------------------------------ checkpoints

    def save(self, folder: Path, optimiser: Any) -> None:
        """Write the parts of weights and moments; to be called by all.

        Raises:
            OSError: they cannot be written.
        """
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

        state: Weights = {f"model.{name}": p.detach() for name, p in self.model.named_parameters()}
        for name, p in self.model.named_parameters():
            moments = optimiser.state.get(p, {})
            state |= {f"optim.{name}.{key}": moments[key] for key in MOMENTS if key in moments}
        try:
            with quiet():
                dcp.save(state, storage_writer=HuggingFaceStorageWriter(str(folder / PARTS), save_distributed=True))
        except dcp.CheckpointException as error:
            raise OSError(str(next(iter(error.failures.values()))[0])) from error

    def load(self, folder: Path) -> None:
        """Read the weights of a checkpoint, whatever the number of processes that wrote it."""
        with torch.no_grad():
            self._read(folder, {f"model.{name}": p.detach() for name, p in self.model.named_parameters()})

    def load_moments(self, folder: Path, optimiser: Any) -> None:
        """Read the moments of a checkpoint."""
        known = self._reader(folder).read_metadata().state_dict_metadata
        state: Weights = {}
        moments: dict[Any, Weights] = {}
        for name, p in self.model.named_parameters():
            if f"optim.{name}.step" in known:
                step = torch.zeros((), dtype=torch.float32, device=p.device)
                found = {"step": step, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
                moments[p] = {key: tensor.detach() for key, tensor in found.items()}
                state |= {f"optim.{name}.{key}": tensor for key, tensor in moments[p].items()}
        self._read(folder, state)
        for p, found in moments.items():
            optimiser.state[p] = found

    def _reader(self, folder: Path) -> Any:
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

        return HuggingFaceStorageReader(str(folder / PARTS))

    def _read(self, folder: Path, state: Weights) -> None:
        import torch.distributed.checkpoint as dcp

        with quiet():
            dcp.load(state, storage_reader=self._reader(folder))


def blocks(model: Any) -> list[Any]:
    """The layers of a model, of encoder and decoder: what stands in its outermost numbered lists.

    >>> from torch import nn
    >>> body = nn.Sequential(nn.Embedding(4, 2), nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)]))
    >>> len(blocks(body))
    2
    """
    from torch import nn

    found: list[Any] = []
    seen: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not any(name.startswith(f"{outer}.") for outer in seen):
            seen.append(name)
            found += [m for m in module if any(True for _ in m.parameters())]
    return found


def give_back_memory() -> None:
    """Let glibc return what is freed to the system at once, in this process and from now on; no other library is asked.

    It keeps freed blocks below a threshold that grows with them, to 32 MB, for later use. The weights of a layer are
    such blocks, which come and go at every pass: what was kept of them was larger than what `fsdp` saves.
    """
    import ctypes

    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a tensor; all of one that is not in parts."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def gathered(tensor: Any) -> torch.Tensor:
    """A tensor in parts as a whole, at every process; to be called by all."""
    tensor = tensor.detach()
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def whole_state(state: Mapping[str, Any]) -> Weights:
    """Tensors by name, brought together, at process 0; nothing at the others. To be called by all."""
    out: Weights = {}
    for name, tensor in state.items():
        full = gathered(tensor)
        if processes.rank() == 0:
            out[name] = full
    return out


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torch says of its own checkpoints."""
    import logging
    import warnings

    log = logging.getLogger("torch.distributed.checkpoint")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
