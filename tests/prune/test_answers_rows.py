"""`tunewell prune` on written answers: what is learned of a pool, what is counted, and what the kept file says."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunewell.prune.run import prune

from .conftest import KEYS, english, german, read, save


class StopError(Exception):
    """A kill in the middle of tuning."""


@pytest.mark.parametrize("step", [6, 8, 12])
def test_a_stopped_warm_up_goes_on_as_it_would_have(
    step: int, tiny_decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped within its second epoch, or after the checkpoint that an epoch ends with: the same rates and scores."""
    from tunewell.train.trace import Trace

    data = save(tmp_path / "pool.jsonl", [english(i) for i in range(40)])
    few = save(tmp_path / "few.jsonl", [german(100)])
    options: dict[str, Any] = {
        **KEYS, "method": "less", "target_rows": str(few), "model": str(tiny_decoder), "warm_share": 0.8,
        "per_device_train_batch_size": 8, "num_train_epochs": 3, "duplicates": "keep", "max_length": 64,
    }  # fmt: skip
    whole = prune(data, tmp_path / "a.csv", output_dir=str(tmp_path / "whole"), echo=lambda line: None, **options)
    assert len(set(whole.record.rates)) == 3

    hook = "on_epoch_end" if step % 4 == 0 else "on_pre_optimizer_step"  # four steps an epoch
    own = getattr(Trace, hook)

    def stop(self: Trace, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step == step:
            raise StopError
        own(self, args, state, control, **more)

    lines: list[str] = []
    options |= {"output_dir": str(tmp_path / "stopped"), "echo": lines.append}
    with monkeypatch.context() as patched:
        patched.setattr(Trace, hook, stop)
        with pytest.raises(StopError):
            prune(data, tmp_path / "b.csv", **options)
    again = prune(data, tmp_path / "b.csv", **options)
    assert [line for line in lines if "continuing from" in line], lines
    assert again.record.rates == pytest.approx(whole.record.rates, rel=1e-9)
    np.testing.assert_allclose(again.scores["less"], whole.scores["less"], atol=1e-6)


def test_every_row_of_the_file_is_accounted_for(tiny_decoder: Path, tmp_path: Path) -> None:
    """2 rows without an answer, 3 too long, a twin, a test prompt that stands there twice, 20 others."""
    rows = [english(i) for i in range(20)]
    rows += [{"prompt": "no answer", "completion": ""}, {"prompt": " ", "completion": "no question"}]
    rows += [{"prompt": f"say long {i}", "completion": "word " * 200} for i in range(3)]
    rows += [english(3), english(50), english(50)]
    data = save(tmp_path / "pool.jsonl", rows)
    test = save(tmp_path / "test.jsonl", [english(50)])
    lines: list[str] = []
    done = prune(
        data, tmp_path / "kept.jsonl", method="random", keep_share=1.0, model=str(tiny_decoder), max_length=64,
        test=str(test), overlength="drop", duplicates="exact", output_dir=str(tmp_path / "run"), echo=lines.append,
        bf16=False, threads=1, progress=False,
    )  # fmt: skip
    assert done.record.rows == 28 and done.record.kept == 20
    assert done.record.left_out == {
        "without a question or an answer": 2, "longer than max_length": 3, "a duplicate with the same answer": 1,
        "a prompt of the test file": 2,
    }  # fmt: skip
    assert any(line.startswith("prune: 20 of 28 rows") and "3 are longer than max_length" in line for line in lines)
    page = done.page.read_text(encoding="utf-8")
    assert "20 of 28 rows are kept" in page and "2 (without a question or an answer)" in page


def test_the_warm_up_learns_no_test_prompt(tiny_decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor a row twice."""
    import tunewell.stages.tune as stage

    rows = [english(i) for i in range(40)]
    data = save(tmp_path / "pool.jsonl", [*rows, *rows[20:]])
    test = save(tmp_path / "test.jsonl", rows[:20])
    few = save(tmp_path / "few.jsonl", [german(100)])
    learned: list[int] = []
    tuned_in = stage.tuned_in
    monkeypatch.setattr(
        stage, "tuned_in", lambda job, place: (learned.extend(job.splits["train"]["row"]), tuned_in(job, place))[1]
    )
    done = prune(
        data, tmp_path / "kept.jsonl", method="less", target_rows=str(few), test=str(test), warm_share=0.8,
        duplicates="exact", model=str(tiny_decoder), output_dir=str(tmp_path / "run"), echo=lambda line: None,
        **{**KEYS, "num_train_epochs": 1},
    )  # fmt: skip
    assert learned == list(range(21, 41)) and done.record.warm_rows == 20


def test_the_pool_under_another_name_is_no_test_file(
    tiny_decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "pool.jsonl", [english(i) for i in range(8)])
    monkeypatch.chdir(tmp_path)
    lines: list[str] = []
    done = prune(
        "pool.jsonl", "kept.jsonl", method="random", keep_share=1.0, test="./pool.jsonl", duplicates="keep",
        model=str(tiny_decoder), output_dir="run", echo=lines.append, bf16=False, threads=1, progress=False,
    )  # fmt: skip
    assert done.record.kept == 8 and done.record.left_out == {}
    assert "--test" not in done.record.command and any("name a --test of its own" in line for line in lines)


def test_the_hash_of_tokens() -> None:
    """The same for the same rows alone: where a row ends, and what is a label, count too."""
    from tunewell.prune.answers.less import tokens_hash
    from tunewell.tasks.generation.writers import Encoded

    def made(*rows: tuple[list[int], list[int]]) -> str:
        return tokens_hash([Encoded(ids, labels, 0, True, 0) for ids, labels in rows])

    assert made(([1, 2], [3, 4])) == made(([1, 2], [3, 4]))
    others = [made(([1, 2], [3, 5])), made(([1, 2, 3], [4])), made(([1, 2], []), ([3, 4], [])), made(([1, 2], [3, -4]))]
    assert len({made(([1, 2], [3, 4])), *others}) == 5


JSON_ANSWERS = ['["a","b"]', "[1, 2]", '{"a":1.50,"b":1,"b":2}', '{"name": "x"', "none"]


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
def test_a_text_that_is_json_stays_a_text(ending: str, tiny_decoder: Path, tmp_path: Path) -> None:
    """The kept file teaches the same words as the pool, objects and lists of messages stay what they are."""
    from datasets import Dataset

    from tunewell.data.load import load
    from tunewell.recipe_file import load_recipe
    from tunewell.tasks.generation.conversations import conversations

    def learned(path: Path) -> list[tuple[str, str]]:
        found, _, _ = conversations(load(str(path)), load_recipe(None, train=str(path)))
        return [(r["messages"], r["label"]) for r in found]

    rows: list[dict[str, Any]] = [
        {"prompt": f"extract {i}", "completion": a, "note": '{"a": 1}'} for i, a in enumerate(JSON_ANSWERS)
    ]
    pool = tmp_path / f"pool.{ending}"
    if ending == "parquet":
        Dataset.from_list(rows).to_parquet(str(pool))
    elif ending == "csv":
        with pool.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        talk = [{"role": "user", "content": "[1]"}, {"role": "assistant", "content": "{}"}]
        rows[0]["about"] = {"b": [2, {"c": "[3]"}]}
        rows.append({"prompt": talk[:1], "completion": talk[1:]})
        pool.write_text(json.dumps(rows), encoding="utf-8") if ending == "json" else save(pool, rows)
    for out in ("kept.jsonl", "kept.csv"):
        prune(
            pool, tmp_path / out, method="random", keep_share=1.0, duplicates="keep", model=str(tiny_decoder),
            output_dir=str(tmp_path / "run"), echo=lambda line: None, bf16=False, threads=1, progress=False,
        )  # fmt: skip
        assert learned(tmp_path / out) == learned(pool)
    kept = read(tmp_path / "kept.jsonl")
    assert kept == [{**r, "row": i} for i, r in enumerate(rows, 1)]
