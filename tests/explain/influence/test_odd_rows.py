"""Texts that nobody expects, asked for the rows behind them, and as training rows whose labels are judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tunewell.cli import app
from tunewell.errors import DataError
from tunewell.explain.influence.attribute import Influence
from tunewell.explain.influence.label_errors import label_errors
from tunewell.recipe_file import load_recipe
from tunewell.run import tune_only

ODD = [
    "😀 😀",
    "👩‍👩‍👧 great",
    "שלום עולם",
    "مرحبا بالعالم",
    "这家酒店很好",
    "ไทยดี",
    "a" * 400,
    "great\u200bcrew\n\nfine",
]


@pytest.mark.parametrize("method", ["head", "neighbours"])
def test_rows_behind_odd_texts(method: str, classes: Any) -> None:
    for text, found in zip(ODD, Influence(classes.run).explain(ODD, method=method, top=3), strict=True):
        assert found.text == text and found.supports and np.isfinite(found.value)
        assert all(np.isfinite(b.score) for b in (*found.supports, *found.opposes))
        assert found.supports[0].score == pytest.approx(1) or found.opposes[0].score == pytest.approx(-1)


@pytest.mark.parametrize(("text", "said"), [("", "is empty"), (" \n", "is empty"), ("[PAD] [PAD]", "no words.*PAD")])
def test_texts_without_words_have_no_rows_behind_them(text: str, said: str, classes: Any) -> None:
    with pytest.raises(DataError, match=said) as caught:
        Influence(classes.run).explain(["fine", text])
    assert caught.value.where == "text 2"
    done = CliRunner().invoke(app, ["influence", str(classes.run), text])
    assert done.exit_code == 2 and "Traceback" not in done.stderr


def test_labels_of_odd_rows_are_judged(tiny_model: Path, make_reviews: Any, save_csv: Any, tmp_path: Path) -> None:
    cells = [*make_reviews(60), *((text, ("negative", "positive")[i % 2]) for i, text in enumerate([*ODD, "[PAD]"]))]
    train = save_csv(tmp_path / "odd.csv", cells, ("text", "label"))
    keys = {"train": str(train), "model": str(tiny_model), "output_dir": str(tmp_path / "run"), "bf16": False}
    tune_only(load_recipe(**keys, max_steps=4, seed=7), echo=lambda line: None, progress=False)
    found = label_errors(tmp_path / "run")
    assert sorted(r["row"] for r in found.records()) == list(range(1, len(cells) + 1))
    assert np.isfinite(found.suspicion).all() and set(found.likely) <= {"negative", "positive"}
    out = tmp_path / "wrong.jsonl"
    found.write(out)
    texts = {json.loads(line)["text"] for line in out.read_text(encoding="utf-8").splitlines()}
    assert set(ODD) <= texts
