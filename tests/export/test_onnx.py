"""`tunewell export`: another form, the same answers; what differs or cannot be written leaves nothing behind."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tunewell.cli import app
from tunewell.errors import ModelError, RunFolderError
from tunewell.export.parity import SAMPLE, agreement, apart, rows_of
from tunewell.export.run import export
from tunewell.predict import Predictor

SAID: list[str] = []


@pytest.fixture(scope="module")
def onnx(tiny_classifier, tmp_path_factory):
    """The tiny classifier as ONNX; traced once for this file."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("onnx") / "out"
    handler = logging.Handler()
    handler.emit = lambda record: SAID.append(record.getMessage())
    logging.getLogger("torch.onnx").addHandler(handler)
    try:
        return folder, export(tiny_classifier, folder)
    finally:
        logging.getLogger("torch.onnx").removeHandler(handler)


def test_the_tracer_says_nothing_that_a_user_cannot_mend(onnx):
    """Four lines of warnings about torchvision, which a model of texts does not need."""
    assert SAID == []
    assert logging.getLogger("torch.onnx").level == logging.NOTSET


def test_another_runtime_gives_the_same_answers(onnx, tiny_classifier, make_reviews):
    """With nothing but the tokenizer and onnxruntime, at other batch sizes and lengths than it was traced with."""
    import onnxruntime
    from transformers import AutoTokenizer

    folder, done = onnx
    assert done.parity.largest < 1e-4
    assert done.parity.same == 1
    assert set(done.files) >= {"model.onnx", "tokenizer.json", "config.json", "tunewell.json", "README.md"}
    texts = [t for t, _ in make_reviews(30)] + ["one"]
    wanted = Predictor.load(tiny_classifier).scores(texts)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    for some in (texts, texts[-1:]):
        batch = tokenizer(some, padding=True, truncation=True, max_length=128, return_tensors="np")
        inputs = {i.name: batch[i.name].astype("int64") for i in session.get_inputs()}
        logits = session.run(["logits"], inputs)[0].astype(np.float64)
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        assert np.allclose(p, wanted[-len(some) :], atol=1e-5)
    assert json.loads((folder / "tunewell.json").read_text())["labels"] == ["negative", "positive"]


def test_eight_bits_are_smaller_and_held_to_the_same_answers(tiny_classifier, tmp_path, onnx, monkeypatch):
    import tunewell.export.run as exporting

    monkeypatch.setattr(exporting, "ALIKE", 1.01)  # nothing can be that alike
    with pytest.raises(ModelError, match="8 bits give another answer"):
        export(tiny_classifier, tmp_path / "int8", int8=True)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(exporting, "ALIKE", 0.0)
    done = export(tiny_classifier, tmp_path / "int8", int8=True)
    assert done.files["model.onnx"] < 0.7 * onnx[1].files["model.onnx"]
    assert 0 < done.parity.largest < 0.5
    assert sorted(p.name for p in (tmp_path / "int8").glob("*.onnx")) == ["model.onnx"]


