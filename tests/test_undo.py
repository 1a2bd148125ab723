"""A finished run held to floors, taken back in part, searched for; and what it has forgotten, item by item."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import tunewell
from tunewell.cli import app
from tunewell.errors import DataError, ModelError, RecipeError, RunFolderError
from tunewell.gate import gate, junit
from tunewell.restore import restore
from tunewell.results import Training
from tunewell.run import load_run

KEYS = {
    "num_train_epochs": 2,
    "learning_rate": 2e-3,
    "bf16": False,
    "threads": 1,
    "max_length": 32,
    "probes": ["none"],
    "general_samples": 32,
    "seed": 3,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_model, make_reviews, make_moods, save_csv) -> dict[str, str]:
    """Files that stay where they are: a copy of the base model, data, a probe, general text."""
    folder = tmp_path_factory.mktemp("undo")
    shutil.copytree(tiny_model, folder / "base")
    save_csv(folder / "reviews.csv", make_reviews(120))
    save_csv(folder / "moods.csv", make_moods(160))
    (folder / "general.txt").write_text("\n".join(t for t, _ in make_reviews(64, seed=9)), encoding="utf-8")
    files = {"model": "base", "train": "reviews.csv", "probe": "moods.csv", "general": "general.txt"}
    return {name: str(folder / file) for name, file in files.items()}


def tune(place, folder: Path, **keys):
    return tunewell.run(
        model=place["model"], train=place["train"], probe_files=[place["probe"]], general_text=place["general"],
        text="text", label="label", output_dir=str(folder), echo=lambda line: None, progress=False,
        raise_on_gate=False, **KEYS, **keys,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(place, tmp_path_factory):
    return tune(place, tmp_path_factory.mktemp("runs") / "plain", keep=0.5, strategy=["average"], average_alphas=[1.0])


# ---------------------------------------------------------------- gate


def test_floors_are_held_against_values_or_intervals(run):
    mean, accuracy = run.retention.mean, run.metrics["accuracy"]
    held = gate(run.dir, keep=mean.value, require={"accuracy": accuracy.value})
    assert held.passed
    assert [c.name for c in held.checks] == ["keep", "accuracy"]
    strict = gate(run.dir, require={"accuracy": accuracy.value}, bound="interval")
    assert not strict.passed
    assert strict.checks[0].held == accuracy.low < accuracy.value
    missed = gate(run.dir, keep_probe={"moods": 1.0}, require={"accuracy": 0.01})
    assert [c.passed for c in missed.checks] == [run.retention.probes[0].retention.value >= 1.0, True]


def test_without_floors_those_of_the_recipe(run):
    assert [(c.name, c.wanted) for c in gate(run.dir).checks] == [("keep", 0.5)]


def test_junit_is_what_ci_reads(run):
    result = gate(run.dir, keep=0.01, require={"accuracy": 1.1, "f1_macro": 0.0})
    root = ET.fromstring(junit(result))
    assert (root.get("tests"), root.get("failures")) == ("3", "1")
    cases = {c.get("name"): c.find("failure") for c in root.iter("testcase")}
    assert cases["keep"] is None
    assert "wanted at least 1.1: NOT MET" in cases["accuracy"].get("message")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"require": {"acuracy": 0.9}}, "no metric `acuracy`"),
        ({"keep_probe": {"stsb": 0.9}}, "no probe `stsb`"),
        ({"keep": 98.0}, "`keep: 98`"),
    ],
)
def test_a_gate_that_asks_for_what_is_not_there(run, options, says):
    with pytest.raises(RecipeError, match=says):
        gate(run.dir, **options)


def test_exit_codes_of_the_gate(run, tmp_path):
    cli = CliRunner()
    good = cli.invoke(app, ["gate", str(run.dir), "--keep", "0.01", "--require", "accuracy=0.01,f1_macro=0.01"])
    assert (good.exit_code, good.output.count(": met")) == (0, 3)
    out = tmp_path / "gate.xml"
    bad = cli.invoke(app, ["gate", str(run.dir), "--require", "accuracy=1.01", "--junit", str(out), "--json"])
    assert bad.exit_code == 3
    assert json.loads(bad.stdout)["checks"][0]["passed"] is False
    assert out.read_text().startswith("<?xml")
    told = json.loads(bad.stderr.splitlines()[-1])
    assert (told["exit_code"], told["error"]["kind"]) == (3, "GateError")
    assert told["error"]["what"] == "1 of 1 floors not met: accuracy"
    for arguments, says in (
        ([str(tmp_path / "nothing"), "--keep", "0.9"], "is not a finished run"),
        ([str(run.dir), "--require", "accuracy"], "expected NAME=NUMBER"),
    ):
        wrong = cli.invoke(app, ["gate", *arguments])
        assert wrong.exit_code == 2
        assert says in wrong.stderr


# ---------------------------------------------------------------- restore


def test_half_way_back(run, place, tmp_path):
    """The weights by hand, and figures that are those of a measurement of the saved model."""
    from safetensors.torch import load_file

    half = restore(run.dir, alpha=0.5, output_dir=tmp_path / "half")
    base, tuned, found = (
        load_file(f"{folder}/model.safetensors") for folder in (place["model"], run.model_path, half.model_path)
    )
    name = "encoder.layer.1.output.dense.weight"
    assert np.allclose(found[f"bert.{name}"], 0.5 * base[name] + 0.5 * tuned[f"bert.{name}"], atol=1e-7)
    assert np.array_equal(found["classifier.weight"], tuned["classifier.weight"])
    assert half.retention.probes[0].before == run.retention.probes[0].before
    assert half.summary.restored == {"run": str(run.dir), "alpha": 0.5, "layerwise": False}
    assert half.summary.test.n == run.summary.test.n
    assert half.choice.chosen.name == "restored, alpha 0.5"
    assert len(half.choice.candidates) == len(run.choice.candidates) + 1
    scores = half.predict_proba(["a lovely hotel and a happy crew"])
    assert scores.shape == (1, 2)
    assert "half" in half.report_path.read_text(encoding="utf-8")


def test_the_ends_are_the_two_models(run, tmp_path):
    tuned = restore(run.dir, alpha=1.0, output_dir=tmp_path / "all")
    assert tuned.metrics == run.metrics
    assert tuned.retention.mean == run.retention.mean
    base = restore(run.dir, alpha=0.0, output_dir=tmp_path / "none")
    assert base.retention.mean.value == 1.0
    assert not base.retention.forgotten[0].lost


def test_the_command_says_what_was_regained(run, tmp_path):
    result = CliRunner().invoke(
        app, ["restore", str(run.dir), "--alpha", "0.2", "--layerwise", "--output_dir", str(tmp_path / "r")]
    )
    assert result.exit_code == 0, result.output
    assert "kept: mean" in result.stdout
    assert "test f1_macro" in result.stdout
    assert "the run's budget: " in result.stdout


def test_what_cannot_be_restored(run, place, tmp_path):
    with pytest.raises(RecipeError, match="alpha: 1.5"):
        restore(run.dir, alpha=1.5)
    with pytest.raises(RunFolderError, match="is the run itself"):
        restore(run.dir, alpha=0.5, output_dir=run.dir)
    with pytest.raises(RunFolderError, match="not a finished run"):
        restore(tmp_path, alpha=0.5)
    base = Path(place["model"])
    base.rename(base.with_name("away"))
    try:
        with pytest.raises(ModelError, match="the base model of this run is gone"):
            restore(run.dir, alpha=0.5, output_dir=tmp_path / "a")
    finally:
        base.with_name("away").rename(base)
    data = Path(place["train"])
    before = data.read_text(encoding="utf-8")
    data.write_text(before + "one more,positive\n", encoding="utf-8")
    try:
        with pytest.raises(DataError, match="not those of the run"):
            restore(run.dir, alpha=0.5, output_dir=tmp_path / "b")
    finally:
        data.write_text(before, encoding="utf-8")
    assert not (tmp_path / "a").exists()


# ---------------------------------------------------------------- what was forgotten


def test_forgotten_topics_and_pairs_by_hand():
    from tunewell.retention.forgotten import forgotten
    from tunewell.retention.measurement import Measurement
    from tunewell.retention.probes import Probe

    def measured(name, kind, **arrays):
        return Measurement(name, name, "m", kind, 0.0, True, "same", {k: np.array(v) for k, v in arrays.items()})

    topics = Probe("t", "Topics", "accuracy", "accuracy", ("learn", "a", "b", "c"), "same", lambda lookup: {})
    pairs = Probe("s", "Pairs", "Spearman", "spearman", ("p", "q", "r", "x", "y", "z"), "same", lambda lookup: {})
    gold = [1.0, 2.0, 3.0]
    before = {
        "t": measured("t", "accuracy", right=[1.0, 1.0, 0.0]),
        "s": measured("s", "spearman", cosine=[0.1, 0.2, 0.3], gold=gold),
    }
    after = {
        "t": measured("t", "accuracy", right=[1.0, 0.0, 1.0], answer=["u", "v", "w"], truth=["u", "x", "w"]),
        "s": measured("s", "spearman", cosine=[0.1, 0.5, 0.3], gold=gold),
    }
    lost_topics, lost_pairs = forgotten([topics, pairs], before, after)
    assert (lost_topics.lost, lost_topics.gained, lost_topics.n) == (1, 1, 3)
    assert [(i.text, i.truth, i.answer) for i in lost_topics.items] == [("b", "x", "v")]
    assert (lost_pairs.lost, lost_pairs.gained) == (2, 0)
    first = lost_pairs.items[0]
    assert (first.text, first.text_pair, first.truth, first.before, first.after) == ("q", "y", "0.50", 0.5, 1.0)


def test_a_run_lists_them_in_both_languages(run):
    from tunewell.report.build import build

    lost = run.retention.forgotten[0]
    assert lost.n == run.retention.probes[0].before.n
    assert lost.gained - lost.lost == round(
        (run.retention.probes[0].after.value - run.retention.probes[0].before.value) * lost.n
    )
    assert all(i.truth != i.answer for i in lost.items)
    for lang, words in (("en", "What was forgotten"), ("zh", "逐项查看遗忘了什么")):
        assert words in build(run.dir, lang).read_text(encoding="utf-8")


# ---------------------------------------------------------------- auto


def candidate(name, score, kept, low=None):
    from tunewell.results import Candidate, Estimate

    mean = Estimate(value=kept)
    return Candidate(name=name, strategy=(name,), parameters={}, score=Estimate(value=score, low=low),
                     retention_mean=mean, retention_worst=mean, meets=None)  # fmt: skip


def test_when_a_search_has_enough():
    from tunewell.stages.search import enough

    distilled = candidate("distill", 0.88, 0.99)
    assert enough([candidate("distill", 0.88, 0.97)], 0.98, None) is None
    assert enough([distilled], 0.98, None) == distilled  # it has traded nothing
    outside, plain = candidate("distill", 0.88, 0.97), candidate("plain", 0.9, 0.8, low=0.87)
    average = candidate("distill, alpha 0.5", 0.89, 0.99).model_copy(update={"parameters": {"alpha": 0.5}})
    assert enough([outside, average], 0.98, None) is None  # an average gives up some of the task: how much?
    assert enough([outside, average, plain], 0.98, None) is None  # some, and plain tuning tells
    better = average.model_copy(update={"score": average.score.model_copy(update={"value": 0.9})})
    assert enough([outside, better, plain], 0.98, None) == better
    strong = candidate("lpft+distill-strong", 0.875, 0.99)
    assert enough([outside, average, plain, strong], 0.98, None) == strong  # within plain tuning's interval
    assert enough([outside, plain, candidate("lpft+distill-strong", 0.86, 0.99)], 0.98, None) is None
    unscored = [candidate("distill", None, 0.99), candidate("plain", None, 0.8)]
    assert enough(unscored, 0.98, None) == unscored[0]


def test_what_plain_tuning_takes_is_guessed_from_distillation_where_it_is_not_known():
    from types import SimpleNamespace as N

    from tunewell.stages.search import plain_seconds

    distilled, plain = N(seconds=125.0, stopped=""), N(seconds=90.0, stopped="")
    assert plain_seconds({"distill": distilled}) == 100
    assert plain_seconds({"distill": distilled, "plain": plain}) == 90
    assert plain_seconds({"distill": distilled, "plain": N(seconds=20.0, stopped="behind")}) == 100


def test_auto_climbs_until_it_has_enough(place, tmp_path, monkeypatch):
    """As if nothing were enough: all rungs are climbed, all candidates stand in choice.json."""
    monkeypatch.setattr("tunewell.stages.search.enough", lambda *_: None)
    keys = {"strategy": ["auto"], "keep": 0.9999, "keep_worst": 1.0, "max_cost": 50.0, "lines_alphas": [0.5],
            "average_alphas": [0.9]}  # fmt: skip
    lines: list[str] = []
    found = tunewell.run(
        model=place["model"], train=place["train"], probe_files=[place["probe"]], general_text=place["general"],
        text="text", label="label", output_dir=str(tmp_path / "auto"), echo=lines.append, progress=False,
        raise_on_gate=False, **KEYS, **keys,
    )  # fmt: skip
    names = [c.name for c in found.choice.candidates]
    assert names[:4] == ["distill", "distill, alpha 0.9", "distill, lines 0.5", "plain"]
    assert found.choice.costs["plain"] == 1.0 or found.choice.stopped["plain"]
    assert set(found.choice.costs) == {n.split(",")[0] for n in names}
    assert names[-1].split(",")[0] == "lpft+distill-strong" and len(found.choice.costs) == 3
    trainings = [Training.load(p) for p in (found.dir / "train").glob("*/training.json")]
    assert found.training.seconds == pytest.approx(sum(t.seconds for t in trainings))
    assert found.training.cpu_seconds == pytest.approx(sum(t.cpu_seconds for t in trainings))
    assert found.summary.strategy == ("auto", found.choice.chosen.strategy[0])
    assert load_run(found.dir).predict(["a lovely hotel"])[0] in ("positive", "negative")
    assert any("may cost up to 50 times plain" in line for line in lines)
    # a second time nothing is tuned: with a floor that the first candidate meets, it is chosen anew
    monkeypatch.undo()
    again: list[str] = []
    easy = tunewell.run(
        model=place["model"], train=place["train"], probe_files=[place["probe"]], general_text=place["general"],
        text="text", label="label", output_dir=str(tmp_path / "auto"), echo=again.append, progress=False,
        **KEYS, **{**keys, "keep": 0.01, "keep_worst": 0.01},
    )  # fmt: skip
    assert not [line for line in again if line.startswith("tune:")]
    assert easy.choice.costs == {} and easy.choice.chosen.strategy == ("distill",)
    assert "s of tuning in all" in easy.choice.reason
    assert any("distill keeps enough as it is" in line for line in again)


def test_a_cap_ends_the_search(place, tmp_path, monkeypatch):
    monkeypatch.setattr("tunewell.stages.search.enough", lambda *_: None)
    lines: list[str] = []
    found = tunewell.run(
        model=place["model"], train=place["train"], probe_files=[place["probe"]], general_text=place["general"],
        text="text", label="label", output_dir=str(tmp_path / "auto"), echo=lines.append, progress=False,
        raise_on_gate=False, strategy="auto", keep=1.0, keep_worst=1.0, max_cost=1.0, average_alphas=[1.0],
        lines_alphas=[1.0], **KEYS,
    )  # fmt: skip
    assert {c.strategy for c in found.choice.candidates} == {("distill",)}
    assert any("plain is not tried: it would pass max_cost 1" in line for line in lines)
