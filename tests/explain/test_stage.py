"""`tunewell explain` and the part of a run that explains test rows."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import tunewell
from tunewell.cli import app


def explain(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["explain", *map(str, arguments)])


def test_json_of_one_text(tiny_classifier: Path) -> None:
    done = explain(tiny_classifier, "the crew was great", "--json", "--method", "integrated_gradients")
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert answer["words"] == ["the", "crew", "was", "great"]
    assert len(answer["scores"]) == 4
    assert {"comprehensiveness", "sufficiency", "comprehensiveness_random", "sufficiency_random"} <= set(
        answer["faithfulness"]
    )
    assert answer["faithfulness"]["bins"] == [0.01, 0.05, 0.1, 0.2, 0.5]
    assert answer["method"] == "integrated_gradients"
    assert answer["target"] in ("negative", "positive")
    assert abs(sum(answer["scores"]) - answer["expected_sum"]) == pytest.approx(answer["convergence_delta"], abs=1e-6)


def test_several_texts_are_a_list_and_words_show_sign_and_number(tiny_classifier: Path) -> None:
    done = explain(tiny_classifier, "great crew", "bad seat", "--json", "--method", "occlusion")
    assert [e["text"] for e in json.loads(done.stdout)] == ["great crew", "bad seat"]
    shown = explain(tiny_classifier, "great crew", "--method", "occlusion").stdout
    assert "faithful" in shown and "\033" not in shown
    first = json.loads(done.stdout)[0]
    strongest = max(range(2), key=lambda i: abs(first["scores"][i]))
    assert f"{first['words'][strongest]} {first['scores'][strongest]:+.2f}" in shown


def test_files_in_and_out(tiny_classifier: Path, tmp_path: Path) -> None:
    data = tmp_path / "in.csv"
    data.write_text("text,label\ngreat crew,positive\n,negative\nbad seat,positive\n", encoding="utf-8")
    for ending in ("jsonl", "json", "html"):
        out = tmp_path / f"why.{ending}"
        done = explain(tiny_classifier, "--data", data, "--method", "occlusion", "-o", out)
        assert done.exit_code == 0, done.output
        assert "1 rows without text are left out" in done.stderr
        assert "2 explanations in" in done.stderr
    rows = [json.loads(line) for line in (tmp_path / "why.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(r["text"], r["label"]) for r in rows] == [("great crew", "positive"), ("bad seat", "positive")]
    assert json.loads((tmp_path / "why.json").read_text(encoding="utf-8")) == rows


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give one TEXT or more, or a file with --data"),
        (["fine", "--data", "x.csv"], "give TEXT or --data, not both"),
        ([" "], "an empty text has no words to explain"),
        (["fine", "--target", "positve"], "did you mean `positive`?"),
        (["fine", "--method", "shap"], "no method `shap`"),
        (["fine", "-o", "why.txt"], "unknown ending"),
        (["--data", "missing.csv"], "missing.csv"),
    ],
)
def test_mistakes_exit_with_2(arguments: list[str], said: str, tiny_classifier: Path) -> None:
    done = explain(tiny_classifier, *arguments)
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_sanity_from_the_command_line(tiny_classifier: Path) -> None:
    done = explain(tiny_classifier, "the crew was great today", "--method", "gradient_x_input", "--sanity")
    assert done.exit_code == 0, done.output
    assert "rank correlation" in done.stdout and "embeddings" in done.stdout


@pytest.mark.parametrize("method", ["attnlrp", "occlusion"])
def test_the_report_tells_stability_where_it_is_cheap(method: str, tiny_classifier: Path) -> None:
    from tunewell.explain.texts import explain_texts
    from tunewell.predict import Predictor
    from tunewell.report.explanations import page
    from tunewell.stages.explain import _with_stability

    predictor = Predictor.load(tiny_classifier)
    texts = ["the crew was great and it's fine", "rude crew, bad seat"]
    found = _with_stability(predictor, explain_texts(predictor, texts, method=method), texts, None, 1)
    if method == "occlusion":
        assert [e.stability for e in found] == [None, None]
    else:
        steady = found[0].stability
        assert steady is not None and steady.correlation is not None
        for lang, said in (("en", "rank correlation of"), ("zh", "秩相关为")):
            html = page(found, name="x", lang=lang)
            assert f"{said} {steady.correlation:.3f}" in html


def test_rows_of_marks_alone_are_not_explained(tiny_classifier: Path) -> None:
    """They would stop the explanations of all others."""
    from datasets import Dataset

    from tunewell.predict import Predictor
    from tunewell.stages.explain import _with_words

    predictor = Predictor.load(tiny_classifier)
    job: Any = SimpleNamespace(splits={"test": Dataset.from_dict({"text": ["fine", "[PAD] [PAD]", "😀", "[PAD] bad"]})})
    assert _with_words(job, predictor, np.array([0, 1, 2, 3])).tolist() == [0, 2, 3]


def test_a_run_explains_test_rows(tiny_model: Path, tiny_csv: Path, tmp_path: Path) -> None:
    keys = {
        "model": str(tiny_model), "train": str(tiny_csv), "probes": ["none"], "max_steps": 2, "bf16": False,
        "output_dir": str(tmp_path / "run"), "progress": False,
    }  # fmt: skip
    said: list[str] = []
    run = tunewell.run(**keys, explain=3, echo=said.append)
    found = run.explanations
    assert found is not None
    assert len(found.explanations) == 3
    assert all(e.label in ("negative", "positive") for e in found.explanations)
    wrong = [e.label != e.prediction for e in found.explanations]
    assert sum(wrong) >= 1 or run.metrics["accuracy"].value == 1.0
    html = run.report_path.read_text(encoding="utf-8")
    assert 'id="why"' in html
    assert all(f"{e.target} {e.probability:.3f}" in html for e in found.explanations)
    assert said.count("explain: which words decided") == 1
    cheap = found.method in ("gradient_x_input", "attnlrp")
    for e in found.explanations:
        assert (e.stability is not None) == cheap
        if e.stability is not None and e.stability.correlation is not None:
            assert f"rank correlation of {e.stability.correlation:.3f}" in html
    (again,) = run.explain([found.explanations[0].text], method=found.method)
    assert again.scores == pytest.approx(found.explanations[0].scores, abs=2e-4)
    assert [c.text for c in found.counterfactuals] == [e.text for e in found.explanations]
    assert [c.prediction for c in found.counterfactuals] == [e.prediction for e in found.explanations]
    for c in found.counterfactuals:
        assert all(f'<del dir="auto">{e.word}</del>' in html for e in (c.without.edits if c.without else ()))
    assert run.counterfactuals([c.text for c in found.counterfactuals], most=3, rows=400) == list(found.counterfactuals)

    before = (run.dir / "explanations.json").read_bytes()
    said.clear()
    tunewell.run(**keys, explain=3, echo=said.append)
    assert "explain: which words decided" not in said  # nothing changed, nothing repeated
    assert (run.dir / "explanations.json").read_bytes() == before
    (run.dir / "explanations.json").unlink()  # another process, which has not predicted, picks the same rows
    resumed = tunewell.run(**keys, explain=3, echo=said.append).explanations
    assert resumed is not None
    assert [e.text for e in resumed.explanations] == [e.text for e in found.explanations]
    assert "explain: which words decided" in said
    without = tunewell.run(**keys, explain=0, echo=said.append)
    assert without.explanations is None
    assert 'id="why"' not in without.report_path.read_text(encoding="utf-8")
