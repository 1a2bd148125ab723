"""What the frozen layers below say of each training row, computed once and kept.

Where the embeddings and the first m layers are not tuned, they say the same of a row in every epoch. They read all
rows once, without dropout, and while a batch of training rows is learned, what they said stands in their place. All
else that asks the model (validation, the monitor, teachers on general text) goes through all of it. What differs from
tuning without it: the frozen layers have no dropout.

Nothing is kept where it would not be the same (tried on a few rows first, in fp32), where it would be too large, or
where several processes tune together.

Shapes: n rows, T tokens, H hidden size, L layers.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.strategies.layers import depths, head_depth, within

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

IN_MEMORY, ON_DISK = 2**30, 2**33  # bytes: what is kept in memory, and what is kept at all, in a file
TRIED, AGREE, ROUNDING = 3, 1e-3, 1e-6
ROWS, TOKENS = 64, 8192  # of a batch at the most


def frozen_layers(model: Any) -> int:
    """How many of the first layers are not tuned; 0 where the embeddings are."""
    places = depths(model)
    last = head_depth(model) - 1
    tuned = min((places[name] for name, p in model.named_parameters() if p.requires_grad), default=last + 1)
    return max(0, min(tuned - 1, last))


class Kept:
    """The layers 0 to m − 1 of a model, which answer from memory while `rows` are set.

    Attributes:
        layers: m. rows: (B,) the training rows of the batch that the model reads, None for any other batch.
    """

    def __init__(self, model: Any, blocks: Any, layers: int) -> None:
        self.model, self.blocks, self.layers = model, blocks, layers
        self.rows: np.ndarray | None = None
        self.mask: torch.Tensor | None = None
        self.states: np.ndarray = np.empty((0, 0), np.float32)
        self.starts = np.zeros(1, dtype=np.int64)
        self._own: list[Callable[..., Any]] = []
        self._tuples: dict[int, int] = {}  # how much layers answer beside the states, where they answer a tuple

    def read(self, encoded: Dataset, collate: Any, *, bf16: bool, file: Path) -> bool:
        """Let the frozen layers read all rows, after `same` has shown their size. False where it would be too large."""
        import torch

        from tunewell.models.embed import like_length
        from tunewell.train.tune import lengths_of

        lengths = lengths_of(encoded)
        hidden = self.states.shape[1]
        self.starts = np.concatenate([[0], np.cumsum(lengths)])
        size = 4 * hidden * int(self.starts[-1])
        if size > ON_DISK:
            return False
        shape = (int(self.starts[-1]), hidden)
        if size <= IN_MEMORY:
            self.states = np.empty(shape, np.float32)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            if size > shutil.disk_usage(file.parent).free / 2:
                return False
            self.states = np.memmap(file, np.float32, "w+", shape=shape)
        device = self.model.device
        for index in like_length(lengths, ROWS, TOKENS):
            batch = collate([encoded[int(i)] for i in index])
            inputs = {k: v.to(device) for k, v in batch.items() if k not in ("labels", "row")}
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                out = self.below(inputs)
            kept = inputs["attention_mask"].bool().cpu().numpy()
            for i, states, there in zip(index, out.cpu().numpy(), kept, strict=True):
                self.states[self.starts[i] : self.starts[i + 1]] = states[there]
        return True

    def below(self, inputs: dict[str, Any]) -> torch.Tensor:
        """(B, T, H) what the frozen layers say of a batch, without dropout, in fp32."""
        import torch

        said: list[torch.Tensor] = []
        handle = self.blocks[self.layers - 1].register_forward_hook(lambda module, given, out: said.append(first(out)))
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                self.model.base_model(**inputs)
        finally:
            handle.remove()
            self.model.train(training)
        expected = (*inputs["attention_mask"].shape, said[-1].shape[-1])
        if said[-1].shape != expected:
            raise ValueError(f"layers answer {tuple(said[-1].shape)}, not {expected}")
        return said[-1].float()

    def batch(self, rows: np.ndarray, mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """(B, T, H) what was said of some rows, zero where there is padding."""
        import torch

        out = np.zeros((*mask.shape, self.states.shape[1]), np.float32)
        there = mask.bool().cpu().numpy()
        for b, row in enumerate(rows):
            out[b, there[b]] = self.states[self.starts[row] : self.starts[row + 1]]
        return torch.from_numpy(out).to(like.device, like.dtype)

    @contextmanager
    def reading(self, rows: Any, mask: torch.Tensor) -> Iterator[None]:
        """Within, the model reads these training rows."""
        self.rows, self.mask = np.asarray(rows.cpu()), mask
        try:
            yield
        finally:
            self.rows = self.mask = None

    def begin(self) -> None:
        """Put memory in the layers' place; names and parameters of the model stay as they are."""
        for i, block in enumerate(self.blocks[: self.layers]):
            own = block.forward
            self._own.append(own)
            block.forward = self._instead(i, own)

    def _instead(self, i: int, own: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*given: Any, **options: Any) -> Any:
            if self.rows is None:
                out = own(*given, **options)
                if isinstance(out, tuple):
                    self._tuples[i] = len(out) - 1
                return out
            states = given[0] if given else options["hidden_states"]
            if i == 0:
                assert self.mask is not None
                states = self.batch(self.rows, self.mask, states)
            return (states, *[None] * self._tuples[i]) if i in self._tuples else states

        return forward

    def end(self) -> None:
        for block, own in zip(self.blocks, self._own, strict=False):
            if "forward" in vars(block):
                del block.forward
            if getattr(block.forward, "__func__", None) is not getattr(own, "__func__", None):
                block.forward = own
        self._own = []


