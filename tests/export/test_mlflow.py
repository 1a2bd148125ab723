"""`tunewell export --to mlflow`: MLflow's folder gives the run's own answers, to every kind of task."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

import tunewell
from tunewell import extras
from tunewell.cli import app
from tunewell.errors import ModelError, RunFolderError, TunewellError
from tunewell.export.run import export
from tunewell.export.tables import Tables, home, sample_rows, table, validation_rows
from tunewell.predict import Predictor, load_predictor

# MLflow itself calls what newer pandas and pydantic will drop
pytestmark = pytest.mark.filterwarnings(
    "ignore:Operation with range is deprecated", "ignore::DeprecationWarning:mlflow"
)
PICKLES = (".pkl", ".pickle", ".bin", ".pt", ".pth", ".joblib", ".cloudpickle")


@pytest.fixture
def mlflow(monkeypatch):
    """MLflow without a word to its makers, and with its own complaints about other packages let through."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return pytest.importorskip("mlflow", exc_type=ImportError)


@pytest.fixture(scope="module")
def run(tiny_model, tmp_path_factory, make_reviews, save_csv) -> tunewell.Run:
    """A finished run of classes with calibrated probabilities."""
    place = tmp_path_factory.mktemp("run")
    data = save_csv(place / "reviews.csv", make_reviews(120))
    return tunewell.run(
        train=str(data), model=str(tiny_model), probes=["none"], explain=0, num_train_epochs=1.0, seed=3,
        output_dir=str(place / "reviews"), calibrate="temperature", echo=lambda line: None, progress=False,
    )  # fmt: skip


# ---------------------------------------------------------------- without MLflow: tables of answers


def test_a_table_has_the_columns_and_the_answers_of_predict(run, make_reviews):
    import pandas as pd

    texts = [t for t, _ in make_reviews(30)]
    got = Tables(run.predictor).predict(pd.DataFrame({"text": texts, "more": 1}))
    assert list(got.columns) == ["prediction", "p_negative", "p_positive"]
    assert got["prediction"].tolist() == run.predict(texts)
    assert np.array_equal(got[["p_negative", "p_positive"]].to_numpy(), run.predict_proba(texts).astype(float))


def test_rows_without_a_text_have_no_answer_and_change_no_other(run):
    import pandas as pd

    given = pd.DataFrame({"text": ["a good seat", None, float("nan"), "  ", "a rude crew"]})
    got = Tables(run.predictor).predict(given)
    assert got["prediction"].tolist()[1:4] == [None] * 3
    assert got["p_positive"].tolist()[1:4] == [None] * 3  # null in JSON, where NaN would be no JSON
    assert [got["prediction"][0], got["prediction"][4]] == run.predict(["a good seat", "a rude crew"])
    assert Tables(run.predictor).predict(pd.DataFrame({"text": [""]}))["prediction"].tolist() == [None]
    json.loads(json.dumps(got.to_dict("records"), allow_nan=False))


def test_answers_to_questions_and_lists_of_labels_keep_their_types(tiny_classifier):
    from tunewell.data.write_rows import AnswerColumns, Columns

    class Asked:
        def added(self, taken):
            return AnswerColumns(taken, {"prediction": str, "probability": float, "start": int, "end": int}, ("nbest",))

    found = {"prediction": "Rome", "probability": 0.5, "start": 3, "end": 7, "nbest": []}
    none = {"prediction": "", "probability": 0.9, "start": None, "end": None, "nbest": []}
    assert table(Asked(), [found, found]).dtypes.astype(str).tolist()[1:] == ["float64", "int64", "int64"]
    assert table(Asked(), [found, none])["start"].tolist() == [3, None]

    class Several:
        def added(self, taken):
            return Columns(taken, ("a", "b"), regression=False, multi_label=True)

    answer = {"prediction": ["a", "b"], "probabilities": {"a": 0.7, "b": 0.6}}
    got = table(Several(), [answer, {"prediction": [], "probabilities": {"a": 0.1, "b": 0.2}}])
    assert got["prediction"].tolist() == [["a", "b"], []]
    assert got["p_b"].tolist() == [0.6, 0.2]


