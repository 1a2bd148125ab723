"""The updates of all methods on a linear body, against updates written out by hand and against difference quotients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tunewell.errors import TrainingError
from tunewell.meta.episode import Episode, Inner, answers, learnable, unchanged
from tunewell.meta.heads import head_steps, logits, prototype_head, prototypes, squared_distances
from tunewell.meta.learn import optimiser, outer_step, rate_at
from tunewell.meta.methods import METHODS, anil, fomaml, method, protonet, reptile

C, F, D = 3, 4, 5  # classes, features of the body, features of the rows


def linear(seed: int = 0) -> torch.nn.Module:
    """x -> a x in float64."""
    made = torch.nn.Linear(D, F, bias=False).double()
    with torch.no_grad():
        made.weight.copy_(torch.from_numpy(np.random.default_rng(seed).normal(size=(F, D)) / 2))
    return made


def episode(seed: int = 0, shots: int = 2, queries: int = 3) -> Episode:
    """Rows of three classes; a class's rows stand together, support first."""
    rng = np.random.default_rng(100 + seed)
    labels = np.repeat(np.arange(C), shots + queries)
    x = torch.from_numpy(rng.normal(size=(len(labels), D)) + labels[:, None])
    place = np.arange(len(labels)) % (shots + queries)
    return Episode(
        take=lambda rows: x[list(rows)],
        labels=torch.from_numpy(labels),
        support=tuple(int(i) for i in rng.permutation(np.flatnonzero(place < shots))),
        query=tuple(int(i) for i in rng.permutation(np.flatnonzero(place >= shots))),
        classes=C,
    )


# ---------------------------------------------------------------- the same by hand, in NumPy


def by_hand(a, w, b, x, y):
    """Cross-entropy of w a x + b and its gradients for a, w and b."""
    h = x @ a.T
    z = h @ w.T + b
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    loss = -np.log(p[np.arange(len(y)), y]).mean()
    g = (p - np.eye(C)[y]) / len(y)
    return loss, (g @ w).T @ x, g.T @ h, g.sum(0)


def start(a, x, y):
    """The head of the prototypes: 2 c and −‖c‖²."""
    centres = np.stack([(x @ a.T)[y == c].mean(0) for c in range(C)])
    return 2 * centres, -(centres**2).sum(1)


def rows_of(e: Episode, rows):
    return e.take(rows).numpy(), e.of(rows).numpy()


# ---------------------------------------------------------------- heads


def test_prototypes_by_hand() -> None:
    x, y = torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 1])
    centres = prototypes(x, y, 2)
    assert centres.flatten().tolist() == [1.0, 5.0]
    asked = torch.tensor([[2.0]])
    assert squared_distances(asked, centres).tolist() == [[1.0, 9.0]]
    p = (-squared_distances(asked, centres)).softmax(-1)
    assert float(p[0, 0]) == pytest.approx(1 / (1 + np.exp(-8)), abs=1e-7)
    # the linear layer that answers as they do
    head = prototype_head(centres)
    assert head[0].flatten().tolist() == [2.0, 10.0] and head[1].tolist() == [-1.0, -25.0]
    assert torch.allclose(logits(head, asked).softmax(-1), p)


def test_steps_on_the_head_alone() -> None:
    e, body = episode(), linear()
    x, y = rows_of(e, e.support)
    a = body.weight.detach().numpy().copy()
    w, b = start(a, x, y)
    made = head_steps(
        (torch.from_numpy(w), torch.from_numpy(b)), body(e.take(e.support)), e.of(e.support), steps=3, rate=0.1
    )
    for _ in range(3):
        _, _, dw, db = by_hand(a, w, b, x, y)
        w, b = w - 0.1 * dw, b - 0.1 * db
    assert np.allclose(made[0].numpy(), w) and np.allclose(made[1].numpy(), b)
    assert not made[0].requires_grad
    assert np.array_equal(body.weight.detach().numpy(), a)


# ---------------------------------------------------------------- methods


def test_fomaml_is_the_gradient_at_the_adapted_weights() -> None:
    e, body, inner = episode(), linear(), Inner(4, 0.1)
    a = body.weight.detach().numpy().copy()
    x, y = rows_of(e, e.support)
    w, b = start(a, x, y)
    adapted = a.copy()
    for _ in range(inner.steps):
        _, da, dw, db = by_hand(adapted, w, b, x, y)
        adapted, w, b = adapted - 0.1 * da, w - 0.1 * dw, b - 0.1 * db
    loss, wanted, _, _ = by_hand(adapted, w, b, *rows_of(e, e.query))
    lesson = fomaml.lesson(body, e, inner)
    assert lesson.loss == pytest.approx(loss)
    assert np.allclose(lesson.gradients[0].numpy(), wanted)
    assert np.array_equal(body.weight.detach().numpy(), a)  # the body itself is as before
    at_start = by_hand(a, *start(a, x, y), *rows_of(e, e.query))[1]
    assert not np.allclose(wanted, at_start, rtol=0.05)  # and not the gradient before adapting


def adapted_by_reptile(a, e: Episode, inner: Inner):
    w, b = start(a, *rows_of(e, e.support))
    a = a.copy()
    for rows in reptile.batches(e, inner.steps):
        _, da, dw, db = by_hand(a, w, b, *rows_of(e, rows))
        a, w, b = a - inner.rate * da, w - inner.rate * dw, b - inner.rate * db
    return a


