"""Task embeddings: each figure by hand or by brute force, and beside past runs in a ranking."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import tunewell
from tunewell.cli import app
from tunewell.rank import Ranking
from tunewell.rank.fisher import answer_loss, fisher, head_of, neuron_fisher, recording
from tunewell.rank.scores import cosine, task_distance, textemb

QUIET: dict[str, Any] = {"echo": lambda line: None, "progress": False, "bf16": False}


def test_textemb_and_cosine_by_hand() -> None:
    assert textemb(np.array([[1.0, 0.0], [3.0, 4.0]])).tolist() == [2.0, 2.0]
    assert cosine(np.array([1.0, 0.0]), np.array([2.0, 2.0])) == pytest.approx(2**-0.5)
    assert cosine(np.array([1.0, 2.0]), np.array([-2.0, -4.0])) == pytest.approx(-1.0)
    assert cosine(np.zeros(2), np.ones(2)) == 0.0


def test_task_distance_by_hand() -> None:
    """Shares of (1, 3) and (3, 1) are (1/4, 3/4) and (3/4, 1/4): a cosine of (6/16) / (10/16) = 0.6."""
    a, b = np.array([1.0, 3.0]), np.array([3.0, 1.0])
    assert task_distance(a, b) == pytest.approx(0.4)
    assert task_distance(b, a) == pytest.approx(0.4)
    assert task_distance(a, 7 * a) == pytest.approx(0.0)  # surer answers, the same neurons
    assert task_distance(np.array([2.0, 0.0]), np.array([0.0, 5.0])) == pytest.approx(1.0)
    assert task_distance(np.array([1.0, 3.0, 0.0]), np.array([3.0, 1.0, 0.0])) == pytest.approx(0.4)


def test_the_information_of_neurons_is_that_of_their_weights() -> None:
    """A layer on 3 texts of 4 tokens: mean squares of each text's own gradient of the weights, by brute force."""
    torch.manual_seed(0)
    x, weight = torch.randn(3, 4, 5), torch.randn(2, 5, requires_grad=True)
    after = torch.randn(2)
    squares, outs = torch.zeros(2), []
    for one in x:
        out = one @ weight.T
        loss = (out.tanh() @ after).sum()
        (gradient,) = torch.autograd.grad(loss, weight)
        squares += gradient.square().mean(1)
        outs.append((1 - out.detach().tanh() ** 2) * after)
    assert neuron_fisher(x, torch.stack(outs)).tolist() == pytest.approx(squares.tolist(), rel=1e-5)


def test_answers_are_drawn_from_the_model() -> None:
    """The squared gradient of −log p(y) by the logits is in expectation p (1 − p), for classes and for labels."""
    logits = torch.tensor([[0.0, 1.5, -1.0]])
    for kind, p in (("single-label", logits.softmax(-1)), ("multi-label", logits.sigmoid())):
        many = logits.repeat(40_000, 1).requires_grad_()
        answer_loss(many, kind, torch.Generator().manual_seed(0)).backward()  # type: ignore[arg-type]
        assert many.grad is not None
        found = many.grad.square().mean(0)
        assert found.tolist() == pytest.approx((p * (1 - p))[0].tolist(), abs=0.005)
    value = torch.tensor([[3.0]], requires_grad=True)
    answer_loss(value, "regression", torch.Generator()).backward()
    assert value.grad is not None
    assert value.grad.item() == 1.0  # of a Gaussian of unit variance the information is 1


def test_fisher_of_a_task_by_brute_force(tiny_model: Path) -> None:
    """Scores, where nothing is drawn: the gradient of each text's answer by each weight, squared, over weights and
    texts. Padding says nothing, though texts of several lengths go through together."""
    from tunewell.models.embed import mean_pool
    from tunewell.models.load import load_encoder

    encoder = load_encoder(str(tiny_model))
    model, tokenizer = encoder.model, encoder.tokenizer
    texts = ["the crew was lovely", "rude", "the meal was cold and late and the crew was rude", "it was fine today"]
    values = np.array([3.0, 0.5, 0.0, 2.0])
    vectors, found = fisher(
        model, tokenizer, texts, None, values, outputs=1, max_length=64, seed=1
    )  # fmt: skip
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    w, b, kind = head_of(vectors, values, 1, 1)
    assert kind == "regression"
    layers = [m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "pooler" not in n]
    weight, bias = torch.tensor(w, dtype=torch.float32), torch.tensor(b, dtype=torch.float32)
    squares = [torch.zeros(m.out_features) for m in layers]
    for text in texts:
        batch = tokenizer([text], return_tensors="pt")
        pooled = mean_pool(model(**batch).last_hidden_state, batch["attention_mask"])
        gradients = torch.autograd.grad((pooled @ weight + bias).sum(), [m.weight for m in layers])
        squares = [s + g.square().mean(1) / len(texts) for s, g in zip(squares, gradients, strict=True)]
    by_hand = torch.cat(squares).numpy()
    assert len(found) == 2 * (4 * 32 + 64 + 32)
    assert found == pytest.approx(by_hand, rel=1e-3, abs=1e-6 * float(by_hand.max()))


