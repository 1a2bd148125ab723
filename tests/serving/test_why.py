"""/explain and /influence: what the library says, beside /predict."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

import tunewell
from tunewell.explain.influence.attribute import Influence
from tunewell.explain.texts import explain_texts
from tunewell.predict import Predictor
from tunewell.serving.app import Limits, Service, create_app
from tunewell.serving.models import Models

TEXT = "the crew was awful and the seat was broken"


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, make_reviews: Any, save_csv: Any) -> Path:
    folder = tmp_path_factory.mktemp("why")
    run = tunewell.run(
        train=str(save_csv(folder / "reviews.csv", make_reviews(80))), model=str(tiny_model), probes="none", explain=0,
        num_train_epochs=1, bf16=False, threads=1, output_dir=str(folder / "run"), echo=lambda line: None,
        progress=False,
    )  # fmt: skip
    return run.dir


@pytest.fixture
def client(finished: Path) -> Any:
    service = Service(Models({"reviews": finished}), Limits(timeout=60))
    with TestClient(create_app(service), base_url="http://127.0.0.1") as made:
        made.service = service
        yield made


def test_explanations_are_those_of_the_library(client: Any, finished: Path) -> None:
    asked = {"texts": [TEXT], "method": "occlusion", "target": "positive"}
    answer = client.post("/explain", json=asked)
    assert answer.status_code == 200
    found = answer.json()["explanations"][0]
    (wanted,) = explain_texts(Predictor.load(finished), [TEXT], method="occlusion", target="positive")
    assert found["words"] == list(wanted.words)
    assert found["scores"] == pytest.approx(wanted.scores, abs=1e-5)
    assert found["faithfulness"]["comprehensiveness"] == pytest.approx(wanted.faithfulness.comprehensiveness, abs=1e-5)
    assert answer.json()["version"] == client.get("/models").json()["models"][0]["version"]


def test_explaining_leaves_the_model_that_answers_alone(client: Any) -> None:
    before = client.post("/predict", json={"texts": [TEXT]}).json()
    own = client.service.models.get(None).predictor.model
    hooks = {name: len(m._forward_hooks) for name, m in own.named_modules()}
    assert client.post("/explain", json={"texts": [TEXT], "method": "integrated_gradients"}).status_code == 200
    assert {name: len(m._forward_hooks) for name, m in own.named_modules()} == hooks
    assert all(p.grad is None for p in own.parameters())
    assert client.post("/predict", json={"texts": [TEXT]}).json() == before


def test_influence_asks_for_its_index_first(client: Any, finished: Path) -> None:
    answer = client.post("/influence", json={"texts": [TEXT], "top": 2})
    if not (finished / "influence" / "index.json").is_file():
        assert answer.status_code == 409
        assert "tunewell influence" in answer.json()["error"]["remedy"]
        assert str(finished) not in answer.text  # where things lie on the server is nothing for callers
    (wanted,) = Influence(finished).explain([TEXT], top=2)
    answer = client.post("/influence", json={"texts": [TEXT], "top": 2})
    assert answer.status_code == 200
    found = answer.json()["attributions"][0]
    assert [b["row"] for b in found["supports"]] == [b.row for b in wanted.supports]
    assert [b["score"] for b in found["opposes"]] == pytest.approx([b.score for b in wanted.opposes], abs=1e-4)


def test_a_plain_model_knows_no_training_rows(tiny_classifier: Path) -> None:
    service = Service(Models({"plain": tiny_classifier}), Limits(timeout=60))
    with TestClient(create_app(service), base_url="http://127.0.0.1") as client:
        answer = client.post("/influence", json={"texts": [TEXT]})
    assert answer.status_code == 409
    assert answer.json()["error"]["what"]
    assert str(tiny_classifier) not in answer.text


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/explain", {"texts": []}, 422, "texts"),
        ("/explain", {"texts": ["a"] * 17}, 422, "texts"),
        ("/explain", {"texts": [" "]}, 422, "empty text"),
        ("/explain", {"texts": [TEXT], "method": "ocluson"}, 422, "ocluson"),
        ("/explain", {"texts": [TEXT], "target": "purple"}, 422, "no label `purple`"),
        ("/explain", {"texts": [TEXT], "model": "nobody"}, 404, "no such model"),
        ("/explain", {"texts": [TEXT], "budget": 0}, 422, "budget"),
        ("/influence", {"texts": [TEXT], "top": 0}, 422, "top"),
        ("/influence", {"texts": [TEXT], "topp": 1}, 422, "topp"),
    ],
)
def test_mistakes_are_told(client: Any, path: str, body: Any, status: int, says: str) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == status
    assert says in answer.text


def test_those_who_wait_too_many_are_turned_away_and_the_late_told(finished: Path, monkeypatch: Any) -> None:
    from tunewell.serving import why

    go = threading.Event()
    monkeypatch.setattr(why, "ROOM", 1)
    monkeypatch.setattr(why.Why, "_own", lambda self, served: go.wait(60) and served.predictor)
    service = Service(Models({"reviews": finished}), Limits(timeout=0.3))
    with TestClient(create_app(service), base_url="http://127.0.0.1") as client:
        late = client.post("/explain", json={"texts": [TEXT]})
        assert late.status_code == 504
        full = client.post("/explain", json={"texts": [TEXT]})  # the first is still at work
        assert (full.status_code, full.json()["error"]["what"]) == (429, "the queue is full")
        assert int(full.headers["retry-after"]) >= 1
        assert client.post("/predict", json={"texts": [TEXT]}).status_code == 200
        go.set()
