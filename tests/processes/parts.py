"""A small model in parts, at each of several processes: `python parts.py FOLDER`, with a folder for a checkpoint."""

from __future__ import annotations

import copy
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from tunewell import processes
from tunewell.train.guard import Guard
from tunewell.train.sharding import Sharded, gathered, local


class Small(nn.Module):
    """An output layer that is its embedding, two layers between; 3 outputs of 5 rows do not divide by two."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight
        self.scale = nn.Parameter(torch.ones(1))  # of which one process holds nothing

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = x + layer(x).tanh()
        return self.scale * self.head(x)


def main(folder: Path) -> None:
    processes.begin()
    torch.manual_seed(0)
    whole = Small()
    plain = copy.deepcopy(whole)
    sharded = Sharded(plain, device=torch.device("cpu"))
    assert all(p.numel() == 0 for p in plain.parameters())
    shapes = [{name: p.shape for name, p in m.named_parameters()} for m in (sharded.model, whole)]
    assert shapes[0] == shapes[1]
    held = sum(local(p).numel() for p in sharded.model.parameters())
    assert processes.total([held])[0] == sum(p.numel() for p in whole.parameters())  # nothing twice, nothing lost

    optimisers = [torch.optim.AdamW(m.parameters(), lr=0.1, fused=True) for m in (whole, sharded.model)]
    rows = torch.arange(4).reshape(4, 1)
    for _ in range(2):
        whole(rows).square().sum().backward()
        mine = rows[processes.rank() :: processes.size()]
        (sharded.model(mine).square().sum() * processes.size()).backward()  # gradients are averaged
        norms = [nn.utils.clip_grad_norm_(m.parameters(), 1.0) for m in (whole, sharded.model)]
        assert math.isclose(float(gathered(norms[1])), float(norms[0]), rel_tol=1e-5)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
    same(sharded, whole)

    with sharded.whole() as filled:
        if processes.rank() == 0:
            assert filled is plain and filled.head.weight is filled.embed.weight
            torch.testing.assert_close(filled(rows), whole(rows))
    assert all(p.numel() == 0 for p in plain.parameters())

    # a part of a tensor that all have; one that belongs to no weight stays
    target = torch.randn(5, 4)
    part = sharded.place("embed.weight", target)
    assert torch.equal(gathered(part), target) and local(part).shape == local(sharded.model.embed.weight).shape
    assert sharded.place("else", target) is target and sharded.place("scale", target) is target

    # a checkpoint, and back
    folder.mkdir(exist_ok=True)
    sharded.save(folder, optimisers[1])
    moments = {n: gathered(optimisers[1].state[p]["exp_avg_sq"]) for n, p in sharded.model.named_parameters()}
    with torch.no_grad():
        for p in sharded.model.parameters():
            p.zero_()
    optimisers[1].state.clear()
    sharded.load(folder)
    sharded.load_moments(folder, optimisers[1])
    same(sharded, whole)
    for name, p in sharded.model.named_parameters():
        assert torch.equal(gathered(optimisers[1].state[p]["exp_avg_sq"]), moments[name])
        assert float(optimisers[1].state[p]["step"]) == 2
    assert {f.suffix for f in (folder / "parts").iterdir()} == {".safetensors"}

    # the guard measures over all parts, and takes all back
    accelerator = SimpleNamespace(unwrap_model=lambda m: m)
    scheduler = SimpleNamespace(base_lrs=[0.1])
    guard = Guard("watch", steps=10, warmup=0)
    guard.trainer = SimpleNamespace(  # type: ignore[assignment]
        model=sharded.model, sharded=sharded, accelerator=accelerator, strategies=[], lr_scheduler=scheduler,
        optimizer=optimisers[1], args=SimpleNamespace(learning_rate=0.1),
    )  # fmt: skip
    guard._keep(2, 1.0)
    with torch.no_grad():
        for p in sharded.model.parameters():
            p.add_(0.5)
    numbers = sum(p.numel() for p in whole.parameters())
    size = sum(float(p.detach().square().sum()) for p in whole.parameters())
    assert math.isclose(guard._moved(), math.sqrt(numbers * 0.25 / size), rel_tol=1e-5)
    guard._return(3, "blown up")
    same(sharded, whole)
    assert guard.events[0].back_to == 2 and optimisers[1].param_groups[0]["lr"] == 0.05

    sharded.settle([])
    if processes.rank() == 0:
        for (name, p), q in zip(plain.named_parameters(), whole.parameters(), strict=True):
            torch.testing.assert_close(p, q, msg=name)


def same(sharded: Sharded, whole: nn.Module) -> None:
    for (name, p), q in zip(sharded.model.named_parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(gathered(p), q.detach(), msg=name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
