"""Past runs as starting points: which folders are candidates, and whether the best of them helps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import tunewell
from tunewell.cli import app
from tunewell.errors import RecipeError
from tunewell.rank import Ranking, Transfer
from tunewell.rank.runs import losses, past_runs
from tunewell.tasks import TaskSpec

QUIET: dict[str, Any] = {"echo": lambda line: None, "progress": False, "bf16": False}


@pytest.fixture
def run_folder(tmp_path: Path):
    """Make a finished run folder of a model folder and the name of its base model."""

    def make(name: str, model: Path, base: object, learned: str = "") -> Path:
        folder = tmp_path / "runs" / name
        shutil.copytree(model, folder / "model")
        (folder / "summary.json").write_text(json.dumps({"model": str(base)}), encoding="utf-8")
        if learned:
            (folder / "split.json").write_text(json.dumps({"files": {"train": learned}}), encoding="utf-8")
        return folder

    return make


def test_which_folders_are_candidates(run_folder, tiny_model: Path, tmp_path: Path) -> None:
    good, same = run_folder("good", tiny_model, "base"), run_folder("same", tiny_model, "base", learned="abc")
    torn, bare = run_folder("torn", tiny_model, "base"), tmp_path / "runs" / "bare"
    (torn / "summary.json").write_text("{", encoding="utf-8")
    bare.mkdir()
    empty = run_folder("empty", tiny_model, "base")
    shutil.rmtree(empty / "model")
    folders = [str(f) for f in (good, same, torn, bare, empty, tmp_path / "no")]
    found, left = past_runs(folders, ["abc", "def"])
    assert found == {str(good / "model"): "base"}
    assert [(Path(s.name).name, s.reason) for s in left] == [
        ("same", "has learned from this very file, so that its scores would be too high"),
        ("torn", "its summary.json is damaged"), ("bare", "is not a finished run"), ("empty", "has no model"),
        ("no", "no such folder"),
    ]  # fmt: skip
    assert len(past_runs(folders)[0]) == 2  # of other data
    with pytest.raises(RecipeError, match="no past run can be a candidate") as caught:
        past_runs([str(bare)])
    assert "is not a finished run" in caught.value.remedy
    with pytest.raises(RecipeError, match="no past run is named"):
        past_runs([])
    with pytest.raises(RecipeError, match="is named twice"):
        past_runs([str(good), str(good)])


def test_losses_of_rows() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 30)
    spec = TaskSpec("text-classification", labels=("a", "b"), metric="accuracy")
    told, noise = np.eye(2)[y] + 0.01 * rng.normal(size=(60, 2)), rng.normal(size=(60, 3))
    assert losses(spec, told, y, seed=1).tolist() == [0.0] * 60
    wrong = losses(spec, noise, y, seed=1)
    assert set(wrong.tolist()) == {0.0, 1.0} and 0.25 < wrong.mean() < 0.75
    scores = told[:, 0] * 3
    spec = TaskSpec("text-regression", metric="r2")
    assert losses(spec, told, scores, seed=1).mean() < 0.01  # in variances
    assert 0.7 < losses(spec, noise, scores, seed=1).mean() < 1.6


def test_a_run_that_helps_and_one_that_does_not(
    run_folder, tiny_csv: Path, tiny_model: Path, blank_model: Path, tiny_classifier: Path
) -> None:
    """A base model that tells no words apart, and a run tuned from it that does; and the other way round."""
    helps = run_folder("helps", tiny_classifier, blank_model)
    ranking = tunewell.rank(str(tiny_csv), runs=[str(helps)], **QUIET)
    assert {m.name for m in ranking.models} == {str(helps / "model"), str(blank_model)}
    t = ranking.transfer
    assert t is not None and (t.run, t.base, t.helps, t.tried) == (str(helps / "model"), str(blank_model), True, 1)
    assert t.low is not None and t.low > 0.1 and t.p_value < 0.01
    assert "leep" in ranking.best.scores  # by the head of the run
    assert Ranking.from_dict(json.loads(json.dumps(ranking.to_dict()))) == ranking

    harms = run_folder("harms", blank_model, tiny_model)
    other = tunewell.rank(str(tiny_csv), runs=[str(harms)], **QUIET)
    assert other.best.name == str(tiny_model)
    assert other.transfer is not None and other.transfer.helps is False
    alike = run_folder("alike", tiny_model, tiny_model)
    same = tunewell.rank(str(tiny_csv), runs=[str(alike)], **QUIET).transfer
    assert same is not None and (same.gain, same.helps, same.p_value) == (0.0, None, 1.0)


def test_the_command(run_folder, tiny_csv: Path, blank_model: Path, tiny_classifier: Path, tmp_path: Path) -> None:
    helps = run_folder("helps", tiny_classifier, blank_model)
    (tmp_path / "runs" / "other").mkdir()
    folders = [str(helps), str(tmp_path / "runs" / "other")]  # as a shell spreads runs/*
    done = CliRunner().invoke(app, ["rank", str(tiny_csv), "--runs", *folders, "--no-bf16"])
    assert done.exit_code == 0, done.output
    words = " ".join(done.stdout.split())
    assert "LEEP" in words and "start from it" in words
    assert f"tunewell run … --model {helps / 'model'}" in done.stdout
    assert "is not a finished run" in words
    wrong = CliRunner().invoke(app, ["rank", str(tiny_csv), "--runs", folders[1]])
    assert wrong.exit_code == 2 and "no past run can be a candidate" in wrong.stderr
    nothing = CliRunner().invoke(app, ["rank", str(tiny_csv), "--runs"])
    assert nothing.exit_code == 2 and "--runs" in nothing.stderr


def test_a_few_label_run_is_read_with_its_own_head(tiny_csv: Path, tiny_classifier: Path, tmp_path: Path) -> None:
    """`strategy: fewshot` saves a head of another name: LEEP must be that head's, not a drawn one's."""
    import torch

    from tunewell.models.load import load_tokenizer, load_tuned
    from tunewell.models.pooled import pooled

    model, _ = load_tuned(tiny_classifier)
    model = pooled(model)
    with torch.no_grad():
        model.sentence_head.weight.copy_(torch.randn(2, 32, generator=torch.Generator().manual_seed(0)) * 9)
    folder = tmp_path / "runs" / "few" / "model"
    model.save_pretrained(folder)
    load_tokenizer("tiny", str(tiny_classifier)).save_pretrained(folder)
    best = tunewell.rank(str(tiny_csv), models=[str(folder)], **QUIET).best
    uniform = -float(np.log(2))
    assert best.scores["leep"] > uniform - 0.05
    assert Transfer("a", "b", 0.0, None, None, 1.0, 1, None).helps is None
