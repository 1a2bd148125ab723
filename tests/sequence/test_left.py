"""Methods that leave something for the next task: online EWC and O-LoRA."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from tunewell.sequence.consolidation import OnlineEWC, carried, task_fisher
from tunewell.sequence.methods import check_names
from tunewell.sequence.o_lora import overlap


class Linear(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.weight = torch.nn.Parameter(torch.randn(3, 2))

    def forward(self, x):
        return SimpleNamespace(logits=x @ self.weight.T)


def test_fisher_is_the_expected_squared_score():
    """Of a softmax over W x: E_x Σ_y p(y) (1[c = y] − p(c))² x_k², which is E_x p(c) (1 − p(c)) x_k²."""
    model = Linear()
    rows = torch.tensor([[1.0, -0.5], [0.3, 2.0]])
    p = (rows @ model.weight.T).softmax(1).detach()
    exact = torch.einsum("nc,nk->ck", p * (1 - p), rows**2) / len(rows)
    batches = [{"x": rows} for _ in range(6000)]
    found = task_fisher(model, batches, ["weight"], seed=0)["weight"]
    torch.testing.assert_close(found, exact, rtol=0.06, atol=0.004)


def test_pull_by_hand_over_two_tasks():
    """F̃ = 0.5 · 2 + 1 = 2 on the first weight: the gradient of 3 / 2 · F̃ (θ − θ*)² at θ − θ* = 0.25 is 1.5."""
    left = {"online_ewc": carried({"bert.w": torch.tensor([2.0])}, {"bert.w": torch.tensor([1.0])}, 0.5)}
    hook = OnlineEWC(SimpleNamespace(left=left), weight=3.0)
    hook.importance, hook.anchor = left["online_ewc"], {"bert.w": torch.tensor([1.0])}
    weight = torch.nn.Parameter(torch.tensor([1.25]))
    weight.grad = torch.tensor([0.5])
    hook.after_backward(SimpleNamespace(named_parameters=lambda: [("bert.w", weight)]), 0)
    assert weight.grad.item() == pytest.approx(2.0)


def test_overlap_sums_over_layers_and_earlier_tasks():
    earlier = {"one": torch.tensor([[1.0, 0.0], [0.0, 2.0]]), "two": torch.tensor([[1.0, 1.0]])}
    own = {"one": torch.tensor([[0.5, -1.0]]), "two": torch.tensor([[1.0, -1.0]])}
    assert overlap(earlier, own).item() == 2.5


def test_what_does_not_go_together():
    assert check_names(["online_ewc", "replay"], 0.01) == []
    assert "`o_lora` freezes the weights that `online_ewc` holds" in check_names(["o_lora", "online_ewc"], 0)[0]
    assert "`o_lora` freezes the base model's weights" in check_names(["o_lora", "l2sp"], 0)[0]


def test_online_ewc_holds_what_matters(go, tasks, tmp_path):
    """Σ F (θ − θ*)² after the second task is smaller than by plain tuning; strength 0 is plain tuning."""

    def body(name: str, n: int, **keys):
        done = go(
            output_dir=str(tmp_path / name),
            tasks=tasks[:n],
            unseen="none",
            learning_rate=5e-4,
            num_train_epochs=4,
            **keys,
        )
        state = done.dir / "tasks" / f"{n:02d}-{tasks[n - 1]['name']}" / "state"
        return state, load_file(str(state / "body.safetensors"))

    state, first = body("first", 1, strategy="online_ewc")
    importance = load_file(str(state / "left" / "online_ewc.safetensors"))

    def away(weights) -> float:
        return sum(float((f * (weights[k] - first[k]).square()).sum()) for k, f in importance.items())

    plain = body("plain", 2, strategy="plain")[1]
    zero = body("zero", 2, strategy="online_ewc", online_ewc_weight=0)[1]
    held = body("held", 2, strategy="online_ewc", online_ewc_weight=3e4)[1]
    assert all(torch.equal(plain[k], zero[k]) for k in plain)
    assert away(held) < 0.7 * away(plain)


def test_o_lora_keeps_the_directions_of_all_tasks(go):
    done = go(strategy="o_lora", lora_rank=2, unseen="none")
    left = load_file(str(done.dir / "tasks" / "03-kind" / "state" / "left" / "o_lora.safetensors"))
    assert {len(a) for a in left.values()} == {6}  # three tasks of rank 2
    assert len(done.predict(["good day"], task_name="mood")) == 1
