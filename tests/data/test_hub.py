"""Data sets of the hub by the rows that are asked for: what stands behind them is not read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunewell.data.hub import load_folder, load_hub
from tunewell.data.load import load
from tunewell.errors import DataError


@pytest.fixture
def reviews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A data set that `datasets` finds by its name; 40 rows in the first file, none that can be read in the next."""
    import huggingface_hub

    folder = tmp_path / "me" / "reviews"
    folder.mkdir(parents=True)
    rows = [json.dumps({"text": f"row {i}", "label": i % 2}) for i in range(40)]
    (folder / "train-0.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (folder / "train-1.jsonl").write_text("this is no JSON", encoding="utf-8")
    (folder / "test.jsonl").write_text(rows[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, name, timeout: None)
    return "me/reviews"


def test_only_the_rows_asked_for_are_read(reviews: str) -> None:
    found, notices = load_hub(reviews, "train[5:12]", "me/reviews:train[5:12]")
    assert found["text"] == [f"row {i}" for i in range(5, 12)]
    assert found["label"][:2] == [1, 0]
    assert notices == []
    assert load_hub(reviews, "test[:9]", "")[0].num_rows == 1
    with pytest.raises(DataError, match="cannot be loaded"):  # the whole has the file that is none
        load_hub(reviews, "train", "me/reviews:train")


@pytest.mark.parametrize(
    ("split", "said"),
    [("train[7:7]", "rows 7 to 7 are none"), ("tran[:5]", r"no split `tran`[\s\S]*did you mean `?train")],
)
def test_rows_that_are_none_are_refused(reviews: str, split: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        load_hub(reviews, split, f"{reviews}:{split}")


def test_rows_of_a_folder(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_dict({"text": list("abcdef")})
    DatasetDict({"train": rows}).save_to_disk(str(tmp_path / "d"))
    assert load(f"{tmp_path / 'd'}:train[2:4]").dataset["text"] == ["c", "d"]
    assert load_folder(tmp_path / "d", "train[4:99]", "d")[0]["text"] == ["e", "f"]
    with pytest.raises(DataError, match="rows 3 to 2 are none"):
        load(f"{tmp_path / 'd'}:train[3:2]")