def headed(tiny_model, folder, outputs, problem):
    """`tiny_model` under a random head for scores or several labels, its answers spread over the sample texts."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    names = {"id2label": dict(enumerate("abcdef"[:outputs]))} if outputs > 1 else {"num_labels": 1}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = AutoModelForSequenceClassification.from_pretrained(tiny_model, problem_type=problem, **names)
        torch.nn.init.normal_(model.classifier.weight)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    with torch.inference_mode():
        batch = tokenizer(list(SAMPLE), return_tensors="pt", padding=True, truncation=True, max_length=64)
        model.classifier.bias -= model.eval()(**batch).logits.quantile(0.5 if outputs == 1 else 0.2, dim=0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_scores_in_eight_bits_are_held_to_a_part_of_their_spread(tiny_model, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    import tunewell.export.onnx as writing

    model = headed(tiny_model, tmp_path / "scores", 1, "regression")
    spread = float(np.std(Predictor.load(model).raw_scores(list(SAMPLE))))
    for off, kept in ((0.09, True), (0.11, False)):
        monkeypatch.setattr(
            writing.OnnxPredictor,
            "raw_scores",
            lambda self, texts, pairs=None, off=off: self.source.raw_scores(texts) + off * spread,
        )
        if kept:
            done = export(model, tmp_path / "out", int8=True)
            assert done.parity.off == pytest.approx(off, rel=1e-4)
            assert done.parity.same is None
        else:
            with pytest.raises(ModelError, match="8 bits give scores that are off by 11% of their spread"):
                export(model, tmp_path / "none", int8=True)
            assert not (tmp_path / "none").exists()


def test_several_labels_in_eight_bits_are_held_label_by_label(tiny_model, tmp_path, monkeypatch):
    """Another second label is another answer, also where the likeliest stays."""
    pytest.importorskip("onnxruntime")
    import tunewell.export.onnx as writing

    model = headed(tiny_model, tmp_path / "labels", 4, "multi_label_classification")

    def without_the_second(self, texts, pairs=None):
        scores = np.array(self.source.raw_scores(texts))
        rows = np.flatnonzero((scores >= 0.5).sum(1) > 1)
        assert len(texts) == 1 or len(rows) > 1  # one by one where speed is measured
        scores[rows, scores[rows].argsort(1)[:, -2]] = 0.4
        return scores

    monkeypatch.setattr(writing.OnnxPredictor, "raw_scores", without_the_second)
    with pytest.raises(ModelError, match="8 bits give other labels"):
        export(model, tmp_path / "none", int8=True)


def test_agreement_and_distance_by_hand():
    a = np.array([[0.9, 0.6, 0.1], [0.2, 0.3, 0.4], [0.5, 0.1, 0.1]])
    assert agreement(a, a, several=True) == agreement(a, a, several=False) == 1
    b = np.array([[0.9, 0.4, 0.1], [0.2, 0.3, 0.6], [0.5, 0.1, 0.1]])  # gives 3 labels, a 3; 2 of them the same
    assert agreement(a, b, several=True) == pytest.approx(2 * 2 / 6)
    assert agreement(a, b, several=False) == 1
    assert agreement(a * 0, a * 0, several=True) == 1  # no label on either side
    one = np.eye(4)[[0, 1, 2, 3, 0]]
    other = np.eye(4)[[0, 1, 2, 0, 0]]  # one label a row: the share of rows
    assert agreement(one, other, several=True) == agreement(one, other, several=False) == 0.8
    assert apart(np.array([1.0, 3.0]), np.array([1.5, 2.5])) == pytest.approx(0.5)
    assert apart(np.array([2.0, 2.0]), np.array([2.0, 2.0])) == 0
    assert apart(np.array([2.0, 2.0]), np.array([2.0, 2.1])) == np.inf


def test_what_is_not_the_same_is_not_kept(tiny_classifier, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    import tunewell.export.onnx as writing

    monkeypatch.setattr(
        writing.OnnxPredictor, "raw_scores", lambda self, texts, pairs=None: self.source.scores(texts) + 0.01
    )
    with pytest.raises(ModelError, match="differs from the model by up to"):
        export(tiny_classifier, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_merged_is_a_plain_folder(tiny_classifier, tmp_path):
    from transformers import pipeline

    done = export(tiny_classifier, tmp_path / "merged", to="merged")
    assert done.parity.largest == 0
    answer = pipeline("text-classification", model=str(tmp_path / "merged"))("the crew was good")[0]
    assert answer["label"] in ("negative", "positive")


@pytest.fixture
def mapped_run(tiny_classifier, tmp_path):
    """The tiny classifier as a run whose calibration makes its probabilities flatter."""
    from tunewell.results import Calibration, Calibrator

    spec = {"name": "text-classification", "labels": ["negative", "positive"], "multi_label": False,
            "metric": "f1_macro", "pair": False}  # fmt: skip
    folder = tmp_path / "run"
    shutil.copytree(tiny_classifier, folder / "model")
    (folder / "task.json").write_text(json.dumps({"spec": spec, "columns": {"text": "text"}, "max_length": 64}))
    Calibration(
        asked="temperature", calibrator=Calibrator(method="temperature", temperature=3.0), reason="for a test"
    ).write(folder / "calibration.json")
    return folder


@pytest.mark.parametrize("to", ["merged", "onnx"])
def test_a_run_with_calibrated_probabilities(to, mapped_run, tmp_path):
    """Compared are the model's own answers on both sides; the map goes out beside the graph."""
    if to == "onnx":
        pytest.importorskip("onnxruntime")
    done = export(mapped_run, tmp_path / "out", to=to)
    assert done.parity.largest < 1e-4
    predictor = Predictor.load(mapped_run)
    assert np.abs(predictor.scores(["a good seat"]) - predictor.raw_scores(["a good seat"])).max() > 1e-3
    if to == "onnx":
        about = json.loads((tmp_path / "out" / "tunewell.json").read_text())
        assert (about["calibrator"]["method"], about["calibrator"]["temperature"]) == ("temperature", 3.0)
        assert "under `calibrator`" in (tmp_path / "out" / "README.md").read_text()


