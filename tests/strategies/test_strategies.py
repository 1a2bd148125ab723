"""Strategies against their definitions."""

from __future__ import annotations

import pytest
import torch

from tunewell.errors import RecipeError
from tunewell.recipe_file import load_recipe
from tunewell.strategies.averaging import Averaging, interpolate
from tunewell.strategies.distillation import relative_distance


def test_interpolation_by_hand():
    base, tuned = (
        {"w": torch.tensor([0.0, 2.0]), "ids": torch.tensor([1])},
        {"w": torch.tensor([1.0, 4.0]), "ids": torch.tensor([1])},
    )
    assert interpolate(base, tuned, 0.25)["w"].tolist() == [0.25, 2.5]
    assert torch.equal(interpolate(base, tuned, 0.0)["w"], base["w"])
    assert torch.equal(interpolate(base, tuned, 1.0)["w"], tuned["w"])
    assert interpolate(base, tuned, 0.5)["ids"].tolist() == [1]


def test_average_offers_its_points_from_near_to_far():
    offered = [p for p, _ in Averaging({"average_alphas": [0.5, 1.0, 0.9]}).variants({}, {})]
    assert offered == [{"alpha": 0.9}, {"alpha": 0.5}]


def test_relative_distance_by_hand():
    student, teacher = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[3.0, 3.0], [0.0, 2.0]])
    assert relative_distance(student, teacher).item() == pytest.approx((1 / 18 + 4 / 4) / 2)
    assert relative_distance(teacher, 1.0 * teacher).item() == 0.0
    assert relative_distance(10 * student, 10 * teacher).item() == pytest.approx(
        relative_distance(student, teacher).item()
    )


@pytest.mark.parametrize(
    ("strategy", "says"),
    [
        ("distil", "did you mean `distill`"),
        ("plain,average", "cannot be combined"),
        ("average,average", "named twice"),
        ("auto,distill", "`auto` chooses strategies by itself"),
        ("ewc,l2sp", "`ewc` and `l2sp` all pull weights back to the base model"),
        ("lora,ewc", "`lora` freezes the base model's weights, which `ewc` works on"),
        ("lora,freeze", "leave `freeze` out"),
        ("ema,swa", "take one of them"),
        ("auto", "say how much, such as `keep: 0.98`"),
    ],
)
def test_nonsense_is_refused(strategy, says):
    with pytest.raises(RecipeError, match=says):
        load_recipe(strategy=strategy)


@pytest.mark.parametrize("idle", ["distill", "average", "ewc", "llrd"])
def test_a_frozen_encoder_has_nothing_to_keep(idle):
    with pytest.raises(RecipeError, match=f"leaves the encoder as it is, so `{idle}` has nothing to keep"):
        load_recipe(strategy=f"freeze,{idle}", freeze="head_only")
    assert load_recipe(strategy=f"freeze,{idle}", freeze="last_1").freeze == "last_1"


def test_what_freezing_takes():
    with pytest.raises(RecipeError, match="freeze: heads"):
        load_recipe(strategy="freeze", freeze="heads")
    with pytest.raises(RecipeError, match="lora_variant: dara"):
        load_recipe(strategy="lora", lora_variant="dara")