def test_the_example_is_of_validation_and_only_of_the_file_that_the_run_knew(run, tmp_path):
    members = json.loads((run.dir / "split.json").read_text())["members"]["validation"]
    lines = Path(run.recipe.train).read_text().splitlines()
    texts, pairs = validation_rows(run.predictor, 3)
    assert texts == [lines[row].rsplit(",", 1)[0] for row in members[:3]] and pairs is None

    copy = tmp_path / "copy"
    shutil.copytree(run.dir, copy)
    for change in ("\nmore,positive\n", None):  # a changed file, and none
        data = tmp_path / "reviews.csv"
        data.unlink(missing_ok=True)
        if change is not None:
            data.write_text("\n".join(lines) + change)
        recipe = yaml.safe_load((copy / "recipe.yaml").read_text()) | {"train": str(data)}
        (copy / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        assert validation_rows(Predictor.load(copy), 3) is None
    texts, pairs, real = sample_rows(Predictor.load(copy), 2)
    assert real and len(texts) == 2 and pairs is None


def test_a_model_beside_another_runs_files_takes_none_of_them(run, tiny_classifier, tmp_path):
    shutil.copytree(run.dir, tmp_path / "run")
    shutil.copytree(tiny_classifier, tmp_path / "run" / "other")
    described = json.loads((tmp_path / "run" / "task.json").read_text())
    described["spec"]["labels"] = ["x", "y"]
    (tmp_path / "run" / "task.json").write_text(json.dumps(described))
    assert home(load_predictor(tmp_path / "run" / "other")) is None
    assert home(load_predictor(run.dir)) == run.dir
    assert home(load_predictor(run.model_path)) == run.dir


def test_without_mlflow_the_line_that_installs_it_is_told(run, tmp_path, monkeypatch):
    monkeypatch.setitem(extras.EXTRAS, "mlflow", ("no_such_package",))
    result = CliRunner().invoke(app, ["export", str(run.dir), "--to", "mlflow", "-o", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "pip install 'tunewell[mlflow]'" in result.output
    assert list(tmp_path.iterdir()) == []
    from tunewell.export.mlflow import log_model

    with pytest.raises(TunewellError, match="not installed"):
        log_model(run.dir)


@pytest.mark.parametrize(("uri", "told"), [(None, True), ("sqlite:///x.db", True), ("http://127.0.0.1:5000", False)])
def test_runs_in_a_file_need_their_database(uri, told, monkeypatch):
    """MLflow's small package alone would end the run at the first step."""
    from tunewell.stages import preflight

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    if uri is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(preflight, "find_spec", lambda name: None if name == "alembic" else object())
    if told:
        with pytest.raises(tunewell.TunewellError, match=r"(?s)alembic is not installed.*tunewell\[mlflow\]"):
            preflight.trackers(["mlflow"])
    else:
        preflight.trackers(["mlflow"])


# ---------------------------------------------------------------- with MLflow


@pytest.fixture
def folder(mlflow, run, tmp_path, monkeypatch):
    """The run as MLflow's folder, written from a folder that must stay empty."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["export", str(run.dir), "--to", "mlflow", "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "largest difference 0, the same answer on 100.0%" in result.output
    assert [p.name for p in tmp_path.iterdir() if p.name not in ("here", "out")] == []
    assert list((tmp_path / "here").iterdir()) == []  # no mlruns, no mlflow.db
    return out


def test_mlflow_gives_the_runs_answers(mlflow, folder, run, make_reviews):
    import pandas as pd

    texts = [t for t, _ in make_reviews(40)]
    got = mlflow.pyfunc.load_model(str(folder)).predict(pd.DataFrame({"text": texts}))
    assert got["prediction"].tolist() == run.predict(texts)
    assert np.array_equal(got[["p_negative", "p_positive"]].to_numpy(), run.predict_proba(texts).astype(float))
    assert np.abs(run.predict_proba(texts) - run.predictor.raw_scores(texts)).max() > 1e-4  # calibration went along


def test_the_command_line_gives_the_same(mlflow, folder, run, tmp_path, save_csv, make_reviews):
    import pandas as pd

    data = save_csv(tmp_path / "new.csv", make_reviews(25))
    result = CliRunner().invoke(app, ["predict", str(run.dir), str(data), "-o", str(tmp_path / "labelled.csv")])
    assert result.exit_code == 0, result.output
    labelled = pd.read_csv(tmp_path / "labelled.csv")
    got = mlflow.pyfunc.load_model(str(folder)).predict(labelled[["text"]])
    assert got["prediction"].tolist() == labelled["prediction"].tolist()
    assert np.abs(got["p_positive"] - labelled["p_positive"]).max() < 1e-6


def test_what_stands_in_the_folder(folder, run):
    about = yaml.safe_load((folder / "MLmodel").read_text())
    flavor = about["flavors"]["python_function"]
    assert (flavor["loader_module"], flavor["data"], flavor["code"]) == ("tunewell.export.mlflow", "data/run", None)
    assert [(c["name"], c["type"], c["required"]) for c in json.loads(about["signature"]["inputs"])] == [
        ("text", "string", True)
    ]
    assert [(c["name"], c["type"]) for c in json.loads(about["signature"]["outputs"])] == [
        ("prediction", "string"), ("p_negative", "double"), ("p_positive", "double"),
    ]  # fmt: skip
    told = about["metadata"]["tunewell"]
    assert told["test"]["value"] == run.summary.test.value and told["task"] == "text-classification"
    assert told["strategy"] == list(run.summary.strategy) and "base_model" not in told  # a folder of this machine
    needs = (folder / "requirements.txt").read_text().split()
    assert needs[0] == f"tunewell=={tunewell.__version__}"
    assert all(re.fullmatch(r"(mlflow-skinny|torch|transformers)==[\d.]+\w*", line) for line in needs[1:])
    example = json.loads((folder / "input_example.json").read_text())
    assert [cell for (cell,) in example["data"]] == validation_rows(run.predictor, 3)[0]
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert [p.name for p in files if p.suffix in PICKLES] == []
    for path in files:  # nothing tells where it was made
        assert (
            path.suffix == ".safetensors"
            or str(run.dir.parent) not in path.read_text().replace(str(run.dir), "")
            or (path.name == "export.json")
        )
    assert json.loads((folder / "export.json").read_text())["parity"]["rows"] == 24


def test_pickles_beside_the_weights_stay_behind(mlflow, tiny_classifier, tmp_path):
    import pickle

    shutil.copytree(tiny_classifier, tmp_path / "model")
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    (tmp_path / "model" / "optimizer.pt").write_bytes(b"x")
    export(tmp_path / "model", tmp_path / "out", to="mlflow")
    names = {p.name for p in (tmp_path / "out").rglob("*")}
    assert "model.safetensors" in names and not names & {"pytorch_model.bin", "optimizer.pt"}
    assert "metric" not in yaml.safe_load((tmp_path / "out" / "MLmodel").read_text())["metadata"]["tunewell"]


def test_what_is_not_the_same_is_not_kept(mlflow, run, tmp_path, monkeypatch):
    import tunewell.export.tables as tables

    right = tables.Tables.predict

    def wrong(self, model_input, params=None):
        found = right(self, model_input)
        return found.assign(p_positive=found["p_positive"] + 0.01)

    monkeypatch.setattr(tables.Tables, "predict", wrong)
    with pytest.raises(ModelError, match=r"does not give the model's answers: figures off by up to 0\.01"):
        export(run.dir, tmp_path / "out", to="mlflow")
    monkeypatch.setattr(tables.Tables, "predict", lambda self, x, params=None: right(self, x).assign(prediction="x"))
    with pytest.raises(ModelError, match="another answer on 100"):
        export(run.dir, tmp_path / "out", to="mlflow")
    assert list(tmp_path.iterdir()) == []


def test_scores_of_pairs(mlflow, tiny_model, tmp_path, make_pairs, save_csv):
    import pandas as pd

    data = save_csv(tmp_path / "pairs.csv", make_pairs(60), ("a", "b", "score"))
    run = tunewell.run(
        train=str(data), text="a", text_pair="b", label="score", task="text-regression", model=str(tiny_model),
        probes=["none"], explain=0, num_train_epochs=1.0, output_dir=str(tmp_path / "run"), echo=lambda line: None,
        progress=False,
    )  # fmt: skip
    done = export(run.dir, tmp_path / "out", to="mlflow")
    assert (done.parity.largest, done.parity.same) == (0, None)
    model = mlflow.pyfunc.load_model(str(tmp_path / "out"))
    a, b = [x for x, _, _ in make_pairs(10)], [x for _, x, _ in make_pairs(10)]
    got = model.predict(pd.DataFrame({"text": a, "text_pair": b}))
    assert list(got.columns) == ["prediction"] and got["prediction"].tolist() == run.predict(a, b)
    with pytest.raises(mlflow.exceptions.MlflowException, match="text_pair"):
        model.predict(pd.DataFrame({"text": a}))
    assert set(json.loads((tmp_path / "out" / "input_example.json").read_text())["columns"]) == {"text", "text_pair"}


def test_a_decoder_writes_what_it_writes(mlflow, tiny_decoder, tmp_path):
    import pandas as pd

    done = export(tiny_decoder, tmp_path / "out", to="mlflow")
    assert done.parity.same == 1 and done.parity.rows_per_second == {}
    prompts = ["say the word twice", "name three colours"]
    got = mlflow.pyfunc.load_model(str(tmp_path / "out")).predict(pd.DataFrame({"text": prompts}))
    assert got["prediction"].tolist() == load_predictor(tiny_decoder).predict(prompts)


def test_answers_from_contexts_and_several_labels(mlflow, tiny_model, tmp_path):
    """Plain model folders of both kinds; the types of the signature are those of the answers."""
    import pandas as pd
    import torch
    from transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification, AutoTokenizer

    with torch.random.fork_rng():
        torch.manual_seed(2)
        span = AutoModelForQuestionAnswering.from_pretrained(tiny_model)
        several = AutoModelForSequenceClassification.from_pretrained(
            tiny_model, problem_type="multi_label_classification", id2label={0: "crew", 1: "seat", 2: "meal"}
        )
    types = {}
    for name, model in (("span", span), ("several", several)):
        model.save_pretrained(tmp_path / name)
        AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / name)
        assert export(tmp_path / name, tmp_path / f"{name}-out", to="mlflow").parity.same == 1
        outputs = json.loads(yaml.safe_load((tmp_path / f"{name}-out" / "MLmodel").read_text())["signature"]["outputs"])
        types[name] = {column["name"]: column["type"] for column in outputs}
    assert types["span"] == {"prediction": "string", "probability": "double", "start": "long", "end": "long"}
    assert types["several"]["prediction"] == "array" and types["several"]["p_meal"] == "double"

    asked, contexts = ["was the crew late", "was the meal good"], ["the crew was late today", "a good meal and a seat"]
    got = mlflow.pyfunc.load_model(str(tmp_path / "span-out")).predict(
        pd.DataFrame({"text": asked, "text_pair": contexts})
    )
    wanted = load_predictor(tmp_path / "span").predict_batch(asked, contexts)
    assert got.to_dict("records") == [{key: w[key] for key in types["span"]} for w in wanted]
    got = mlflow.pyfunc.load_model(str(tmp_path / "several-out")).predict(pd.DataFrame({"text": contexts}))
    assert got["prediction"].tolist() == load_predictor(tmp_path / "several").predict(contexts)


def test_a_sequence_is_refused(mlflow, run, tmp_path):
    shutil.copytree(run.dir, tmp_path / "run")
    (tmp_path / "run" / "model" / "tasks.json").write_text("{}")
    with pytest.raises(RunFolderError, match="sequence of tasks"):
        export(tmp_path / "run", tmp_path / "out", to="mlflow")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_log_and_register(mlflow, run, tmp_path, monkeypatch, make_reviews):
    import pandas as pd

    from tunewell.export.mlflow import log_model

    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    try:
        logged = log_model(run.dir, registered_model_name="reviews")
        texts = [t for t, _ in make_reviews(20)]
        got = mlflow.pyfunc.load_model("models:/reviews/1").predict(pd.DataFrame({"text": texts}))
        assert got["prediction"].tolist() == run.predict(texts)
        noted = mlflow.get_run(logged.run_id)
        assert noted.info.run_name == "reviews"
        assert noted.data.metrics["test_f1_macro"] == pytest.approx(run.summary.test.value)
        with mlflow.start_run() as active:  # into the run that is there
            assert log_model(run.dir).run_id == active.info.run_id
        mlflow.set_tracking_uri("http://127.0.0.1:9")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with pytest.raises(TunewellError, match="did not take the model"):
            log_model(run.dir)
    finally:
        mlflow.set_tracking_uri(None)


# ---------------------------------------------------------------- served


@pytest.mark.slow
def test_mlflow_serves_it(mlflow, folder, run, tmp_path):
    """`mlflow models serve --env-manager local` answers `/invocations` with what the run predicts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    source = str(Path(tunewell.__file__).parents[1])
    line = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder), "--env-manager", "local", "--port"]
    server = subprocess.Popen(
        [*line, str(port), "--host", "127.0.0.1"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path,
        env=os.environ | {"PATH": path, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])},
        start_new_session=True,
    )  # fmt: skip
    try:
        for _ in range(240):
            assert server.poll() is None, server.stdout.read().decode()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5)
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        texts = ["a good seat", "a rude crew"]
        body = json.dumps({"dataframe_records": [{"text": t} for t in [*texts, ""]]}).encode()
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", data=body, headers={"content-type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:
            got = json.loads(answer.read(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert [row["prediction"] for row in got["predictions"]] == [*run.predict(texts), None]
        assert got["predictions"][0]["p_positive"] == pytest.approx(run.predict_proba(texts)[0, 1], abs=1e-6)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
        server.stdout.close()
