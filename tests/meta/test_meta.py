"""Meta-learning from beginning to end on the tiny model: what is written, what is said, going on, mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import tunewell
from tunewell.cli import app
from tunewell.errors import RecipeError
from tunewell.meta import MetaLearning
from tunewell.meta.keep import between
from tunewell.meta.settings import Settings
from tunewell.meta.words import judged, points, sentences
from tunewell.report.meta import render
from tunewell.results import Estimate

NAMES = ("ash", "elm", "fir", "oak")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few episodes where users have many."""
    import tunewell.meta.learn as learning
    import tunewell.meta.measure as measuring

    monkeypatch.setattr(learning, "SELECTION_EPISODES", 3)
    monkeypatch.setattr(learning, "POINTS", 2)
    monkeypatch.setattr(measuring, "CHOOSING", 1)


@pytest.fixture
def folder(tmp_path: Path, make_reviews, save_csv) -> Path:
    place = tmp_path / "tasks"
    place.mkdir()
    for seed, name in enumerate(NAMES):
        save_csv(place / f"{name}.csv", make_reviews(24, seed=seed))
    return place


@pytest.fixture
def keys(folder: Path, tiny_model: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "tasks": str(folder), "model": str(tiny_model), "shots": 2, "queries": 3, "held_out": "oak", "selection": "fir",
        "steps": 4, "tasks_per_step": 2, "episodes": 6, "inner_steps": 2, "probes": ["none"], "bf16": False,
        "threads": 1, "max_length": 16, "seed": 5, "output_dir": str(tmp_path / "out"), "progress": False,
        "echo": lambda line: None,
    }  # fmt: skip


def weights(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(folder / "model" / "model.safetensors")


def test_a_family_from_beginning_to_end(keys, tiny_model, tmp_path, make_pairs, save_csv) -> None:
    own = save_csv(tmp_path / "own.csv", make_pairs(40), ("text_a", "text_b", "score"))
    said: list[str] = []
    done = tunewell.meta(**{**keys, "probe_files": [str(own)], "echo": said.append}, method="anil", outer_rate=1e-3)
    assert (done.names("learn"), done.names("select"), done.names("report")) == (["ash", "elm"], ["fir"], ["oak"])
    assert "tasks to report on: oak" in said
    assert [(u.body, u.use) for u in done.uses] == [
        ("base", "prototypes"), ("base", "head"), ("base", "whole"),
        ("meta", "prototypes"), ("meta", "head"), ("meta", "whole"),
    ]  # fmt: skip
    assert [h.step for h in done.history] == [0, 2, 4]
    assert done.episodes == 6
    # figures are those of the scores that are kept
    scores = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))
    mine, other = np.array(scores["meta"]["head"]), np.array(scores["base"]["head"])
    assert done.accuracy.value == pytest.approx(mine.mean(), abs=1e-6)
    assert done.gain.value == pytest.approx((mine - other).mean(), abs=1e-6)
    frozen = np.array(scores["base"]["prototypes"])
    assert done.gain_prototypes.value == pytest.approx((mine - frozen).mean(), abs=1e-6)
    # the rate of each is one of three, and none for prototypes
    assert {u.rate for u in done.uses if u.use == "prototypes"} == {None}
    for use, rate in (("head", 0.05), ("whole", 0.005)):
        assert {round(u.rate / rate, 6) for u in done.uses if u.use == use and u.rate} <= {0.3, 1.0, 3.0}
    assert done.rate == 0.05
    # the step that was taken is the best on the task that chooses
    best = max(done.history, key=lambda h: (h.selection, -h.step))
    assert done.best_step == best.step
    assert done.retention is not None and [p.name for p in done.retention.probes] == ["own"]
    assert MetaLearning.load(tmp_path / "out" / "meta.json") == done
    # the model is one to start runs from
    from tunewell.models.load import load_encoder

    assert load_encoder(str(done.model_path)).drawn == load_encoder(str(tiny_model)).drawn
    for lang, says in (("en", "that took no part (oak)"), ("zh", "没有参与学习的任务（oak）")):
        page = render(tmp_path / "out", done, lang)
        assert says in page and "ANIL, Raghu et al. (2020)" in page
        assert "{{" not in page
    assert says not in done.report_path.read_text(encoding="utf-8")
    # asked for again, nothing is learned again
    said.clear()
    again = tunewell.meta(**{**keys, "probe_files": [str(own)], "echo": said.append}, method="anil", outer_rate=1e-3)
    assert again.uses == done.uses and not any("step" in line for line in said)


