"""`model: auto` in a recipe: what it takes, what it tells, and that it chooses once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tunewell
from tunewell.errors import RecipeError

FAST: dict[str, Any] = {"model": "auto", "probes": "none", "max_steps": 2, "explain": 0, "progress": False}


@pytest.fixture
def two_at_hand(tiny_model: Path, blank_model: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models at hand: one that cannot tell words apart, and the tiny one."""
    from tunewell.rank import candidates, compare

    names = [str(blank_model), str(tiny_model)]

    def at_hand(task: str) -> Any:
        return names, [candidates.Skipped("some-decoder", "a decoder")]

    monkeypatch.setattr(compare, "at_hand", at_hand)
    return names


def test_a_run_takes_the_first_and_tells_why(tiny_csv: Path, tmp_path: Path, two_at_hand: list[str]) -> None:
    said: list[str] = []
    run = tunewell.run(train=str(tiny_csv), output_dir=str(tmp_path / "run"), echo=said.append, **FAST)
    best = two_at_hand[1]
    assert run.summary.model == run.recipe.model == best
    ranked = run.summary.ranked
    assert ranked is not None
    assert ranked["chosen"] == best
    assert ranked["why"].startswith("first of 2 by ranks")
    assert set(ranked["candidates"]) == set(two_at_hand)
    assert ranked["skipped"] == {"some-decoder": "a decoder"}
    assert ranked["rows"] == run.summary.n_train == 84  # nothing of validation and test
    page = run.report_path.read_text(encoding="utf-8")
    assert "Why this base model" in page
    assert "some-decoder" in page
    assert any(line.startswith(f"model: {best} chosen: first") for line in said)

    # the same command goes on with the same model, though another would be chosen now
    two_at_hand.pop()
    again = tunewell.run(train=str(tiny_csv), output_dir=str(tmp_path / "run"), echo=said.append, **FAST)
    assert again.summary.model == best
    # the effective recipe names the model; the ranking that led to it stays
    from tunewell.recipe_file import load_recipe

    third = tunewell.run(load_recipe(run.dir / "recipe.yaml"), output_dir=str(run.dir), echo=said.append)
    assert third.summary.ranked == ranked
    # another model by name: the ranking has nothing to do with it
    named = {**FAST, "model": two_at_hand[0], "overwrite_output_dir": False}
    fourth = tunewell.run(train=str(tiny_csv), output_dir=str(run.dir), echo=said.append, **named)
    assert fourth.summary.ranked is None
    assert not (run.dir / "ranking.json").exists()


def test_a_check_needs_no_ranking(tiny_csv: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunewell.rank import auto
    from tunewell.recipe import Recipe
    from tunewell.run import check_only

    monkeypatch.setattr(auto, "DEFAULT_MODEL", str(tiny_model))
    said: list[str] = []
    assert check_only(Recipe(train=str(tiny_csv), model="auto"), echo=said.append).rows == 120
    assert any("stands for `auto`" in line for line in said)


def test_an_estimator_knows_what_was_chosen(tiny_csv: Path, two_at_hand: list[str], make_reviews: Any) -> None:
    texts, labels = zip(*make_reviews(60), strict=True)
    model = tunewell.TextClassifier(model="auto", max_steps=2)
    model.fit(list(texts), list(labels))
    assert model.base_model_ == two_at_hand[1]


def test_at_hand_is_what_fits(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunewell import assets
    from tunewell.rank.candidates import at_hand

    def local_models() -> list[assets.LocalModel]:
        def made(name: str, title: str, *, cached: bool = False, kind: Any = "model") -> assets.LocalModel:
            path = str(tiny_model) if cached else ""
            return assets.LocalModel(name, kind, "hub cache" if cached else "asset", title, "", 1.0, cached, path)

        return [
            made("far-encoder", "a large encoder"),
            made("far-decoder", "an English decoder"),
            made("here", "", cached=True),
            made("rows", "texts for an encoder", kind="data"),
        ]

    monkeypatch.setattr(assets, "local_models", local_models)
    names, left = at_hand("text-classification")
    assert names == ["far-encoder", "here"]
    assert [s.name for s in left] == ["far-decoder"]
    names, left = at_hand("text-generation")
    assert names == ["far-decoder"]
    assert {s.name for s in left} == {"far-encoder", "here"}


def test_a_sequence_wants_a_name(tiny_csv: Path) -> None:
    from tunewell.sequence.spec import load_spec

    with pytest.raises(RecipeError, match="`model: auto` is not for a sequence"):
        load_spec({"strategy": "auto", "model": "auto", "tasks": [{"name": "a", "train": str(tiny_csv)}]})


def test_the_record_is_whole(tiny_csv: Path, tmp_path: Path, two_at_hand: list[str]) -> None:
    from tunewell.rank import Ranking

    run = tunewell.run(train=str(tiny_csv), output_dir=str(tmp_path / "run"), echo=lambda line: None, **FAST)
    record = json.loads((run.dir / "ranking.json").read_text(encoding="utf-8"))
    ranking = Ranking.from_dict(record)
    assert ranking.best.name == run.summary.model
    assert record["inputs"].endswith(" 42")
