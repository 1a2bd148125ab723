"""Layers taken back until a probe keeps enough: the greedy way by hand, and a real run."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import tunewell
from tunewell.cli import app
from tunewell.errors import RecipeError
from tunewell.regain import climb_back
from tunewell.restore import restore


def table(gains: dict[str, float], prices: dict[str, float]):
    """A model whose layers regain and cost the same whatever else is back."""

    def measure(back: frozenset[str]) -> tuple[float, float]:
        return 0.5 + sum(gains[x] for x in back), 0.9 - sum(prices[x] for x in back)

    return measure


def test_the_cheapest_layers_go_first():
    """Regained over price: a 10, b 2, c none. After a the probe keeps 0.7; of b and c only b helps, and arrives."""
    way = climb_back(
        ["a", "b", "c"], table({"a": 0.2, "b": 0.3, "c": 0.0}, {"a": 0.02, "b": 0.15, "c": 0.0}), floor=0.95
    )
    assert [s.layer for s in way] == ["", "a", "b"]
    assert [round(s.kept, 6) for s in way] == [0.5, 0.7, 1.0]
    assert [round(s.score, 6) for s in way] == [0.9, 0.88, 0.73]


def test_the_last_layer_is_the_cheapest_that_arrives():
    """Both arrive from the start: b regains more for its price, a costs less."""
    way = climb_back(["a", "b"], table({"a": 0.3, "b": 0.5}, {"a": 0.01, "b": 0.012}), floor=0.8)
    assert [s.layer for s in way] == ["", "a"]


def test_where_no_layer_helps_nothing_goes_back():
    way = climb_back(["a", "b"], table({"a": -0.1, "b": 0.0}, {"a": 0.0, "b": 0.0}), floor=0.9)
    assert [s.layer for s in way] == [""]


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model, make_reviews, save_csv):
    """A run with a probe whose truth is the base model's own similarity, so that any change loses some of it."""
    from tunewell.models.embed import embed
    from tunewell.models.load import load_encoder
    from tunewell.retention.probes.similarity import cosine

    folder = tmp_path_factory.mktemp("regain")
    shutil.copytree(tiny_model, folder / "base")
    save_csv(folder / "reviews.csv", make_reviews(120))
    encoder = load_encoder(str(folder / "base"))
    texts = [t for t, _ in make_reviews(200, seed=8)]
    vectors = embed(encoder.model, encoder.tokenizer, texts)
    with (folder / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text_a", "text_b", "score"])
        writer.writerows(zip(texts[::2], texts[1::2], cosine(vectors[::2], vectors[1::2]), strict=True))
    return tunewell.run(
        model=str(folder / "base"), train=str(folder / "reviews.csv"), probe_files=[str(folder / "pairs.csv")],
        text="text", label="label", probes=["none"], output_dir=str(folder / "run"), num_train_epochs=2,
        learning_rate=3e-3, bf16=False, threads=1, max_length=32, explain=0, strategy=["plain"],
        echo=lambda line: None, progress=False,
    )  # fmt: skip


def test_layers_go_back_until_the_probe_keeps_enough(run, tmp_path):
    lines: list[str] = []
    kept = restore(run.dir, probe="pairs", keep=1.0, output_dir=tmp_path / "all", echo=lines.append)
    way = kept.summary.restored["way"]
    assert way[0]["layer"] == ""
    assert way[0]["kept"] < way[-1]["kept"] == 1.0  # the tuned one has lost some; at the end it is the base model's
    assert kept.summary.restored["met"]
    base, tuned, found = (
        load_file(f"{f}/model.safetensors") for f in (run.recipe.model, run.model_path, kept.model_path)
    )
    assert {s["layer"] for s in way[1:]} == {"embeddings", "layer 1", "layer 2"}
    same = [k for k in base if "pooler" not in k and k.startswith(("embeddings", "encoder"))]
    assert all(torch.equal(found[f"bert.{k}"], base[k]) for k in same)
    assert torch.equal(found["classifier.weight"], tuned["classifier.weight"])
    assert kept.retention.probes[0].retention.value == pytest.approx(1.0)
    assert any("as tuned: pairs" in line for line in lines)

    middle = way[0]["kept"] + 0.2 * (1 - way[0]["kept"])
    part = restore(run.dir, probe="pairs", keep=middle, output_dir=tmp_path / "part")
    steps = part.summary.restored["way"]
    assert part.summary.restored["met"] and steps[-1]["kept"] >= middle
    assert all(s["kept"] < middle for s in steps[:-1])
    back = {s["layer"] for s in steps[1:]}
    found = load_file(f"{part.model_path}/model.safetensors")
    for number in (1, 2):
        name = f"bert.encoder.layer.{number - 1}.output.dense.weight"
        source = base[name.removeprefix("bert.")] if f"layer {number}" in back else tuned[name]
        assert torch.equal(found[name], source)
    assert part.choice.chosen.name == f"restored, layers back {len(back)}"


def test_the_command_shows_the_way_and_its_price(run, tmp_path):
    arguments = ["restore", str(run.dir), "--probe", "pairs", "--keep", "1", "--output_dir", str(tmp_path / "r")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "taken back" in done.stdout
    assert "validation f1_macro" in done.stdout
    assert "pairs to keep 1: met as chosen" in done.stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"probe": "piars"}, "has no probe `piars`"),
        ({"probe": "pairs", "alpha": 0.5}, "`alpha` and `probe` are both given"),
        ({}, "neither `alpha` nor `probe` is given"),
        ({"probe": "pairs", "layerwise": True}, "`layerwise` scales by `alpha`"),
        ({"probe": "pairs", "keep": 98.0}, "`keep: 98`"),
        ({"alpha": 0.5, "keep": 0.9}, "together with --probe"),
        ({"probe": "pairs", "keep": 0.01}, "nothing is to be regained"),
    ],
)
def test_what_cannot_be_regained(run, tmp_path, options, says):
    with pytest.raises(RecipeError) as caught:
        restore(run.dir, output_dir=tmp_path / "x", **options)
    assert says in str(caught.value)


def test_a_broken_probe_file_is_told_before_anything_is_taken_back(run, tmp_path):
    from tunewell.errors import DataError

    path = Path(run.recipe.probe_files[0])
    before = path.read_text(encoding="utf-8")
    path.write_text("text_a,text_b,score\n" + "a,b,much\n" * 50, encoding="utf-8")
    try:
        with pytest.raises(DataError, match="score 'much' is not a number"):
            restore(run.dir, probe="pairs", output_dir=tmp_path / "x")
    finally:
        path.write_text(before, encoding="utf-8")
    assert not (tmp_path / "x" / "model").exists()
