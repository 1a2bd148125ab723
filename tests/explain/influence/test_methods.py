"""Each method against a closed form, a retrained model, or a case worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tunewell.explain.influence import METHODS, datainf, head, layers, neighbours, tracin, trak
from tunewell.explain.influence.index import Index, Query
from tunewell.tasks import TaskSpec

BINARY = TaskSpec("text-classification", ("a", "b", "c"))
VALUES = TaskSpec("text-regression", metric="r2")


def made(spec: TaskSpec, n: int = 40, h: int = 6, d: int = 12, q: int = 4, seed: int = 0) -> tuple[Index, Query]:
    """Random features, logits and gradients of the right shapes."""
    rng = np.random.default_rng(seed)
    targets = rng.normal(size=n).astype(np.float32) if spec.regression else rng.integers(0, spec.outputs, n)
    index = Index(
        spec,
        rng.normal(size=(n, h)).astype(np.float32),
        rng.normal(size=(n, spec.outputs)).astype(np.float32),
        targets,
        rng.normal(size=(n, d)).astype(np.float32),
        {"one": slice(0, d // 2), "two": slice(d // 2, d)},
        np.arange(1, n + 1),
    )
    logits = rng.normal(size=(q, spec.outputs)).astype(np.float32)
    asked = Query(
        rng.normal(size=(q, h)).astype(np.float32),
        logits,
        rng.normal(size=(q, d)).astype(np.float32),
        logits.argmax(axis=1),
    )
    return index, asked


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("spec", [BINARY, VALUES], ids=["classes", "values"])
def test_one_score_for_each_query_and_row(method: str, spec: TaskSpec) -> None:
    index, asked = made(spec)
    scores = METHODS[method].scores(index, asked)
    assert scores.shape == (4, 40) and np.isfinite(scores).all() and scores.std() > 0
    one = Query(asked.features[1:2], asked.logits[1:2], asked.gradients[1:2], asked.which[1:2])
    np.testing.assert_allclose(METHODS[method].scores(index, one)[0], scores[1], rtol=1e-4, atol=1e-6)


def test_tracin_is_the_inner_product_of_the_heads_gradients() -> None:
    """Against autograd: −∇f(query) · ∇loss(row) over weights and bias of the head."""
    import torch

    index, asked = made(BINARY)
    layer = torch.nn.Linear(6, 3)

    def gradient(features: np.ndarray, logits: np.ndarray, loss: bool, which: int) -> torch.Tensor:
        # the head's weights do not matter for the closed form, so the given logits are reached by a shift
        layer.zero_grad()
        out = layer(torch.as_tensor(features))
        out = out + (torch.as_tensor(logits) - out).detach()
        log_p = torch.log_softmax(out, dim=0)
        value = -log_p[which] if loss else log_p[which] - torch.log1p(-log_p[which].exp())
        value.backward()
        return torch.cat([layer.weight.grad.flatten(), layer.bias.grad])

    scores = tracin.scores(index, asked)
    for q, i in [(0, 0), (1, 7), (3, 39)]:
        left = gradient(asked.features[q], asked.logits[q], False, int(asked.which[q]))
        right = gradient(index.features[i], index.logits[i], True, int(index.targets[i]))
        assert scores[q, i] == pytest.approx(-float(left @ right), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("kind", ["single-label", "regression"])
def test_influence_functions_of_the_head_foretell_leaving_one_out(kind: str) -> None:
    """A head fitted to its optimum; each of 12 rows is left out and the head fitted again."""
    from scipy.optimize import minimize
    from scipy.special import log_softmax, softmax

    rng = np.random.default_rng(1)
    n, f, c, penalty = 60, 4, 3 if kind == "single-label" else 1, 0.02
    h = np.concatenate([rng.normal(size=(n, f - 1)), np.ones((n, 1))], axis=1)
    asked = np.concatenate([rng.normal(size=(5, f - 1)), np.ones((5, 1))], axis=1)
    y = rng.integers(0, c, n) if kind == "single-label" else rng.normal(size=n)

    def fit(rows: np.ndarray) -> np.ndarray:
        """The minimum of the sum of losses over rows / n + penalty / 2 · ‖W‖²."""

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            w = flat.reshape(c, f)
            z = h[rows] @ w.T
            if kind == "single-label":
                value, error = -log_softmax(z, axis=1)[np.arange(len(rows)), y[rows]].sum(), softmax(z, axis=1)
                error[np.arange(len(rows)), y[rows]] -= 1
            else:
                error = z - y[rows, None]
                value = 0.5 * (error**2).sum()
            return value / n + 0.5 * penalty * (w**2).sum(), (error.T @ h[rows] / n + penalty * w).ravel()

        return minimize(loss, np.zeros(c * f), jac=True, method="BFGS", options={"gtol": 1e-10}).x.reshape(c, f)

    whole = fit(np.arange(n))
    z = h @ whole.T
    spec_kind = "single_label_classification" if kind == "single-label" else "regression"
    p = softmax(z, axis=1) if kind == "single-label" else z
    errors = p - (np.eye(c)[y] if kind == "single-label" else y[:, None])
    hessian = head.Hessian(h, p, spec_kind, damping=0.0, absolute=penalty)
    gradient = np.zeros((5, c, f))
    gradient[:, 0] = asked  # the output is the first logit
    foretold = -np.einsum("qcn,nc->qn", np.einsum("qcf,nf->qcn", hessian.solve(gradient), h), errors) / n
    true = np.stack(
        [asked @ whole[0] - asked @ fit(np.delete(np.arange(n), i))[0] for i in range(12)], axis=1
    )  # what the presence of row i changes
    assert np.corrcoef(foretold[:, :12].ravel(), true.ravel())[0, 1] > 0.99
    assert np.polyfit(foretold[:, :12].ravel(), true.ravel(), 1)[0] == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification", "regression"])
def test_conjugate_gradients_solve_what_cholesky_solves(problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    h, p = rng.normal(size=(50, 5)), rng.dirichlet(np.ones(3), 50)
    gradients = rng.normal(size=(2, 3, 5))
    direct = head.Hessian(h, p, problem, damping=0.05)
    monkeypatch.setattr(head, "LARGEST", 0)
    monkeypatch.setattr(head, "TOLERANCE", 1e-9)
    iterated = head.Hessian(h, p, problem, damping=0.05)
    assert iterated._factors is None
    np.testing.assert_allclose(iterated.solve(gradients), direct.solve(gradients), rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(direct.times(direct.solve(gradients)[0]), gradients[0], atol=1e-8)


def test_trak_of_least_squares_is_the_hat_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """For linear regression φ(z)ᵀ(ΦᵀΦ)⁻¹φ_i (y_i − ŷ_i) is the first-order change by row i; worked by the formula."""
    monkeypatch.setattr(trak, "RIDGE", 0.0)
    index, asked = made(VALUES)
    phi = index.gradients.astype(float)
    wanted = asked.gradients @ np.linalg.inv(phi.T @ phi / len(phi)) @ phi.T * (index.targets - index.logits[:, 0])
    np.testing.assert_allclose(trak.scores(index, asked), wanted, rtol=1e-3, atol=1e-4)


def test_layers_with_one_layer_and_equal_ridge_is_trak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trak, "RIDGE", 0.1)
    monkeypatch.setattr(layers, "DAMPING", 0.1)
    index, asked = made(BINARY)
    index.blocks = {"all": slice(0, 12)}
    np.testing.assert_allclose(layers.scores(index, asked), trak.scores(index, asked), rtol=1e-3, atol=1e-4)


def test_datainf_averages_the_inverses_of_single_rows() -> None:
    rng = np.random.default_rng(3)
    g, v = rng.normal(size=(20, 5)), rng.normal(size=(2, 5))
    damping = datainf.DAMPING * float((g**2).sum(axis=1).mean()) / 5
    mean = np.mean([np.linalg.inv(np.outer(row, row) + damping * np.eye(5)) for row in g], axis=0)
    np.testing.assert_allclose(datainf.inverse(g, v), v @ mean, rtol=1e-9)


def test_neighbours_by_hand() -> None:
    index, asked = made(BINARY, n=2, q=1)
    index.features, index.targets = np.array([[1.0, 0.0], [3.0, 3.0]]), np.array([2, 0])
    asked = Query(np.array([[2.0, 0.0]]), asked.logits, asked.gradients, np.array([2]))
    np.testing.assert_allclose(neighbours.scores(index, asked), [[1.0, -np.sqrt(0.5)]], rtol=1e-6)


def test_self_influence_is_a_rows_tracin_on_its_own_loss() -> None:
    index, _ = made(BINARY)
    h = np.concatenate([index.features, np.ones((40, 1))], axis=1)
    wanted = [(np.outer(e, x) ** 2).sum() for e, x in zip(index.errors, h, strict=True)]
    np.testing.assert_allclose(tracin.self_influence(index), wanted, rtol=1e-5)


def test_push_times_gradient_is_minus_the_loss_gradient() -> None:
    """1 − p(label) times the direction of the log odds is y − p."""
    import torch

    from tunewell.explain.influence.gradients import direction

    index, _ = made(BINARY)
    u = direction(BINARY, torch.as_tensor(index.logits), torch.as_tensor(index.targets)).numpy()
    np.testing.assert_allclose(index.push[:, None] * u, -index.errors, atol=1e-6)
