"""From a text to training rows: the index on disk, its resuming, and the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tunewell.cli import app
from tunewell.errors import DataError, RecipeError
from tunewell.explain.influence import METHODS
from tunewell.explain.influence import index as index_module
from tunewell.explain.influence.attribute import Influence
from tunewell.explain.influence.index import in_memory

TEXT = "the crew was awful and the seat was broken"


def test_rows_with_the_predicted_label_speak_for_it(classes: Any) -> None:
    influence = Influence(classes.run)
    for method in METHODS:
        found = influence.explain([TEXT], method=method, top=5)[0]
        assert found.prediction == "negative" and found.explained == "negative" and found.value > 0.5
        assert len(found.supports) == 5 and found.method == method
        scores = [b.score for b in found.supports]
        assert scores == sorted(scores, reverse=True) and scores[0] <= 1 and min(scores) > 0
        assert max(b.score for b in found.opposes) < 0
        assert np.mean([b.label == "negative" for b in found.supports]) >= 0.8, method
        rows = influence.file
        for behind in found.supports:
            place = int(np.flatnonzero(rows.rows == behind.row)[0])
            assert rows.split[place] == "train" and rows.texts[place] == behind.text


def test_another_label_turns_the_signs(classes: Any) -> None:
    influence = Influence(classes.run)
    negative, positive = (influence.explain([TEXT], label=name, top=3)[0] for name in ("negative", "positive"))
    assert [b.row for b in negative.supports] == [b.row for b in positive.opposes]
    assert negative.value + positive.value == pytest.approx(1, abs=1e-5)


def test_many_texts_at_once_as_one_by_one(classes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunewell.explain.influence import attribute

    monkeypatch.setattr(attribute, "QUERIES_A_TIME", 2)
    influence, texts = Influence(classes.run), [TEXT, "lovely", "a good and happy crew"]
    together = influence.explain(texts)
    for text, found in zip(texts, together, strict=True):
        alone = influence.explain([text])[0]
        assert [b.row for b in alone.supports] == [b.row for b in found.supports]


def test_several_labels_and_scores(several: Any, scores: Any) -> None:
    found = Influence(several.run).explain(["nice good flight"], label="good")[0]
    assert found.explained == "good" and isinstance(found.prediction, list) and found.supports
    assert isinstance(found.supports[0].label, list)
    found = Influence(scores.run).explain([TEXT])[0]
    assert found.explained is None and found.value == found.prediction
    # rows that pull the value up carry larger labels than those that pull it down
    assert np.mean([b.label for b in found.supports]) > np.mean([b.label for b in found.opposes])
    with pytest.raises(RecipeError, match="a regression has no labels"):
        Influence(scores.run).explain([TEXT], label="good")


def test_mistakes_are_told(classes: Any) -> None:
    influence = Influence(classes.run)
    with pytest.raises(DataError, match="is empty"):
        influence.explain(["  "])
    with pytest.raises(RecipeError, match="no label 'negativ'") as raised:
        influence.explain([TEXT], label="negativ")
    assert raised.value.remedy == "did you mean `negative`?"
    with pytest.raises(RecipeError, match="no method `trac`"):
        influence.explain([TEXT], method="trac")


def test_an_interrupted_index_goes_on_and_is_the_same(classes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, told = classes.run / "influence", []
    whole = np.array(Influence(classes.run).index.gradients)
    key = json.loads((folder / "index.json").read_text())["key"]
    (folder / "index.json").unlink()
    (folder / "progress.json").write_text(json.dumps({"key": key, "batches": 2}))
    array = np.lib.format.open_memmap(folder / "gradients.npy", mode="r+")
    kept = np.array(array)
    array[:] = np.where(np.arange(len(array))[:, None] % 2 == 0, array, 0)  # what is redone is written anew
    array.flush()
    again = Influence(classes.run, echo=told.append).index
    assert "going on at batch 2" in told[0] and not (folder / "progress.json").exists()
    changed = np.flatnonzero((np.array(again.gradients) != kept).any(axis=1))
    assert len(changed) <= 2 * index_module.BATCH_ROWS  # only rows of the first two batches
    (folder / "index.json").write_text("{}")  # out of date: made from the beginning
    np.testing.assert_array_equal(np.array(Influence(classes.run).index.gradients), whole)


def test_the_index_in_memory_is_the_one_on_disk(classes: Any) -> None:
    influence = Influence(classes.run)
    rows = influence.file.select(influence.file.trained)
    made = in_memory(influence.predictor, rows.texts, rows.pairs, rows.targets())
    np.testing.assert_allclose(made.gradients, influence.index.gradients, atol=1e-3, rtol=1e-2)
    np.testing.assert_allclose(made.logits, influence.index.logits, atol=1e-5)


# ---------------------------------------------------------------- the command


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["influence", *arguments], catch_exceptions=False)


def test_the_command_prints_rows_and_json(classes: Any) -> None:
    done = invoke(str(classes.run), TEXT, "--top", "2", "--quiet")
    assert done.exit_code == 0
    assert "explained: negative" in done.stdout and "for it:" in done.stdout and "against it:" in done.stdout
    done = invoke(str(classes.run), TEXT, "--top", "2", "--quiet", "--json", "--method", "tracin")
    found = json.loads(done.stdout)
    assert found["method"] == "tracin" and len(found["supports"]) == 2
    assert set(found["supports"][0]) == {"row", "text", "text_pair", "label", "score", "similarity"}


def test_the_command_reads_a_file_and_writes_label_errors(classes: Any, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("text\ngood seat\n\nrude crew\n")
    done = invoke(str(classes.run), "--data", str(tmp_path / "new.csv"), "--json", "--quiet")
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["good seat", "rude crew"]
    out = tmp_path / "out.csv"
    done = invoke(str(classes.run), "--label-errors", str(out))
    assert done.exit_code == 0 and "240 rows in" in done.stdout and "rather" in done.stdout
    assert out.read_text().splitlines()[0].startswith("id,text,label,row,split,suspicion,flagged,likely_label")


@pytest.mark.parametrize("extra", [(), ("a text", "--label-errors", "x.csv")])
def test_the_command_wants_one_question(classes: Any, extra: tuple[str, ...]) -> None:
    done = invoke(str(classes.run), *extra)
    assert done.exit_code == 2


def test_the_commands_methods_are_those_that_there_are() -> None:
    from tunewell.cli.influence import _METHODS
    from tunewell.explain.influence.answers.methods import METHODS as FOR_ANSWERS

    assert set(_METHODS) == {"auto", *METHODS, *FOR_ANSWERS}
