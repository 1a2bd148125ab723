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
from tunewell.rank.fisher import fisher, head_of, heads_of, mixed, neuron_fisher, recording, roots
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
    none = np.zeros(2)
    assert task_distance(none, none) is None and task_distance(a, none) is None and task_distance(none, a) is None


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


def test_the_expectation_over_answers_by_hand() -> None:
    """Σ r rᵀ is the covariance of the answers: diag(p) − p pᵀ of a class, diag(p (1 − p)) of labels, 1 of a value."""
    logits = torch.tensor([[0.0, 1.5, -1.0], [8.0, 0.0, 0.0]])
    p, s = logits.softmax(-1), logits.sigmoid()
    wanted = {
        "single-label": torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1),
        "multi-label": torch.diag_embed(s * (1 - s)),
    }
    for kind, covariance in wanted.items():
        r = roots(logits, kind)  # type: ignore[arg-type]
        torch.testing.assert_close(r @ r.transpose(1, 2), covariance, atol=1e-6, rtol=1e-4)
    assert roots(torch.tensor([[3.0]]), "regression").tolist() == [[[1.0]]]  # a Gaussian of unit variance


def test_random_signs_have_the_same_expectation() -> None:
    """Of more columns than passes; with as many or fewer nothing is drawn."""
    draws = torch.Generator().manual_seed(0)
    columns = torch.randn(2, 3, 5, generator=draws)
    assert mixed(columns, draws, most=5) is columns
    few = torch.stack([m @ m.transpose(1, 2) for m in (mixed(columns, draws, most=2) for _ in range(4000))])
    torch.testing.assert_close(few.mean(0), columns @ columns.transpose(1, 2), atol=0.35, rtol=0.03)
    assert mixed(columns, draws, most=2).shape == (2, 3, 2)


def test_each_half_is_read_with_a_head_of_the_other() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(41, 4)), np.arange(41) % 3
    half, w, b, kind = heads_of(x, y, 3, 1)
    assert kind == "single-label" and w.shape == (2, 4, 3) and b.shape == (2, 3)
    for label in range(3):
        assert abs(int((half[y == label] == 0).sum()) - int((half[y == label] == 1).sum())) <= 1
    for k in range(2):
        own, bias, _ = head_of(x[half != k], y[half != k], 3, 1)
        np.testing.assert_allclose(w[k], own, rtol=1e-5)
        np.testing.assert_allclose(b[k], bias, rtol=1e-5)
    assert set(heads_of(x[:3], y[:3], 3, 1)[0].tolist()) == {0}  # too few for halves


TEXTS = ["the crew was lovely", "rude", "the meal was cold and late and the crew was rude", "it was fine today", "sad"]
TARGETS = {
    "regression": np.array([3.0, 0.5, 0.0, 2.0, 1.0]),
    "single-label": np.array([2, 0, 0, 1, 0]),
    "multi-label": np.array([[1, 0], [0, 1], [1, 1], [0, 0], [0, 1]]),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_fisher_of_a_task_by_brute_force(kind: str, tiny_model: Path) -> None:
    """For each text and each answer that it can have: p(y) times the squared gradient of log p(y) by each weight.
    Padding says nothing, though texts of several lengths go through together."""
    import itertools

    from tunewell.models.embed import mean_pool
    from tunewell.models.load import load_encoder

    encoder = load_encoder(str(tiny_model))
    model, tokenizer, targets = encoder.model, encoder.tokenizer, TARGETS[kind]
    outputs = {"regression": 1, "single-label": 3, "multi-label": 2}[kind]
    vectors, found = fisher(model, tokenizer, TEXTS, None, targets, outputs=outputs, max_length=64, seed=1)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    half, w, b, own = heads_of(vectors, targets, outputs, 1)
    assert own == kind
    layers = [m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "pooler" not in n]
    squares = [torch.zeros(m.out_features) for m in layers]
    for text, k in zip(TEXTS, half, strict=True):
        batch = tokenizer([text], return_tensors="pt")
        logits = (mean_pool(model(**batch).last_hidden_state, batch["attention_mask"]) @ w[k] + b[k])[0]
        if kind == "regression":
            answers = [(torch.tensor(1.0), logits.sum())]
        elif kind == "single-label":
            answers = [(p, log) for p, log in zip(logits.softmax(-1), logits.log_softmax(-1), strict=True)]
        else:
            sides = torch.stack([-logits, logits])  # labels 0 and 1
            many = [
                sum(sides[y, c].sigmoid().log() for c, y in enumerate(a)) for a in itertools.product((0, 1), repeat=2)
            ]
            answers = [(log.exp(), log) for log in many]
        for p, log in answers:
            gradients = torch.autograd.grad(log, [m.weight for m in layers], retain_graph=True)
            squares = [
                s + p.detach() * g.square().mean(1) / len(TEXTS) for s, g in zip(squares, gradients, strict=True)
            ]
    by_hand = torch.cat(squares).numpy()
    assert len(found) == 2 * (4 * 32 + 64 + 32)
    assert found == pytest.approx(by_hand, rel=1e-3, abs=1e-6 * float(by_hand.max()))


def test_halves_of_a_task_are_nearer_than_two_tasks(tiny_model: Path, make_reviews: Any) -> None:
    """The mood of reviews, and whether a seat is among what they are of; the same texts, other labels."""
    from tunewell.models.load import load_encoder

    encoder = load_encoder(str(tiny_model))
    rows = make_reviews(240)
    found: dict[str, np.ndarray] = {}
    for half, some in (("a", rows[:120]), ("b", rows[120:])):
        texts = [text for text, _ in some]
        labels = {
            "mood": np.array([label == "positive" for _, label in some], dtype=np.int64),
            "seat": np.array(["seat" in text or "room" in text for text in texts], dtype=np.int64),
        }
        for task, y in labels.items():
            found[task + half] = fisher(
                encoder.model, encoder.tokenizer, texts, None, y, outputs=2, max_length=64, seed=1
            )[1]  # fmt: skip
    same = [task_distance(found[t + "a"], found[t + "b"]) for t in ("mood", "seat")]
    other = [task_distance(found["mood" + a], found["seat" + b]) for a in "ab" for b in "ab"]
    assert max(same) < min(other)  # type: ignore[type-var]


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


@pytest.mark.parametrize("damage", [b"", b"PK", None])
def test_a_damaged_embedding_in_the_cache_is_made_again(
    damage: bytes | None, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunewell.rank.near import Rows, embedded
    from tunewell.recipe_file import load_recipe
    from tunewell.tasks import TaskSpec

    monkeypatch.setattr("tunewell.cache.cache_folder", lambda *parts: tmp_path.joinpath(*parts))
    (tmp_path / "rank").mkdir()
    spec = TaskSpec("text-classification", labels=("a", "b", "c"))
    task, recipe = Rows(spec, TEXTS, None, TARGETS["single-label"]), load_recipe(None, train="a.csv")
    first = embedded(task, str(tiny_model), recipe, [], fresh=False)
    (kept,) = (tmp_path / "rank").iterdir()
    kept.write_bytes(kept.read_bytes()[:-40] if damage is None else damage)
    again = embedded(task, str(tiny_model), recipe, [], fresh=False)
    np.testing.assert_array_equal(first.fisher, again.fisher)


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
