"""Commands with workers: the same bits as without, each result counted once, and going on after a stop."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import tunewell
from tunewell.errors import RecipeError
from tunewell.workers import Workers

TWO = {"jobs": 2}
CURVE = {"text": "text", "label": "label", "bf16": False, "threads": 1, "max_length": 32, "seed": 3,
         "sizes": [16, 32, 64], "num_train_epochs": 1, "progress": False}  # fmt: skip


@pytest.fixture
def keys(tiny_model, tmp_path, make_reviews, save_csv) -> dict[str, Any]:
    files = {
        name: str(save_csv(tmp_path / f"{name}.csv", make_reviews(n, seed=seed)))
        for seed, (name, n) in enumerate({"train": 64, "validation": 24, "test": 40}.items())
    }
    return {
        **files, "model": str(tiny_model), "probes": "none", "explain": 0, "bf16": False, "threads": 1,
        "learning_rate": 2e-3, "num_train_epochs": 1, "metric": "accuracy", "calibrate": "none",
        "echo": lambda line: None, "progress": False,
    }  # fmt: skip


@pytest.fixture
def curve_keys(tmp_path, tiny_model, make_reviews, save_csv) -> dict[str, Any]:
    data = str(save_csv(tmp_path / "reviews.csv", make_reviews(160)))
    return {**CURVE, "train": data, "model": str(tiny_model), "echo": lambda line: None}


def bare(record: dict[str, Any]) -> dict[str, Any]:
    """A record without how long things took."""
    return {k: v for k, v in record.items() if k != "seconds"}


def seeds_of(folder: Path) -> list[dict[str, Any]]:
    return [bare(r) for r in json.loads((folder / "seeds.json").read_text())["results"]]


def test_seeds_side_by_side_are_the_same_bits(keys, tmp_path, workers_asked):
    alone = tunewell.run(**keys, seeds=3, output_dir=str(tmp_path / "alone"))
    said: list[str] = []
    many = tunewell.run(**{**keys, "echo": said.append}, seeds=3, output_dir=str(tmp_path / "many"), **workers_asked)
    assert seeds_of(many.dir) == seeds_of(alone.dir)
    assert [r["seed"] for r in seeds_of(many.dir)] == [42, 43, 44]
    assert len([line for line in said if line.startswith("workers: ")]) == 1
    assert sorted(p.name for p in (many.dir / "seeds").iterdir()) == ["43.json", "44.json"]
    assert not list((many.dir / "train").glob("*seed-*")) and not list((many.dir / "train").glob(".*lock"))


def test_a_curve_that_was_stopped_goes_on_with_the_same_bits_and_counts_no_point_twice(
    curve_keys, tmp_path, workers_asked
):
    alone = tunewell.learning_curve(**curve_keys, repeats=1, output_dir=str(tmp_path / "alone"))

    def stop(line: str) -> None:
        if "repeat 1: f1" in line:
            raise KeyboardInterrupt

    place, said = tmp_path / "many", list[str]()
    with pytest.raises(KeyboardInterrupt):
        tunewell.learning_curve(**{**curve_keys, "echo": stop}, repeats=1, output_dir=str(place), **workers_asked)
    before = (place / "points.jsonl").read_text().splitlines()
    assert len(before) == 1
    many = tunewell.learning_curve(
        **{**curve_keys, "echo": said.append}, repeats=1, output_dir=str(place), **workers_asked
    )
    assert any("; 1 are there already" in line for line in said)
    after = (place / "points.jsonl").read_text().splitlines()
    assert after[0] == before[0]
    assert len(after) == len({(r["size"], r["repeat"]) for r in map(json.loads, after)}) == 3
    assert [bare(p.model_dump()) for p in many.points] == [bare(p.model_dump()) for p in alone.points]
    assert [f.value for f in many.curve] == [f.value for f in alone.curve]
    assert not (place / "tuning").exists()


def test_candidates_side_by_side_have_the_same_scores(tiny_csv, tiny_model, tmp_path, monkeypatch, workers_asked):
    monkeypatch.setenv("TUNEWELL_CACHE", str(tmp_path / "cache"))
    options: dict[str, Any] = {"models": [str(tiny_model), str(tmp_path)], "progress": False, "threads": 1}
    alone = tunewell.rank(str(tiny_csv), **options, echo=lambda line: None)
    many = tunewell.rank(str(tiny_csv), **options, echo=lambda line: None, fresh=True, **workers_asked)
    assert [(m.name, m.score, m.scores, m.memory_mb) for m in many.models] == [
        (m.name, m.score, m.scores, m.memory_mb) for m in alone.models
    ]
    assert many.skipped == alone.skipped and len(many.skipped) == 1
    said: list[str] = []
    again = tunewell.rank(str(tiny_csv), **options, echo=said.append, **workers_asked)
    assert again.models == many.models  # from the cache: no worker is started
    assert not any(line.startswith("workers: ") for line in said)


@pytest.mark.parametrize(
    ("more", "says"), [({"seeds": 1}, "one seed is one job"), ({"seeds": 2, "jobs": 0}, "jobs: 0")]
)
def test_what_workers_are_not_for(keys, tmp_path, more, says):
    with pytest.raises(RecipeError, match=says):
        tunewell.run(**{**keys, **TWO, **more}, output_dir=str(tmp_path / "no"))
    assert not (tmp_path / "no").exists()


def test_linear_probes_take_no_workers(curve_keys, tmp_path):
    with pytest.raises(RecipeError, match="--jobs 2: linear probes are fitted here"):
        tunewell.learning_curve(**curve_keys, by="probe", output_dir=str(tmp_path / "no"), **TWO)


def test_other_rows_are_noticed(keys, tmp_path):
    """A worker on a machine whose file of the same name and size holds other rows."""
    from tunewell.errors import WorkerError
    from tunewell.recipe_file import load_recipe
    from tunewell.stages.job import Job
    from tunewell.workers.job import open_job, shared_job

    keys["model"] = str(shutil.copytree(keys["model"], tmp_path / "model"))
    recipe = load_recipe(None, **{k: v for k, v in keys.items() if k not in ("echo", "progress")})
    with Job(recipe, output_dir=tmp_path / "run") as job:
        job.begin()
        shared = shared_job(job)
        assert {Path(p).name for p in shared.sees} == {"recipe.yaml", "train.csv", "validation.csv", "test.csv"}
        os.utime(Path(keys["model"]) / "config.json", (1, 1))  # on another machine, times of files are others
        assert open_job(shared.about).keys == job.keys
        assert Path(shared.about["folder"]) == job.folder.path
        file = Path(keys["train"])
        file.write_text(file.read_text().replace("good", "fine"))
        with pytest.raises(WorkerError, match="has read other rows"):
            open_job(shared.about)


def test_workers_told():
    assert Workers(jobs=3).told == "--jobs 3" and Workers(ray="auto").told == "--ray auto"
    assert Workers().here and Workers(jobs=1).here and not Workers(ray="local").here
