"""`tunewell predict` on a tiny classifier: the same rows out, in the same format, with the model's own answers."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tunewell.cli import app


@pytest.fixture(scope="session")
def texts(make_reviews) -> list[str]:
    return [text for text, _ in make_reviews(30)]


@pytest.fixture(scope="session")
def expected(tiny_classifier: Path, texts: list[str]) -> list[tuple[str, float]]:
    """Label and probability of positive, by plain Transformers one text at a time."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(tiny_classifier).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_classifier)
    with torch.inference_mode():
        rows = [model(**tokenizer(t, return_tensors="pt")).logits.softmax(-1)[0].tolist() for t in texts]
    assert {row[1] > 0.5 for row in rows} == {True, False}  # the fixture gives both answers
    return [("positive" if row[1] > 0.5 else "negative", row[1]) for row in rows]


def predict(*args: object, **options) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, args)], **options)


def test_csv_in_csv_out(tiny_classifier: Path, tmp_path: Path, texts: list[str], expected: list) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "deep" / "out.csv"
    with source.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows([[f"00{i}", text] for i, text in enumerate(texts)] + [["x", " "]])
    result = predict(tiny_classifier, source, "-o", target)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert f"31 rows labelled in {target}" in result.stderr
    assert "1 without text, left without a prediction" in result.stderr
    rows = list(csv.DictReader(io.StringIO(target.read_text())))
    assert list(rows[0]) == ["id", "text", "prediction", "p_negative", "p_positive"]
    assert [row["id"] for row in rows] == [f"00{i}" for i in range(30)] + ["x"]
    for row, (label, p) in zip(rows, expected, strict=False):
        assert row["prediction"] == label
        assert float(row["p_positive"]) == pytest.approx(p, abs=2e-6)
        assert float(row["p_negative"]) + float(row["p_positive"]) == pytest.approx(1, abs=2e-6)
    assert rows[-1] == {"id": "x", "text": " ", "prediction": "", "p_negative": "", "p_positive": ""}


def test_lines_from_standard_input(tiny_classifier: Path, texts: list[str], expected: list) -> None:
    result = predict(tiny_classifier, input="\n".join(texts))
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [(r["text"], r["prediction"]) for r in rows] == [(t, e[0]) for t, e in zip(texts, expected, strict=True)]


def test_jsonl_from_standard_input(tiny_classifier: Path, texts: list[str], expected: list) -> None:
    lines = "".join(json.dumps({"review": text}) + "\n" for text in texts)
    result = predict(tiny_classifier, "-", "--format", "jsonl", input=lines)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["prediction"] for row in rows] == [label for label, _ in expected]
    assert rows[0]["probabilities"]["positive"] == pytest.approx(expected[0][1], abs=2e-6)


def test_batch_size_changes_nothing(tiny_classifier: Path, texts: list[str]) -> None:
    one, many = (predict(tiny_classifier, "--batch-size", n, input="\n".join(texts)).stdout for n in (1, 30))
    for a, b in zip(csv.DictReader(io.StringIO(one)), csv.DictReader(io.StringIO(many)), strict=True):
        assert a["prediction"] == b["prediction"]
        assert float(a["p_positive"]) == pytest.approx(float(b["p_positive"]), abs=2e-6)


def test_columns_by_name_and_nearest(tiny_classifier: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("title,boddy\na,b\n")
    assert predict(tiny_classifier, source, "--text", "title").exit_code == 0
    result = predict(tiny_classifier, source, "--text", "body")
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: {source}: no column `body`\n  expected: one of title, boddy\n"
        "  try: did you mean `boddy`?; name the column with --text\n"
    )
    result = predict(tiny_classifier, source)
    assert result.stderr.startswith(f"error: {source}: cannot tell which column holds the text\n")
    assert result.exit_code == 2