def first(out: Any) -> torch.Tensor:
    return out[0] if isinstance(out, tuple) else out


def blocks_of(model: Any) -> Any:
    """The list of a model's layers; None where there is not one list of them."""
    from torch import nn

    lists = [
        module
        for name, module in model.base_model.named_modules()
        if isinstance(module, nn.ModuleList) and within(f"{name}.0.") == 1 and within(f"{name}.") is None
    ]
    return lists[0] if len(lists) == 1 else None


@contextmanager
def kept_below(model: Any, encoded: Dataset, collate: Any, *, bf16: bool, folder: Path) -> Iterator[Kept | None]:
    """Within, the frozen layers of a model answer from memory; yields None where they compute as always.

    Args:
        encoded: training rows, with `row`. collate: makes a batch of them. folder: for what is too large for memory.
    """
    layers, blocks = frozen_layers(model), blocks_of(model)
    usable = layers and blocks is not None and layers <= len(blocks) and not model.config.is_encoder_decoder
    kept = Kept(model, blocks, layers) if usable else None
    file = folder / "frozen.dat"
    try:
        if kept is not None and not could_be_read(kept, encoded, collate, bf16=bf16, file=file):
            kept = None
        if kept is not None:
            kept.begin()
        yield kept
    finally:
        if kept is not None:
            kept.end()
            kept.states = np.empty((0, 0), np.float32)
        file.unlink(missing_ok=True)


def could_be_read(kept: Kept, encoded: Dataset, collate: Any, *, bf16: bool, file: Path) -> bool:
    """`same`, and all rows were read; False where layers answer in another shape or order, or reading them fails."""
    try:
        return same(kept, encoded, collate) and kept.read(encoded, collate, bf16=bf16, file=file)
    except Exception:  # of whatever kind: the model is tuned as always then, and what ails it is told there
        return False


def same(kept: Kept, encoded: Dataset, collate: Any) -> bool:
    """Whether the model answers and learns a few rows, short and long, from memory as it does otherwise."""
    import torch

    from tunewell.train.tune import lengths_of

    n = min(TRIED, len(encoded))
    if "row" not in encoded.column_names or not n:
        return False
    order = np.argsort(lengths_of(encoded), kind="stable")  # padding is read, unless all rows are of one length
    batch = collate([encoded[int(i)] for i in order[np.linspace(0, len(order) - 1, n).astype(int)]])
    inputs = {k: v.to(kept.model.device) for k, v in batch.items() if k not in ("labels", "row")}
    states = kept.below(inputs).cpu().numpy()
    there = inputs["attention_mask"].bool().cpu().numpy()
    kept.states = np.concatenate([s[t] for s, t in zip(states, there, strict=True)])
    kept.starts = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
    training = kept.model.training
    kept.model.eval()
    kept.begin()
    try:
        expected = _learned(kept.model, inputs)
        with kept.reading(torch.arange(n), inputs["attention_mask"]):
            found = _learned(kept.model, inputs)
    finally:
        kept.end()
        kept.model.train(training)
    # against the largest number of a tensor, since all are small under a new head; what is rounding alone stays so
    least = ROUNDING * max(float(b.abs().max()) for b in expected if b is not None)
    return all(
        a is b is None or (a is not None and b is not None and _near(a, b, least))
        for a, b in zip(found, expected, strict=True)
    )


def _near(a: torch.Tensor, b: torch.Tensor, least: float) -> bool:
    return float((a - b).abs().max()) <= AGREE * float(b.abs().max()) + least


def _learned(model: Any, inputs: dict[str, Any]) -> list[torch.Tensor | None]:
    """Logits of a batch, and the gradients of the sum of their squares."""
    import torch

    logits = model(**inputs).logits
    tuned = [p for p in model.parameters() if p.requires_grad]
    return [logits.detach(), *torch.autograd.grad(logits.square().sum(), tuned, allow_unused=True)]
