"""Losses against torch, scikit-learn and cases worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from tunewell.errors import RecipeError
from tunewell.tasks import TaskSpec
from tunewell.train.losses import balanced_weights, loss_for

CLASSES = TaskSpec("text-classification", ("a", "b", "c"))
MANY = TaskSpec("text-classification", ("a", "b"), multi_label=True, metric="f1_micro")
SCORES = TaskSpec("text-regression", metric="r2")
LOGITS, LABELS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5], [0.0, 0.0, 3.0]]), torch.tensor([0, 2, 2])


def test_cross_entropy_is_torchs_row_by_row():
    for smoothing in (0.0, 0.1):
        found = loss_for(CLASSES, "auto", label_smoothing=smoothing)(LOGITS, LABELS)
        torch.testing.assert_close(found, F.cross_entropy(LOGITS, LABELS, reduction="none", label_smoothing=smoothing))


def test_focal_by_hand_and_without_focus():
    logits = torch.tensor([[math.log(3.0), 0.0, -30.0]])  # p = 3/4
    found = loss_for(CLASSES, "focal", focal_gamma=2.0)(logits, torch.tensor([0]))
    assert found.item() == pytest.approx(-(0.25**2) * math.log(0.75), rel=1e-5)
    plain = loss_for(CLASSES, "cross_entropy")(LOGITS, LABELS)
    torch.testing.assert_close(loss_for(CLASSES, "focal", focal_gamma=0.0)(LOGITS, LABELS), plain)


def test_class_weights_are_scikit_learns():
    y = np.array([0, 0, 0, 1, 2, 2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=y)
    weights = balanced_weights(CLASSES, y)
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)
    plain = loss_for(CLASSES, "auto")(LOGITS, LABELS)
    torch.testing.assert_close(
        loss_for(CLASSES, "auto", class_weights=weights)(LOGITS, LABELS), plain * weights[LABELS]
    )


def test_several_labels_and_scores():
    logits, truth = torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 0.0]])
    by_hand = (math.log(2.0) + math.log1p(math.exp(2.0))) / 2
    assert loss_for(MANY, "auto")(logits, truth).item() == pytest.approx(by_hand, rel=1e-6)
    out, y = torch.tensor([[1.0], [5.0]]), torch.tensor([0.5, 2.0])
    assert loss_for(SCORES, "auto")(out, y).tolist() == [0.25, 9.0]
    assert loss_for(SCORES, "mae")(out, y).tolist() == [0.5, 3.0]
    assert loss_for(SCORES, "huber")(out, y).tolist() == [0.125, 2.5]


@pytest.mark.parametrize(
    ("spec", "name", "options", "says"),
    [
        (SCORES, "cross_entropy", {}, "`loss: cross_entropy` does not fit text-regression"),
        (CLASSES, "mse", {}, "expected: cross_entropy or focal"),
        (MANY, "bce", {"label_smoothing": 0.1}, "`label_smoothing_factor` does not go with"),
        (SCORES, "mse", {"class_weights": torch.ones(1)}, "needs classes"),
    ],
)
def test_what_does_not_fit(spec, name, options, says):
    with pytest.raises(RecipeError) as caught:
        loss_for(spec, name, **options)
    assert says in str(caught.value)
