"""Rankings from beginning to end."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tunewell
from tunewell.errors import ModelError
from tunewell.rank import Ranked, Ranking
from tunewell.rank.order import ordered
from tunewell.rank.rows import A_CLASS, _places
from tunewell.tasks import TaskSpec

VOCABULARY = 260  # of blank_decoder: 256 bytes and four special tokens

QUIET: dict[str, Any] = {"echo": lambda line: None, "progress": False}


def test_a_model_that_cannot_tell_words_apart_comes_last(tiny_csv: Path, tiny_model: Path, blank_model: Path) -> None:
    ranking = tunewell.rank(str(tiny_csv), models=[str(blank_model), str(tiny_model)], **QUIET)
    best, last = ranking.models
    assert [best.name, last.name] == [str(tiny_model), str(blank_model)]
    assert (best.score, last.score) == (1.0, 0.0)
    assert best.scores["probe_mean"] > last.scores["probe_mean"] + 0.2
    assert best.why.startswith("first of 2 by ranks")
    assert "below the best" in last.why
    assert (ranking.task, ranking.metric, ranking.seed) == ("text-classification", "f1_macro", 42)
    assert ranking.rows == ranking.of_rows == 84  # of 120, the rest being validation and test
    for model in ranking.models:
        assert model.kind == "encoder" and model.fits
        assert model.hidden_size == 32 and model.layers == 2 and model.window == 128
        assert model.parameters == sum(np.prod(s) for s in shapes(Path(model.name)))
        assert model.unknown_share == 0.0 and model.cut_share == 0.0
        assert model.steps == 18  # three epochs of six batches of 16
        assert model.tokens_per_second > 0 and model.tuning_seconds > 0
        assert model.memory_mb > 16 * model.parameters / 2**20
    assert {"logme_last", "probe_best", "hscore_mean", "transrate_head"} <= set(best.scores)
    assert "leep" not in best.scores


def shapes(folder: Path) -> list[tuple[int, ...]]:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "np") as file:
        return [tuple(file.get_slice(name).get_shape()) for name in file.keys()]  # noqa: SIM118


def test_rankings_survive_json(tiny_csv: Path, tiny_model: Path) -> None:
    ranking = tunewell.rank(str(tiny_csv), models=[str(tiny_model)], **QUIET)
    assert Ranking.from_dict(json.loads(json.dumps(ranking.to_dict()))) == ranking


def test_a_model_with_a_head_has_leep(tiny_csv: Path, tiny_classifier: Path) -> None:
    scores = tunewell.rank(str(tiny_csv), models=[str(tiny_classifier)], **QUIET).best.scores
    # as good a guess as the classes' shares at the least, and never above zero
    assert -np.log(2) - 0.05 < scores["nce"] <= 0.0
    assert -np.log(2) - 0.05 < scores["leep"] <= 0.0


def test_what_is_measured_is_kept(tiny_csv: Path, tiny_model: Path, own_cache: Path, monkeypatch: Any) -> None:
    said: list[str] = []
    first = tunewell.rank(str(tiny_csv), models=[str(tiny_model)], echo=said.append, progress=False)
    assert len(list((own_cache / "rank").glob("*.json"))) == 1
    second = tunewell.rank(str(tiny_csv), models=[str(tiny_model)], echo=said.append, progress=False)
    assert second.models == first.models
    assert sum("from the cache" in line for line in said) == 1
    # other rows, and a damaged file, are measured anew
    tunewell.rank(str(tiny_csv), models=[str(tiny_model)], rows=40, **QUIET)
    files = list((own_cache / "rank").glob("*.json"))
    assert len(files) == 2
    for file in files:
        file.write_text("{", encoding="utf-8")
    again = tunewell.rank(str(tiny_csv), models=[str(tiny_model)], **QUIET)
    assert again.best.scores == first.best.scores


def test_one_that_cannot_be_loaded_is_named_and_left_out(tiny_csv: Path, tiny_model: Path, no_model: Path) -> None:
    said: list[str] = []
    names = [str(no_model), str(tiny_model)]
    ranking = tunewell.rank(str(tiny_csv), models=names, echo=said.append, progress=False)
    assert [m.name for m in ranking.models] == [str(tiny_model)]
    assert [s.name for s in ranking.skipped] == [str(no_model)]
    assert any("skipped: cannot load" in line for line in said)
    with pytest.raises(ModelError, match="no candidate could be measured"):
        tunewell.rank(str(tiny_csv), models=[str(no_model)], **QUIET)


def test_scores_of_a_regression(tmp_path: Path, tiny_model: Path, blank_model: Path, make_reviews, save_csv) -> None:
    rows = [(text, 0.25 * ("crew" in text) + (label == "positive")) for text, label in make_reviews(120)]
    file = save_csv(tmp_path / "scores.csv", rows)
    names = [str(tiny_model), str(blank_model)]
    ranking = tunewell.rank(str(file), models=names, task="text-regression", **QUIET)
    assert ranking.metric == "r2"
    assert ranking.best.name == str(tiny_model)
    assert "logme_last" in ranking.best.scores and "hscore_last" not in ranking.best.scores


def test_pairs_are_read_together(tmp_path: Path, tiny_model: Path, make_reviews, save_csv) -> None:
    texts = make_reviews(160)
    rows = [(a, b, "same" if x == y else "other") for (a, x), (b, y) in zip(texts[:80], texts[1:81], strict=True)]  # noqa: RUF007
    rows += [(a, b, "same" if x == y else "other") for (a, x), (b, y) in zip(texts[:78], texts[2:80], strict=True)]
    file = save_csv(tmp_path / "pairs.csv", rows, ("text", "text_pair", "label"))
    best = tunewell.rank(str(file), models=[str(tiny_model)], text_pair="text_pair", **QUIET).best
    assert best.layer in (1, 2)


def test_the_sample_holds_every_class_in_proportion() -> None:
    spec = TaskSpec("text-classification", tuple("abcd"))
    y = np.repeat([0, 1, 2, 3], [600, 300, 97, 3])
    place = _places(spec, y, 1000, 100, seed=5)
    counts = np.bincount(y[place])
    assert len(place) == 100
    assert counts[3] == 3  # all of a rare class
    assert abs(counts[0] - 60) <= 4 and abs(counts[1] - 30) <= 4
    assert place.tolist() == sorted(set(place.tolist()))
    assert place.tolist() == _places(spec, y, 1000, 100, seed=5).tolist()
    many = np.arange(1000) % 200
    spec = TaskSpec("text-classification", tuple(map(str, range(200))))
    assert np.bincount(many[_places(spec, many, 1000, 100, seed=5)]).tolist() == [A_CLASS] * 200


def made(name: str, score: float, **over: Any) -> Ranked:
    values: dict[str, Any] = {
        "name": name, "kind": "encoder", "fits": True, "fit": "an encoder", "by": "probe", "score": score,
        "scores": {}, "layer": 1, "parameters": 100, "hidden_size": 8, "layers": 1, "size_mb": 1.0,
        "tokens_per_second": 1.0, "step_seconds": 1.0, "steps": 1, "tuning_seconds": 100.0, "memory_mb": 1.0,
        "window": 128, "cut_share": 0.0, "unknown_share": 0.0, "characters_per_token": 4.0, "licence": "",
        "seconds": 1.0, "cpu_seconds": 1.0,
    }  # fmt: skip
    return Ranked(**(values | over))


def test_order_and_reasons() -> None:
    rows = ordered(
        [
            made("decoder", 0.99, kind="decoder", fits=False, fit="a decoder"),
            made("small", 0.8995, tuning_seconds=10.0, parameters=10),
            made("large", 0.9),
            made("cut", 0.6, cut_share=0.2, unknown_share=0.05),
            made("twin", 0.9, parameters=200),
        ]
    )
    assert [m.name for m in rows] == ["large", "twin", "small", "cut", "decoder"]
    assert rows[0].why == "first of 4 by probe; small scores about as high in 10% of the time"
    assert rows[2].why == "0.0005 below the best; 10% of its time to tune"
    assert "its window of 128 tokens cuts 20% of the rows; its tokenizer does not know 5% of the text" in rows[3].why
    assert rows[4].why == "does not fit: a decoder"


def test_bits_per_byte_of_a_decoder_that_knows_nothing(tmp_path: Path, blank_decoder: Path) -> None:
    rows = [{"prompt": f"say {i}", "completion": f"answer {i}"} for i in range(60)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    ranking = tunewell.rank(str(file), models=[str(blank_decoder)], rows=20, **QUIET)
    best = ranking.best
    assert ranking.task == "text-generation"
    assert best.kind == "decoder" and best.fits
    # every token is as likely as any other: log2(V) bits each, one token a byte, and the end token
    kept = prepared_answers(file)
    tokens, size = sum(len(a) + 1 for a in kept), sum(map(len, kept))
    assert best.scores == {"bits_per_byte": pytest.approx(math.log2(VOCABULARY) * tokens / size, rel=1e-4)}
    assert best.score == -best.scores["bits_per_byte"]
    assert best.steps > 0 and best.memory_mb > 0 and best.tokens_per_second > 0


def prepared_answers(file: Path) -> list[str]:
    """The answers of the twenty rows that the ranking looks at."""
    from tunewell.rank.rows import draw
    from tunewell.recipe_file import load_recipe
    from tunewell.stages.prepare import prepare

    return list(draw(prepare(load_recipe(None, train=str(file))), 20, 42).rows["label"])


def test_an_encoder_writes_no_text(tmp_path: Path, tiny_model: Path, blank_decoder: Path) -> None:
    rows = [{"prompt": f"say {i}", "completion": f"answer {i}"} for i in range(60)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    names = [str(tiny_model), str(blank_decoder)]
    ranking = tunewell.rank(str(file), models=names, rows=20, **QUIET)
    assert [m.name for m in ranking.models] == [str(blank_decoder)]
    assert "an encoder writes no text" in ranking.skipped[0].reason


def test_a_decoder_is_scored_on_classes_but_does_not_fit(tiny_csv: Path, tiny_model: Path, blank_decoder: Path) -> None:
    ranking = tunewell.rank(str(tiny_csv), models=[str(blank_decoder), str(tiny_model)], **QUIET)
    assert [m.fits for m in ranking.models] == [True, False]
    assert ranking.models[1].why.startswith("does not fit: a decoder")


def test_the_score_is_the_mean_of_two_ranks() -> None:
    from tunewell.rank.order import combined

    rows = [
        made("a", 0.0, scores={"probe_mean": 0.9, "logme_head": -1.0}),
        made("b", 0.0, scores={"probe_mean": 0.8, "logme_head": 2.0}),
        made("c", 0.0, scores={"probe_mean": 0.7, "logme_head": -1.0}),
    ]
    # by the probe a, b, c; by LogME b, then a and c alike: (2 + 0.5) / 4, (1 + 2) / 4, (0 + 0.5) / 4
    assert [m.score for m in combined(rows)] == [0.625, 0.75, 0.125]
    assert [m.score for m in combined(rows[:1])] == [1.0]
    written = made("d", -1.5, scores={"bits_per_byte": 1.5})
    assert combined([written, written])[0].score == -1.5
