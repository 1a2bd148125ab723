"""Input that could be taken for something else: it is told what was found and how it is written rightly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def rows(n: int = 40) -> list[dict[str, Any]]:
    return [{"text": f"text number {i}", "label": "yes" if i % 2 else "no"} for i in range(n)]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_data_in_place_of_a_recipe(name: str, here: Path, refused: Callable) -> None:
    (here / name).write_text(
        "text,label\nfine,yes\n" if name == "a.csv" else '[{"text": "fine", "label": "yes"}]', encoding="utf-8"
    )
    refused("run", name, says=(f"error: {name}: is a data file", f"tunewell run --train {name}", f"init {name}"))


def test_data_in_place_of_a_sequence(here: Path, refused: Callable) -> None:
    (here / "a.csv").write_text("text,label\nfine,yes\n", encoding="utf-8")
    result = refused("sequence", "a.csv", says=("a.csv: is a data file",))
    assert "tunewell run" not in result.stderr


@pytest.mark.parametrize(("given", "wanted"), [("false", "--no-bf16"), ("no", "--no-bf16"), ("true", "--bf16")])
def test_a_flag_with_a_value(given: str, wanted: str, refused: Callable) -> None:
    says = f"`--bf16` takes no value, but `{given}` follows it: write `{wanted}`"
    refused("run", "--train", "a.csv", "--bf16", given, says=says)
    refused("run", "--train", "a.csv", f"--bf16={given}", says=says)


def test_a_flag_that_cannot_be_off(refused: Callable) -> None:
    refused("models", "--json", "false", says="`--json` takes no value, but `false` follows it: leave it out")


def test_objects_as_texts(here: Path, run_refused: Callable) -> None:
    table = rows()
    table[6]["text"] = {"body": "a text inside"}
    write(here / "a.jsonl", table)
    run_refused("--train", "a.jsonl", says=("a.jsonl:7: `text` holds an object where a text is wanted", "--text"))


def test_objects_as_labels(here: Path, run_refused: Callable) -> None:
    table = rows()
    table[2]["label"] = {"id": 1}
    write(here / "a.jsonl", table)
    run_refused("--train", "a.jsonl", says=("a.jsonl:3: `label` holds an object where a label is wanted",))


def test_objects_in_a_test_file(here: Path, run_refused: Callable) -> None:
    write(here / "a.jsonl", rows())
    table = rows(8)
    table[0]["text"] = {"body": "a text inside"}
    write(here / "b.jsonl", table)
    run_refused("--train", "a.jsonl", "--test", "b.jsonl", says="b.jsonl:1: `text` holds an object")


def test_lists_as_texts(here: Path, run_refused: Callable) -> None:
    table = [{**row, "text": [row["text"], "again"]} for row in rows()]
    write(here / "a.jsonl", table)
    run_refused("--train", "a.jsonl", "--text", "text", says="a.jsonl:1: `text` holds a list where a text is wanted")


def test_lists_and_single_labels_in_one_column(here: Path, run_refused: Callable) -> None:
    table = [{**row, "label": [row["label"]]} for row in rows()]
    table[4]["label"] = "maybe"
    write(here / "a.jsonl", table)
    run_refused(
        "--train", "a.jsonl",
        says=("a.jsonl:5: `label` mixes lists and single labels: row 1 holds a list, row 5 does not", "lists of one"),
    )  # fmt: skip