def test_an_existing_prediction_column_is_kept(tiny_classifier: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text,prediction\nfine,mine\n")
    result = predict(tiny_classifier, source)
    assert result.stdout.splitlines()[0] == "text,prediction,prediction_2,p_negative_2,p_positive_2"
    assert "has a column of our name already" in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["{data}", "-o", "{data}"], "would overwrite the input"),
        (["{data}", "-o", "{data}/out.csv"], "cannot write: a part of the path is a file"),
        (["{folder}/none.csv"], "no such file"),
        (["{folder}"], "is a folder"),
        (["{data}", "-o", "{folder}/out.csv.gz"], "output is not compressed"),
        (["{data}", "--encoding", "klingon"], "unknown encoding `klingon`"),
        (["{data}", "--batch_size", "0"], "0 is not in the range"),
        (["{data}", "--format", "xml"], "'xml' is not one of"),
    ],
)
def test_mistakes(tiny_classifier: Path, tmp_path: Path, args: list[str], message: str) -> None:
    data = tmp_path / "in.csv"
    data.write_text("text\na\n")
    result = predict(tiny_classifier, *(a.format(data=data, folder=tmp_path) for a in args))
    assert result.exit_code == 2
    assert message in result.stderr
    assert data.read_text() == "text\na\n"
    assert [p.name for p in tmp_path.iterdir()] == ["in.csv"]


def test_no_such_run(tmp_path: Path) -> None:
    result = predict(tmp_path / "none", input="a")
    assert result.exit_code == 2
    assert "no such run or model folder" in result.stderr


# ---------------------------------------------------------------- as a process

COMMAND = [sys.executable, "-m", "tunewell", "predict"]
SLOW = "import sys\nfor i in range(10**9): print('a good flight', i, flush=True)"


def test_head_ends_it_quietly(tiny_classifier: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as source:
        process = subprocess.Popen(
            [*COMMAND, str(tiny_classifier), "-"], stdin=source.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"text,prediction,p_negative,p_positive\n"
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""
        process.stderr.close()
        source.kill()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_half_way_leaves_nothing(tiny_classifier: Path, tmp_path: Path, number: int, code: int) -> None:
    target = tmp_path / "out.csv"
    with subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as source:
        process = subprocess.Popen(
            [*COMMAND, str(tiny_classifier), "-", "-o", str(target)],
            stdin=source.stdout,
            stderr=subprocess.PIPE,
            # tests that run in the background of a shell hand on an ignored SIGINT
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        for _ in range(600):
            if any(p.stat().st_size > 0 for p in tmp_path.glob(".out.csv.*")):
                break
            time.sleep(0.1)
        os.kill(process.pid, number)
        try:
            _, error = process.communicate(timeout=60)
        finally:
            process.kill()
            source.kill()
    assert process.returncode == code
    assert list(tmp_path.iterdir()) == []
    if number == signal.SIGINT:
        assert error.decode().endswith("stopped; nothing half-written stays\n")


@pytest.mark.parametrize(
    ("done", "said"),
    [
        ((5000, 0, 2.0, "out.csv"), "5,000 rows labelled in out.csv, 2,500 rows/s"),
        ((3, 1, 60.0, "out.csv"), "3 rows labelled in out.csv; 1 without text, left without a prediction"),
        ((1, 0, 0.5, "-"), "1 row labelled, 2 rows/s"),
        ((0, 0, 0.0, "-"), "0 rows labelled"),
    ],
)
def test_what_is_told_at_the_end(done: tuple, said: str) -> None:
    from tunewell.cli.predict import _told

    assert _told(*done) == said


def test_what_workers_must_see_of_a_run(tmp_path: Path) -> None:
    """Weights and what is said of them, not what tuning left; also where the run lies below a folder called train."""
    from tunewell.cli.predict import model_files

    run = tmp_path / "train" / "run"
    for name in ("model/model.safetensors", "task.json", "train/tuned.safetensors", "report.html"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).touch()
    assert model_files(str(run)) == [str(run), str(run / "model" / "model.safetensors"), str(run / "task.json")]
