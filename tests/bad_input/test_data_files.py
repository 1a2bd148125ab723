"""Data that cannot be learnt from: each is refused before a model is tuned, with the place and what to do."""

from __future__ import annotations

import csv
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

FAST = ["--probes", "none", "--strategy", "plain", "--max_steps", "2", "--output_dir", "runs/x"]
GOOD = [(f"text number {i} is {'fine' if i % 2 else 'bad'}", "yes" if i % 2 else "no") for i in range(40)]


def as_csv(rows: list[tuple], header: tuple[str, ...] = ("text", "label")) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([header, *rows])
    return buffer.getvalue()


# file name, content, further options, words on stderr
FILES: dict[str, tuple[str, str | bytes, list[str], tuple[str, ...]]] = {
    "empty file": ("a.csv", "", [], ("a.csv: is empty",)),
    "header only": ("a.csv", "text,label\n", [], ("a.csv: has a header but no rows",)),
    "binary garbage": ("a.csv", bytes(range(256)) * 40, [], ("a.csv: is not a text file", "expected: CSV")),
    "binary garbage as Parquet": ("a.parquet", b"\x00\x01garbage" * 50, [], ("a.parquet", "Parquet")),
    "cut Parquet": ("a.parquet", b"PAR1" + b"\x15\x04" * 40, [], ("a.parquet", "Parquet")),
    "NUL characters": ("a.csv", "text,label\nfine\0,yes\n", [], ("a.csv", "binary")),
    "broken spreadsheet": ("a.xlsx", b"PK\x03\x04" + b"\0" * 60, [], ("a.xlsx: is not a spreadsheet", "save it again")),
    "old spreadsheet": ("a.xls", b"\xd0\xcf\x11\xe0" + b"\0" * 60, [], ("a.xls: is a spreadsheet", "save as CSV")),
    "spreadsheet called CSV": ("a.csv", b"PK\x03\x04" + b"\0" * 60, [], ("a.csv: is an archive",)),
    "pickle": ("a.pkl", pickle.dumps(GOOD), [], ("a.pkl: is a pickle, which can run code", "Parquet or JSONL")),
    "ragged row": ("a.csv", as_csv([*GOOD[:3], ("one", "two", "three")]), [], ("a.csv:4: row 4 (line 5) has 3 cells",)),
    "short row": ("a.csv", as_csv([*GOOD[:3], ("one",)]), [], ("a.csv:4: row 4 (line 5) has 1 cell: one",)),
    "unterminated quote": (
        "a.csv",
        as_csv(GOOD) + '"never closed,yes\nmore,no\n',
        [],
        ("a.csv:41: a quotation mark opened in row 41", "is never closed"),
    ),
    "duplicate columns": (
        "a.csv",
        as_csv([("a", "b", "yes")], ("text", "text", "label")),
        [],
        ("a.csv: the column name `text` stands 2 times", "rename the columns"),
    ),
    "huge cell": (
        "a.csv",
        as_csv([*GOOD, ("x" * (11 << 20), "yes")]),
        [],
        ("a.csv:41: row 41 (line 42) has a cell of more than 10 MB",),
    ),
    "broken line of JSON": ("a.jsonl", '{"text": "a", "label": "x"}\n{"text": "b", "lab\n', [], ("a.jsonl:2", "JSON")),
    "JSON that is no record": ("a.jsonl", '{"text": "a", "label": "x"}\n"b"\n', [], ("a.jsonl:2",)),
    "JSON that is one number": ("a.json", "3", [], ("a.json",)),
    "no label column": ("a.csv", as_csv([(t,) for t, _ in GOOD], ("text",)), [], ("a.csv", "label")),
    "wrong text column": ("a.csv", as_csv(GOOD), ["--text", "txt"], ("`txt`", "text, label", "did you mean `text`?")),
    "wrong label column": ("a.csv", as_csv(GOOD), ["--label", "lable"], ("`lable`", "did you mean `label`?")),
    "missing group column": ("a.csv", as_csv(GOOD), ["--group", "author"], ("`author`", "text, label")),
    "text is label": ("a.csv", as_csv(GOOD), ["--text", "label", "--label", "label"], ("label",)),
    "text_pair is label": ("a.csv", as_csv(GOOD), ["--text_pair", "label", "--label", "label"], ("label",)),
    "one class": ("a.csv", as_csv([(t, "yes") for t, _ in GOOD]), [], ("a.csv", "yes", "two")),
    "all labels missing": ("a.csv", as_csv([(t, "") for t, _ in GOOD]), [], ("a.csv", "label")),
    "all texts empty": ("a.csv", as_csv([(" ", y) for _, y in GOOD]), ["--text", "text"], ("a.csv", "text")),
    "NaN scores only": (
        "a.csv",
        as_csv([(t, "nan") for t, _ in GOOD]),
        ["--task", "text-regression"],
        ("a.csv", "number"),
    ),
    "words as scores": ("a.csv", as_csv(GOOD), ["--task", "text-regression"], ("a.csv", "number")),
    "infinite scores": (
        "a.csv",
        as_csv([(t, "inf") for t, _ in GOOD]),
        ["--task", "text-regression"],
        ("a.csv",),
    ),
    "one score": (
        "a.csv",
        as_csv([(t, "2.5") for t, _ in GOOD]),
        ["--task", "text-regression"],
        ("a.csv", "2.5"),
    ),
    "too few rows to split": ("a.csv", as_csv(GOOD[:3]), [], ("a.csv",)),
    "one group": (
        "a.csv",
        as_csv([(t, y, "me") for t, y in GOOD], ("text", "label", "author")),
        ["--group", "author"],
        ("a.csv", "group"),
    ),
    "unknown encoding": ("a.csv", as_csv(GOOD), ["--encoding", "klingon"], ("unknown encoding `klingon`",)),
    "wrong encoding": (
        "a.csv",
        as_csv([("schön", "x")]).encode("latin-1"),
        ["--encoding", "utf-8"],
        ("a.csv", "utf-8"),
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_file(case: str, here: Path, run_refused: Callable) -> None:
    name, content, options, says = FILES[case]
    (here / name).write_bytes(content.encode() if isinstance(content, str) else content)
    run_refused("--train", name, *options, says=("error: ", *says))


def test_missing_file_names_the_nearest(here: Path, run_refused: Callable) -> None:
    (here / "reviews.csv").write_text(as_csv(GOOD))
    run_refused("--train", "review.csv", says=("review.csv: no such file", "did you mean `reviews.csv`?"))


def test_missing_folder(run_refused: Callable) -> None:
    run_refused("--train", "data/reviews.csv", says="no such folder")


def test_missing_test_file(here: Path, run_refused: Callable) -> None:
    (here / "a.csv").write_text(as_csv(GOOD))
    run_refused("--train", "a.csv", "--test", "b.csv", says="b.csv: no such file")


def test_folder_of_something_else(here: Path, run_refused: Callable) -> None:
    (here / "stuff").mkdir()
    (here / "stuff" / "note.txt").write_text("hello")
    run_refused("--train", "stuff", says="stuff")


def test_test_file_with_other_columns(here: Path, run_refused: Callable) -> None:
    (here / "a.csv").write_text(as_csv(GOOD))
    (here / "b.csv").write_text(as_csv(GOOD, ("body", "label")))
    run_refused("--train", "a.csv", "--test", "b.csv", says=("b.csv", "`text`", "body, label"))


def test_label_that_only_the_test_file_has(here: Path, run_refused: Callable) -> None:
    (here / "a.csv").write_text(as_csv(GOOD))
    (here / "b.csv").write_text(as_csv([*GOOD[:5], ("so so", "maybe")]))
    run_refused("--train", "a.csv", "--test", "b.csv", says=("b.csv", "maybe", "no, yes"))


def test_check_strict_stops_on_leakage(here: Path, tunewell: Callable, tiny_model: Path) -> None:
    (here / "a.csv").write_text(as_csv(GOOD))
    result = tunewell("check", "a.csv", "--test", "a.csv", "--model", tiny_model, "--strict")
    assert result.exit_code == 3, result.output
    assert "gate: a.csv: the check found" in result.stderr
    assert "expected: data without errors (--strict)" in result.stderr
    assert "leak" in result.stdout.lower()
    assert [p.name for p in here.iterdir()] == ["a.csv"]


def test_run_strict_stops_before_tuning(here: Path, tunewell: Callable, tiny_model: Path) -> None:
    (here / "a.csv").write_text(as_csv(GOOD))
    result = tunewell("run", "--model", tiny_model, *FAST, "--train", "a.csv", "--test", "a.csv", "--strict")
    assert result.exit_code == 3, result.output
    assert "gate: a.csv: the check found" in result.stderr
    assert (here / "runs" / "x" / "check.json").is_file()
    assert not (here / "runs" / "x" / "train").exists()
    assert not (here / "runs" / "x" / "model").exists()
