"""Rows in and out: cells as they stand in the file, formats kept, outputs whole or absent."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tunewell.data.rows import open_rows
from tunewell.data.write_rows import Columns, RowWriter, WholeFile, format_of
from tunewell.errors import DataError

ANSWER = {"prediction": "yes", "probabilities": {"no": 0.25, "yes": 0.75}}
CLASSES = {"labels": ("no", "yes"), "regression": False, "multi_label": False}


def read(path: Path, **options) -> list[dict]:
    with open_rows(str(path), **options) as rows:
        return [row for chunk in rows for row in chunk.rows]


def copy(source: Path, target: Path, **options) -> Path:
    """Every row answered with yes, rows without text without an answer."""
    with open_rows(str(source), **options) as rows:
        columns = Columns(rows.columns, **CLASSES)
        with RowWriter(str(target), format_of(str(target), rows.format), rows, columns) as writer:
            for chunk in rows:
                writer.write(chunk, [ANSWER if text.strip() else None for text in chunk.texts("text")])
    return target


def pipe(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_csv_keeps_every_cell_and_gains_columns(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_bytes(b'id,text,note\n007,"a, ""b""\nc",NA\n1e3,,x\n')
    out = copy(source, tmp_path / "out.csv")
    assert out.read_text() == (
        'id,text,note,prediction,p_no,p_yes\n007,"a, ""b""\nc",NA,yes,0.250000,0.750000\n1e3,,x,,,\n'
    )


def test_csv_keeps_semicolons_line_ends_and_the_byte_order_mark(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_bytes("\ufeffid;text\r\n1;schön\r\n".encode())
    out = copy(source, tmp_path / "out.csv")
    assert out.read_bytes() == "\ufeffid;text;prediction;p_no;p_yes\r\n1;schön;yes;0.250000;0.750000\r\n".encode()


def test_another_ending_is_another_format(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("id,text\n1,a\n")
    assert (
        copy(source, tmp_path / "out.tsv").read_text()
        == "id\ttext\tprediction\tp_no\tp_yes\n1\ta\tyes\t0.250000\t0.750000\n"
    )
    expected = {"id": "1", "text": "a", "prediction": "yes", "probabilities": {"no": 0.25, "yes": 0.75}}
    assert json.loads(copy(source, tmp_path / "out.jsonl").read_text()) == expected
    table = pq.read_table(copy(source, tmp_path / "out.parquet"))
    assert table.to_pylist() == [{"id": "1", "text": "a", "prediction": "yes", "p_no": 0.25, "p_yes": 0.75}]


def test_jsonl_keeps_members_that_only_some_rows_have(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "中文", "n": 12345678901234567890}\n\n{"text": null, "more": [1, {"a": 2}]}\n')
    lines = [json.loads(line) for line in copy(source, tmp_path / "out.jsonl").read_text().splitlines()]
    assert lines == [
        {"text": "中文", "n": 12345678901234567890, "prediction": "yes", "probabilities": {"no": 0.25, "yes": 0.75}},
        {"text": None, "more": [1, {"a": 2}], "prediction": None, "probabilities": None},
    ]
    assert "中文" in (tmp_path / "out.jsonl").read_text(encoding="utf-8")


def test_members_that_would_be_lost_in_a_table_are_an_error(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "a"}\n{"text": "b", "more": 1}\n')
    with pytest.raises(DataError, match=r"in\.jsonl:2: has members that the first row has not: more"):
        copy(source, tmp_path / "out.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]


def test_json_array(tmp_path: Path) -> None:
    source = tmp_path / "in.json"
    source.write_text('[{"text": "a"}, {"text": ""}]')
    written = json.loads(copy(source, tmp_path / "out.json").read_text())
    assert [row["prediction"] for row in written] == ["yes", None]
    source.write_text("[]")
    with pytest.raises(DataError, match="holds no rows"):
        read(source)


def test_half_a_surrogate_pair_comes_back_as_it_was(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "a\\ud800b"}\n')
    with open_rows(str(source)) as rows:
        assert next(iter(rows)).texts("text") == ["a?b"]
    assert '"a\\ud800b"' in copy(source, tmp_path / "out.jsonl").read_text()


@pytest.mark.parametrize("format_", ["parquet", "arrow", "stream"])
def test_typed_columns_keep_their_types(tmp_path: Path, format_: str) -> None:
    table = pa.table(
        {
            "text": ["a", None, "c"],
            "n": pa.array([1, 2, 3], pa.int16()),
            "when": pa.array([1, 2, 3], pa.timestamp("ns", tz="UTC")),
            "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
        }
    )
    source = tmp_path / ("in.parquet" if format_ == "parquet" else "in.arrow")
    if format_ == "parquet":
        pq.write_table(table, source)
    else:
        with (pa.ipc.new_file if format_ == "arrow" else pa.ipc.new_stream)(str(source), table.schema) as writer:
            writer.write_table(table)
    out = copy(source, tmp_path / f"out{source.suffix}", chunk_rows=2)
    back = pq.read_table(out) if format_ == "parquet" else pa.ipc.open_file(str(out)).read_all()
    assert back.select(table.column_names).cast(table.schema).equals(table)
    assert [f.type for f in back.schema][:4] == [f.type for f in table.schema]
    assert back["prediction"].to_pylist() == ["yes", None, "yes"]
    assert back["p_yes"].to_pylist() == [0.75, None, 0.75]


def test_lines_of_text_become_a_table(tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_bytes("first, line\r\n\r\nsecond\u2028half".encode())
    with open_rows(str(source)) as rows:
        assert next(iter(rows)).texts("text") == ["first, line", "", "second\u2028half"]
        assert format_of("-", rows.format) == "csv"


def test_compressed_input(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl.gz"
    source.write_bytes(gzip.compress(b'{"text": "a"}\n'))
    assert read(source) == [{"text": "a"}]
    with pytest.raises(DataError, match="output is not compressed"):
        format_of("out.csv.gz", "csv")


def test_standard_input_by_format(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, "gut\nschön\n".encode())
    assert [row for chunk in open_rows("-") for row in chunk.rows] == [{"text": "gut"}, {"text": "schön"}]
    pipe(monkeypatch, b'{"text": "a"}\n')
    assert read(Path("-"), format="jsonl") == [{"text": "a"}]
    pipe(monkeypatch, b'n;text\n1;"a\nb"\n')
    assert read(Path("-"), format="csv") == [{"n": "1", "text": "a\nb"}]
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": ["a"]}), buffer)
    pipe(monkeypatch, buffer.getvalue())
    assert read(Path("-"), format="parquet") == [{"text": "a"}]


def test_standard_input_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, b"one\n")
    with open_rows("-") as rows:
        list(rows)
    assert not sys.stdin.buffer.closed


def test_chunks_are_bounded_by_rows_and_by_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"text": "x" * 10}) + "\n" for _ in range(10)))
    with open_rows(str(source), chunk_rows=4) as rows:
        assert [(c.first, len(c.rows)) for c in rows] == [(1, 4), (5, 4), (9, 2)]
    monkeypatch.setattr("tunewell.data.rows.CHUNK_CHARACTERS", 25)
    with open_rows(str(source), chunk_rows=4) as rows:
        assert [(c.first, len(c.rows)) for c in rows] == [(1, 3), (4, 3), (7, 3), (10, 1)]


def test_a_taken_name_numbers_all_of_ours() -> None:
    columns = Columns(["text", "prediction", "p_yes_2"], **CLASSES)
    assert columns.flat == ["prediction_3", "p_no_3", "p_yes_3"]
    assert columns.nested(ANSWER) == {"prediction_3": "yes", "probabilities_3": {"no": 0.25, "yes": 0.75}}


def test_many_labels_give_one_probability_column() -> None:
    labels = tuple(f"c{i}" for i in range(51))
    columns = Columns(["text"], labels, regression=False, multi_label=False)
    assert columns.flat == ["prediction", "probability"]
    answer = {"prediction": "c7", "probabilities": {name: 0.5 if name == "c7" else 0.01 for name in labels}}
    assert columns.cells(answer) == ["c7", 0.5]


def test_regression_and_several_labels_a_row(tmp_path: Path) -> None:
    scores = Columns(["text"], (), regression=True, multi_label=False)
    assert (scores.flat, scores.cells({"prediction": 2.5, "probabilities": None})) == (["prediction"], [2.5])
    several = Columns(["text"], ("a", "b"), regression=False, multi_label=True)
    source = tmp_path / "in.csv"
    source.write_text("text\nhello\n")
    answer = {"prediction": ["a", "b"], "probabilities": {"a": 0.9, "b": 0.8}}
    for ending in (".csv", ".parquet"):
        target = tmp_path / f"out{ending}"
        with open_rows(str(source)) as rows, RowWriter(str(target), ending[1:], rows, several) as writer:
            for chunk in rows:
                writer.write(chunk, [answer])
    assert (tmp_path / "out.csv").read_text() == 'text,prediction,p_a,p_b\nhello,"[""a"", ""b""]",0.900000,0.800000\n'
    assert pq.read_table(tmp_path / "out.parquet")["prediction"].to_pylist() == [["a", "b"]]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "json", "parquet", "arrow"])
def test_an_error_half_way_leaves_the_old_file(tmp_path: Path, ending: str) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / f"out.{ending}"
    source.write_text('{"text": "a"}\n{"text": "b"}\n{"text": \n')
    target.write_text("old")
    with pytest.raises(DataError, match=r"in\.jsonl:3: not valid JSON"):
        copy(source, target, chunk_rows=1)
    assert target.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.jsonl", target.name]


def test_types_that_do_not_fit_are_told_with_their_row(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "a", "n": 1}\n{"text": "b", "n": "two"}\n')
    with pytest.raises(DataError, match=r"in\.jsonl:2: does not fit the types of the rows before it"):
        copy(source, tmp_path / "out.parquet", chunk_rows=1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.csv", b"", "is empty"),
        ("in.csv", b"text\n", "has a header but no rows"),
        ("in.csv", b"text,text\na,b\n", "the column name `text` stands 2 times"),
        ("in.csv", b"a,text\n1,b\n2,c,d\n", r"in\.csv:2: row 2 \(line 3\) has 3 cells"),
        ("in.csv", b'a,text\n1,"b\n', "a quotation mark opened in row 1"),
        ("in.jsonl", b"\n\n", "holds no rows"),
        ("in.jsonl", b'{"text": "a"}\n[1]\n', r"in\.jsonl:2: holds a list"),
        ("in.json", b'[{"text": "a"}, 3]', r"in\.json:2: holds a int"),
        ("in.json", b'[{"text": "a"', r"in\.json: not valid JSON"),
        ("in.parquet", b"PAR1 nothing", "not a Parquet file"),
        ("in.xlsx", b"PK\x03\x04", "is not a spreadsheet"),
    ],
)
def test_damaged_input(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)


def test_wrong_bytes_further_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, b"fine\n" * 3 + b"caf\xe9\n")
    with pytest.raises(DataError, match=r"byte 0xe9 after row \d is not utf-8[\s\S]*--encoding"):
        read(Path("-"))


def test_whole_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write: a part of the path is a file"):
        WholeFile(str(tmp_path / "file" / "out.csv"))
    with pytest.raises(DataError, match="cannot write: is a folder"):
        WholeFile(str(tmp_path))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_device(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text\na\n")
    with pytest.raises(DataError, match="/dev/full: cannot write: No space left on device"):
        copy(source, Path("/dev/full"))
