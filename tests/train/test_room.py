"""A tuning that fits into memory: what a step keeps, fewer rows a batch for the same step, layers computed again."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from torch import nn

from tunewell.errors import RecipeError, TrainingError
from tunewell.recipe import Recipe
from tunewell.train import room
from tunewell.train.dropout import quick_dropout
from tunewell.train.room import checkpointed, fitting, free_bytes, kept_bytes

SIZES = {"num_hidden_layers": 3, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 64, "vocab_size": 50}
T5 = {"d_model": 32, "d_kv": 16, "num_heads": 2, "d_ff": 64, "num_layers": 2, "vocab_size": 50}
MODELS = {
    "bert": lambda: transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES)),
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, attention_dropout=0.1)),
    "t5": lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(**T5, decoder_start_token_id=0)),
}


class Toy(nn.Linear):
    device = torch.device("cpu")


def test_what_a_step_keeps_by_hand():
    """The product keeps its input (3 x 4 numbers), the square its own (3 x 2), and none of the weights counts."""
    model, x = Toy(4, 2, bias=False), torch.randn(3, 4)
    assert kept_bytes(model, lambda: model(x).square().sum()) == 4 * (3 * 4 + 3 * 2)


def test_the_random_numbers_that_follow_are_those_without_the_look():
    model = Toy(4, 2)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    kept_bytes(model, lambda: torch.nn.functional.dropout(torch.ones(5, requires_grad=True), 0.5).sum())
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_layers_that_are_computed_again_give_the_same_gradient_and_keep_less(name, dtype):
    torch.manual_seed(0)
    model = MODELS[name]().train()
    ids = torch.randint(2, 50, (4, 30))
    labels = torch.tensor([0, 1, 1, 0]) if name == "bert" else ids

    def value():
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            return model(input_ids=ids, labels=labels).loss

    found, kept = [], []
    for again in (False, True):
        with quick_dropout(), checkpointed(model, again):
            kept.append(kept_bytes(model, value))
            torch.manual_seed(1)
            loss = value()
            model.zero_grad()
            loss.backward()
            found.append([loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) > 10
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert kept[1] < 0.7 * kept[0]
    assert not model.is_activation_checkpointing


def test_a_model_that_cannot_is_refused():
    with pytest.raises(RecipeError, match="compute it again"), checkpointed(Odd()):
        pass


class Odd(nn.Module):
    supports_gradient_checkpointing = False
    config = transformers.BertConfig()


class Scorer(nn.Linear):
    """Tokens as numbers: what a row keeps is told by its length alone."""

    device = torch.device("cpu")


def chosen(monkeypatch, folder, free: float, rows: int = 12, **keys):
    monkeypatch.setattr(room, "free_bytes", lambda device: free / room.USABLE)
    model, said = Scorer(1, 1, bias=False), []
    recipe = fitting(
        Recipe(per_device_train_batch_size=rows, **keys),
        model,
        rows,
        [{"input_ids": [1.0] * n} for n in (2, 25, 7)],
        1,
        lambda taken: {"x": torch.tensor([taken[0]["input_ids"]]).T},
        lambda batch: model(batch["x"]).square().sum(),
        folder=folder,
        bf16=False,
        echo=said.append,
    )
    return recipe.per_device_train_batch_size, recipe.gradient_accumulation_steps, said


A_ROW, BESIDE = 4 * (25 + 25) * 1.5, 12  # the longest row: its numbers and their products; one weight


@pytest.mark.parametrize(
    ("fit", "rows", "accumulate"), [(12, 12, 1), (11.9, 6, 2), (6, 6, 2), (5, 4, 3), (3.5, 3, 4), (1, 1, 12)]
)
def test_as_many_rows_as_there_is_room_for(monkeypatch, tmp_path, fit, rows, accumulate):
    found = chosen(monkeypatch, tmp_path, BESIDE + fit * A_ROW + 0.01)
    assert found[:2] == (rows, accumulate)
    assert bool(found[2]) == (rows < 12)
    if rows < 12:
        assert f"{rows} rows a batch, gradients of {accumulate} added up" in found[2][0]


def test_batches_a_step_are_multiplied(monkeypatch, tmp_path):
    found = chosen(monkeypatch, tmp_path, BESIDE + 4 * A_ROW + 0.01, gradient_accumulation_steps=2)
    assert found[:2] == (4, 6)


def test_a_run_that_goes_on_keeps_its_batches(monkeypatch, tmp_path):
    assert chosen(monkeypatch, tmp_path, BESIDE + 4.01 * A_ROW)[:2] == (4, 3)
    assert chosen(monkeypatch, tmp_path, 1e9)[:2] == (4, 3)
    (tmp_path / room.CHOSEN).write_text('{"rows": 5, "of"')
    assert chosen(monkeypatch, tmp_path, 1e9)[:2] == (12, 1)
    (tmp_path / room.CHOSEN).write_text(json.dumps({"rows": 3, "of": 24}))  # of another recipe
    assert chosen(monkeypatch, tmp_path, 1e9)[:2] == (12, 1)


def test_where_not_one_row_fits_it_says_so(monkeypatch, tmp_path):
    with pytest.raises(TrainingError, match="memory"):
        chosen(monkeypatch, tmp_path, BESIDE + 0.5 * A_ROW)
    assert not list(tmp_path.iterdir())


def test_several_processes_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("tunewell.processes.together", lambda: True)
    with pytest.raises(RecipeError, match="auto_find_batch_size"):
        chosen(monkeypatch, tmp_path, 1e9)


def test_a_container_has_less_than_its_machine(monkeypatch, tmp_path):
    cpu = torch.device("cpu")
    monkeypatch.setattr(room, "CGROUP", tmp_path)
    whole = free_bytes(cpu)
    assert whole > 2**20
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    assert free_bytes(cpu) == 600_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(cpu) > 2**20