def test_real_rows_of_a_run(tmp_path):
    (tmp_path / "predictions.csv").write_text("row,text\n" + "".join(f"{i},text {i}\n" for i in range(450)))
    texts, pairs, real = rows_of(tmp_path, False)
    assert (len(texts), texts[1], pairs, real) == (200, "text 2", None, True)
    assert rows_of(tmp_path, True)[2] is False  # no pairs there
    assert rows_of(tmp_path / "none", False)[0] == list(SAMPLE)


@pytest.mark.parametrize("limit", [131_072, 10 << 20])
def test_rows_as_long_as_a_text_may_be(tmp_path, limit):
    """Python's csv stops at 131,072 characters unless told otherwise, for the whole process."""
    (tmp_path / "predictions.csv").write_text(f"row,text,text_pair\n1,{'long ' * 40_000},b\n")
    before = csv.field_size_limit(limit)
    try:
        texts, pairs, real = rows_of(tmp_path, True)
        assert (len(texts[0]), pairs, real) == (200_000, ["b"], True)
    finally:
        csv.field_size_limit(before)


def test_the_command(tiny_classifier, tmp_path):
    out = tmp_path / "copy"
    result = CliRunner().invoke(app, ["export", str(tiny_classifier), "--to", "merged", "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "the same answer on 100.0%" in result.stdout
    assert "in PyTorch" in result.stdout
    again = CliRunner().invoke(app, ["export", str(tiny_classifier), "--to", "merged", "-o", str(out)])
    assert again.exit_code == 2
    assert "is there already" in again.output
    line = ["export", str(tiny_classifier), "--to", "merged", "-o", str(out), "--overwrite", "--json"]
    assert json.loads(CliRunner().invoke(app, line).stdout)["form"] == "merged"


def test_mistakes(tiny_classifier, tiny_model, tmp_path):
    with pytest.raises(ModelError, match="goes with ONNX only"):
        export(tiny_classifier, tmp_path / "a", to="merged", int8=True)
    with pytest.raises(ModelError):
        export(tmp_path / "none", tmp_path / "a")
    with pytest.raises(ModelError):  # no head
        export(tiny_model, tmp_path / "a")
    with pytest.raises(RunFolderError, match="no model card"):
        export(tiny_classifier, tmp_path / "a", to="hub")
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderError):
        export(tiny_classifier, tmp_path / "file" / "a", to="merged")
    assert [p.name for p in Path(tmp_path).iterdir()] == ["file"]


def test_weights_go_with_gguf_only_and_only_exports_are_written_over(tiny_classifier, tmp_path):
    import shutil

    with pytest.raises(ModelError, match="goes with GGUF only"):
        export(tiny_classifier, tmp_path / "a", to="onnx", weights="q8_0")
    result = CliRunner().invoke(app, ["export", str(tiny_classifier), "-o", str(tmp_path / "a"), "--weights", "f16"])
    assert result.exit_code == 2 and "goes with GGUF only" in result.output
    run, other = tmp_path / "runs" / "run", tmp_path / "photos"
    shutil.copytree(tiny_classifier, run)
    other.mkdir()
    (other / "dear.jpg").write_text("x")
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    for place in (run, run.parent, other):
        with pytest.raises(RunFolderError, match="other things than an export"):
            export(run, place, to="merged", overwrite=True)
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == before
