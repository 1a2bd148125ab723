"""No pickle is ever opened: the sources are read for calls that would, and a malicious file of each kind is tried."""

from __future__ import annotations

import ast
import os
import pickle
from pathlib import Path

import pytest

import tunewell
from tunewell.data.load import load
from tunewell.errors import DataError, ModelError
from tunewell.models.load import load_encoder

SOURCES = sorted(Path(tunewell.__file__).parent.rglob("*.py"))
UNPICKLING = {("pickle", "load"), ("pickle", "loads"), ("joblib", "load"), ("dill", "load"), ("pd", "read_pickle"),
              ("pandas", "read_pickle"), ("cloudpickle", "load"), ("shelve", "open"), ("marshal", "loads")}  # fmt: skip
RUNNING = {"eval", "exec", "__import__"}


def calls(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            f = node.func
            owner = getattr(getattr(f, "value", None), "id", "?") if isinstance(f, ast.Attribute) else ""
            name = f.attr if isinstance(f, ast.Attribute) else f.id if isinstance(f, ast.Name) else ""
            yield owner, name, {k.arg: k.value for k in node.keywords}, f"{path.name}:{node.lineno}"


def found_in(path: Path) -> list[str]:
    """What a source file does that could run what a file holds."""
    wrong = []
    for owner, name, keys, where in calls(path):
        said = {k: getattr(v, "value", None) for k, v in keys.items()}
        if (
            (owner, name) in UNPICKLING
            or (owner == "" and name in RUNNING)
            or ((owner, name) == ("torch", "load") and said.get("weights_only") is not True)
            or ((owner, name) == ("np", "load") and said.get("allow_pickle") is not False)
            or (name == "extractall" or (owner == "yaml" and name in ("load", "load_all", "unsafe_load")))
            or said.get("trust_remote_code") is True
            or said.get("shell") is True
        ):
            wrong.append(f"{where} {owner}.{name}")
    return wrong


def test_the_sources_open_no_pickle_and_run_no_code_of_files():
    assert len(SOURCES) > 200
    assert [line for path in SOURCES for line in found_in(path)] == []


@pytest.mark.parametrize(
    "line",
    ["torch.load(f)", "torch.load(f, weights_only=False)", "pickle.load(f)", "np.load(f)", "joblib.load(f)",
     "np.load(f, allow_pickle=True)", "yaml.load(f)", "tar.extractall(p)", "subprocess.run(c, shell=True)",
     "AutoModel.from_pretrained(p, trust_remote_code=True)", "eval(text)"],
)  # fmt: skip
def test_the_scan_finds_what_it_looks_for(tmp_path, line):
    (tmp_path / "x.py").write_text(line)
    assert len(found_in(tmp_path / "x.py")) == 1


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("name", ["data.pkl", "data.csv", "data.parquet", "data.pt", "data.json", "data.arrow"])
def test_a_pickle_by_any_name_is_refused_unopened(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps(Evil(tmp_path / "opened")))
    with pytest.raises(DataError):
        load(tmp_path / name)
    assert not (tmp_path / "opened").exists()


def test_weights_as_pickle_are_refused_unopened(tmp_path, tiny_model):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(tmp_path / "opened")))
    with pytest.raises(ModelError, match="as pickle"):
        load_encoder(str(folder))
    assert not (tmp_path / "opened").exists()


@pytest.fixture
def stopped(tmp_path, tiny_model, make_reviews, save_csv, monkeypatch):
    """Call for a run whose tuning has broken off after its first epoch; it goes on."""
    import tunewell
    from tunewell.train.trainer import TunewellTrainer

    path = save_csv(tmp_path / "reviews.csv", make_reviews(80))
    echoed: list[str] = []

    def go():
        return tunewell.run(
            train=str(path), model=str(tiny_model), probes="none", explain=0, bf16=False, threads=1, calibrate="none",
            num_train_epochs=2, output_dir=str(tmp_path / "run"), echo=echoed.append, progress=False,
        )  # fmt: skip

    whole = TunewellTrainer._run_epoch

    def cut(self, **options):
        if options["epoch"]:
            raise KeyboardInterrupt
        whole(self, **options)

    with monkeypatch.context() as patch:
        patch.setattr(TunewellTrainer, "_run_epoch", cut)
        with pytest.raises(KeyboardInterrupt):
            go()
    go.echoed = echoed
    go.last = max((tmp_path / "run" / "train" / "checkpoints").iterdir(), key=lambda p: int(p.name.partition("-")[2]))
    return go


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_checkpoint_with_code_in_it_runs_none(stopped, tmp_path, name, form):
    """Changed, it differs from its seal and is passed over; sealed anew, it is refused. Its code never runs."""
    import torch

    from tunewell.errors import TrainingError
    from tunewell.seal import seal

    evil, path = Evil(tmp_path / "opened"), stopped.last / name
    assert path.is_file()
    if form == "pickle":
        path.write_bytes(pickle.dumps(evil, protocol=2))  # torch's own
    else:
        torch.save({"state": evil}, path)
    seal(stopped.last)
    with pytest.raises(TrainingError, match="holds what is no tensor and could be code; it was not run") as caught:
        stopped()
    assert stopped.last.name in str(caught.value) and "delete this checkpoint" in str(caught.value)
    assert not (tmp_path / "opened").exists()
    with path.open("ab") as file:  # and now it is not even what its seal says
        file.write(b".")
    stopped()
    assert any(f"{stopped.last.name} is passed over: {name}" in line for line in stopped.echoed)
    assert not (tmp_path / "opened").exists()


def test_code_that_comes_with_a_model_asks_for_consent(tmp_path, tiny_model):
    import json
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}, "model_type": "not-known-to-anyone"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'opened')!r})\n")
    with pytest.raises(ModelError, match=r"(?s)trust_remote_code.*runs the code that comes with it"):
        load_encoder(str(folder))
    assert not (tmp_path / "opened").exists()
