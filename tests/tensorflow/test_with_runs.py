"""`framework: tensorflow` from the recipe to the report, `predict --framework tensorflow`, and the SavedModel."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import tunewell
from tunewell.cli import app
from tunewell.errors import ModelError
from tunewell.export.run import export
from tunewell.predict import Predictor, load_predictor

PLAIN = """
import json, sys

for name in ("torch", "transformers", "tunewell", "keras_hub"):
    sys.modules[name] = None  # an import of it fails
import tensorflow as tf
from tokenizers import Tokenizer

folder, texts = sys.argv[1], json.loads(sys.argv[2])
answer = tf.saved_model.load(folder + "/saved_model").signatures["serving_default"]
rows = Tokenizer.from_file(folder + "/tokenizer.json")
rows.no_truncation()
rows.enable_padding(pad_id=0)
rows = rows.encode_batch(texts)
given = {
    "input_ids": tf.constant([r.ids for r in rows], tf.int64),
    "attention_mask": tf.constant([r.attention_mask for r in rows], tf.int64),
    "token_type_ids": tf.constant([r.type_ids for r in rows], tf.int64),
}
print(json.dumps({k: v.numpy().tolist() for k, v in answer(**given).items()}))
"""


@pytest.fixture(scope="module")
def run(tiny_model: Path, make_reviews: Any, make_pairs: Any, save_csv: Any, tmp_path_factory: Any) -> tunewell.Run:
    """A finished run by TensorFlow with a budget: distilled, averaged, probed, explained, its probabilities mapped."""
    folder = tmp_path_factory.mktemp("run")
    rows = make_reviews(200)
    general = folder / "general.txt"
    general.write_text("\n".join(t for t, _ in make_reviews(64, seed=9)), encoding="utf-8")
    probe = save_csv(folder / "probe.csv", make_pairs(40), header=("text_a", "text_b", "score"))
    return tunewell.run(
        framework="tensorflow", model=str(tiny_model), train=str(save_csv(folder / "train.csv", rows)), explain=2,
        strategy=["distill", "average", "lines"], keep=0.5, general_text=str(general), general_samples=64,
        probes=["none"], probe_files=[str(probe)], average_alphas=[0.5, 1.0], lines_alphas=[0.5],
        num_train_epochs=2, learning_rate=1e-3, calibrate="temperature", threads=1, progress=False,
        output_dir=str(folder / "run"), echo=lambda line: None, raise_on_gate=False,
    )  # fmt: skip


def test_everything_afterwards_works(run):
    record = run.training
    assert (record.framework, record.precision, record.strategy) == (
        "tensorflow",
        "fp32",
        ("distill", "average", "lines"),
    )
    assert set(record.parity) == {"before", "after"}
    assert 0 <= max(record.parity.values()) < 1e-4
    assert len(run.choice.candidates) == 3  # tuned, averaged, scaled by layer
    assert run.retention.probes[0].after.value is not None
    assert len(run.explanations.explanations) == 2
    assert "tensorflow" in json.loads((run.dir / "environment.json").read_text())["packages"]
    assert "TensorFlow" in run.report_path.read_text(encoding="utf-8")
    assert not (run.dir / "train" / "checkpoints").exists()
    assert run.predict(["the crew was great"]) in (["positive"], ["negative"])


def test_the_same_recipe_again_does_nothing_and_another_framework_tunes_again(run, tmp_path):
    from tunewell.stages.keys import keys_for

    said: list[str] = []
    tunewell.run(run.recipe, echo=said.append, progress=False, raise_on_gate=False)
    assert not any(line.startswith("tune:") for line in said)
    one, other = (keys_for(run.recipe.model_copy(update={"framework": f}), "rows", "model") for f in
                  ("tensorflow", "pytorch"))  # fmt: skip
    assert (one.data, one.probe) == (other.data, other.probe)
    assert one.tune != other.tune


def test_probabilities_are_those_of_pytorch(run, make_reviews, save_csv, tmp_path):
    data = save_csv(tmp_path / "new.csv", [(t,) for t, _ in make_reviews(30, seed=3)], header=("text",))
    found = {}
    for framework in ("pytorch", "tensorflow"):
        out = tmp_path / f"{framework}.csv"
        line = ["predict", str(run.dir), str(data), "-o", str(out), "--framework", framework, "--coverage", "0.9"]
        result = CliRunner().invoke(app, line)
        assert result.exit_code == 0, result.output
        with out.open(encoding="utf-8", newline="") as file:
            found[framework] = list(csv.DictReader(file))
    for a, b in zip(*found.values(), strict=True):
        assert (a["text"], a["prediction"]) == (b["text"], b["prediction"])
        assert float(a["p_positive"]) == pytest.approx(float(b["p_positive"]), abs=1e-4)
    twin = load_predictor(run.dir, framework="tensorflow")
    assert not hasattr(twin.model, "parameters")  # it is not PyTorch that has answered


def test_a_savedmodel_answers_in_plain_tensorflow(run, make_reviews, tmp_path):
    """In a process that has neither PyTorch nor Transformers: before the run's map of probabilities, and with it."""
    from tunewell.evaluate.calibrators import calibrated
    from tunewell.results import Calibrator

    done = export(run.dir, tmp_path / "out", to="savedmodel")
    assert done.parity.real
    assert done.parity.largest < 1e-4
    assert done.parity.same == 1
    assert {"saved_model/saved_model.pb", "tokenizer.json", "README.md", "tunewell.json"} <= set(done.files)
    readme = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| `token_type_ids` | int64 (batch, length) |" in readme
    texts = [t for t, _ in make_reviews(5, seed=4)] + ["crew"]
    line = [sys.executable, "-c", PLAIN, str(tmp_path / "out"), json.dumps(texts)]
    answered = subprocess.run(line, capture_output=True, text=True, check=True)
    found = json.loads(answered.stdout.splitlines()[-1])
    raw = np.array(found["probabilities"], dtype=np.float32)
    predictor = Predictor.load(run.dir)
    assert np.abs(raw - predictor.raw_scores(texts)).max() < 1e-4
    about = json.loads((tmp_path / "out" / "tunewell.json").read_text(encoding="utf-8"))
    assert about["labels"] == list(predictor.labels)
    mapped = calibrated(Calibrator(**about["calibrator"]), raw)
    assert np.abs(mapped - predictor.scores(texts)).max() < 1e-4


