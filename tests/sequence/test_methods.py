"""Methods against their definitions, by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tunewell.sequence.agem import AveragedGEM, project
from tunewell.sequence.heads import attach, head_of, read_out
from tunewell.sequence.lwf import distillation_loss
from tunewell.sequence.memory import Stored
from tunewell.sequence.methods import auto_plan, check_names, plan_of
from tunewell.sequence.replay import Memory, Replay
from tunewell.sequence.spec import OWN_KEYS
from tunewell.sequence.watch import Rows, Watch

DEFAULTS = {k: default for k, (default, _, _) in OWN_KEYS.items()}


def test_lwf_loss_by_hand():
    """Teacher (0.8, 0.2), student (0.5, 0.5); at T = 2 the teacher's square roots, normalised, are (2/3, 1/3)."""
    teacher, student = torch.log(torch.tensor([[0.8, 0.2]])), torch.log(torch.tensor([[0.5, 0.5]]))
    assert distillation_loss(student, teacher, 1.0).item() == pytest.approx(-(0.8 + 0.2) * math.log(0.5))
    assert distillation_loss(student, teacher, 2.0).item() == pytest.approx(math.log(2))
    tilted = torch.log(torch.tensor([[0.9, 0.1]]))  # at T = 2: (3, 1) / 4
    wanted = -(2 / 3 * math.log(0.75) + 1 / 3 * math.log(0.25))
    assert distillation_loss(tilted, teacher, 2.0).item() == pytest.approx(wanted, rel=1e-5)


def test_lwf_gradient_is_zero_where_the_answers_are_the_same():
    logits = torch.randn(4, 3, requires_grad=True)
    distillation_loss(logits, logits.detach()).backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6


def test_agem_projection_by_hand():
    """g·r = −2, r·r = 4 over two parameters: g + 0.5 r."""
    gradient = [torch.tensor([1.0, -1.0]), torch.tensor([[3.0]])]
    reference = [torch.tensor([0.0, 2.0]), torch.tensor([[0.0]])]
    projected = project(gradient, reference)
    assert [p.tolist() for p in projected] == [[1.0, 0.0], [[3.0]]]
    assert sum((p * r).sum() for p, r in zip(projected, reference, strict=True)) == 0
    same = [torch.tensor([1.0, 1.0]), torch.tensor([[3.0]])]
    assert project(same, reference) is same  # it does not hurt the memory
    assert project(gradient, [torch.zeros(2), torch.zeros(1, 1)]) is gradient


@pytest.fixture
def pieces(tiny_model):
    """The tiny model with its own two-class head, and a three-class head of an earlier task."""
    torch.manual_seed(0)
    earlier = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=3)
    torch.nn.init.normal_(earlier.classifier.weight)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=2)
    attach(model, {"old": head_of(earlier)})
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    logits = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 2]], np.float32)
    stored = Stored("old", "old", ["good day", "late flight", "the room"], None, np.array([0, 1, 2]), logits, [1, 2, 3])
    return model.eval(), tokenizer, stored


def test_replay_losses_are_those_of_the_earlier_head(pieces):
    model, tokenizer, stored = pieces
    memory = Memory([stored], tokenizer, 32)
    entropy, distance = memory.losses(model, memory.draw(16, seed=0, step=0))
    batch = tokenizer(stored.texts, return_tensors="pt", padding=True)
    hidden = model.base_model(**batch).last_hidden_state
    logits = read_out(model, model.task_heads.of("old"), hidden, batch["attention_mask"])
    torch.testing.assert_close(entropy, F.cross_entropy(logits, torch.tensor([0, 1, 2])))
    torch.testing.assert_close(distance, F.mse_loss(logits, torch.from_numpy(stored.logits)))
    replay = Replay(SimpleNamespace(batch=16, seed=0, memory_length=32, stored=[stored]), weight=2.0, dark=0.5)
    replay.prepare(SimpleNamespace(tokenizer=tokenizer, echo=lambda line: None))
    torch.testing.assert_close(replay.extra_loss(model, 0), 2 * entropy + 0.5 * distance)


def test_replay_draws_by_step_without_repetition(pieces):
    _, tokenizer, stored = pieces
    memory = Memory([stored], tokenizer, 32)
    assert memory.draw(2, 0, 5) == memory.draw(2, 0, 5)
    assert len(set(memory.draw(2, 0, 5))) == 2
    assert {i for s in range(20) for _, i in memory.draw(2, 0, s)} == {0, 1, 2}
    empty = Replay(SimpleNamespace(batch=16, seed=0, memory_length=32, stored=[]))
    empty.prepare(SimpleNamespace(tokenizer=tokenizer, echo=lambda line: None))
    assert empty.extra_loss(None, 0) is None


def test_agem_leaves_no_step_that_hurts_the_memory(pieces):
    model, tokenizer, stored = pieces
    agem = AveragedGEM(SimpleNamespace(batch=16, seed=0, memory_length=32, stored=[stored]))
    agem.prepare(SimpleNamespace(tokenizer=tokenizer, echo=lambda line: None, bf16=False))
    entropy, _ = agem.memory.losses(model, agem.memory.draw(16, 0, 0))
    parameters = [p for p in model.parameters() if p.requires_grad]
    wanted = torch.autograd.grad(entropy, parameters, allow_unused=True)
    for p, r in zip(parameters, wanted, strict=True):  # a step straight against the memory
        p.grad = None if r is None else -r.clone()
    agem.on_pre_optimizer_step(None, SimpleNamespace(global_step=0), None, model=model)
    assert agem.projected == 1
    left = sum((p.grad * r).sum() for p, r in zip(parameters, wanted, strict=True) if r is not None)
    assert left.item() == pytest.approx(0, abs=1e-4)
    assert max(p.grad.abs().max() for p, r in zip(parameters, wanted, strict=True) if r is not None) < 1e-4


