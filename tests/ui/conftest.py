"""A folder of runs in every state, and a browser's session over it."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

from tunewell.results import Estimate
from tunewell.sequence.records import SequenceSummary

if find_spec("fastapi") is None:  # tunewell[serve]
    collect_ignore_glob = ["test_*.py"]

TOKEN, BASE = "key", "http://127.0.0.1:8765"
NASTY = '<img src=x onerror="alert(1)">'


def session(folder, **options):
    """A client that has opened the printed address, and whose posts come from the app's own pages."""
    from starlette.testclient import TestClient

    from tunewell.ui.app import create_app
    from tunewell.ui.places import Place

    client = TestClient(create_app(Place(folder), token=TOKEN, **options), base_url=BASE, headers={"origin": BASE})
    assert client.get(f"/?token={TOKEN}", follow_redirects=False).status_code == 303
    return client


def write_sequence(folder):
    folder.mkdir(parents=True)
    (folder / "sequence.json").write_text("{}", encoding="utf-8")
    (folder / "sequence.yaml").write_text("tasks: []\n", encoding="utf-8")
    half = (0.4, 0.6)
    SequenceSummary(
        strategy=("plain",), tasks=("first", "second"), matrix=((0.9, None), (0.7, 0.8)), average_accuracy=0.75,
        backward_transfer=-0.2, forward_transfer=None, forgetting=0.2, intervals={"average_accuracy": (0.7, 0.8)},
        matrix_intervals=((half, half), (half, half)), unseen=None, base=(0.5, 0.5), n_test=(20, 20), rows=(),
        memory={}, model="tiny", seed=1, seconds={"train": 1.0},
    ).write(folder / "summary.json")  # fmt: skip


@pytest.fixture(scope="session")
def runs(tmp_path_factory, make_records):
    """Runs finished (a, deep/b), stopped, broken; a sequence; a recipe that is no run; a link that leads out."""
    root = tmp_path_factory.mktemp("ui")
    folder = root / "runs"
    make_records(folder / "a", word=NASTY)
    make_records(folder / "deep" / "b")
    make_records(folder / "broken")
    (folder / "broken" / "summary.json").write_text('{"task": "text-clas', encoding="utf-8")
    (folder / "stopped").mkdir()
    (folder / "stopped" / "steps.json").write_text('{"check": "x"}', encoding="utf-8")
    (folder / "stopped" / "recipe.yaml").write_text("model: tiny\nstrategy: [ewc]\n", encoding="utf-8")
    write_sequence(folder / "seq")
    (folder / "recipe.yaml").write_text("train: x.csv\n", encoding="utf-8")
    secret = root / "secret"
    make_records(secret)
    (folder / "out").symlink_to(secret)
    (folder / "a" / "report.html").write_text("<script>1</script>", encoding="utf-8")
    (folder / "deep" / "b" / "report.html").symlink_to(secret / "summary.json")
    return folder


@pytest.fixture
def client(runs):
    return session(runs)


@pytest.fixture
def estimate():
    return lambda value: Estimate(value=value, low=value - 0.1, high=value + 0.1, n=10)


def dump(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