@pytest.mark.parametrize("method", ["fomaml", "reptile"])
def test_a_stopped_job_ends_in_the_same_weights(keys, tmp_path, method, monkeypatch) -> None:
    import tunewell.meta.learn as learning

    keys |= {"method": method, "episodes": 2, "outer_rate": 0.01}
    whole = tunewell.meta(**keys)
    step, calls = learning.outer_step, []

    def stopping(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return step(*args)

    keys |= {"output_dir": str(tmp_path / "stopped")}
    monkeypatch.setattr(learning, "outer_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        tunewell.meta(**keys)
    assert not (tmp_path / "stopped" / "model").exists()
    said: list[str] = []
    done = tunewell.meta(**{**keys, "echo": said.append})
    assert "meta: goes on after step 2 of 4" in said
    assert len(calls) == 6  # steps 3 and 4 were done again or for the first time, 1 and 2 were not
    assert done.history == whole.history and done.best_step == whole.best_step
    assert done.uses == whole.uses
    first, second = weights(tmp_path / "out"), weights(tmp_path / "stopped")
    assert all(np.array_equal(first[k], second[k]) for k in first)
    assert not (tmp_path / "stopped" / "train" / "state").exists()


def test_between_base_and_learned() -> None:
    import torch

    base = {"w": torch.tensor([1.0, 2.0]), "ids": torch.tensor([3, 4])}
    learned = {"w": torch.tensor([3.0, 0.0]), "ids": torch.tensor([3, 4])}
    assert between(base, learned, 0.25)["w"].tolist() == [1.5, 1.5]
    assert between(base, learned, 0.25)["ids"].tolist() == [3, 4]
    assert torch.equal(between(base, learned, 1.0)["w"], learned["w"])


def test_within_the_budget(keys, tmp_path, make_pairs, save_csv, monkeypatch) -> None:
    """Retention falls with the distance from the base model; the farthest point that keeps enough is taken."""
    import tunewell.meta.keep as keeping
    from tunewell.retention import forgetting

    own = save_csv(tmp_path / "own.csv", make_pairs(40), ("text_a", "text_b", "score"))
    kept = iter([0.90, 0.94, 0.97, 0.99])
    monkeypatch.setattr(forgetting, "point", lambda before, after: (next(kept), None, {}))
    served = iter([0.5, 0.9, 0.8, 0.7, 0.6])
    monkeypatch.setattr(keeping, "mean_accuracy", lambda *args: next(served))
    import tunewell.meta.learn as learning

    chosen = iter([0.1, 0.2, 0.3])
    monkeypatch.setattr(learning, "mean_accuracy", lambda *args: next(chosen))
    done = tunewell.meta(**{**keys, "probe_files": [str(own)], "keep": 0.96, "episodes": 2}, method="protonet",
                         outer_rate=1e-3)  # fmt: skip
    assert done.alpha == 0.5 and done.best_step == 4
    assert done.kept is (done.retention.mean.value >= 0.96)
    from safetensors.numpy import load_file

    base = load_file(Path(keys["model"]) / "model.safetensors")
    learned = load_file(tmp_path / "out" / "train" / "best.safetensors")
    name = "embeddings.word_embeddings.weight"
    assert np.allclose(weights(tmp_path / "out")[name], (base[name] + learned[name]) / 2, atol=1e-6)
    assert not np.allclose(base[name], learned[name], atol=1e-5)


def test_weights_that_were_drawn_are_not_passed_on(keys, tiny_model, tmp_path) -> None:
    """A pooler that the base model lacks would be taken for one that has learned."""
    from transformers import AutoModel, AutoTokenizer

    bare = tmp_path / "bare"
    AutoModel.from_pretrained(tiny_model, add_pooling_layer=False).save_pretrained(bare)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(bare)
    done = tunewell.meta(**{**keys, "model": str(bare), "episodes": 2, "steps": 1}, method="protonet")
    assert not [k for k in weights(tmp_path / "out") if "pooler" in k]
    assert set(weights(tmp_path / "out")) == set(weights(tmp_path / "out")) - {"pooler.dense.weight"}
    assert done.model_path.is_dir()


# ---------------------------------------------------------------- words, mistakes, the command line


def test_verdicts() -> None:
    def gain(low: float, high: float) -> Estimate:
        return Estimate(value=(low + high) / 2, low=low, high=high, n=9)

    assert judged(gain(0.01, 0.03)) == "better"
    assert judged(gain(-0.03, -0.01)) == "worse"
    assert judged(gain(-0.01, 0.03)) == judged(Estimate(value=0.2)) == "unclear"
    assert points(-0.0123) == "−1.2" and points(None) == "–"


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("method", "reptil", "unknown method `reptil`"),
        ("shots", 0, "`shots: 0`"),
        ("ways", 1, "`ways: 1`"),
        ("inner_rate", 0.0, "`inner_rate: 0.0`"),
        ("outer_rate", float("nan"), "`outer_rate: nan`"),
        ("steps", 2.5, "`steps: 2.5`"),
        ("tasks_per_step", True, "`tasks_per_step: True`"),
    ],
)
def test_settings_that_cannot_be(key: str, value: Any, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Settings(**{key: value})
    assert says in str(caught.value) and caught.value.where == key


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ({"strategy": ["plain"]}, "`strategy` is not for meta-learning"),
        ({"model": "auto"}, "`model: auto` is not for meta-learning"),
        ({"keep": 0.9}, "keep needs probes to measure retention"),
        ({"max_length": 4096}, "`max_length: 4096` is beyond the model's window"),
        ({"shots": 12}, "task `ash` has too few rows of 2 of its 2 classes"),
        ({"ways": 3}, "task `ash` has 2 classes, and an episode 3"),
    ],
)
def test_what_is_refused(keys, over: dict[str, Any], says: str) -> None:
    with pytest.raises(tunewell.TunewellError) as caught:
        tunewell.meta(**{**keys, **over})
    assert says in str(caught.value)
    assert not Path(keys["output_dir"]).exists()


def test_the_command(folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    common = ["--model", str(tiny_model), "--held-out", "oak", "--selection", "fir", "--probes", "none", "--output_dir",
              str(out), "--no-bf16", "--threads", "1"]  # fmt: skip
    line = ["meta", str(folder), "--shots", "2", "--queries", "2", "--steps", "1", "--episodes", "2", *common]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    assert "Prototypical network, best at step" in done.stdout
    assert f"model   {out / 'model'}" in done.stdout
    assert sentences(MetaLearning.load(out / "meta.json"))[0] in done.stdout
    as_json = CliRunner().invoke(app, [*line, "--json"])
    assert json.loads(as_json.stdout)["method"] == "protonet"
    wrong = CliRunner().invoke(app, ["meta", str(folder / "ash.csv"), *common])
    assert wrong.exit_code == 2 and "--task-column" in wrong.stderr