def test_what_is_not_the_same_is_not_kept(tiny_classifier, tmp_path, monkeypatch):
    import tunewell.export.savedmodel as writing

    monkeypatch.setattr(
        writing.SavedModelPredictor, "raw_scores", lambda self, texts, pairs=None: self.source.raw_scores(texts) + 0.01
    )
    with pytest.raises(ModelError, match="differs from the model by up to"):
        export(tiny_classifier, tmp_path / "out", to="savedmodel")
    assert list(tmp_path.iterdir()) == []


def test_models_of_other_kinds_are_refused(tiny_decoder, tiny_csv, tmp_path):
    import shutil

    base = shutil.copytree(tiny_decoder, tmp_path / "longer")
    config = json.loads((base / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    (base / "config.json").write_text(json.dumps(config))
    recipe = {"train": str(tiny_csv), "model": str(base), "framework": "tensorflow", "probes": ["none"]}
    with pytest.raises(ModelError, match="has a rotary embedding of type dynamic, which is not at hand in TensorFlow"):
        tunewell.run(**recipe, output_dir=str(tmp_path / "run"), progress=False, echo=lambda line: None)
    assert not (tmp_path / "run" / "recipe.yaml").exists()
    with pytest.raises(ModelError, match="which TensorFlow does not have here"):
        load_predictor(tiny_decoder, framework="tensorflow")


def test_scores_of_pairs_by_roberta(tmp_path, make_pairs, save_csv, tiny_model):
    """Another family, a regression, pairs of texts: tuned, saved, read by PyTorch, exported; no token types."""
    import shutil

    import torch
    from transformers import AutoTokenizer, RobertaConfig, RobertaModel

    base = tmp_path / "roberta"
    shutil.copytree(tiny_model, base)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    (base / "model.safetensors").unlink()
    torch.manual_seed(0)
    RobertaModel(
        RobertaConfig(
            vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, type_vocab_size=1,
            intermediate_size=48, max_position_embeddings=130, pad_token_id=0, initializer_range=0.2,
        )
    ).save_pretrained(base)  # fmt: skip
    settings = json.loads((base / "tokenizer_config.json").read_text())
    settings |= {"model_input_names": ["input_ids", "attention_mask"]}
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    data = save_csv(tmp_path / "pairs.csv", make_pairs(60), header=("a", "b", "score"))
    run = tunewell.run(
        framework="tensorflow", model=str(base), train=str(data), text="a", text_pair="b", label="score",
        task="text-regression", probes=["none"], explain=0, max_steps=4, progress=False, threads=1,
        output_dir=str(tmp_path / "run"), echo=lambda line: None,
    )  # fmt: skip
    assert max(run.training.parity.values()) < 1e-4
    texts, pairs = ["the crew", "a seat"], ["the crew", "rude"]
    twin = load_predictor(run.dir, framework="tensorflow")
    assert twin.scores(texts, pairs) == pytest.approx(run.predictor.scores(texts, pairs), abs=1e-4)
    done = export(run.dir, tmp_path / "out", to="savedmodel")
    assert done.parity.largest < 1e-4
    assert "token_type_ids" not in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