def test_the_head_reads_what_the_probe_reads() -> None:
    from scipy.special import softmax

    from tunewell.evaluate.linear import fit_linear_probe

    rng = np.random.default_rng(0)
    x, y = rng.normal(3.0, 2.0, (60, 4)), rng.integers(0, 3, 60)
    w, b, _ = head_of(x, y, 3, 1)
    probe = fit_linear_probe(x, y, x[:0], y[:0], seed=1, n_classes=3)
    assert softmax(x @ w + b, axis=1) == pytest.approx(probe.scores(x), abs=1e-5)


def test_nothing_stays_hooked_after_an_error(tiny_model: Path) -> None:
    from tunewell.models.load import load_encoder

    model = load_encoder(str(tiny_model)).model

    def broken() -> None:
        with recording(model, {}):
            assert not any(p.requires_grad for p in model.parameters())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert not any(m._forward_hooks for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


# ---------------------------------------------------------------- beside past runs


@pytest.fixture(scope="module")
def past(tmp_path_factory, tiny_model, make_reviews, save_csv):
    """A run on reviews like the new ones, and one that tells short numbers from long."""
    folder = tmp_path_factory.mktemp("past")
    rows = make_reviews(200)
    rng = np.random.default_rng(0)
    numbers = []
    for i in range(60):
        label = ("short", "long")[i % 2]
        numbers.append((" ".join(str(rng.integers(10)) for _ in range(rng.integers(2, 5) + 5 * (i % 2))), label))
    files = {
        "new": save_csv(folder / "new.csv", rows[:60]),
        "like": save_csv(folder / "like.csv", rows[100:160]),
        "other": save_csv(folder / "other.csv", numbers),
    }
    keys = {"model": str(tiny_model), "probes": "none", "explain": 0, "max_steps": 1, "calibrate": "none", **QUIET}
    for name in ("like", "other"):
        tunewell.run(train=str(files[name]), output_dir=str(folder / "runs" / name), **keys)
    return folder, files


def test_the_run_on_a_like_task_is_nearer(past, monkeypatch) -> None:
    folder, files = past
    runs = [str(folder / "runs" / name) for name in ("like", "other")]
    lines: list[str] = []
    ranking = tunewell.rank(str(files["new"]), runs=runs, **{**QUIET, "echo": lines.append})
    scores = {Path(m.name).parent.name: m.scores for m in ranking.models if m.name.endswith("model")}
    like, other = scores["like"], scores["other"]
    assert like["textemb_cosine"] > other["textemb_cosine"]
    assert like["task2vec_distance"] < other["task2vec_distance"]
    assert 0 <= like["task2vec_distance"] <= 1
    base = next(m for m in ranking.models if m.name not in (f"{r}/model" for r in runs))
    assert ranking.embedded_by == base.name
    assert "textemb_cosine" not in base.scores
    assert any("tasks of 2 runs and the new one" in line for line in lines)
    assert Ranking.from_dict(json.loads(json.dumps(ranking.to_dict()))) == ranking

    def refuse(*arguments, **options):
        raise AssertionError("embedded again")

    monkeypatch.setattr("tunewell.rank.fisher.fisher", refuse)
    again = tunewell.rank(str(files["new"]), runs=runs, **QUIET)  # from the cache
    assert {m.name: m.scores for m in again.models} == {m.name: m.scores for m in ranking.models}
    with pytest.raises(AssertionError, match="embedded again"):
        tunewell.rank(str(files["new"]), runs=runs, fresh=True, **QUIET)


def test_a_run_whose_rows_are_gone_is_ranked_without(past, tmp_path) -> None:
    import shutil

    folder, files = past
    for name in ("like", "other"):
        shutil.copytree(folder / "runs" / name, tmp_path / name)
    recipe = tmp_path / "other" / "recipe.yaml"
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("other.csv", "gone.csv"), encoding="utf-8")
    runs = [str(tmp_path / name) for name in ("like", "other")]
    done = CliRunner().invoke(app, ["rank", str(files["new"]), "--runs", *runs, "--no-bf16"])
    assert done.exit_code == 0, done.output
    assert "not compared with the new task" in done.stderr
    lines = done.stdout.splitlines()
    head = next(line for line in lines if "tokens/s" in line)
    assert "texts" in head
    assert "task" in head
    assert "the order does not go by them" in " ".join(done.stdout.split())
    ranking = tunewell.rank(str(files["new"]), runs=runs, **QUIET)
    scores = {Path(m.name).parent.name: m.scores for m in ranking.models}
    assert "textemb_cosine" in scores["like"]
    assert "textemb_cosine" not in scores["other"]
    none = tunewell.rank(str(files["new"]), runs=runs[1:], **QUIET)
    assert none.embedded_by is None
    assert not any("task2vec_distance" in m.scores for m in none.models)
