"""`tunewell probe` on tiny models with the user's own probe file; and `tunewell evaluate` on a tiny classifier."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from scipy.stats import spearmanr

from tunewell.cli import app


def invoke(*args: object) -> Result:
    result = CliRunner().invoke(app, [str(a) for a in args])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def pairs(tmp_path: Path, make_reviews: Callable, save_csv: Callable) -> Path:
    """Pairs of reviews with made-up similarities."""
    texts, rng = [text for text, _ in make_reviews(160)], random.Random(0)
    rows = [(texts[i], texts[i + 80], str(rng.randint(0, 50) / 10)) for i in range(80)]
    return save_csv(tmp_path / "mine.csv", rows, ("text_a", "text_b", "score"))


def test_one_model(tiny_model: Path, pairs: Path) -> None:
    line = ("probe", tiny_model, "--probes", "none", "--probe-files", pairs)
    found = json.loads(invoke(*line, "--json").stdout)
    assert (found["model"], found["half"], len(found["probes"])) == (str(tiny_model), "report", 1)
    probe = found["probes"][0]
    assert probe["low"] <= probe["value"] <= probe["high"]
    text = invoke(*line).stdout
    assert f"{probe['value']:.3f}" in text
    assert "95 % interval" in text


def test_halves_do_not_share_a_pair_and_agree_with_scipy(tiny_model: Path, pairs: Path) -> None:
    """The two halves together are the file; each value is Spearman's correlation of cosine and score."""
    import csv
    import io

    from tunewell.models.embed import embed
    from tunewell.models.load import load_encoder

    values = {}
    for half in ("select", "report"):
        out = invoke("probe", tiny_model, "--probes", "none", "--probe_files", pairs, "--half", half, "--json").stdout
        values[half] = json.loads(out)["probes"][0]
    assert values["select"]["n"] + values["report"]["n"] == 80
    rows = list(csv.DictReader(io.StringIO(pairs.read_text())))
    encoder = load_encoder(str(tiny_model))
    a, b = (embed(encoder.model, encoder.tokenizer, [r[c] for r in rows]) for c in ("text_a", "text_b"))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    whole = spearmanr(cosine, [float(r["score"]) for r in rows]).statistic
    low, high = sorted(v["value"] for v in values.values())
    assert low - 0.15 <= whole <= high + 0.15  # the whole lies near its halves


def test_a_model_against_itself_has_kept_everything(
    tiny_model: Path, tmp_path: Path, make_pairs: Callable, save_csv: Callable
) -> None:
    pairs = save_csv(tmp_path / "same.csv", make_pairs(80), ("text_a", "text_b", "score"))
    result = invoke("probe", tiny_model, tiny_model, "--probes", "none", "--probe_files", pairs, "--json")
    retention = json.loads(result.stdout)
    assert retention["half"] == "report"
    assert retention["mean"]["value"] == pytest.approx(1.0)
    assert (retention["mean"]["low"], retention["mean"]["high"]) == (pytest.approx(1.0), pytest.approx(1.0))
    text = invoke("probe", tiny_model, tiny_model, "--probes", "none", "--probe_files", pairs).stdout
    assert "1.0000  1.0000 to 1.0000" in text


def test_evaluate_a_plain_model(
    tiny_classifier: Path, tmp_path: Path, make_reviews: Callable, save_csv: Callable
) -> None:
    from tunewell.predict import Predictor

    rows = make_reviews(40)
    data = save_csv(tmp_path / "a.csv", rows, ("review", "stars"))
    line = ("evaluate", tiny_classifier, data, "--text", "review", "--label", "stars")
    found = json.loads(invoke(*line, "--json").stdout)
    answers = Predictor.load(tiny_classifier).predict([text for text, _ in rows])
    right = sum(a == label for a, (_, label) in zip(answers, rows, strict=True))
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(right / 40)
    assert found["n"] == 40
    text = invoke(*line).stdout
    assert text.startswith("40 rows\n")
    assert f"accuracy  {right / 40:.3f}".split() == next(x for x in text.splitlines() if "accuracy " in x).split()[:2]
    assert "negative" in text
    assert "precision" in text
