"""`tunewell predict` with workers: the same bits, all rows, in their order, in a bounded memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tunewell.cli import app


def predict(*args: object) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, args), "--threads", "1"])


def flags(asked: dict[str, Any]) -> list[Any]:
    return [part for k, v in asked.items() for part in (f"--{k}", v)]


@pytest.fixture
def big(tmp_path: Path, make_reviews: Any) -> Path:
    """6,000 rows in two row groups of unlike size, some without text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [text for text, _ in make_reviews(500)] * 12
    texts[7], texts[5000] = "", None
    table = pa.table({"id": range(len(texts)), "text": texts, "when": pa.array(range(len(texts)), pa.timestamp("s"))})
    pq.write_table(table, tmp_path / "big.parquet", row_group_size=4500)
    return tmp_path / "big.parquet"


def test_parquet_side_by_side_is_the_same_file(tiny_classifier, big, tmp_path, workers_asked) -> None:
    import pyarrow.parquet as pq

    alone, many = tmp_path / "alone.parquet", tmp_path / "many.parquet"
    assert predict(tiny_classifier, big, "-o", alone).exit_code == 0
    result = predict(tiny_classifier, big, "-o", many, *flags(workers_asked))
    assert result.exit_code == 0, result.stderr
    assert many.read_bytes() == alone.read_bytes()
    found = pq.read_table(many)
    assert found["id"].to_pylist() == list(range(6000))
    assert found["prediction"].null_count == 2
    assert found["when"].type == pq.read_table(big)["when"].type
    assert pq.ParquetFile(many).num_row_groups == 1  # and not one a chunk
    assert "6,000 rows labelled" in result.stderr and "2 without text" in result.stderr
    assert "each with 1 thread" in result.stderr


def test_csv_to_jsonl_side_by_side_is_the_same_file(tiny_classifier, tmp_path, make_reviews, save_csv) -> None:
    source = save_csv(tmp_path / "in.csv", make_reviews(300))
    alone, many = tmp_path / "alone.jsonl", tmp_path / "many.jsonl"
    assert predict(tiny_classifier, source, "-o", alone).exit_code == 0
    assert predict(tiny_classifier, source, "-o", many, "--jobs", 2).exit_code == 0
    assert many.read_bytes() == alone.read_bytes()


def test_a_mistake_leaves_no_output(tiny_classifier, big, tmp_path, monkeypatch) -> None:
    """The file is cut short behind its first row group: what was labelled before is thrown away."""
    import tunewell.data.rows as reading

    def cut(batches: Any, limit: int) -> Any:
        for i, chunk in enumerate(whole(batches, limit)):
            if i == 4:
                return
            yield chunk

    whole = reading._sliced
    monkeypatch.setattr(reading, "_sliced", cut)
    for more in ([], ["--jobs", 2]):
        result = predict(tiny_classifier, big, "-o", tmp_path / "out.parquet", *more)
        assert result.exit_code == 2
        assert "says that it has 6,000 rows, and holds 4,096" in result.stderr
        assert sorted(p.name for p in tmp_path.iterdir()) == ["big.parquet"]


def test_row_groups_are_of_many_chunks_and_still_bounded(tmp_path, monkeypatch) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    import tunewell.data.write_rows as writing
    from tunewell.data.rows import open_rows

    monkeypatch.setattr(writing, "GROUP_ROWS", 100)
    pq.write_table(pa.table({"text": [f"t{i}" for i in range(350)]}), tmp_path / "in.parquet")
    with open_rows(str(tmp_path / "in.parquet"), chunk_rows=30) as rows:
        assert rows.total == 350
        columns = writing.AnswerColumns(rows.columns, {"answer": str})
        with writing.RowWriter(str(tmp_path / "out.parquet"), "parquet", rows, columns) as writer:
            for chunk in rows:
                writer.write(chunk, [{"answer": row["text"].upper()} for row in chunk.rows])
    out = pq.ParquetFile(tmp_path / "out.parquet")
    assert [out.metadata.row_group(i).num_rows for i in range(out.num_row_groups)] == [120, 120, 110]
    assert out.read()["answer"].to_pylist() == [f"T{i}" for i in range(350)]


@pytest.mark.skipif(not Path("/proc/self/io").is_file(), reason="tells how much was read on Linux only")
def test_a_large_row_group_is_read_bit_by_bit(tmp_path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tunewell.data.rows import open_rows

    texts = [f"{i * 7919 % 10_007:0300d}" for i in range(30_000)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet", compression="none", use_dictionary=False)
    size = (tmp_path / "in.parquet").stat().st_size
    assert pq.ParquetFile(tmp_path / "in.parquet").num_row_groups == 1 and size > 9_000_000

    def read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before = read()
    with open_rows(str(tmp_path / "in.parquet")) as rows:
        first = next(iter(rows))
        assert read() - before < size / 2
        assert first.texts("text") + [t for chunk in rows for t in chunk.texts("text")] == texts
    assert read() - before >= size


def test_without_ray_nothing_is_written(tiny_classifier, big, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tunewell.extras.find_spec", lambda name: None)
    result = predict(tiny_classifier, big, "--ray", "local", "-o", tmp_path / "out.parquet")
    assert result.exit_code == 2
    assert "pip install 'tunewell[ray]'" in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["big.parquet"]
