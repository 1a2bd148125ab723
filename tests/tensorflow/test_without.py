"""Without TensorFlow: the line that installs it, nothing written; and what a recipe is told of its framework."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

import tunewell
import tunewell.extras
from tunewell.cli import app
from tunewell.errors import RecipeError, TunewellError
from tunewell.recipe_file import load_recipe


@pytest.fixture
def missing(monkeypatch):
    """As if it were not installed."""
    monkeypatch.setattr(tunewell.extras, "find_spec", lambda name: None)


def test_a_run_is_refused_before_anything_is_written(missing, tiny_model, tiny_csv, tmp_path):
    with pytest.raises(TunewellError) as caught:
        tunewell.run(framework="tensorflow", model=str(tiny_model), train=str(tiny_csv), probes=["none"],
                     output_dir=str(tmp_path / "run"), progress=False, echo=lambda line: None)  # fmt: skip
    assert "tensorflow is not installed" in str(caught.value)
    assert "pip install 'tunewell[tensorflow]'" in str(caught.value)
    assert not (tmp_path / "run" / "recipe.yaml").exists()


@pytest.mark.parametrize(
    "line", [["predict", "{model}", "{data}", "--framework", "tensorflow"], ["export", "{model}", "--to", "savedmodel"]]
)
def test_commands_say_how_to_install_it(missing, line, tiny_classifier, tiny_csv, tmp_path):
    line = [part.format(model=tiny_classifier, data=tiny_csv) for part in line]
    result = CliRunner().invoke(app, [*line, "-o", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "pip install 'tunewell[tensorflow]'" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"strategy": ["ewc", "average"]}, "tunes with plain, distill, average, lines; `ewc` hooks into"),
        ({"strategy": ["auto"], "keep": 0.9}, "`auto` hooks into PyTorch's loop"),
        ({"task": "translation"}, "learns classes and scores, not `task: translation`"),
        ({"monitor": "watch"}, "`monitor: watch` reads PyTorch models"),
        ({"attention_dropout": 0.0}, "`attention_dropout` sets PyTorch's layers"),
        ({"guard": "act"}, "`guard: act` steers PyTorch's loop"),
        ({"bf16": True}, "computes in fp32"),
        ({"classify_by": "likelihood"}, "needs a decoder"),
        ({"report_to": ["tensorboard"]}, "`report_to: tensorboard` follows PyTorch's loop"),
        ({"framework": "jax"}, "'pytorch' or 'tensorflow'"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_it_is_told_by_the_recipe(keys, said):
    with pytest.raises(RecipeError) as caught:
        load_recipe(train="x.csv", **{"framework": "tensorflow", **keys})
    assert said in str(caught.value)


def test_it_is_not_for_a_sequence():
    from tunewell.sequence.spec import load_spec

    with pytest.raises(RecipeError, match="`framework` is not for a sequence"):
        load_spec({"tasks": [{"name": "a", "train": "a.csv"}], "framework": "tensorflow"})


def test_the_core_does_not_import_it():
    code = (
        "import sys, tunewell, tunewell.run, tunewell.stages.tune, tunewell.train.tune, tunewell.predict, "
        "tunewell.export.run, tunewell.backends.tensorflow.fits; sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
