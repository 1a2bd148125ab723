"""`Run` answers from Python what the commands answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tunewell
from tunewell.errors import ModelError
from tunewell.explain.checklist import Checklist
from tunewell.explain.influence.attribute import Influence
from tunewell.explain.influence.label_errors import label_errors
from tunewell.explain.sanity import sanity
from tunewell.explain.stability import stability

TEXTS = ["the crew was great and it's fine", "rude crew, bad seat"]


@pytest.fixture
def run(tiny_model: Path, tiny_csv: Path, tmp_path: Path) -> Any:
    return tunewell.run(
        model=str(tiny_model), train=str(tiny_csv), probes=["none"], max_steps=2, bf16=False, explain=0,
        output_dir=str(tmp_path / "run"), progress=False, echo=lambda line: None,
    )  # fmt: skip


def test_a_run_answers_as_the_functions_do(run: Any) -> None:
    assert run.sanity(TEXTS, method="gradient_x_input") == sanity(run.predictor, TEXTS, method="gradient_x_input")
    assert run.stability(TEXTS, method="occlusion") == stability(run.predictor, TEXTS, method="occlusion")
    found = run.influence(TEXTS, method="head", top=2)
    assert found == Influence(run.dir).explain(TEXTS, method="head", top=2)
    assert run.influence(TEXTS[:1], label="positive", top=1)[0].explained == "positive"
    assert len(run._traced) == 1  # the index is read once
    errors = run.label_errors()
    assert errors.records() == label_errors(run.dir).records()
    tests = run.checklist(rows=20, negation="same")
    assert tests == Checklist.load(run.dir / "checklist.json") and tests.negation == "same"
    some = [{"text": text} for text in TEXTS * 3]
    assert run.checklist(some).rows == 6


def test_models_that_write_have_no_head_to_randomise(tiny_decoder: Path) -> None:
    from tunewell.tasks.generation.task import load_writer

    for ask in (sanity, stability):
        with pytest.raises(ModelError, match="no head|answers by texts"):
            ask(load_writer(tiny_decoder), TEXTS, method="occlusion")  # type: ignore[arg-type]


def test_every_method_of_a_run_that_explains_is_in_the_reference() -> None:
    from tunewell.explain.of_run import Asked

    page = (Path(__file__).parents[2] / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    assert "::: tunewell.run.Run\n    options:\n      inherited_members: true" in page
    for name in vars(Asked):
        assert name.startswith("_") or vars(Asked)[name].__doc__, name