def test_watch_sees_the_first_pass_of_a_step_and_leaves_no_hook(pieces):
    model, tokenizer, _ = pieces
    one, two = (tokenizer([t], return_tensors="pt") for t in ("good day", "late"))
    with Watch() as watch:
        watch.attach(model)
        model.train()
        watch.on_step_begin(None, None, None)
        model(**one)
        model(**two)
        assert torch.equal(watch.ids, one["input_ids"])
        model.eval()
        watch.on_step_begin(None, None, None)
        model(**two)  # validation
        assert torch.equal(watch.ids, one["input_ids"])
    assert not model.base_model._forward_hooks


def test_rows_are_told_by_their_tokens():
    rows = Rows([[1, 2, 3], [1, 2], [4]])
    ids, mask = torch.tensor([[1, 2, 0], [1, 2, 3], [4, 0, 0]]), torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0]])
    assert rows.of(ids, mask).tolist() == [1, 0, 2]


def test_names():
    assert check_names(["replay", "lwf"], 0.01) == []
    assert check_names(["distill", "lwf"], 0) == []
    assert "did you mean `replay`" in check_names(["replai"], 0.01)[0]
    assert "needs stored rows" in check_names(["agem"], 0)[0]
    assert "stands alone" in check_names(["joint", "lwf"], 0.01)[0]
    assert check_names(["lwf", "lwf"], 0.01) == ["a strategy is named twice"]
    assert "a replay already" in check_names(["der", "replay"], 0.01)[0]


def test_plans():
    plan = plan_of(("der", "distill", "average"), {**DEFAULTS, "der_weight": 0.7, "head_first": True})
    assert (plan.general, plan.average, plan.replay, plan.dark, plan.head_first) == (("distill",), True, 1.0, 0.7, True)
    assert not plan_of(("plain",), DEFAULTS).heads_follow
    assert plan_of(("auto",), DEFAULTS) == auto_plan(True)
    assert plan_of(("auto",), {**DEFAULTS, "memory": 0}).replay == 0.0


def test_general_text_holds_states_and_answers(pieces, tmp_path, make_reviews):
    """Zero distance and no gradient while nothing has moved; by hand after the body has moved."""
    from tunewell.sequence.general import General
    from tunewell.sequence.heads import summary_of

    model, tokenizer, _ = pieces
    path = tmp_path / "general.txt"
    path.write_text("\n".join(t for t, _ in make_reviews(20)), encoding="utf-8")
    past = SimpleNamespace(heads={"old": head_of(model) | model.task_heads.copies()["old"]}, options=DEFAULTS)
    general = General(past, source=str(path), samples=16, weight=2.0, lwf=0.5)
    general.prepare(
        SimpleNamespace(
            model=model, tokenizer=tokenizer, tokens=100.0, steps=8, seed=0, bf16=False, echo=lambda line: None
        )
    )
    assert general.every == 4
    assert general.extra_loss(model, 1) is None
    inputs, before, wanted = general.batches[0]

    def by_hand():
        hidden = model.base_model(**inputs).last_hidden_state
        now = summary_of(hidden, inputs["attention_mask"])
        torch.testing.assert_close(now[:, 1], hidden[:, 0])
        distance = ((now - before) ** 2).sum(2) / (before**2).sum(2)
        logits = read_out(model, model.task_heads.of("old"), hidden, inputs["attention_mask"])
        teacher, student = torch.softmax(wanted["old"] / 2, 1), torch.log_softmax(logits / 2, 1)
        return distance.mean(), -(teacher * student).sum(1).mean()

    distance, answers = by_hand()
    assert distance.item() == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(general.extra_loss(model, 0), 4 * 0.5 * answers)
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.bias.normal_()
    distance, answers = by_hand()
    assert distance.item() > 1e-3
    torch.testing.assert_close(general.extra_loss(model, 0), 4 * (2 * distance + 0.5 * answers))


# ---------------------------------------------------------------- joint: how often a task takes part


def test_shares_at_temperatures():
    """1000 and 250 rows: 1/4 at T = 1, 1/2 at T = 2, alike as T grows, all at every step without."""
    from tunewell.sequence.joint import share

    assert [share(250, 1000, t) for t in (1, 2, None)] == [0.25, 0.5, 1.0]
    assert share(250, 1000, 1e9) == pytest.approx(1.0)
    assert share(1000, 1000, 1) == 1.0


def test_turns_of_a_companion():
    """In a quarter of the steps, its batches in order; the same whatever was asked before, as after a resume."""
    from tunewell.sequence.joint import Companion, Joint

    def joint(temperature):
        companion = Companion("small", [0] * 250, np.zeros(250, int), False)  # type: ignore[arg-type]
        return Joint([companion], max_length=8, batch=4, seed=3, lead_rows=1000, temperature=temperature)

    turns = [t for t in map(joint(1.0).turn, [0] * 4000, range(4000)) if t is not None]
    assert turns == list(range(len(turns)))
    assert len(turns) == pytest.approx(1000, abs=4 * math.sqrt(4000 * 0.25 * 0.75))
    late = joint(1.0)
    assert late.turn(0, 3000) == joint(1.0).turn(0, 3000)
    assert [late.turn(0, s) for s in range(3000, 3050)] == [joint(1.0).turn(0, s) for s in range(3000, 3050)]
    assert [joint(None).turn(0, s) for s in (0, 7)] == [0, 7]
    # a step of four rows is shared: by two tasks, or by one and a quarter
    assert (joint(None).rows, joint(1.0).rows) == (2, 3)