def test_reptile_goes_part_of_the_way_to_the_mean_of_adapted_weights() -> None:
    tasks, body, inner = [episode(1), episode(2)], linear(), Inner(3, 0.1)
    a = body.weight.detach().numpy().copy()
    there = np.mean([adapted_by_reptile(a, e, inner) for e in tasks], axis=0)
    outer = optimiser(body, reptile.OUTER, 0.25)
    outer_step(body, reptile, tasks, inner, outer, reptile.OUTER)
    assert np.allclose(body.weight.detach().numpy(), a + 0.25 * (there - a))
    assert np.abs(there - a).max() > 0.01


def test_reptile_goes_through_all_rows() -> None:
    e = episode()
    batches = reptile.batches(e, 5)
    assert [len(b) for b in batches] == [6] * 5
    assert sorted([row for rows in batches for row in rows][:15]) == list(
        range(15)
    )  # support and query, each once before any again
    assert rate_at("sgd", 0.5, 0, 10) == 0.5 and rate_at("sgd", 0.5, 5, 10) == 0.25
    assert rate_at("adam", 0.5, 5, 10) == 0.5


def difference_quotient(value, body, i: int, j: int, h: float = 1e-5) -> float:
    out = []
    for sign in (1, -1):
        with unchanged(body), torch.no_grad():
            body.weight[i, j] += sign * h
            out.append(value())
    return (out[0] - out[1]) / (2 * h)


def test_anil_passes_through_the_adaptation_of_the_head() -> None:
    e, body, inner = episode(), linear(), Inner(3, 0.2)

    def value() -> float:
        a = body.weight.detach().numpy()
        x, y = rows_of(e, e.support)
        w, b = start(a, x, y)
        for _ in range(inner.steps):
            _, _, dw, db = by_hand(a, w, b, x, y)
            w, b = w - inner.rate * dw, b - inner.rate * db
        return by_hand(a, w, b, *rows_of(e, e.query))[0]

    before = body.weight.detach().clone()
    lesson = anil.lesson(body, e, inner)
    assert torch.equal(body.weight, before)
    assert lesson.loss == pytest.approx(value())
    for i, j in ((0, 0), (1, 3), (3, 4)):
        assert float(lesson.gradients[0][i, j]) == pytest.approx(difference_quotient(value, body, i, j), rel=1e-5)


def test_prototypical_networks_pass_through_the_prototypes() -> None:
    e, body = episode(), linear()

    def value() -> float:
        a = body.weight.detach().numpy()
        w, b = start(a, *rows_of(e, e.support))
        return by_hand(a, w, b, *rows_of(e, e.query))[0]

    lesson = protonet.lesson(body, e, Inner(0, 0.0))
    assert lesson.loss == pytest.approx(value())
    for i, j in ((0, 1), (2, 2), (3, 4)):
        assert float(lesson.gradients[0][i, j]) == pytest.approx(difference_quotient(value, body, i, j), rel=1e-5)


# ---------------------------------------------------------------- promises of all methods


@pytest.mark.parametrize("name", METHODS)
def test_lessons_leave_the_body_and_are_repeatable(name: str) -> None:
    e, body, teach = episode(), linear(), method(name)
    before = body.weight.detach().clone()
    first, second = (teach.lesson(body, e, Inner(2, 0.1)) for _ in range(2))
    assert torch.equal(body.weight, before)
    assert torch.equal(first.gradients[0], second.gradients[0])
    assert (teach.NAME, len(first.gradients)) == (name, len(learnable(body)))
    assert body.weight.grad is None


@pytest.mark.parametrize("name", METHODS)
def test_methods_learn_what_the_tasks_share(name: str) -> None:
    """Two of five features tell the classes of every task; the others are loud noise that a body can learn to drop."""

    def family(seed: int) -> Episode:
        rng = np.random.default_rng(seed)
        centres = rng.normal(size=(C, 2)) * 2
        labels = np.repeat(np.arange(C), 6)
        x = torch.from_numpy(np.concatenate([centres[labels], 4 * rng.normal(size=(18, 3))], axis=1))
        place = np.arange(18) % 6
        return Episode(
            lambda rows: x[list(rows)] / 4, torch.from_numpy(labels), tuple(np.flatnonzero(place < 2).tolist()),
            tuple(np.flatnonzero(place >= 2).tolist()), C,
        )  # fmt: skip

    teach, inner, body = method(name), Inner(3, 0.05), linear(3)
    outer = optimiser(body, teach.OUTER, 0.02 if teach.OUTER == "adam" else 0.5)
    new = [family(10_000 + i) for i in range(40)]

    def score() -> float:
        return float(
            np.mean([(answers(body, e, teach.USE, inner).argmax(1) == e.of(e.query)).double().mean() for e in new])
        )

    before = score()
    for step in range(60):
        outer_step(body, teach, [family(4 * step + i) for i in range(4)], inner, outer, teach.OUTER)
    assert score() > before + 0.05


def test_what_an_inner_loop_did_is_undone_after_an_error() -> None:
    body = linear()
    before = body.weight.detach().clone()

    def fails() -> None:
        with unchanged(body):
            body.weight.data.zero_()
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert torch.equal(body.weight, before)


def test_an_inner_loop_that_diverges_is_told() -> None:
    body = linear()
    before = body.weight.detach().clone()
    outer = optimiser(body, fomaml.OUTER, 0.1)
    with pytest.raises(TrainingError, match="the inner loop has diverged") as caught:
        outer_step(body, fomaml, [episode()], Inner(3, 1e200), outer, fomaml.OUTER)
    assert "lower --inner-rate (it is 1e+200)" in str(caught.value)
    assert torch.equal(body.weight, before)
