"""/predict of models that find or write their answers: what `tunewell predict` says, in shared batches."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tunewell.predict import load_predictor
from tunewell.serving.app import Limits, Service, create_app
from tunewell.serving.models import Models
from tunewell.serving.told import WRITTEN

CONTEXT = "the crew was late and the seat was broken but the meal was good"
QUESTIONS = ["what was broken", "who was late", "what was good"]


@pytest.fixture(scope="module")
def finder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random BERT with a head for spans."""
    import torch
    from transformers import AutoConfig, BertForQuestionAnswering

    folder = tmp_path_factory.mktemp("told") / "finder"
    shutil.copytree(tiny_model, folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertForQuestionAnswering(AutoConfig.from_pretrained(tiny_model)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def client(finder: Path, tiny_decoder: Path) -> Iterator[Any]:
    service = Service(Models({"finder": finder, "writer": tiny_decoder}), Limits(timeout=120))
    with TestClient(create_app(service), base_url="http://127.0.0.1") as made:
        made.service = service
        yield made


def test_spans_are_those_of_predict(client: Any, finder: Path) -> None:
    asked = {"texts": [*QUESTIONS, " "], "text_pairs": [CONTEXT] * 4, "top_k": 2}
    answer = client.post("/predict", json=asked)
    assert answer.status_code == 200
    found = answer.json()["predictions"]
    wanted = load_predictor(finder).predict_batch(QUESTIONS, [CONTEXT] * 3)
    for mine, theirs in zip(found, wanted, strict=False):
        assert (mine["prediction"], mine["start"], mine["end"]) == (
            theirs["prediction"],
            theirs["start"],
            theirs["end"],
        )
        assert mine["probability"] == pytest.approx(theirs["probability"], abs=1e-5)
        assert [b["text"] for b in mine["nbest"]] == [b["text"] for b in theirs["nbest"][:2]]
    assert found[3] == {"prediction": None}
    bare = client.post("/predict", json=asked | {"probabilities": False}).json()["predictions"][0]
    assert set(bare) == {"prediction", "start", "end"}
    empty = client.post("/predict", json={"texts": QUESTIONS[:1], "text_pairs": ["\n"]}).json()
    assert empty["predictions"] == [{"prediction": None}]


def test_written_answers_are_those_of_predict_and_share_small_batches(client: Any, tiny_decoder: Path) -> None:
    prompts = [f"say {n}" for n in ("red", "blue", "green", "black", "white")]
    wanted = load_predictor(tiny_decoder).predict(prompts)

    def ask(part: list[str]) -> list[str]:
        answer = client.post("/predict", json={"texts": part, "model": "writer"})
        assert answer.status_code == 200
        return [row["prediction"] for row in answer.json()["predictions"]]

    assert ask(prompts) == wanted
    with ThreadPoolExecutor(3) as pool:  # of several callers at once
        assert list(pool.map(ask, [prompts, prompts[:1], prompts * 3])) == [wanted, wanted[:1], wanted * 3]
    assert client.service.models.get("writer").most == WRITTEN
    text = client.get("/metrics").text
    assert 'model="writer"' in text


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"texts": ["who"]}, "a context for each question"),
        ({"texts": ["who", "what"], "text_pairs": [CONTEXT]}, "2 texts but 1 second texts"),
    ],
)
def test_what_cannot_be_answered_is_told_to_who_asked(client: Any, asked: dict[str, Any], said: str) -> None:
    answer = client.post("/predict", json=asked)
    assert answer.status_code == 422
    assert said in str(answer.json())


def test_a_text_that_cannot_be_read_does_not_end_those_of_others(client: Any, monkeypatch: Any) -> None:
    """As a chat template refuses messages: the one who sent it is told, others of the batch have their answers."""
    predictor = client.service.models.get("writer").predictor
    own, batches = type(predictor).conversation, []

    def conversation(self: Any, text: str) -> Any:
        batches.append(text)
        if "refused" in text:
            raise ValueError("roles must alternate")
        return own(self, text)

    monkeypatch.setattr(type(predictor), "conversation", conversation)
    with ThreadPoolExecutor(3) as pool:
        asked = [["say red"], ["refused"], ["say blue", "say green"]]
        answers = list(pool.map(lambda t: client.post("/predict", json={"texts": t, "model": "writer"}), asked))
    assert [a.status_code for a in answers] == [200, 422, 200]
    assert "ValueError: roles must alternate" in answers[1].json()["error"]["what"]
    assert len(answers[2].json()["predictions"]) == 2


@pytest.mark.parametrize("path", ["/explain", "/influence"])
def test_their_words_and_rows_are_not_told_here(client: Any, path: str) -> None:
    answer = client.post(path, json={"texts": ["say red"], "model": "writer"})
    assert answer.status_code == 422
    assert "on the run itself" in answer.json()["error"]["remedy"]


def test_they_are_described(client: Any) -> None:
    finder, writer = client.get("/models").json()["models"]
    assert (finder["task"], finder["text_pairs"]) == ("question-answering", True)
    assert (writer["task"], writer["text_pairs"], writer["labels"]) == ("text-generation", False, [])


def test_labels_by_their_likelihood(tiny_decoder: Path, make_reviews: Any, save_csv: Any, tmp_path: Path) -> None:
    import tunewell

    run = tunewell.run(
        train=str(save_csv(tmp_path / "t.csv", make_reviews(40))), model=str(tiny_decoder), probes="none", explain=0,
        classify_by="likelihood", max_steps=1, threads=1, output_dir=str(tmp_path / "run"), progress=False,
        echo=lambda line: None,
    )  # fmt: skip
    texts = ["the crew was lovely", "rude and late"]
    with TestClient(create_app(Service(Models({"run": run.dir}), Limits())), base_url="http://127.0.0.1") as client:
        found = client.post("/predict", json={"texts": texts, "top_k": 1}).json()["predictions"]
        assert client.get("/models").json()["models"][0]["labels"] == ["negative", "positive"]
    wanted = load_predictor(run.dir).predict_batch(texts)
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine["prediction"] == theirs["prediction"]
        ((label, p),) = mine["probabilities"].items()
        assert p == pytest.approx(max(theirs["probabilities"].values()), abs=1e-4)
        assert label == theirs["prediction"]
