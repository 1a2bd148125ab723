"""Merged runs: weights by hand, figures of a real run, and what is refused with the tensor's name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import tunewell
from tunewell.cli import app
from tunewell.errors import DataError, ModelError, RecipeError, RunFolderError
from tunewell.merging.runs import merge
from tunewell.run import evaluate_run

KEYS = {"num_train_epochs": 1, "learning_rate": 2e-3, "bf16": False, "threads": 1, "max_length": 32,
        "probes": ["none"], "text": "text", "label": "label", "explain": 0}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_model, make_reviews, save_csv) -> dict[str, str]:
    folder, rows = tmp_path_factory.mktemp("merge"), make_reviews(160)
    shutil.copytree(tiny_model, folder / "base")
    for name, part in (("train", rows[:90]), ("validation", rows[90:120]), ("test", rows[120:])):
        save_csv(folder / f"{name}.csv", part)
    save_csv(folder / "moods.csv", make_reviews(160, ("negative", "positive", "neutral"), seed=5))
    return {n: str(folder / f"{n}.csv") for n in ("train", "validation", "test", "moods")} | {
        "model": str(folder / "base")
    }


def tune(place, folder: Path, **keys):
    files = {k: place[k] for k in ("model", "train", "validation", "test")}
    return tunewell.run(
        **{**files, "probe_files": [place["moods"]], "output_dir": str(folder), **KEYS, **keys},
        echo=lambda line: None, progress=False, raise_on_gate=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(place, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [tune(place, folder / f"seed{s}", seed=s, keep=0.5, strategy=["plain"]) for s in (1, 2)]


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(f"{folder}/model.safetensors")


def test_a_soup_is_the_mean_and_is_measured_as_a_run(runs, tmp_path):
    lines: list[str] = []
    merged = merge([r.dir for r in runs], output_dir=tmp_path / "soup", echo=lines.append)
    a, b, found = weights(runs[0].model_path), weights(runs[1].model_path), weights(merged.model_path)
    assert list(found) == list(a)
    assert all(torch.allclose(found[k], (a[k] + b[k]) / 2, atol=1e-6) for k in a)
    assert merged.summary.merged["runs"] == [str(r.dir) for r in runs]
    assert [c.name for c in merged.choice.candidates] == ["seed1", "seed2", "soup"]
    assert merged.choice.chosen.name == "soup"
    assert merged.retention.probes[0].before == runs[0].retention.probes[0].before
    assert merged.training.seconds == pytest.approx(sum(r.training.seconds for r in runs))
    assert merged.summary.test.n == 40
    assert "soup" in merged.report_path.read_text(encoding="utf-8")
    scores = json.loads((merged.dir / "evaluation.json").read_text())
    again = evaluate_run(merged.dir, str(Path(runs[0].recipe.test)), text="text", label=["label"])
    assert again.headline.value == pytest.approx(scores["metrics"][again.metric]["value"])


def test_scales_are_chosen_among_and_weights_are_those_of_the_method(runs, place, tmp_path):
    merged = merge([r.dir for r in runs], method="ties", density=0.3, scales=[1.0, 0.25], output_dir=tmp_path / "t")
    from peft.utils.merge_utils import ties

    base, a, b, found = weights(place["model"]), *(weights(r.model_path) for r in runs), weights(merged.model_path)
    scale = merged.summary.merged["scale"]
    name = "encoder.layer.1.output.dense.weight"
    taus = [x[f"bert.{name}"] - base[name] for x in (a, b)]
    wanted = base[name] + scale * ties(taus, torch.ones(2), 0.3)
    assert torch.allclose(found[f"bert.{name}"], wanted, atol=1e-6)
    assert [c.name for c in merged.choice.candidates][2:] == ["ties, scale 1", "ties, scale 0.25"]


def test_a_greedy_soup_by_hand():
    """Score −|w − 2| of models 9, 1 and 2.5: best is 2.5; with 1 the mean is 1.75, better; with 9 4.17, worse."""
    from types import SimpleNamespace

    from tunewell.merging.runs import _greedy

    seen, lines = [], []
    model = SimpleNamespace(load_state_dict=lambda state: seen.append(state["w"].item()))

    def score(w: float) -> SimpleNamespace:
        return SimpleNamespace(value=-abs(w - 2))

    task = SimpleNamespace(validation=lambda job, m: SimpleNamespace(headline=score(seen[-1])))
    values = [9.0, 1.0, 2.5]
    parts = [SimpleNamespace(name=f"run {w:g}", score=score(w)) for w in values]
    states = [{"w": torch.tensor([w])} for w in values]
    members = _greedy(SimpleNamespace(task=task, echo=lines.append), model, states, parts)
    assert members == [2, 1]
    assert seen == pytest.approx([1.75, 12.5 / 3])
    assert ["joins" in lines[0], "left out" in lines[1]] == [True, True]


def test_a_greedy_soup_of_a_run_with_itself(runs, tmp_path):
    merged = merge([runs[0].dir, runs[0].dir], method="greedy", output_dir=tmp_path / "greedy")
    good, found = weights(runs[0].model_path), weights(merged.model_path)
    assert len(merged.summary.merged["members"]) == 2
    assert all(torch.allclose(found[k], good[k], atol=1e-6) for k in good)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "tise"}, "unknown method `tise`"),
        ({"weights": [1.0]}, "1 weights for 2 runs"),
        ({"weights": [1.0, -1.0]}, "expected: a number above 0 for each run"),
        ({"density": 0.0}, "`density: 0`"),
        ({"scales": [0.5]}, "a mean of models has none"),
        ({"method": "ties", "scales": [7.0]}, "numbers from 0 to 2"),
    ],
)
def test_options_that_make_no_sense(runs, tmp_path, options, says):
    with pytest.raises(RecipeError) as caught:
        merge([r.dir for r in runs], output_dir=tmp_path / "x", **options)
    assert says in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_models_of_another_shape_are_refused_by_tensor(runs, tmp_path):
    from transformers import AutoModelForSequenceClassification

    other = tmp_path / "other"
    shutil.copytree(runs[1].dir, other, ignore=shutil.ignore_patterns(".lock"))
    model = AutoModelForSequenceClassification.from_pretrained(other / "model")
    config = model.config
    config.intermediate_size = 48
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(other / "model")
    with pytest.raises(ModelError) as caught:
        merge([runs[0].dir, other], output_dir=tmp_path / "x")
    assert "bert.encoder.layer.0.intermediate.dense.weight is 48 × 32, that of" in str(caught.value)
    assert "is 64 × 32" in str(caught.value)
    assert not (tmp_path / "x" / "summary.json").exists()


def test_another_vocabulary_is_refused_by_word(runs, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(runs[1].dir, other, ignore=shutil.ignore_patterns(".lock"))
    path = other / "model" / "tokenizer.json"
    loaded = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = loaded["model"]["vocab"]
    vocabulary["good"], vocabulary["bad"] = vocabulary["bad"], vocabulary["good"]
    path.write_text(json.dumps(loaded), encoding="utf-8")
    with pytest.raises(ModelError, match="its tokenizer has `(good|bad)` at"):
        merge([runs[0].dir, other], output_dir=tmp_path / "x")


def test_runs_that_do_not_belong_together(runs, place, tmp_path, make_reviews, save_csv):
    with pytest.raises(RecipeError, match="1 run is named"):
        merge([runs[0].dir], output_dir=tmp_path / "x")
    with pytest.raises(RunFolderError, match="is one of the runs"):
        merge([r.dir for r in runs], output_dir=runs[1].dir)
    leaky = tmp_path / "leaky.csv"
    leaky.write_text(Path(place["train"]).read_text() + "".join(Path(place["test"]).read_text().splitlines(True)[1:9]))
    learned = tune(place, tmp_path / "leaky", train=str(leaky), keep=0.5, strategy=["plain"], seed=4)
    with pytest.raises(DataError, match="has learned 8 of the 70 rows"):
        merge([runs[0].dir, learned.dir], output_dir=tmp_path / "x")
    files = {n: str(save_csv(tmp_path / f"{n}.csv", make_reviews(k, ("neutral", "positive"), seed=7 + k)))
             for n, k in (("train", 60), ("validation", 20), ("test", 22))}  # fmt: skip
    other = tune(place, tmp_path / "labels", keep=0.5, strategy=["plain"], **files)
    with pytest.raises(ModelError, match=r"answers with other labels \(neutral, positive\) than .*so that their heads"):
        merge([runs[0].dir, other.dir], output_dir=tmp_path / "x")
    base = Path(place["model"])
    base.rename(base.with_name("away"))
    try:
        with pytest.raises(ModelError, match="the base model of this run is gone"):
            merge([r.dir for r in runs], output_dir=tmp_path / "x")
    finally:
        base.with_name("away").rename(base)
    assert not (tmp_path / "x" / "summary.json").exists()


def test_the_command(runs, tmp_path):
    arguments = ["merge", *(str(r.dir) for r in runs), "--method", "dare_ties", "--scale", "0.5", "--output"]
    done = CliRunner().invoke(app, [*arguments, str(tmp_path / "m")])
    assert done.exit_code == 0, done.output
    assert "dare_ties, scale 0.5 (chosen)" in done.stdout
    assert "kept, on the report halves" in done.stdout
    wrong = CliRunner().invoke(app, ["merge", str(runs[0].dir), str(tmp_path), "--output", str(tmp_path / "n")])
    assert wrong.exit_code == 2
    assert "is not a finished run" in wrong.stderr
    wrong = CliRunner().invoke(app, [*arguments[:-1], "--weights", "a,b", "--output", str(tmp_path / "n")])
    assert (wrong.exit_code, "`weights: a,b`" in wrong.stderr) == (2, True)
