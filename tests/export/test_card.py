"""The model card: a valid metadata block, the figures of the records, and no mark-up from data."""

from __future__ import annotations

import pytest
import yaml

from tunewell.errors import RunFolderError
from tunewell.export.card import write_card


def parts(folder) -> tuple[dict, str]:
    """The metadata and the text of a card."""
    start, front, body = write_card(folder).read_text(encoding="utf-8").split("---\n", 2)
    assert start == ""
    return yaml.safe_load(front), body


def test_metadata(make_records, tmp_path):
    front, _ = parts(make_records(tmp_path / "my-run"))
    assert front["library_name"] == "transformers"
    assert front["pipeline_tag"] == "text-classification"
    assert front["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert front["language"] == ["en", "zh"]
    assert front["tags"] == ["tunewell", "plain"]
    assert front["metrics"] == ["f1", "other"]
    (index,) = front["model-index"]
    assert index["name"] == "my-run"
    (result,) = index["results"]
    assert result["dataset"] == {"name": "word.csv", "type": "word.csv", "split": "test"}
    assert {"type": "f1", "name": "f1_macro", "value": 0.75} in result["metrics"]


def test_the_metadata_is_what_the_hub_reads(make_records, tmp_path):
    from huggingface_hub import ModelCard

    card = ModelCard.load(write_card(make_records(tmp_path / "run")))
    (first, *_) = card.data.eval_results
    assert (first.metric_name, first.metric_value, first.dataset_split) == ("f1_macro", 0.75, "test")


def test_a_base_model_of_this_machine_is_not_named(make_records, tmp_path):
    folder = make_records(tmp_path / "run")
    (folder / "recipe.yaml").write_text("model: /home/jane/models/bert\ntrain: /home/jane/secret/reviews.csv\n")
    front, body = parts(folder)
    assert "base_model" not in front
    assert "/home" not in str(front) + body


def test_the_text_has_the_figures(make_records, tmp_path):
    _, body = parts(make_records(tmp_path / "run"))
    assert "| f1_macro | 0.7500 | [0.7400, 0.7600] |" in body
    assert "| f1_macro of the baseline baseline word | 0.6000 | [0.5900, 0.6100] |" in body
    assert "| probe word | 0.8000 | 0.7900 | 0.9875 | [0.9775, 0.9975] |" in body
    assert "Labels: negative, positive" in body


def test_markup_in_data_is_plain_text(make_records, tmp_path):
    labels = ("<script>x</script>", "a|b\n# c")
    front, body = parts(make_records(tmp_path / "run", word="<b>|`x`: [y](z)\n---", labels=labels))
    assert front["library_name"] == "transformers"
    assert "<script>" not in body
    assert "<b>" not in body
    assert "&lt;script&gt;x&lt;/script&gt;, a\\|b \\# c" in body


def test_numbers_of_a_regression(make_records, tmp_path):
    front, body = parts(make_records(tmp_path / "run", labels=()))
    assert front["metrics"] == ["other", "r_squared"]
    assert "Labels:" not in body


def test_no_model_no_card(make_records, tmp_path):
    folder = make_records(tmp_path / "run")
    (folder / "model").rmdir()
    with pytest.raises(RunFolderError, match="has no model yet"):
        write_card(folder)


@pytest.mark.parametrize("helps", [True, False])
def test_rows_that_were_made_are_told_of_where_the_model_has_learned_from_them(make_records, tmp_path, helps):
    from tunewell.results import Augmentation, Comparison, Estimate

    folder = make_records(tmp_path / "run")
    d = Estimate(value=0.0321, low=0.01, high=0.05, n=50)
    Augmentation(
        operations=("swap", "masked"), factor=2, rows=97, made=194, kept=180, by={"swap": 90, "masked": 90},
        left_out={"a test text": 14}, steps=20, eval_steps=5, without=Estimate(value=0.8),
        augmented=Estimate(value=0.8321),
        comparison=Comparison(metric="accuracy", difference=d, test="McNemar, exact", p_value=0.01, better=True),
        helps=helps, why="beyond" if helps else "no-gain", seconds={},
    ).write(folder / "augment.json")  # fmt: skip
    _, body = parts(folder)
    assert ("180 copies of 97 training rows (swap, masked)" in body) is helps
    assert ("+0.0321" in body) is helps
